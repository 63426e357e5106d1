//! Handshakes of a CA that looks for the proof of TLS-ALPN-01 (RFC 8737): no request ever comes on them.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::AsyncWriteExt;
use tokio_rustls::StartHandshake;

use super::io::Timed;

const PROTOCOL: &[u8] = b"acme-tls/1";

/// Whether a client offers the protocol of the challenge.
pub(super) fn is_offered(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == PROTOCOL))
}

/// Shows the certificate that proves control of the name, and ends the connection. The deadline of handshakes holds.
pub(super) async fn answer(start: StartHandshake<Timed>, proof: Option<Arc<CertifiedKey>>) -> std::io::Result<()> {
    let resolver: Arc<dyn ResolvesServerCert> = match proof {
        Some(proof) => Arc::new(SingleCertAndKey::from(proof)),
        None => Arc::new(Unknown),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    start.into_stream(Arc::new(config)).await?.shutdown().await
}

/// For a name that no challenge waits for: the handshake ends with an alert.
#[derive(Debug)]
struct Unknown;

impl ResolvesServerCert for Unknown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
