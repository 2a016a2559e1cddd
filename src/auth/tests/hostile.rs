//! Tokens that are not let in, each with what is wrong with it.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::forge::{self, OTHER_RSA, P256, P384, RSA, encode, now, raw, secret};
use super::*;

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

async fn check(settings: Settings, what: &str, token: &str, want: &str) {
    let refused = identify(settings, &Credentials::token(token)).await;
    let error = refused.err().unwrap_or_else(|| panic!("{what} was let in"));
    let text = error.to_string();
    assert!(text.contains(want), "{what}: {text}");
    // Some of it ends in logs and close frames: neither signature nor whole payload may.
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!text.contains(part), "{what}: {text}");
    }
}

fn rsa() -> Settings {
    jwt(KeySource::PublicKey(RSA.public.to_vec()))
}

fn good() -> Value {
    json!({"sub": "alice", "exp": now() + 60})
}

#[tokio::test]
async fn envelopes() {
    let token = forge::by_secret(&good());
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("three parts");
    };
    let admin = encode(json!({"sub": "admin", "exp": now() + 60}).to_string());
    let flipped = match signature.strip_prefix('A') {
        Some(rest) => format!("B{rest}"),
        None => format!("A{}", &signature[1..]),
    };
    let oversized = json!({"sub": "alice", "exp": now() + 60, "x": "x".repeat(8 * 1024)});
    let shape = "not three parts";
    let by_key = "signature is not by the key";
    for (what, token, want) in [
        ("not a token", "junk".to_owned(), shape),
        ("one dot", format!("{header}.{payload}"), shape),
        (
            "two dots missing",
            format!("{header}{payload}{signature}"),
            shape,
        ),
        (
            "a part too many",
            format!("{token}.{signature}"),
            "base64url",
        ),
        ("only dots", "..".to_owned(), "JSON"),
        ("no signature", format!("{header}.{payload}."), by_key),
        (
            "half a signature",
            format!("{header}.{payload}.{}", &signature[..20]),
            by_key,
        ),
        (
            "another's signature",
            format!("{header}.{payload}.{flipped}"),
            by_key,
        ),
        (
            "another payload",
            format!("{header}.{admin}.{signature}"),
            by_key,
        ),
        (
            "another header",
            format!("{}.{payload}.{signature}", encode(r#"{"alg":"HS384"}"#)),
            by_key,
        ),
        (
            "padded",
            format!("{header}.{payload}.{signature}="),
            "base64url",
        ),
        ("not base64", format!("{header}.{payload}.!!!"), "base64url"),
        (
            "plain JSON",
            format!("{HS256}.{payload}.{signature}"),
            "base64url",
        ),
        (
            "not JSON",
            raw("nothing", &good().to_string(), &secret(), Algorithm::HS256),
            "JSON",
        ),
        (
            "payload not JSON",
            raw(HS256, "nothing", &secret(), Algorithm::HS256),
            "JSON",
        ),
        (
            "a list",
            raw(
                HS256,
                r#"["alice",null,null,9999999999,null,null,null,null,null]"#,
                &secret(),
                Algorithm::HS256,
            ),
            "JSON",
        ),
        ("oversized", forge::by_secret(&oversized), "8 KiB"),
        (
            "deep",
            raw(HS256, &"[".repeat(4000), &secret(), Algorithm::HS256),
            "JSON",
        ),
    ] {
        check(by_secret(), what, &token, want).await;
    }
}

#[tokio::test]
async fn algorithms() {
    let payload = good().to_string();
    for none in [
        "none", "None", "NONE", "nOnE", "", "HS256 ", "hs256", "HS1", "PS",
    ] {
        for settings in [by_secret(), rsa()] {
            let header = encode(json!({"alg": none}).to_string());
            let bare = format!("{header}.{}.", encode(&payload));
            check(settings, none, &bare, "algorithm").await;
        }
    }
    let bare = format!("{}.{}.", encode("{}"), encode(&payload));
    check(by_secret(), "no algorithm", &bare, "JSON").await;

    // The public key is no secret: whoever signs with it must not be believed.
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let trimmed = RSA.public.trim_ascii();
        for public in [RSA.public, trimmed] {
            let key = EncodingKey::from_secret(public);
            let token = forge::signed(&good(), &key, algorithm);
            check(rsa(), "public key as secret", &token, "is not the key's").await;
        }
    }
    let check =
        async |settings: Settings, what: &str, pair: &forge::Pair, algorithm, want: &str| {
            let token = forge::signed(&good(), &pair.key(), algorithm);
            check(settings, what, &token, want).await;
        };
    let p256 = || jwt(KeySource::PublicKey(P256.public.to_vec()));
    check(
        rsa(),
        "another RSA key",
        &OTHER_RSA,
        Algorithm::RS256,
        "not by the key",
    )
    .await;
    check(
        rsa(),
        "another kind of key",
        &P256,
        Algorithm::ES256,
        "not the key's",
    )
    .await;
    check(
        p256(),
        "another curve",
        &P384,
        Algorithm::ES384,
        "not the key's",
    )
    .await;
    check(
        by_secret(),
        "a key, not the secret",
        &RSA,
        Algorithm::RS256,
        "not the key's",
    )
    .await;
}

#[tokio::test]
async fn other_secrets() {
    for (what, key) in [
        (
            "another secret",
            "another secret that has 32 bytes".to_owned(),
        ),
        ("no secret", String::new()),
        ("the secret in base64", encode(SECRET)),
    ] {
        let key = EncodingKey::from_secret(key.as_bytes());
        let token = forge::signed(&good(), &key, Algorithm::HS256);
        check(by_secret(), what, &token, "not by the key").await;
    }
}

#[tokio::test]
async fn headers() {
    // Keys and addresses of keys that a token brings are nothing to us: it fails as if without.
    let jwk = json!({"kty": "oct", "k": encode("of the attacker, with 32 bytes..")});
    let attacker = EncodingKey::from_secret(b"of the attacker, with 32 bytes..");
    for extra in [
        json!({"jwk": jwk}),
        json!({"jku": "http://127.0.0.1:9/keys"}),
        json!({"x5u": "http://127.0.0.1:9/cert", "x5c": ["AAAA"]}),
        json!({"kid": "../../../dev/null"}),
        json!({"kid": "x' UNION SELECT 'key"}),
    ] {
        let mut header = extra.clone();
        header["alg"] = json!("HS256");
        let token = raw(
            &header.to_string(),
            &good().to_string(),
            &attacker,
            Algorithm::HS256,
        );
        check(by_secret(), &extra.to_string(), &token, "not by the key").await;
    }
    let crit = r#"{"alg":"HS256","crit":["b64"],"b64":false}"#;
    let token = raw(crit, &good().to_string(), &secret(), Algorithm::HS256);
    check(by_secret(), "crit", &token, "crit").await;
    let twice = r#"{"alg":"none","alg":"HS256"}"#;
    let token = raw(twice, &good().to_string(), &secret(), Algorithm::HS256);
    check(by_secret(), "two algorithms", &token, "refused").await;
}

#[tokio::test]
async fn keys_of_a_set() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/auth/tests/keys/jwks.json");
    let set = || jwt(KeySource::JwksFile(path.into()));
    let with_kid = |kid: Value, key: &EncodingKey, algorithm| {
        let mut header = json!({"alg": algorithm, "jku": "http://127.0.0.1:9/keys"});
        if !kid.is_null() {
            header["kid"] = kid;
        }
        raw(&header.to_string(), &good().to_string(), key, algorithm)
    };
    use Algorithm::{ES256, HS256, RS256};
    let (rsa, p256) = (RSA.key(), P256.key());
    let public = EncodingKey::from_secret(RSA.public);
    for (kid, key, algorithm, want) in [
        (json!(null), &rsa, RS256, "no kid"),
        (json!("RSA"), &rsa, RS256, "kid is unknown"),
        (json!(""), &rsa, RS256, "kid is unknown"),
        (json!("../../rsa"), &rsa, RS256, "kid is unknown"),
        (
            json!("http://127.0.0.1:9/rsa"),
            &rsa,
            RS256,
            "kid is unknown",
        ),
        (json!("p256"), &rsa, RS256, "not the key's"),
        (json!("rsa"), &p256, ES256, "not the key's"),
        (json!("rsa"), &public, HS256, "not the key's"),
        (json!("rsa"), &OTHER_RSA.key(), RS256, "not by the key"),
        (json!(["rsa"]), &rsa, RS256, "JSON"),
    ] {
        let what = format!("{kid} {algorithm:?}");
        check(set(), &what, &with_kid(kid, key, algorithm), want).await;
    }
}

#[tokio::test]
async fn claims() {
    let later = now() + 60;
    for (payload, want) in [
        (json!({"sub": "a", "exp": now() - 60}), "expired"),
        (json!({"sub": "a", "exp": now() - 11}), "expired"),
        (json!({"sub": "a", "exp": 0}), "expired"),
        (json!({"sub": "a"}), "no exp"),
        (json!({"sub": "a", "exp": null}), "no exp"),
        (
            json!({"sub": "a", "exp": later.to_string()}),
            "exp is not a number",
        ),
        (json!({"sub": "a", "exp": true}), "exp is not a number"),
        (json!({"sub": "a", "exp": [later]}), "exp is not a number"),
        (json!({"sub": "a", "exp": -1}), "exp is not a number"),
        (json!({"sub": "a", "exp": 1e300}), "exp is not a number"),
        (
            json!({"sub": "a", "exp": later, "nbf": now() + 60}),
            "not valid yet",
        ),
        (
            json!({"sub": "a", "exp": later, "nbf": "0"}),
            "nbf is not a number",
        ),
        (json!({"exp": later}), "no sub"),
        (json!({"sub": null, "exp": later}), "no sub"),
        (json!({"sub": "", "exp": later}), "sub is no user"),
        (
            json!({"sub": "a".repeat(129), "exp": later}),
            "sub is no user",
        ),
        (json!({"sub": "a\nb", "exp": later}), "sub is no user"),
        (json!({"sub": "a\u{0}", "exp": later}), "sub is no user"),
        (json!({"sub": 42, "exp": later}), "sub is not a text"),
        (json!({"sub": ["a"], "exp": later}), "sub is not a text"),
        (
            json!({"sub": "a", "exp": later, "name": "a\u{1b}[2J"}),
            "its name",
        ),
        (
            json!({"sub": "a", "exp": later, "name": "a".repeat(129)}),
            "its name",
        ),
        (
            json!({"sub": "a", "exp": later, "name": {}}),
            "name is not a text",
        ),
        (
            json!({"sub": "a", "exp": later, "rooms": {"x": "king"}}),
            "`king` is no role",
        ),
        (
            json!({"sub": "a", "exp": later, "rooms": {"x": "HOST"}}),
            "`HOST` is no role",
        ),
        (
            json!({"sub": "a", "exp": later, "rooms": {"": "host"}}),
            "its rooms",
        ),
        (
            json!({"sub": "a", "exp": later, "rooms": {"x": ["host"]}}),
            "its rooms",
        ),
        (
            json!({"sub": "a", "exp": later, "rooms": ["x"]}),
            "its rooms",
        ),
        (
            json!({"sub": "a", "exp": later, "rooms": "*=host"}),
            "its rooms",
        ),
        (
            json!({"sub": "a", "exp": later, "server": "true"}),
            "server is not",
        ),
        (
            json!({"sub": "a", "exp": later, "server": 1}),
            "server is not",
        ),
        (
            json!({"sub": "a", "exp": later, "rights": "server"}),
            "rights is not",
        ),
        (
            json!({"sub": "a", "exp": later, "rights": ["root"]}),
            "rights are unknown",
        ),
        (json!({"exp": later, "server": false}), "no sub"),
        (
            json!({"sub": "", "exp": later, "server": true}),
            "sub is no user",
        ),
        (
            json!({"sub": "a", "exp": later, "aud": "chat"}),
            "see --audience",
        ),
        (
            json!({"sub": "a", "exp": later, "aud": []}),
            "see --audience",
        ),
    ] {
        let what = payload.to_string();
        check(by_secret(), &what, &forge::by_secret(&payload), want).await;
    }
}

#[tokio::test]
async fn claims_that_stand_twice() {
    let later = now() + 60;
    for payload in [
        format!(r#"{{"sub":"alice","sub":"admin","exp":{later}}}"#),
        format!(r#"{{"sub":"alice","exp":1,"exp":{later}}}"#),
        format!(r#"{{"sub":"alice","exp":{later},"server":false,"server":true}}"#),
        format!(r#"{{"sub":"alice","exp":{later},"rooms":{{"x":"viewer","x":"host"}}}}"#),
        format!(r#"{{"sub":"alice","exp":{later},"s\u0075b":"admin"}}"#),
    ] {
        let token = raw(HS256, &payload, &secret(), Algorithm::HS256);
        let want = if payload.contains("rooms") {
            "twice"
        } else {
            "duplicate field"
        };
        check(by_secret(), &payload, &token, want).await;
    }
}

#[tokio::test]
async fn audiences_and_issuers() {
    let settings = || Settings {
        audience: Some("chat".to_owned()),
        issuer: Some("https://login.example/".to_owned()),
        ..by_secret()
    };
    let iss = "https://login.example/";
    for (claims, want) in [
        (json!({"iss": iss}), "audience"),
        (json!({"iss": iss, "aud": null}), "audience"),
        (json!({"iss": iss, "aud": []}), "audience"),
        (json!({"iss": iss, "aud": "Chat"}), "audience"),
        (json!({"iss": iss, "aud": "chat2"}), "audience"),
        (json!({"iss": iss, "aud": ["mail", "cha"]}), "audience"),
        (json!({"iss": iss, "aud": {"chat": 1}}), "aud is not"),
        (json!({"iss": iss, "aud": ["chat", 1]}), "aud is not"),
        (json!({"aud": "chat"}), "issuer"),
        (json!({"aud": "chat", "iss": null}), "issuer"),
        (
            json!({"aud": "chat", "iss": "https://login.example"}),
            "issuer",
        ),
        (
            json!({"aud": "chat", "iss": "https://login.example/evil"}),
            "issuer",
        ),
        (json!({"aud": "chat", "iss": [iss]}), "iss is not"),
    ] {
        let mut payload = good();
        for (claim, value) in claims.as_object().expect("an object") {
            payload[claim] = value.clone();
        }
        check(
            settings(),
            &payload.to_string(),
            &forge::by_secret(&payload),
            want,
        )
        .await;
    }
}

mod any {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Nothing that somebody makes up is let in, and nothing panics.
        #[test]
        fn text(text in "[A-Za-z0-9_.-]{0,200}|.{0,50}") {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            for settings in [by_secret(), rsa()] {
                let refused = runtime.block_on(identify(settings, &Credentials::token(&text)));
                prop_assert!(refused.is_err());
            }
        }

        /// A signed payload of any JSON is let in or refused, but never a panic.
        #[test]
        fn payload(claims in proptest::collection::vec(
            ("sub|exp|nbf|aud|iss|rooms|name|server|rights",
             "null|true|-1|0|1.5|4e9|9e99|18446744073709551615|\"a\"|\\[\\]|\\[\"a\"\\]|\\{\\}|\\{\"a\":\"host\"\\}"),
            0..6,
        )) {
            let body: Vec<String> = claims.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let payload = format!("{{{}}}", body.join(","));
            let token = raw(HS256, &payload, &secret(), Algorithm::HS256);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let _ = runtime.block_on(identify(by_secret(), &Credentials::token(&token)));
        }
    }
}
