//! PEM material of the configuration: each option holds either a path or the text itself.
//!
//! The siblings call it for certificates, keys and authorities. Its errors never repeat inline text: it may be a key.

use std::fs;

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::reason;

/// The bytes that an option stands for: those of the file it names (relative to the working directory), or its own.
pub(super) fn read(option: &str) -> Result<Vec<u8>, String> {
    if is_inline(option) {
        return Ok(option.as_bytes().to_vec());
    }
    if option.is_empty() {
        return Err("neither a file nor PEM text is given".to_owned());
    }
    fs::read(option).map_err(|error| format!("{} cannot be read: {}", name(option), reason(&error)))
}

/// How messages call the option: its path, or a phrase in place of text that may be a key.
pub(super) fn name(option: &str) -> String {
    let bare_base64 = option.len() > 128 && !option.contains('.');
    if is_inline(option) || option.contains('\n') || bare_base64 {
        "the inline PEM text".to_owned()
    } else {
        format!("`{option}`")
    }
}

/// All certificates of `pem`, in their order; at least one.
pub(super) fn certificates(option: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(format!("{} holds no certificate in PEM", name(option))),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{} is not valid PEM: {error}", name(option))),
    }
}

/// The first private key of `pem`: PKCS#8, PKCS#1 or SEC1.
pub(super) fn private_key(option: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound if contains(pem, b"ENCRYPTED PRIVATE KEY") => {
            format!("{} is encrypted: a key without a passphrase is needed", name(option))
        }
        PemError::NoItemsFound => format!("{} holds no private key in PEM", name(option)),
        error => format!("{} is not valid PEM: {error}", name(option)),
    })
}

/// The certificates of several options as trust anchors.
pub(super) fn authorities(options: &[String]) -> Result<Authorities, Vec<String>> {
    let mut problems = Vec::new();
    let mut authorities = Authorities { roots: RootCertStore::empty(), certificates: Vec::new() };
    for option in options {
        let certificates = match read(option).and_then(|pem| certificates(option, &pem)) {
            Ok(certificates) => certificates,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        for certificate in certificates {
            if let Err(error) = authorities.roots.add(certificate.clone()) {
                problems.push(format!("{} holds a certificate that cannot be trusted: {error}", name(option)));
            }
            authorities.certificates.push(certificate);
        }
    }
    if problems.is_empty() { Ok(authorities) } else { Err(problems) }
}

/// Trust anchors, and the certificates that they were made of.
pub(super) struct Authorities {
    pub(super) roots: RootCertStore,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

fn is_inline(option: &str) -> bool {
    option.contains("-----BEGIN ")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
