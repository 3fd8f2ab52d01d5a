//! TLS on the listener: a certificate and its key from PEM files, taken up anew when the files change.

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

/// What is spoken; older versions have known weaknesses.
const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
/// A WebSocket begins as HTTP/1.1, and we speak no other.
const PROTOCOL: &[u8] = b"http/1.1";

/// Where the pair is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate in PEM, and behind it those of the authorities between it and a root.
    pub certificate: PathBuf,
    /// Its private key in PEM (PKCS #8, PKCS #1 or SEC1), without a password.
    pub key: PathBuf,
}

/// A pair that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("TLS: {} can't be read: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file doesn't hold what it should.
    #[error("TLS: {} holds no {what} in PEM", path.display())]
    Lacking {
        /// Which.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// The two don't belong together, or their algorithm isn't known.
    #[error("TLS: the certificate in {} and the key in {} can't be used: {error}", files.certificate.display(), files.key.display())]
    Unfit {
        /// Both.
        files: TlsFiles,
        /// Why.
        error: rustls::Error,
    },
}

/// The pair in force. Clones share it; connections that are open keep what they began with.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// What the files hold, read once.
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Content {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| TlsError::Unreadable {
                path: path.to_owned(),
                error,
            })
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
        })
    }

    /// Tells contents apart, and keeps no copy of the key.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.certificate, &self.key).hash(&mut hasher);
        hasher.finish()
    }

    fn pair(&self, files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let lacking = |path: &Path, what| TlsError::Lacking {
            path: path.to_owned(),
            what,
        };
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, PemError>>()
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| lacking(&files.certificate, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| lacking(&files.key, "private key"))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Unfit {
            files: files.clone(),
            error,
        })
    }
}

impl Tls {
    /// Reads the pair.
    ///
    /// # Errors
    /// When a file can't be read or used, or the key isn't the certificate's.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let pair = Content::read(&files)?.pair(&files, &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(pair))));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| TlsError::Unfit {
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

    /// Looks at the files every `interval`, and takes a new pair for the connections to come. One that can't be used is
    /// logged once, and the old one stays: the two files may be written one after the other. Ends by being dropped.
    pub async fn follow(self, interval: Duration) {
        // What was loaded may have changed since; so the first look always counts.
        let mut seen = None;
        loop {
            let tls = self.clone();
            // A file may lie on a slow disk.
            let looked = tokio::task::spawn_blocking(move || tls.look(seen)).await;
            seen = looked.unwrap_or(seen);
            tokio::time::sleep(interval).await;
        }
    }

    /// One look; what was seen, as a fingerprint: 0 for files that can't be read.
    fn look(&self, seen: Option<u64>) -> Option<u64> {
        let content = Content::read(&self.files);
        let found = content.as_ref().map_or(0, Content::fingerprint);
        if seen == Some(found) {
            return seen;
        }
        match content.and_then(|content| content.pair(&self.files, &self.provider)) {
            Ok(pair) => {
                let pair = Arc::new(pair);
                let old = std::mem::replace(&mut *self.current.0.write(), pair.clone());
                if old.cert != pair.cert {
                    tracing::info!(file = %self.files.certificate.display(), "a new certificate is in force");
                }
            }
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &TlsFiles) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_bad_pair_leaves_the_old_one_in_force() {
        let file =
            |name| std::env::temp_dir().join(format!("hubbub-{name}-{}.pem", uuid::Uuid::new_v4()));
        let files = TlsFiles {
            certificate: file("cert"),
            key: file("key"),
        };
        write(&files);
        let tls = Tls::load(files.clone()).unwrap();
        let in_force = || tls.current.0.read().cert.clone();
        let first = in_force();
        let seen = tls.look(None);
        assert_eq!((tls.look(seen), in_force()), (seen, first.clone()));
        let key = std::fs::read(&files.key).unwrap();
        write(&files);
        let new_key = std::fs::read(&files.key).unwrap();
        // As it is between the two writes.
        std::fs::write(&files.key, key).unwrap();
        let seen = tls.look(seen);
        assert_eq!(in_force(), first);
        std::fs::remove_file(&files.key).unwrap();
        let seen = tls.look(seen);
        assert_eq!(in_force(), first);
        std::fs::write(&files.key, new_key).unwrap();
        tls.look(seen);
        assert_ne!(in_force(), first);
        std::fs::remove_file(&files.certificate).unwrap();
        std::fs::remove_file(&files.key).unwrap();
    }
}
