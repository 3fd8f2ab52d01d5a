//! Certificates generated for one test, in files of their own, and TLS clients that trust them.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate for `localhost` and 127.0.0.1, signed by a new certificate authority.
pub struct Pair {
    dir: PathBuf,
    authority: String,
}

fn generate() -> (String, String, String) {
    let names = || vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut authority = CertificateParams::new(names()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let certificate = CertificateParams::new(names())
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    (authority_pem, certificate.pem(), key.serialize_pem())
}

impl Pair {
    /// Generates a pair in new files.
    pub fn generate() -> Self {
        let dir = std::env::temp_dir().join(format!("hubbub-tls-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut pair = Self {
            dir,
            authority: String::new(),
        };
        pair.renew();
        pair
    }

    /// Replaces authority, certificate and key in the same files.
    pub fn renew(&mut self) {
        let (authority, certificate, key) = generate();
        std::fs::write(self.path("ca.pem"), &authority).unwrap();
        std::fs::write(self.path("cert.pem"), certificate).unwrap();
        std::fs::write(self.path("key.pem"), key).unwrap();
        self.authority = authority;
    }

    /// The path of `ca.pem`, `cert.pem` or `key.pem`.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// A TLS client that trusts the authority and offers these ALPN protocols.
    pub fn client(&self, protocols: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap())
            .unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        TlsConnector::from(Arc::new(config))
    }
}

impl Pair {
    /// A TLS server with this certificate.
    pub fn server(&self) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_file(self.path("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path("key.pem")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
