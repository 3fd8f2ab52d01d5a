//! TLS to Redis with an authority of one's own, which is the only one to be trusted.

use std::path::Path;
use std::sync::Arc;

use fred::types::config::{TlsConfig, TlsConnector};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::StartError;
use crate::domain::without_bom;

/// TLS settings that trust the certificates in the PEM file and no others.
pub(super) fn trust_only(ca: &Path) -> Result<TlsConfig, StartError> {
    let bad_ca = |reason: &str| StartError::BadCa(format!("{}: {reason}", ca.display()));
    let pem = std::fs::read(ca).map_err(|error| bad_ca(&error.to_string()))?;
    let pem = without_bom(pem);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate
            .map_err(|_| bad_ca("contains something other than certificates in PEM format"))?;
        roots
            .add(certificate)
            .map_err(|error| bad_ca(&error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad_ca("contains no certificate in PEM format"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad_ca(&error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(config).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_in_a_file_with_a_byte_order_mark_is_trusted() {
        let generated = rcgen::generate_simple_self_signed(["redis".to_owned()]).unwrap();
        let file = std::env::temp_dir().join(format!("hubbub-ca-{}.pem", uuid::Uuid::new_v4()));
        std::fs::write(&file, format!("\u{feff}{}", generated.cert.pem())).unwrap();
        let trusted = trust_only(&file);
        std::fs::remove_file(&file).unwrap();
        assert!(trusted.is_ok(), "{:?}", trusted.err());
    }
}
