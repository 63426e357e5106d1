//! Certificates in a temporary directory, and handshakes without a network.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, NamedGroup, ProtocolVersion, SupportedProtocolVersion,
};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::routing::{Certificate as Source, ServersTransport};
use crate::tls::upstream::Unverified;
use crate::tls::{Alpn, Store, cipher_name, client_config};

/// What both sides agreed on.
pub(super) struct Agreed {
    pub(super) common_name: String,
    pub(super) certificate: Vec<u8>,
    pub(super) version: Option<ProtocolVersion>,
    pub(super) cipher: &'static str,
    pub(super) group: Option<NamedGroup>,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) kind: Option<HandshakeKind>,
}

/// A whole handshake in memory, as an entry point does it: the configuration is chosen by the ClientHello.
pub(super) fn handshake(store: &Store, name: Option<&str>, client: &Arc<ClientConfig>) -> Result<Agreed, String> {
    // No SNI is sent for an address.
    let name = ServerName::try_from(name.unwrap_or("192.0.2.1").to_owned()).expect("a valid name");
    let mut client = ClientConnection::new(Arc::clone(client), name).map_err(|error| error.to_string())?;
    let mut acceptor = Acceptor::default();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    acceptor.read_tls(&mut hello.as_slice()).expect("memory");
    let accepted = acceptor.accept().map_err(|(error, _)| error.to_string())?.expect("the hello is whole");
    let config = store.server_config("websecure", accepted.client_hello().server_name());
    let config = config.map_err(|error| error.to_string())?;
    let server = accepted.into_connection(config).map_err(|(error, _)| error.to_string())?;
    let (mut server, mut client) = (Connection::from(server), Connection::from(client));
    while server.is_handshaking() || client.is_handshaking() || server.wants_write() || client.wants_write() {
        pass(&mut server, &mut client)?;
        pass(&mut client, &mut server)?;
    }
    let certificate = client.peer_certificates().map(|chain| chain[0].to_vec()).unwrap_or_default();
    Ok(Agreed {
        common_name: common_name(&certificate),
        certificate,
        version: client.protocol_version(),
        cipher: client.negotiated_cipher_suite().map_or("none", |suite| cipher_name(suite.suite())),
        group: client.negotiated_key_exchange_group().map(|group| group.name()),
        alpn: client.alpn_protocol().map(<[u8]>::to_vec),
        kind: client.handshake_kind(),
    })
}

fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), String> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("memory");
    }
    let mut bytes = bytes.as_slice();
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).expect("memory");
        to.process_new_packets().map_err(|error| error.to_string())?;
    }
    // Alerts of TLS 1.3 come after the client has finished; nothing else is ever sent here.
    let _ = to.reader().read(&mut [0; 16]);
    Ok(())
}

fn common_name(der: &[u8]) -> String {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return String::new();
    };
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.unwrap_or_default().to_owned()
}

pub(super) fn trusting(alpn: Alpn) -> Arc<ClientConfig> {
    let transport = ServersTransport { insecure_skip_verify: true, ..ServersTransport::default() };
    client_config(&transport, alpn).expect("it needs no files")
}

pub(super) fn speaking(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let trusting = trusting(Alpn::Http1);
    let config = ClientConfig::builder_with_provider(Arc::clone(trusting.crypto_provider()))
        .with_protocol_versions(&[version])
        .expect("the version is known")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified::new(trusting.crypto_provider())));
    Arc::new(config.with_no_client_auth())
}

/// A directory with certificates.
pub(super) struct Files(TempDir);

pub(super) struct Authority {
    pub(super) file: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Files {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(super) fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    pub(super) fn certificate(&self, name: &str, hosts: &[&str]) -> Source {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters(name, hosts).self_signed(&key).expect("a certificate");
        self.write(name, &certificate.pem(), &key)
    }

    pub(super) fn expired(&self, name: &str, host: &str) -> Source {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = parameters(name, &[host]);
        parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
        self.write(name, &parameters.self_signed(&key).expect("a certificate").pem(), &key)
    }

    pub(super) fn authority(&self, name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = parameters(name, &[]);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = self.path(&format!("{name}.pem"));
        fs::write(Path::new(&file), parameters.self_signed(&key).expect("a certificate").pem()).expect("writes");
        Authority { file, issuer: Issuer::new(parameters, key) }
    }

    pub(super) fn issued(&self, authority: &Authority, name: &str, host: &str) -> Source {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters(name, &[host]).signed_by(&key, &authority.issuer).expect("a certificate");
        let authority = Path::new(&authority.file).file_stem().unwrap_or_default().display();
        self.write(&format!("{name} by {authority}"), &certificate.pem(), &key)
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> Source {
        let (cert_file, key_file) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        fs::write(&cert_file, certificate).expect("writes");
        fs::write(&key_file, key.serialize_pem()).expect("writes");
        Source { cert_file, key_file, stores: Vec::new() }
    }
}

fn parameters(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut parameters = CertificateParams::new(hosts).expect("valid names");
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}
