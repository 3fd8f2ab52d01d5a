//! Keys that tokens are checked by: secrets, a public key, or a JWK set. Each goes with one algorithm, whatever a token says.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use serde::Deserialize;

/// The shortest secret that is taken, in bytes: as many as HS256's digest has.
pub const MIN_SECRET_BYTES: usize = 32;
/// The shortest modulus of an RSA key that is taken, in bytes.
const MIN_MODULUS_BYTES: usize = 256;
/// What P-256 and Ed25519 take for a coordinate, in bytes.
const COORDINATE_BYTES: usize = 32;
/// How many keys of a set are looked at.
const MAX_KEYS: usize = 64;

/// The algorithms that tokens may be signed by, as the configuration names them.
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
    /// By its name in a token's header.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "RS256" => Self::Rs256,
            "ES256" => Self::Es256,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
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

/// Where the keys come from. Never printed: it may hold secrets.
#[derive(Clone)]
pub enum KeySource {
    /// Shared secrets, any of which may have signed: the current one, and while it is being changed the one before.
    Secrets(Vec<String>),
    /// One public key, as PEM.
    PublicKey(String),
    /// A JWK set, as JSON.
    Set(String),
    /// A JWK set, to be fetched from this URL.
    Url(http::Uri),
}

/// Keys that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret too short to be one.
    #[error("the secret must have at least {MIN_SECRET_BYTES} bytes")]
    WeakSecret,
    /// A secret for a public key's algorithm, or the reverse.
    #[error("a secret goes with HS256 and nothing else, a public key with RS256, ES256 or EdDSA")]
    WrongAlgorithm,
    /// Not PEM, of another kind, or a private key.
    #[error("it is not a public key of the algorithm in PEM (BEGIN PUBLIC KEY)")]
    NotAPublicKey,
    /// An RSA key that can be broken.
    #[error("an RSA key must have at least {} bits", 8 * MIN_MODULUS_BYTES)]
    WeakKey,
    /// Not a JWK set, or one without a key for the algorithm.
    #[error("it is not a JWK set with a key of the algorithm")]
    NoKey,
    /// HTTPS needs to know whom to trust.
    #[error("the system has no certificates to trust: {0}")]
    NoRoots(String),
}

/// A key and what it may be used for.
pub(super) struct Key {
    kid: Option<String>,
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

/// All keys of one moment.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// True for a JWK set, in which a token says which key it means.
    named: bool,
}

/// What a set knows of the key that a token asks for.
pub(super) enum Lookup<'a> {
    /// One of these.
    Keys(Vec<&'a Key>),
    /// The set has no key of that name; a newer one might.
    Unknown,
    /// No key of the set may be used for such a token.
    Unfit,
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
            // A private key's PEM is taken for a public one by the library, and would then fit no token.
            Algorithm::Rs256 if String::from_utf8_lossy(pem).contains("PRIVATE") => {
                Err(KeyError::NotAPublicKey)
            }
            // The DER of modulus and exponent: a little longer than the modulus.
            Algorithm::Rs256 if bytes.len() < MIN_MODULUS_BYTES => Err(KeyError::WeakKey),
            // An uncompressed point of P-256.
            Algorithm::Es256 if bytes.len() != 65 => Err(KeyError::NotAPublicKey),
            // The library panics at a shorter one, once a token is checked.
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

    /// Keys for other algorithms, for encryption, and of kinds that aren't known are left out.
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

    /// The keys that may have signed a token whose header has that algorithm and `kid`.
    pub fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Lookup<'_> {
        if self.keys.is_empty() {
            return Lookup::Unknown;
        }
        let fits = |key: &&Key| key.algorithm == algorithm;
        let keys: Vec<&Key> = match kid.filter(|_| self.named) {
            None => self.keys.iter().filter(fits).collect(),
            Some(kid) => {
                let meant: Vec<&Key> = self
                    .keys
                    .iter()
                    .filter(|key| key.kid.as_deref() == Some(kid))
                    .collect();
                if meant.is_empty() {
                    return Lookup::Unknown;
                }
                meant.into_iter().filter(fits).collect()
            }
        };
        // A token that doesn't say which key it means is not tried with one after another.
        if keys.is_empty() || self.named && keys.len() > 1 {
            Lookup::Unfit
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
        // A secret in a published set is none.
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|said| said != named) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key {
        kid: jwk.common.key_id.clone(),
        algorithm,
        key,
    })
}

/// The library takes any length, and panics at a shorter one once a token is checked.
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
    fn a_public_key_goes_with_its_own_algorithm() {
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
    fn what_a_set_holds_beside_fitting_keys_is_left_out() {
        let all = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
        let with = |field: &str, value: &str| {
            let mut jwk = jwk("RS256", Some("a"));
            jwk[field] = json!(value);
            jwk
        };
        for unfit in [
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
                set(std::slice::from_ref(&unfit), &all).err(),
                Some(KeyError::NoKey),
                "{unfit}"
            );
            assert!(set(&[unfit, jwk("EdDSA", Some("b"))], &all).is_ok());
        }
        assert!(
            set(&[jwk("RS256", None)], &[Algorithm::EdDsa]).is_err(),
            "not an algorithm that is configured"
        );
        for nonsense in ["", "[]", "{}", r#"{"keys":5}"#] {
            assert_eq!(
                KeySet::jwks(nonsense.as_bytes(), &all).err(),
                Some(KeyError::NoKey)
            );
        }
    }

    #[test]
    fn a_kid_means_one_key_of_one_algorithm() {
        let all = [Algorithm::Rs256, Algorithm::EdDsa];
        let found = |set: &KeySet, algorithm, kid| match set.find(algorithm, kid) {
            Lookup::Keys(keys) => keys.len().to_string(),
            Lookup::Unknown => "unknown".to_owned(),
            Lookup::Unfit => "unfit".to_owned(),
        };
        let two = set(&[jwk("RS256", Some("r")), jwk("EdDSA", Some("e"))], &all).unwrap();
        assert_eq!(found(&two, Algorithm::Rs256, Some("r")), "1");
        assert_eq!(found(&two, Algorithm::EdDsa, Some("r")), "unfit");
        assert_eq!(found(&two, Algorithm::EdDsa, Some("x")), "unknown");
        assert_eq!(found(&two, Algorithm::EdDsa, None), "1");
        let alike = set(&[jwk("EdDSA", Some("a")), jwk("EdDSA", Some("b"))], &all).unwrap();
        assert_eq!(found(&alike, Algorithm::EdDsa, None), "unfit");
        let secrets = KeySet::secrets(&["x".repeat(32), "y".repeat(32)]).unwrap();
        assert_eq!(found(&secrets, Algorithm::Hs256, Some("whatever")), "2");
        assert_eq!(found(&secrets, Algorithm::Rs256, None), "unfit");
        assert_eq!(found(&KeySet::default(), Algorithm::Rs256, None), "unknown");
    }
}
