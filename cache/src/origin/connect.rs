//! Connections to the origin: TCP, and TLS if its URL says `https`.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tower_service::Service;

use super::config::{ClientConfig, ClientError};
use super::counters::Counters;
use super::outgoing::BoxError;

/// How often an idle connection is looked after, so that one that died without a word is noticed.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Opens connections, within a deadline.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector>,
    wait: Duration,
    counters: Arc<Counters>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// Reads the certificates to trust, if it will need any.
    pub(super) fn new_blocking(
        config: &ClientConfig,
        counters: Arc<Counters>,
    ) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        let roots = match &config.ca_file {
            _ if !config.endpoint.is_tls() => RootCertStore::empty(),
            Some(path) => roots_in_blocking(path)?,
            None => roots_of_the_machine_blocking()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|err| ClientError::Tls(err.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self {
            https,
            wait: config.deadlines.connect,
            counters,
        })
    }
}

fn roots_in_blocking(path: &Path) -> Result<RootCertStore, ClientError> {
    let error = |reason| ClientError::Certificates {
        path: path.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|err| error(err.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|err| error(err.to_string()))?;
        roots
            .add(certificate)
            .map_err(|err| error(err.to_string()))?;
    }
    if roots.is_empty() {
        return Err(error("there is none".to_owned()));
    }
    Ok(roots)
}

fn roots_of_the_machine_blocking() -> Result<RootCertStore, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some that a machine has are always of a kind that nobody reads any more.
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let reasons = if reasons.is_empty() {
            format!("{ignored} that can't be read")
        } else {
            reasons.join("; ")
        };
        return Err(ClientError::NoCertificates(reasons));
    }
    Ok(roots)
}

type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, BoxError>> + Send>>;

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.call(uri);
        let (wait, counters) = (self.wait, Arc::clone(&self.counters));
        Box::pin(async move {
            let Ok(connected) = tokio::time::timeout(wait, connecting).await else {
                return Err(format!("no connection within {} seconds", wait.as_secs_f64()).into());
            };
            let stream = connected?;
            counters.connections_opened.add(1);
            Ok(stream)
        })
    }
}
