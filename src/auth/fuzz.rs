//! Fuzzes tokens: forged ones, validly signed ones with arbitrary claims, and key sets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use hubbub_fuzz::Target;
use jsonwebtoken::{Algorithm, EncodingKey};

use super::*;

const SECRET: &str = "a secret of at least thirty-two bytes";

/// A token with this header and these claims, validly signed.
fn signed(header: &[u8], claims: &[u8]) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

const HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

#[test]
fn fuzz_forged_tokens() {
    let genuine = signed(HEADER, br#"{"sub":"ann","exp":4000000000}"#);
    let expired = signed(HEADER, br#"{"sub":"bob","exp":1000}"#);
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(r#"{"sub":"eve","exp":4000000000}"#)
    );
    let words: Vec<String> = [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"sub":"eve","exp":4000000000}"#,
    ]
    .iter()
    .map(|part| URL_SAFE_NO_PAD.encode(part))
    .collect();
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .chain([".", "..", "=", "-", "_", "%", " "])
        .collect();
    let seeds = [genuine.as_bytes(), expired.as_bytes(), none.as_bytes()];
    let verifier = Verifier::hs256(SECRET, 0).unwrap();
    Target {
        name: "forged_tokens",
        seeds: &seeds,
        words: &words,
        longest: 8192,
    }
    .run(|bytes| {
        let token = String::from_utf8_lossy(bytes);
        match verifier.verify(&token).now_or_never().unwrap() {
            // Only the genuine token itself is accepted.
            Ok(_) => assert_eq!(token, genuine),
            Err(refusal) => {
                assert!(matches!(
                    refusal.code,
                    Code::Unauthorized | Code::TokenExpired
                ));
                assert!(
                    refusal.code != Code::TokenExpired || token == expired,
                    "the expiry of a token without a valid signature was believed: {token}"
                );
                return refusal.text;
            }
        }
        "".into()
    });
}

#[test]
fn fuzz_claims() {
    let seeds: &[&[u8]] = &[
        br#"{"sub":"ann","exp":4000000000}"#,
        br#"{"user_id":"ann","sub":"s","username":"Ann","name":"N","role":"service","exp":4000000000,"nbf":1}"#,
        br#"{"sub":"ann","preferred_username":"a","exp":1.0,"aud":["x"],"iss":"y"}"#,
    ];
    let words = &[
        "\"exp\":",
        "\"nbf\":",
        "\"sub\":",
        "\"user_id\":",
        "null",
        "[",
        "{",
        "1e999",
        "-1",
        "\\ud800",
        "\\u0000",
        "\"role\":\"admin\"",
    ];
    let verifier = Verifier::hs256(SECRET, 30).unwrap();
    Target {
        name: "claims",
        seeds,
        words,
        longest: 4096,
    }
    .run(|claims| {
        let now = jsonwebtoken::get_current_timestamp();
        match verifier
            .verify(&signed(HEADER, claims))
            .now_or_never()
            .unwrap()
        {
            Ok(identity) => {
                assert!(UserId::parse("user_id", identity.user.as_str()).is_ok());
                assert!(Username::parse("username", identity.username.as_str()).is_ok());
                assert!(
                    identity.expires_at.is_some_and(|end| end >= now),
                    "{identity:?}"
                );
                let claims: serde_json::Value = serde_json::from_slice(claims).unwrap_or_default();
                assert!(
                    claims["nbf"]
                        .as_f64()
                        .is_none_or(|begin| begin <= (now + 31) as f64),
                    "{claims}"
                );
                format!("{:?}", identity.roles.len()).into()
            }
            Err(refusal) => {
                assert!(matches!(
                    refusal.code,
                    Code::Unauthorized | Code::TokenExpired
                ));
                refusal.text
            }
        }
    });
}

#[test]
fn fuzz_key_sets() {
    let modulus = URL_SAFE_NO_PAD.encode([0xa5; 256]);
    let rsa = format!(
        r#"{{"keys":[{{"kty":"RSA","n":"{modulus}","e":"AQAB","use":"sig","alg":"RS256"}}]}}"#
    );
    let seeds: &[&[u8]] = &[
        rsa.as_bytes(),
        br#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#,
        br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwaaPJHURo8","kid":"a"},5,{"kty":"oct","k":"AAAA"}]}"#,
    ];
    let words = &[
        "AAAA",
        "_____w",
        "\"kid\":\"a\",",
        "\"e\":\"",
        "AQ",
        "P-384",
        "Ed25519",
        "\"use\":\"enc\"",
        "{",
        "[",
        "null",
    ];
    let algorithms = vec![
        keys::Algorithm::Rs256,
        keys::Algorithm::Es256,
        keys::Algorithm::EdDsa,
    ];
    // None of these is validly signed, so no key may accept them, however malformed the key is.
    let part = |part: &str| URL_SAFE_NO_PAD.encode(part);
    let token = |header: &str, signature: usize| {
        let claims = part(r#"{"sub":"eve","exp":4000000000}"#);
        format!(
            "{}.{claims}.{}",
            part(header),
            URL_SAFE_NO_PAD.encode(vec![1; signature])
        )
    };
    let tokens = [
        token(r#"{"alg":"RS256"}"#, 256),
        token(r#"{"alg":"ES256"}"#, 64),
        token(r#"{"alg":"EdDSA"}"#, 64),
        token(r#"{"alg":"EdDSA","kid":"a"}"#, 64),
    ];
    Target {
        name: "key_sets",
        seeds,
        words,
        longest: 8192,
    }
    .run(|json| {
        let json = String::from_utf8_lossy(json).into_owned();
        let rules = TokenRules {
            algorithms: algorithms.clone(),
            ..TokenRules::default()
        };
        let verifier = Verifier::new(KeySource::Set(json), rules).ok()?;
        Some(tokens.each_ref().map(|token| {
            verifier
                .verify(token)
                .now_or_never()
                .unwrap()
                .unwrap_err()
                .text
        }))
    });
}
