//! The keys that verify tokens: secrets, a public key, or a JWK set. Each key belongs to one
//! algorithm, and no token can change that.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use serde::Deserialize;

/// The shortest accepted secret, in bytes: the size of the digest of HS256.
pub const MIN_SECRET_BYTES: usize = 32;
/// The shortest accepted modulus of an RSA key, in bytes.
const MIN_MODULUS_BYTES: usize = 256;
/// The size of a coordinate of P-256 and of Ed25519, in bytes.
const COORDINATE_BYTES: usize = 32;
/// The number of keys of a set that are used; further keys are ignored.
const MAX_KEYS: usize = 64;

/// The algorithms that tokens may be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: a shared secret.
    Hs256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The algorithm with this name, as written in the header of a token.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }

    pub(super) fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// The source of the keys. It has no `Debug`, because it may hold secrets.
#[derive(Clone)]
pub enum KeySource {
    /// Shared secrets. A token may be signed with any of them: the current secret and, while it is
    /// being replaced, the previous one.
    Secrets(Vec<String>),
    /// One public key, as PEM.
    PublicKey(String),
    /// A JWK set, as JSON.
    Set(String),
    /// A JWK set that is fetched from this URL.
    Url(http::Uri),
}

/// The reason why keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret is too short.
    #[error("the secret must have at least {MIN_SECRET_BYTES} bytes")]
    WeakSecret,
    /// The algorithm needs a public key and the source is a secret, or the reverse.
    #[error("a secret goes with HS256 and nothing else, a public key with RS256, ES256 or EdDSA")]
    WrongAlgorithm,
    /// The text is not PEM, the key is of another kind, or it is a private key.
    #[error("it is not a public key of the algorithm in PEM (BEGIN PUBLIC KEY)")]
    NotAPublicKey,
    /// The RSA key is too short.
    #[error("an RSA key must have at least {} bits", 8 * MIN_MODULUS_BYTES)]
    WeakKey,
    /// The text is not a JWK set, or the set has no key for a configured algorithm.
    #[error("it is not a JWK set with a key of the algorithm")]
    NoKey,
    /// The system has no root certificates, which HTTPS needs.
    #[error("the system has no certificates to trust: {0}")]
    NoRoots(String),
}

/// A key with its algorithm and name.
pub(super) struct Key {
    kid: Option<String>,
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

/// All keys that are valid at one moment.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// True for a JWK set, in which a token selects its key by `kid`.
    named: bool,
}

/// The keys that may verify a token.
pub(super) enum Lookup<'a> {
    /// The token may be signed with any of these.
    Keys(Vec<&'a Key>),
    /// The set is empty or has no key with this `kid`. A newer set may have it.
    NotInSet,
    /// No key of the set may be used for this token.
    NoUsableKey,
}

impl KeySet {
    pub fn secrets(secrets: &[String]) -> Result<Self, KeyError> {
        let key = |secret: &String| {
            if secret.len() < MIN_SECRET_BYTES {
                return Err(KeyError::WeakSecret);
            }
            let key = DecodingKey::from_secret(secret.as_bytes());
            Ok(Key {
                kid: None,
                algorithm: Algorithm::Hs256,
                key,
            })
        };
        Ok(Self {
            keys: secrets.iter().map(key).collect::<Result<_, _>>()?,
            named: false,
        })
    }

    pub fn public_key(pem: &str, algorithm: Algorithm) -> Result<Self, KeyError> {
        let pem = pem.as_bytes();
        let key = match algorithm {
            Algorithm::Hs256 => return Err(KeyError::WrongAlgorithm),
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem),
            Algorithm::Es256 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|_| KeyError::NotAPublicKey)?;
        let bytes = key
            .try_get_as_bytes()
            .map_err(|_| KeyError::NotAPublicKey)?;
        match algorithm {
            // The library accepts the PEM of a private key as a public key, which then verifies no
            // token.
            Algorithm::Rs256 if String::from_utf8_lossy(pem).contains("PRIVATE") => {
                Err(KeyError::NotAPublicKey)
            }
            // The DER of modulus and exponent, which is a few bytes longer than the modulus.
            Algorithm::Rs256 if bytes.len() < MIN_MODULUS_BYTES => Err(KeyError::WeakKey),
            // An uncompressed point of P-256.
            Algorithm::Es256 if bytes.len() != 65 => Err(KeyError::NotAPublicKey),
            // With a shorter key the library panics when it verifies a token.
            Algorithm::EdDsa if bytes.len() != COORDINATE_BYTES => Err(KeyError::NotAPublicKey),
            _ => Ok(Self {
                keys: vec![Key {
                    kid: None,
                    algorithm,
                    key,
                }],
                named: false,
            }),
        }
    }

    /// Ignores keys for other algorithms, keys for encryption, and keys of unknown kinds.
    pub fn jwks(json: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| KeyError::NoKey)?;
        let keys: Vec<Key> = set
            .keys
            .into_iter()
            .take(MAX_KEYS)
            .filter_map(|json| serde_json::from_value::<Jwk>(json).ok())
            .filter_map(|jwk| from_jwk(&jwk))
            .filter(|key| algorithms.contains(&key.algorithm))
            .collect();
        if keys.is_empty() {
            Err(KeyError::NoKey)
        } else {
            Ok(Self { keys, named: true })
        }
    }

    /// The keys that may verify a token with this algorithm and `kid` in its header.
    pub fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Lookup<'_> {
        if self.keys.is_empty() {
            return Lookup::NotInSet;
        }
        let has_algorithm = |key: &&Key| key.algorithm == algorithm;
        let keys: Vec<&Key> = match kid {
            Some(kid) if self.named => {
                let with_kid: Vec<&Key> = self
                    .keys
                    .iter()
                    .filter(|key| key.kid.as_deref() == Some(kid))
                    .collect();
                if with_kid.is_empty() {
                    return Lookup::NotInSet;
                }
                with_kid.into_iter().filter(has_algorithm).collect()
            }
            _ => self.keys.iter().filter(has_algorithm).collect(),
        };
        // A token without `kid` is not tried with one key of a set after another.
        if keys.is_empty() || self.named && keys.len() > 1 {
            Lookup::NoUsableKey
        } else {
            Lookup::Keys(keys)
        }
    }
}

fn from_jwk(jwk: &Jwk) -> Option<Key> {
    if matches!(
        jwk.common.public_key_use,
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_))
    ) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => {
            let modulus = URL_SAFE_NO_PAD.decode(&key.n).ok()?;
            if modulus.iter().skip_while(|&&byte| byte == 0).count() < MIN_MODULUS_BYTES {
                return None;
            }
            (Algorithm::Rs256, KeyAlgorithm::RS256)
        }
        AlgorithmParameters::EllipticCurve(key)
            if key.curve == EllipticCurve::P256
                && is_coordinate(&key.x)
                && is_coordinate(&key.y) =>
        {
            (Algorithm::Es256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key)
            if key.curve == EllipticCurve::Ed25519 && is_coordinate(&key.x) =>
        {
            (Algorithm::EdDsa, KeyAlgorithm::EdDSA)
        }
        // Among them secrets: a secret in a published set is not secret.
        _ => return None,
    };
    if jwk
        .common
        .key_algorithm
        .is_some_and(|stated| stated != named)
    {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key {
        kid: jwk.common.key_id.clone(),
        algorithm,
        key,
    })
}

/// The library accepts any length, and panics on a shorter one when it verifies a token.
fn is_coordinate(base64: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(base64)
        .is_ok_and(|bytes| bytes.len() == COORDINATE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const RSA: &str = include_str!("testdata/rsa.pub.pem");
    const EC: &str = include_str!("testdata/ec.pub.pem");
    const ED: &str = include_str!("testdata/ed.pub.pem");

    fn jwk(algorithm: &str, kid: Option<&str>) -> serde_json::Value {
        let coordinate = URL_SAFE_NO_PAD.encode([7; COORDINATE_BYTES]);
        let mut jwk = match algorithm {
            "ES256" => json!({"kty": "EC", "crv": "P-256", "x": coordinate, "y": coordinate}),
            "EdDSA" => json!({"kty": "OKP", "crv": "Ed25519", "x": coordinate}),
            _ => json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 256]), "e": "AQAB"}),
        };
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    fn set(keys: &[serde_json::Value], algorithms: &[Algorithm]) -> Result<KeySet, KeyError> {
        KeySet::jwks(json!({"keys": keys}).to_string().as_bytes(), algorithms)
    }

    #[test]
    fn a_public_key_belongs_to_one_algorithm() {
        let key = |pem, algorithm| KeySet::public_key(pem, algorithm).err();
        for (pem, own) in [
            (RSA, Algorithm::Rs256),
            (EC, Algorithm::Es256),
            (ED, Algorithm::EdDsa),
        ] {
            for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
                assert_eq!(
                    key(pem, algorithm).is_none(),
                    algorithm == own,
                    "{algorithm:?} with {pem}"
                );
            }
            assert_eq!(key(pem, Algorithm::Hs256), Some(KeyError::WrongAlgorithm));
        }
    }

    #[test]
    fn weak_and_private_keys_are_refused() {
        let private = |pem, algorithm| KeySet::public_key(pem, algorithm).err();
        assert_eq!(
            KeySet::secrets(&["x".repeat(31)]).err(),
            Some(KeyError::WeakSecret)
        );
        assert!(KeySet::secrets(&["x".repeat(32)]).is_ok());
        let short = include_str!("testdata/rsa-1024.pub.pem");
        assert_eq!(private(short, Algorithm::Rs256), Some(KeyError::WeakKey));
        for (pem, algorithm) in [
            (include_str!("testdata/rsa.pem"), Algorithm::Rs256),
            (include_str!("testdata/ec.pem"), Algorithm::Es256),
            (include_str!("testdata/ed.pem"), Algorithm::EdDsa),
            ("nonsense", Algorithm::EdDsa),
        ] {
            assert_eq!(private(pem, algorithm), Some(KeyError::NotAPublicKey));
        }
    }

    #[test]
    fn unusable_keys_of_a_set_are_ignored() {
        let all = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
        let with = |field: &str, value: &str| {
            let mut jwk = jwk("RS256", Some("a"));
            jwk[field] = json!(value);
            jwk
        };
        for unusable in [
            json!({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "a", "alg": "HS256"}),
            json!({"kty": "EC", "crv": "P-384", "x": "AAAA", "y": "AAAA", "kid": "a"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "a"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "a"}),
            json!({"kty": "new", "kid": "a"}),
            json!(5),
            with("use", "enc"),
            with("alg", "RS512"),
            with("n", "AQAB"),
        ] {
            assert_eq!(
                set(std::slice::from_ref(&unusable), &all).err(),
                Some(KeyError::NoKey),
                "{unusable}"
            );
            assert!(set(&[unusable, jwk("EdDSA", Some("b"))], &all).is_ok());
        }
        assert!(
            set(&[jwk("RS256", None)], &[Algorithm::EdDsa]).is_err(),
            "the algorithm is not configured"
        );
        for nonsense in ["", "[]", "{}", r#"{"keys":5}"#] {
            assert_eq!(
                KeySet::jwks(nonsense.as_bytes(), &all).err(),
                Some(KeyError::NoKey)
            );
        }
    }

    #[test]
    fn a_kid_selects_one_key_of_one_algorithm() {
        let all = [Algorithm::Rs256, Algorithm::EdDsa];
        let found = |set: &KeySet, algorithm, kid| match set.find(algorithm, kid) {
            Lookup::Keys(keys) => keys.len().to_string(),
            Lookup::NotInSet => "not in set".to_owned(),
            Lookup::NoUsableKey => "no usable key".to_owned(),
        };
        let two = set(&[jwk("RS256", Some("r")), jwk("EdDSA", Some("e"))], &all).unwrap();
        assert_eq!(found(&two, Algorithm::Rs256, Some("r")), "1");
        assert_eq!(found(&two, Algorithm::EdDsa, Some("r")), "no usable key");
        assert_eq!(found(&two, Algorithm::EdDsa, Some("x")), "not in set");
        assert_eq!(found(&two, Algorithm::EdDsa, None), "1");
        let alike = set(&[jwk("EdDSA", Some("a")), jwk("EdDSA", Some("b"))], &all).unwrap();
        assert_eq!(found(&alike, Algorithm::EdDsa, None), "no usable key");
        let secrets = KeySet::secrets(&["x".repeat(32), "y".repeat(32)]).unwrap();
        assert_eq!(found(&secrets, Algorithm::Hs256, Some("whatever")), "2");
        assert_eq!(found(&secrets, Algorithm::Rs256, None), "no usable key");
        assert_eq!(
            found(&KeySet::default(), Algorithm::Rs256, None),
            "not in set"
        );
    }
}
