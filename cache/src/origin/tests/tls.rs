//! TLS: whom the client trusts. The key in `tls/` is nobody's; its certificate is for `localhost`
//! and is signed by `ca.pem`, whose own key is gone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::in_time;
use crate::origin::{Call, Client, ClientConfig, OriginError};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/origin/tests/tls")
        .join(name)
}

/// A server that says `ok` to everything; its port.
async fn serve() -> u16 {
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // One who does not trust it goes away.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|len| len > 0) {
                    let answer = b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    port
}

async fn ask(url: &str, ca_file: &str) -> Result<bytes::Bytes, OriginError> {
    let client = Client::new(ClientConfig {
        ca_file: Some(file(ca_file)),
        ..super::config(url)
    });
    let call = Call::new(http::Method::GET, Some("b"), Some("k"));
    let response = in_time(client.unwrap().call(&call)).await?;
    response.into_body().collect_at_most(100).await
}

#[tokio::test]
async fn an_origin_is_trusted_if_its_authority_is() {
    let port = serve().await;
    for host in ["localhost", "127.0.0.1"] {
        let body = ask(&format!("https://{host}:{port}"), "ca.pem").await;
        assert_eq!(body.unwrap(), "ok");
    }
}

#[tokio::test]
async fn an_origin_that_is_not_trusted_gets_no_request() {
    let port = serve().await;
    let by_itself = ask(&format!("https://localhost:{port}"), "server.pem").await;
    let plain = ask(&format!("http://localhost:{port}"), "ca.pem").await;
    let other_name = ask(&format!("https://127.0.0.2:{port}"), "ca.pem").await;
    for refused in [by_itself, plain, other_name] {
        let refused = refused.unwrap_err();
        assert!(!matches!(refused, OriginError::Refused(_)), "{refused}");
    }
}
