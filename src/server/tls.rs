//! TLS on the listener: a certificate and its private key from PEM files, reloaded when the files
//! change.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

use crate::domain::without_bom;

/// The supported versions. Older ones have known weaknesses.
const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
/// The only protocol offered by ALPN: a WebSocket begins as HTTP/1.1.
const PROTOCOL: &[u8] = b"http/1.1";

/// The paths of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate in PEM, followed by the certificates of the authorities between it and a
    /// root.
    pub certificate: PathBuf,
    /// Its private key in PEM (PKCS #8, PKCS #1 or SEC1), without a password.
    pub key: PathBuf,
}

/// A certificate and key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("TLS: {} can't be read: {error}", path.display())]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// A file does not contain the expected item.
    #[error("TLS: {} holds no {item} in PEM", path.display())]
    Missing {
        /// The path of the file.
        path: PathBuf,
        /// The item: `certificate` or `private key`.
        item: &'static str,
    },
    /// The key does not belong to the certificate, or their algorithm is not supported.
    #[error("TLS: the certificate in {} and the key in {} can't be used: {error}", files.certificate.display(), files.key.display())]
    Unusable {
        /// The paths of both files.
        files: TlsFiles,
        /// The error of the TLS library.
        error: rustls::Error,
    },
}

/// The certificate and key for new connections. Clones share them. Open connections keep the pair
/// that they began with.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    current: Arc<CurrentPair>,
    config: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct CurrentPair(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentPair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// The contents of both files, read at one moment.
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Content {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            let bytes = std::fs::read(path).map_err(|error| TlsError::Unreadable {
                path: path.to_owned(),
                error,
            })?;
            Ok(without_bom(bytes))
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
        })
    }

    /// A hash to detect a change by, so that no copy of the key is kept.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.certificate, &self.key).hash(&mut hasher);
        hasher.finish()
    }

    fn pair(&self, files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let missing = |path: &Path, item| TlsError::Missing {
            path: path.to_owned(),
            item,
        };
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, PemError>>()
            .unwrap_or_default();
        if chain.is_empty() {
            return Err(missing(&files.certificate, "certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| missing(&files.key, "private key"))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Unusable {
            files: files.clone(),
            error,
        })
    }
}

impl Tls {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// If a file cannot be read or used, or the key does not belong to the certificate.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let pair = Content::read(&files)?.pair(&files, &provider)?;
        let current = Arc::new(CurrentPair(RwLock::new(Arc::new(pair))));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| TlsError::Unusable {
                files: files.clone(),
                error,
            })?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self {
            files,
            current,
            config: Arc::new(config),
            provider,
        })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }

    /// Reads the files every `interval`, and uses a changed pair for new connections. A pair that
    /// cannot be used is logged once, and the old pair stays in force: the two files may be written
    /// one after the other. Never returns; drop the future to end it.
    pub async fn reload_on_change(self, interval: Duration) {
        // The files may have changed since they were loaded, so the first check always loads them.
        let mut last = None;
        loop {
            let tls = self.clone();
            // Blocking, because a file may be on a slow disk.
            let checked = tokio::task::spawn_blocking(move || tls.reload_if_changed(last)).await;
            last = checked.unwrap_or(last);
            tokio::time::sleep(interval).await;
        }
    }

    /// Loads the files if their fingerprint is not `last`. Returns their fingerprint, which is 0
    /// for files that cannot be read.
    fn reload_if_changed(&self, last: Option<u64>) -> Option<u64> {
        let content = Content::read(&self.files);
        let fingerprint = content.as_ref().map_or(0, Content::fingerprint);
        if last == Some(fingerprint) {
            return last;
        }
        match content.and_then(|content| content.pair(&self.files, &self.provider)) {
            Ok(pair) => {
                let pair = Arc::new(pair);
                let old = std::mem::replace(&mut *self.current.0.write(), pair.clone());
                if old.cert != pair.cert {
                    tracing::info!(file = %self.files.certificate.display(), "a new certificate is in force");
                }
            }
            Err(error) => tracing::error!(%error, "the old certificate stays in force"),
        }
        Some(fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_new_pair(files: &TlsFiles) {
        let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&files.certificate, generated.cert.pem()).unwrap();
        std::fs::write(&files.key, generated.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn files_with_a_byte_order_mark_are_read() {
        let directory = std::env::temp_dir().join(format!("hubbub-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let files = TlsFiles {
            certificate: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        };
        write_new_pair(&files);
        let certificate = std::fs::read_to_string(&files.certificate).unwrap();
        let key = std::fs::read_to_string(&files.key).unwrap();
        // Of a chain that begins with a mark, the first certificate must not be skipped.
        let chain = format!("\u{feff}{certificate}{certificate}");
        std::fs::write(&files.certificate, chain).unwrap();
        std::fs::write(&files.key, format!("\u{feff}{key}")).unwrap();
        let tls = Tls::load(files.clone()).unwrap();
        assert_eq!(tls.current.0.read().cert.len(), 2);
        // As PowerShell writes it.
        let key = format!("\u{feff}{key}");
        let key: Vec<u8> = key.encode_utf16().flat_map(u16::to_le_bytes).collect();
        std::fs::write(&files.key, key).unwrap();
        assert!(Tls::load(files).is_ok());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_pair_that_cannot_be_used_leaves_the_old_one_in_force() {
        let file =
            |name| std::env::temp_dir().join(format!("hubbub-{name}-{}.pem", uuid::Uuid::new_v4()));
        let files = TlsFiles {
            certificate: file("cert"),
            key: file("key"),
        };
        write_new_pair(&files);
        let tls = Tls::load(files.clone()).unwrap();
        let in_force = || tls.current.0.read().cert.clone();
        let first = in_force();
        let seen = tls.reload_if_changed(None);
        assert_eq!(
            (tls.reload_if_changed(seen), in_force()),
            (seen, first.clone())
        );
        let key = std::fs::read(&files.key).unwrap();
        write_new_pair(&files);
        let new_key = std::fs::read(&files.key).unwrap();
        // The state between the writes of the two files: the new certificate and the old key.
        std::fs::write(&files.key, key).unwrap();
        let seen = tls.reload_if_changed(seen);
        assert_eq!(in_force(), first);
        std::fs::remove_file(&files.key).unwrap();
        let seen = tls.reload_if_changed(seen);
        assert_eq!(in_force(), first);
        std::fs::write(&files.key, new_key).unwrap();
        tls.reload_if_changed(seen);
        assert_ne!(in_force(), first);
        std::fs::remove_file(&files.certificate).unwrap();
        std::fs::remove_file(&files.key).unwrap();
    }
}
