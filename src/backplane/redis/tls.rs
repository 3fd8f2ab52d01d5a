//! TLS to Redis that trusts an authority of one's own, and no other.

use std::path::Path;
use std::sync::Arc;

use fred::types::config::{TlsConfig, TlsConnector};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::StartError;

/// Trusts what the PEM file holds.
pub(super) fn trusting(ca: &Path) -> Result<TlsConfig, StartError> {
    let wrong = |what: &str| StartError::BadCa(format!("{}: {what}", ca.display()));
    let pem = std::fs::read(ca).map_err(|error| wrong(&error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate =
            certificate.map_err(|_| wrong("holds something else than certificates in PEM"))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(&error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate in PEM"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(config).into())
}
