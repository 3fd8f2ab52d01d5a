//! Tests of tokens: every way to forge one, and the tokens of supported issuers.

use super::*;
use crate::domain::Code;
use jsonwebtoken::jwk::Jwk;
use serde_json::json;

const SECRET: &str = "a secret of at least thirty-two bytes";
const FAR: u64 = 4_000_000_000;

fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

fn header(algorithm: jsonwebtoken::Algorithm, kid: Option<&str>) -> Header {
    Header {
        kid: kid.map(ToOwned::to_owned),
        ..Header::new(algorithm)
    }
}

fn secret_key(secret: &str) -> EncodingKey {
    EncodingKey::from_secret(secret.as_bytes())
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(include_bytes!("../testdata/rsa.pem")).unwrap()
}

fn ec() -> EncodingKey {
    EncodingKey::from_ec_pem(include_bytes!("../testdata/ec.pem")).unwrap()
}

fn ed() -> EncodingKey {
    EncodingKey::from_ed_pem(include_bytes!("../testdata/ed.pem")).unwrap()
}

fn other_ed() -> EncodingKey {
    EncodingKey::from_ed_pem(include_bytes!("../testdata/ed-other.pem")).unwrap()
}

const RSA_PEM: &str = include_str!("../testdata/rsa.pub.pem");
const EC_PEM: &str = include_str!("../testdata/ec.pub.pem");
const ED_PEM: &str = include_str!("../testdata/ed.pub.pem");

fn public(pem: &str, algorithm: Algorithm) -> Verifier {
    let rules = TokenRules {
        algorithms: vec![algorithm],
        ..TokenRules::default()
    };
    Verifier::new(KeySource::PublicKey(pem.to_owned()), rules).unwrap()
}

fn jwk(key: &EncodingKey, algorithm: jsonwebtoken::Algorithm, kid: &str) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    jwk
}

/// A verifier with a set of three keys, one for each public-key algorithm.
fn set(algorithms: &[Algorithm]) -> Verifier {
    use jsonwebtoken::Algorithm::{ES256, EdDSA, RS256};
    let keys =
        json!({"keys": [jwk(&rsa(), RS256, "r"), jwk(&ec(), ES256, "c"), jwk(&ed(), EdDSA, "d")]});
    let rules = TokenRules {
        algorithms: algorithms.to_vec(),
        ..TokenRules::default()
    };
    Verifier::new(KeySource::Set(keys.to_string()), rules).unwrap()
}

async fn code(verifier: &Verifier, token: &str) -> Option<Code> {
    verifier
        .verify(token)
        .await
        .err()
        .map(|refusal| refusal.code)
}

async fn verify(claims: &Value) -> Result<Identity, Refusal> {
    Verifier::hs256(SECRET, 0)
        .unwrap()
        .verify(&sign(&Header::default(), claims, &secret_key(SECRET)))
        .await
}

#[tokio::test]
async fn claims_with_the_user_are_read_in_their_order() {
    let identity = verify(&json!({"exp": FAR, "sub": "s", "user_id": "u", "name": "N"}))
        .await
        .unwrap();
    assert_eq!(
        (identity.user.as_str(), identity.username.as_str()),
        ("u", "N")
    );
    let identity =
        verify(&json!({"exp": FAR, "sub": "s", "preferred_username": "p", "role": "admin"}))
            .await
            .unwrap();
    assert_eq!(
        (identity.user.as_str(), identity.username.as_str()),
        ("s", "p")
    );
    assert_eq!(identity.roles, ["admin"]);
    assert_eq!(identity.scope, RoomScope::Everywhere);
    let identity = verify(&json!({"exp": FAR, "sub": "s", "rooms": ["lobby", "team-*"]}))
        .await
        .unwrap();
    assert_eq!(identity.scope, RoomScope::only(["lobby", "team-*"]));
    let identity = verify(&json!({"exp": 4e9 + 0.5, "sub": "s", "user": "not an object"}))
        .await
        .unwrap();
    assert_eq!(
        (identity.user.as_str(), identity.expires_at),
        ("s", Some(FAR))
    );
}

#[tokio::test]
async fn an_invalid_token_is_refused_with_its_code() {
    for (claims, expected) in [
        (json!({"exp": 1000, "sub": "s"}), Code::TokenExpired),
        (json!({"sub": "s"}), Code::Unauthorized),
        (json!({"exp": "4000000000", "sub": "s"}), Code::Unauthorized),
        (json!({"exp": -1, "sub": "s"}), Code::Unauthorized),
        (json!({"exp": FAR}), Code::Unauthorized),
        (json!({"exp": FAR, "sub": ""}), Code::Unauthorized),
        (json!({"exp": FAR, "sub": 5.5}), Code::Unauthorized),
        (
            json!({"exp": FAR, "user": {"name": "no id"}}),
            Code::Unauthorized,
        ),
        (
            json!({"exp": FAR, "sub": "s", "rooms": "lobby"}),
            Code::Unauthorized,
        ),
        (
            json!({"exp": FAR, "sub": "s", "rooms": null}),
            Code::Unauthorized,
        ),
        (
            json!({"exp": FAR, "sub": "s", "rooms": ["lobby", 5]}),
            Code::Unauthorized,
        ),
        (
            json!({"exp": FAR, "nbf": FAR - 1, "sub": "s"}),
            Code::Unauthorized,
        ),
        (
            json!({"exp": FAR, "nbf": "soon", "sub": "s"}),
            Code::Unauthorized,
        ),
    ] {
        assert_eq!(
            verify(&claims).await.unwrap_err().code,
            expected,
            "{claims}"
        );
    }
}

#[tokio::test]
async fn an_odd_claim_counts_as_absent_and_an_integer_is_its_decimal_text() {
    for (claims, user, name, roles) in [
        (
            r#""sub":18446744073709551615"#,
            "18446744073709551615",
            None,
            &[][..],
        ),
        (r#""user_id":-7,"sub":"s""#, "-7", None, &[]),
        (r#""user_id":{"$oid":"x"},"sub":"s""#, "s", None, &[]),
        (r#""user_id":"u","sub":[{"a":1}]"#, "u", None, &[]),
        (r#""user_id":"","sub":"s""#, "s", None, &[]),
        (r#""user_id":null,"sub":1.5,"id":3"#, "3", None, &[]),
        (r#""userId":"c","id":"i""#, "i", None, &[]),
        (
            r#""userId":"c","user":{"id":9,"name":"N"}"#,
            "9",
            Some("N"),
            &[],
        ),
        (
            r#""sub":"s","username":5,"name":["a"],"preferred_username":"p""#,
            "s",
            Some("p"),
            &[],
        ),
        (
            r#""sub":"s","username":"\ud83d","name":"N""#,
            "s",
            Some("N"),
            &[],
        ),
        (
            r#""sub":"s","user":7,"role":["a",5,"b"]"#,
            "s",
            None,
            &["a", "b"],
        ),
        (r#""sub":"s","role":{"admin":true}"#, "s", None, &[]),
    ] {
        let body = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{FAR},{claims}}}"#));
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let signed = format!("{head}.{body}");
        let algorithm = jsonwebtoken::Algorithm::HS256;
        let signature = crypto::sign(signed.as_bytes(), &secret_key(SECRET), algorithm).unwrap();
        let verifier = Verifier::hs256(SECRET, 0).unwrap();
        let verified = verifier.verify(&format!("{signed}.{signature}")).await;
        let identity = verified.unwrap_or_else(|refusal| panic!("{claims}: {refusal}"));
        assert_eq!(
            (identity.user.as_str(), identity.username.as_str()),
            (user, name.unwrap_or(user)),
            "{claims}"
        );
        assert_eq!(identity.roles, roles, "{claims}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_fault_and_the_claim_but_no_value() {
    use TokenFault::{Algorithm, Audience, Expired, Issuer, Malformed, MissingExp};
    use TokenFault::{NoUser, NotYetValid, Signature};
    let rules = TokenRules {
        audience: vec!["chat".into()],
        issuer: vec!["app".into()],
        ..TokenRules::default()
    };
    let verifier = Verifier::new(KeySource::Secrets(vec![SECRET.into()]), rules).unwrap();
    let hs256 = Header::default();
    let hs512 = Header::new(jsonwebtoken::Algorithm::HS512);
    let other = "another secret of at least thirty-two bytes";
    for (change, head, secret, fault, claim) in [
        (json!({"exp": null}), &hs256, SECRET, MissingExp, "exp"),
        (json!({"exp": "canary"}), &hs256, SECRET, MissingExp, "exp"),
        (json!({"exp": -1}), &hs256, SECRET, MissingExp, "exp"),
        (json!({"exp": 1000}), &hs256, SECRET, Expired, "exp"),
        (json!({"exp": 1000}), &hs256, other, Signature, "signature"),
        (json!({}), &hs512, SECRET, Algorithm, "alg"),
        (json!({"sub": null}), &hs256, SECRET, NoUser, "sub"),
        (json!({"sub": ["canary"]}), &hs256, SECRET, NoUser, "sub"),
        (
            json!({"sub": "canary".repeat(22)}),
            &hs256,
            SECRET,
            NoUser,
            "sub",
        ),
        (json!({"sub": "canary\u{7}"}), &hs256, SECRET, NoUser, "sub"),
        (json!({"aud": "canary"}), &hs256, SECRET, Audience, "aud"),
        (json!({"aud": null}), &hs256, SECRET, Audience, "aud"),
        (json!({"iss": "canary"}), &hs256, SECRET, Issuer, "iss"),
        (
            json!({"iss": null, "aud": null}),
            &hs256,
            SECRET,
            Issuer,
            "iss",
        ),
        (json!({"nbf": FAR}), &hs256, SECRET, NotYetValid, "nbf"),
        (json!({"nbf": "canary"}), &hs256, SECRET, Malformed, "nbf"),
        (
            json!({"rooms": "canary"}),
            &hs256,
            SECRET,
            Malformed,
            "rooms",
        ),
    ] {
        let mut claims = json!({"exp": FAR, "sub": "s", "aud": "chat", "iss": "app"});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = sign(head, &claims, &secret_key(secret));
        let refusal = verifier.verify(&token).await.unwrap_err();
        assert_eq!(refusal.reason, Some(fault), "{claims}");
        let is_expiry = refusal.code == Code::TokenExpired;
        assert_eq!(is_expiry, fault == Expired, "{claims}");
        assert!(refusal.text.contains(claim), "{claims}: {refusal}");
        assert!(!refusal.text.contains("canary"), "{claims}: {refusal}");
    }
    for token in ["", "a.b", "a.b.c", "e30", "W10.e30.", &"x".repeat(9000)] {
        let refusal = verifier.verify(token).await.unwrap_err();
        assert_eq!(refusal.reason, Some(Malformed), "{token}");
    }
}

#[tokio::test]
async fn leeway_is_granted_and_extends_the_identity() {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let token = sign(
        &Header::default(),
        &json!({"exp": now - 10, "nbf": now + 10, "sub": "s"}),
        &secret_key(SECRET),
    );
    assert_eq!(
        code(&Verifier::hs256(SECRET, 0).unwrap(), &token).await,
        Some(Code::TokenExpired)
    );
    let identity = Verifier::hs256(SECRET, 30)
        .unwrap()
        .verify(&token)
        .await
        .unwrap();
    assert_eq!(identity.expires_at, Some(now + 20));
}

#[tokio::test]
async fn audience_and_issuer_are_checked_when_they_are_configured() {
    let rules = TokenRules {
        audience: vec!["chat".into(), "talk".into()],
        issuer: vec!["https://a".into()],
        ..TokenRules::default()
    };
    let verifier = Verifier::new(KeySource::Secrets(vec![SECRET.into()]), rules).unwrap();
    let open = Verifier::hs256(SECRET, 0).unwrap();
    for (aud, iss, good) in [
        (json!("chat"), json!("https://a"), true),
        (json!(["other", "talk"]), json!("https://a"), true),
        (json!("other"), json!("https://a"), false),
        (json!([]), json!("https://a"), false),
        (json!(5), json!("https://a"), false),
        (Value::Null, json!("https://a"), false),
        (json!("chat"), json!("https://a/"), false),
        (json!("chat"), json!("https://b"), false),
        (json!("chat"), Value::Null, false),
    ] {
        let claims = json!({"exp": FAR, "sub": "s", "aud": aud, "iss": iss});
        let token = sign(&Header::default(), &claims, &secret_key(SECRET));
        assert_eq!(
            code(&verifier, &token).await,
            (!good).then_some(Code::Unauthorized),
            "{claims}"
        );
        assert_eq!(code(&open, &token).await, None, "not configured: {claims}");
    }
}

#[tokio::test]
async fn each_algorithm_accepts_its_own_tokens_only() {
    use jsonwebtoken::Algorithm::{ES256, EdDSA, HS256, RS256};
    let verifiers = [
        Verifier::hs256(SECRET, 0).unwrap(),
        public(RSA_PEM, Algorithm::Rs256),
        public(EC_PEM, Algorithm::Es256),
        public(ED_PEM, Algorithm::EdDsa),
    ];
    let claims = json!({"exp": FAR, "sub": "s"});
    let signers = [
        (HS256, secret_key(SECRET)),
        (RS256, rsa()),
        (ES256, ec()),
        (EdDSA, ed()),
    ];
    for (expected_signer, verifier) in verifiers.iter().enumerate() {
        for (signer, (algorithm, key)) in signers.iter().enumerate() {
            let token = sign(&Header::new(*algorithm), &claims, key);
            let expected = (expected_signer != signer).then_some(Code::Unauthorized);
            assert_eq!(
                code(verifier, &token).await,
                expected,
                "{expected_signer}: {algorithm:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_cannot_choose_its_algorithm_or_key() {
    let claims = json!({"exp": FAR, "sub": "s"});
    let verifiers = [
        Verifier::hs256(SECRET, 0).unwrap(),
        public(RSA_PEM, Algorithm::Rs256),
        set(&[Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]),
    ];
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let body = encode(claims.to_string());
    let valid = sign(&Header::default(), &claims, &secret_key(SECRET));
    let signature = valid.rsplit('.').next().unwrap();
    let mut forged: Vec<String> = ["none", "None", "NONE", "", "HS1", "EdDSA2", "RS256\0"]
        .iter()
        .flat_map(|alg| {
            let head = encode(json!({"alg": alg, "typ": "JWT"}).to_string());
            [
                format!("{head}.{body}."),
                format!("{head}.{body}.{signature}"),
                format!("{head}.{body}"),
            ]
        })
        .collect();
    // Signed by HMAC with a public value as the secret.
    let public_values = [RSA_PEM, RSA_PEM.trim(), "", "null"];
    forged.extend(
        public_values
            .iter()
            .map(|pem| sign(&Header::default(), &claims, &secret_key(pem))),
    );
    forged.push(sign(
        &header(jsonwebtoken::Algorithm::HS256, Some("r")),
        &claims,
        &secret_key(RSA_PEM),
    ));
    // The right secret, but not the configured algorithm.
    forged.push(sign(
        &Header::new(jsonwebtoken::Algorithm::HS512),
        &claims,
        &secret_key(SECRET),
    ));
    forged.extend(
        [
            "",
            ".",
            "..",
            "a.b.c",
            "e30.e30.",
            "W10.e30.",
            "bnVsbA.e30.",
        ]
        .map(ToOwned::to_owned),
    );
    for verifier in &verifiers {
        for token in &forged {
            assert_eq!(
                code(verifier, token).await,
                Some(Code::Unauthorized),
                "{token}"
            );
        }
    }
    // A key inside the token, or at a URL that the token names, is not used.
    let mut head = Header::new(jsonwebtoken::Algorithm::EdDSA);
    head.jwk = Some(Jwk::from_encoding_key(&other_ed(), jsonwebtoken::Algorithm::EdDSA).unwrap());
    head.jku = Some("https://evil.example/jwks".into());
    assert_eq!(
        code(&verifiers[2], &sign(&head, &claims, &other_ed())).await,
        Some(Code::Unauthorized)
    );
    assert_eq!(
        code(
            &public(ED_PEM, Algorithm::EdDsa),
            &sign(&head, &claims, &other_ed())
        )
        .await,
        Some(Code::Unauthorized)
    );
}

#[tokio::test]
async fn a_kid_cannot_select_a_key_of_another_algorithm_or_outside_the_set() {
    use jsonwebtoken::Algorithm::{EdDSA, RS256};
    let claims = json!({"exp": FAR, "sub": "s"});
    let all = set(&[Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]);
    for (algorithm, kid, key, good) in [
        (EdDSA, Some("d"), ed(), true),
        (RS256, Some("r"), rsa(), true),
        (EdDSA, None, ed(), true),
        (EdDSA, Some("d"), other_ed(), false),
        (EdDSA, Some("r"), ed(), false),
        (RS256, Some("d"), rsa(), false),
        (EdDSA, Some("../../dev/null"), ed(), false),
        (EdDSA, Some(""), ed(), false),
    ] {
        let token = sign(&header(algorithm, kid), &claims, &key);
        assert_eq!(
            code(&all, &token).await,
            (!good).then_some(Code::Unauthorized),
            "{algorithm:?} {kid:?}"
        );
    }
    // A key of the set, of an algorithm that is not configured.
    let token = sign(&header(RS256, Some("r")), &claims, &rsa());
    assert_eq!(
        code(&set(&[Algorithm::EdDsa]), &token).await,
        Some(Code::Unauthorized)
    );
    let head = URL_SAFE_NO_PAD.encode(json!({"alg": "EdDSA", "kid": 5}).to_string());
    assert_eq!(
        code(&all, &format!("{head}.e30.e30")).await,
        Some(Code::Unauthorized)
    );
}

#[tokio::test]
async fn a_token_with_critical_extensions_is_refused() {
    let verifier = Verifier::hs256(SECRET, 0).unwrap();
    let claims = json!({"exp": FAR, "sub": "s"});
    for crit in [vec!["exp".to_owned()], vec!["b64".to_owned()], vec![]] {
        let head = Header {
            crit: Some(crit),
            ..Header::default()
        };
        assert_eq!(
            code(&verifier, &sign(&head, &claims, &secret_key(SECRET))).await,
            Some(Code::Unauthorized)
        );
    }
}

#[tokio::test]
async fn a_token_beyond_the_maximum_length_is_refused() {
    let verifier = Verifier::hs256(SECRET, 0).unwrap();
    let token = |filling: usize| {
        let claims = json!({"exp": FAR, "sub": "s", "filling": "x".repeat(filling)});
        sign(&Header::default(), &claims, &secret_key(SECRET))
    };
    assert!(token(5000).len() < MAX_TOKEN_BYTES && code(&verifier, &token(5000)).await.is_none());
    assert_eq!(
        code(&verifier, &token(6100)).await,
        Some(Code::Unauthorized)
    );
    assert_eq!(
        code(&verifier, &"a".repeat(1 << 20)).await,
        Some(Code::Unauthorized)
    );
    let deep = format!("{}.e30.e30", URL_SAFE_NO_PAD.encode("[".repeat(6000)));
    assert_eq!(code(&verifier, &deep).await, Some(Code::Unauthorized));
}

#[tokio::test]
async fn while_a_secret_is_being_replaced_both_are_accepted() {
    let (old, new) = (
        "the old secret, thirty-two bytes long",
        "the new secret, thirty-two bytes long",
    );
    let both = KeySource::Secrets(vec![new.into(), old.into()]);
    let verifier = Verifier::new(both, TokenRules::default()).unwrap();
    let token = |secret, exp| {
        sign(
            &Header::default(),
            &json!({"exp": exp, "sub": "s"}),
            &secret_key(secret),
        )
    };
    assert!(
        code(&verifier, &token(new, FAR)).await.is_none()
            && code(&verifier, &token(old, FAR)).await.is_none()
    );
    assert_eq!(
        code(&verifier, &token(SECRET, FAR)).await,
        Some(Code::Unauthorized)
    );
    assert_eq!(
        code(&verifier, &token(new, 1000)).await,
        Some(Code::TokenExpired)
    );
    assert_eq!(
        code(&verifier, &token(old, 1000)).await,
        Some(Code::TokenExpired)
    );
}

#[test]
fn a_secret_and_a_public_key_each_need_their_own_algorithm() {
    let refused = |keys, algorithms: &[Algorithm]| {
        Verifier::new(
            keys,
            TokenRules {
                algorithms: algorithms.to_vec(),
                ..TokenRules::default()
            },
        )
        .err()
    };
    let secrets = || KeySource::Secrets(vec![SECRET.to_owned()]);
    let pem = || KeySource::PublicKey(RSA_PEM.to_owned());
    assert_eq!(
        Verifier::hs256("short", 0).err(),
        Some(KeyError::WeakSecret)
    );
    assert_eq!(
        refused(secrets(), &[Algorithm::Rs256]),
        Some(KeyError::WrongAlgorithm)
    );
    assert_eq!(
        refused(pem(), &[Algorithm::Hs256]),
        Some(KeyError::WrongAlgorithm)
    );
    assert_eq!(refused(pem(), &[]), Some(KeyError::WrongAlgorithm));
    assert_eq!(
        refused(pem(), &[Algorithm::Rs256, Algorithm::Hs256]),
        Some(KeyError::WrongAlgorithm)
    );
    assert_eq!(
        refused(pem(), &[Algorithm::Rs256, Algorithm::EdDsa]),
        Some(KeyError::WrongAlgorithm)
    );
    assert_eq!(
        refused(pem(), &[Algorithm::EdDsa]),
        Some(KeyError::NotAPublicKey)
    );
}

#[tokio::test]
async fn tokens_of_betterauth_are_accepted() {
    // Its shared secret signs the session's cookie cache, which contains the whole user in one
    // claim.
    let session = json!({
        "session": {"id": "s1", "userId": "u1", "token": "t", "expiresAt": "2096-10-02T07:06:40.000Z"},
        "user": {"id": "u1", "email": "ann@example.com", "emailVerified": true, "name": "Ann", "image": null},
        "updatedAt": 1_790_000_000_000_u64, "version": "1", "iat": 1_790_000_000, "exp": FAR,
    });
    let identity = verify(&session).await.unwrap();
    assert_eq!(
        (identity.user.as_str(), identity.username.as_str()),
        ("u1", "Ann")
    );
    // Tokens that the same secret signs for other purposes contain no user.
    let mail = verify(&json!({"email": "ann@example.com", "iat": 1_790_000_000, "exp": FAR})).await;
    assert_eq!(mail.unwrap_err().code, Code::Unauthorized);
    // Its JWT plugin: the user's fields, `sub`, and the base URL as issuer and audience.
    let base = "https://app.example.com";
    let claims = json!({
        "id": "u1", "email": "ann@example.com", "emailVerified": true, "name": "Ann", "image": null,
        "iat": 1_790_000_000, "exp": FAR, "iss": base, "aud": base, "sub": "u1",
    });
    for (own, algorithm, key) in [
        (Algorithm::EdDsa, jsonwebtoken::Algorithm::EdDSA, ed()),
        (Algorithm::Es256, jsonwebtoken::Algorithm::ES256, ec()),
        (Algorithm::Rs256, jsonwebtoken::Algorithm::RS256, rsa()),
    ] {
        let kid = "0KYqVq8gF2hVfBqkT1pJ1wG3Xr6S5zLd";
        let set = json!({"keys": [jwk(&key, algorithm, kid)]}).to_string();
        let rules = TokenRules {
            algorithms: vec![own],
            audience: vec![base.into()],
            issuer: vec![base.into()],
            ..TokenRules::default()
        };
        let verifier = Verifier::new(KeySource::Set(set), rules).unwrap();
        let head = Header {
            typ: None,
            ..header(algorithm, Some(kid))
        };
        let identity = verifier.verify(&sign(&head, &claims, &key)).await.unwrap();
        assert_eq!(
            (identity.user.as_str(), identity.username.as_str()),
            ("u1", "Ann")
        );
    }
}
