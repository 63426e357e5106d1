//! The private key of a certificate, and the request that is signed with it.
//!
//! `order` makes one for each order; no key serves twice.

use std::net::IpAddr;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, RsaKeySize, SanType};

use super::failure::{Failure, Kind};
use crate::config::install::{Acme, KeyType};

/// Not `Debug`: it is a secret.
pub(crate) struct Key(KeyPair);

impl Key {
    /// RSA takes seconds, which no worker may lose.
    pub(crate) async fn generate(kind: KeyType) -> Result<Self, Failure> {
        let generated = tokio::task::spawn_blocking(move || generate(kind)).await;
        let generated =
            generated.map_err(|error| error.to_string()).and_then(|key| key.map_err(|error| error.to_string()));
        generated.map(Self).map_err(|error| Failure::new(Kind::Settings, format!("no key of type {kind:?}: {error}")))
    }

    /// PKCS#8.
    pub(crate) fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The public half as a certificate has it.
    pub(crate) fn public(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// A certificate signing request for the names, in DER (RFC 2986), with what the options add.
    pub(crate) fn request(&self, names: &[String], options: &Acme) -> Result<Vec<u8>, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = common_name(names, options) {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        for name in names {
            params.subject_alt_names.push(alternative_name(name)?);
        }
        for email in &options.email_addresses {
            let email = email.as_str().try_into();
            let email = email.map_err(|error| Failure::new(Kind::Settings, format!("`emailAddresses`: {error}")))?;
            params.subject_alt_names.push(SanType::Rfc822Name(email));
        }
        let request = params.serialize_request(&self.0);
        let request =
            request.map_err(|error| Failure::new(Kind::Settings, format!("no certificate request: {error}")))?;
        Ok(request.der().to_vec())
    }
}

/// X.520 allows 64 characters, and an address is no name that CAs take here.
fn common_name<'a>(names: &'a [String], options: &Acme) -> Option<&'a str> {
    const AT_MOST: usize = 64;
    let first = names.first().filter(|_| !options.disable_common_name)?;
    Some(first.as_str()).filter(|name| name.len() <= AT_MOST && name.parse::<IpAddr>().is_err())
}

fn generate(kind: KeyType) -> Result<KeyPair, rcgen::Error> {
    match kind {
        KeyType::Ec256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::Ec384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyType::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        KeyType::Rsa8192 => {
            // A size that rcgen has no name for.
            let key = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa8192).map_err(|_| rcgen::Error::RingUnspecified)?;
            let pkcs8 = key.as_der().map_err(|_| rcgen::Error::RingUnspecified)?;
            KeyPair::try_from(pkcs8.as_ref())
        }
    }
}

pub(super) fn alternative_name(name: &str) -> Result<SanType, Failure> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let name = name.try_into();
    name.map(SanType::DnsName).map_err(|error| Failure::new(Kind::Settings, format!("a name is no DNS name: {error}")))
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer;
    use x509_parser::public_key::PublicKey;

    use super::*;

    #[tokio::test]
    async fn every_type_of_key_signs_a_request_with_its_names() {
        // 8192 bits take a minute to find.
        for (kind, bits) in
            [(KeyType::Ec256, 256), (KeyType::Ec384, 384), (KeyType::Rsa2048, 2048), (KeyType::Rsa4096, 4096)]
        {
            let key = Key::generate(kind).await.expect("a key");
            let names = ["a.example".to_owned(), "*.a.example".to_owned(), "192.0.2.1".to_owned()];
            let options = Acme { email_addresses: vec!["me@a.example".to_owned()], ..Acme::default() };
            let der = key.request(&names, &options).expect("a request");
            let (_, request) = X509CertificationRequest::from_der(&der).expect("a request");
            let info = &request.certification_request_info;
            assert_eq!(info.subject.to_string(), "CN=a.example", "{kind:?}");
            assert_eq!(info.subject_pki.raw, key.public(), "{kind:?}");
            let size = match info.subject_pki.parsed().expect("a key") {
                PublicKey::RSA(key) => key.key_size(),
                PublicKey::EC(point) => point.key_size(),
                _ => 0,
            };
            assert_eq!(size, bits, "{kind:?}");
            let found: Vec<String> = request
                .requested_extensions()
                .into_iter()
                .flatten()
                .filter_map(|extension| match extension {
                    ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                    _ => None,
                })
                .flatten()
                .map(|name| match name {
                    GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => (*name).to_owned(),
                    other => format!("{other:?}"),
                })
                .collect();
            assert_eq!(found, ["a.example", "*.a.example", "IPAddress([192, 0, 2, 1])", "me@a.example"], "{kind:?}");
            assert!(key.pem().starts_with("-----BEGIN PRIVATE KEY-----"), "{kind:?}");
        }
    }

    #[test]
    fn a_common_name_is_left_out_where_it_cannot_be_one() {
        let long = format!("{}.example", "a".repeat(60));
        for (name, disable_common_name, expected) in [
            ("a.example", false, Some("a.example")),
            ("a.example", true, None),
            (long.as_str(), false, None),
            ("2001:db8::1", false, None),
        ] {
            let names = [name.to_owned(), "b.example".to_owned()];
            let options = Acme { disable_common_name, ..Acme::default() };
            assert_eq!(common_name(&names, &options), expected, "{name}");
        }
    }
}
