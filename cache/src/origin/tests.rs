//! The client against servers that fail in every way. What a test expects comes within the
//! deadlines, or it fails.

mod call;
mod flaky;
pub(crate) mod script;
mod send;
mod source;
mod tls;

use std::time::Duration;

use super::{Client, ClientConfig, Deadlines, Endpoint, Retries};
use crate::sign::Credentials;

/// Short enough to wait for, long enough for a machine that is busy.
const HEAD: Duration = Duration::from_millis(800);
const TOTAL: Duration = Duration::from_secs(3);
/// What a test may take that only ends with [`TOTAL`].
const LONGEST: Duration = Duration::from_secs(12);

fn config(url: &str) -> ClientConfig {
    ClientConfig {
        deadlines: Deadlines {
            connect: HEAD,
            head: HEAD,
            head_of_write: HEAD,
            silence: HEAD,
            sender: HEAD,
            total: TOTAL,
            ..Deadlines::default()
        },
        retries: Retries {
            max: 4,
            pause_min: Duration::from_millis(1),
            pause_max: Duration::from_millis(5),
        },
        ..ClientConfig::new(Endpoint::parse(url).unwrap())
    }
}

fn client(url: &str) -> Client {
    Client::new(config(url)).unwrap()
}

fn with_credentials(url: &str) -> Client {
    Client::new(ClientConfig {
        credentials: Some(Credentials {
            key_id: "AKID".to_owned(),
            secret: "a secret".to_owned(),
            session_token: None,
        }),
        ..config(url)
    })
    .unwrap()
}

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Fails if it takes too long.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONGEST, future)
        .await
        .expect("it ends in time")
}
