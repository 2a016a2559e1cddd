//! Tokens that are let in.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::forge::{self, ED25519, P256, P384, RSA, now};
use super::*;
use crate::auth::mint::{MintError, NewToken, SigningKey};

async fn let_in(settings: Settings, token: &str) -> Identity {
    let identity = identify(settings, &Credentials::token(token)).await;
    identity.unwrap_or_else(|error| panic!("{error}: {token}"))
}

#[tokio::test]
async fn every_algorithm() {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, RS256, RS384, RS512};
    let public = |pair: &forge::Pair| KeySource::PublicKey(pair.public.to_vec());
    let secret = || KeySource::Secret(SECRET.into());
    let rows: [(Algorithm, EncodingKey, KeySource); 9] = [
        (HS256, forge::secret(), secret()),
        (HS384, forge::secret(), secret()),
        (HS512, forge::secret(), secret()),
        (RS256, RSA.key(), public(&RSA)),
        (RS384, RSA.key(), public(&RSA)),
        (RS512, RSA.key(), public(&RSA)),
        (ES256, P256.key(), public(&P256)),
        (ES384, P384.key(), public(&P384)),
        (EdDSA, ED25519.key(), public(&ED25519)),
    ];
    for (algorithm, key, source) in rows {
        let token = forge::signed(&json!({"sub": "alice", "exp": now() + 60}), &key, algorithm);
        let alice = let_in(jwt(source), &token).await;
        assert_eq!(
            alice.user().map(UserName::as_str),
            Some("alice"),
            "{algorithm:?}"
        );
    }
}

/// Tokens and a JWKS that another program made of the same keys.
#[tokio::test]
async fn as_others_make_them() {
    let tokens: Value = serde_json::from_str(include_str!("keys/tokens.json")).expect("an object");
    let tokens = tokens.as_object().expect("an object");
    assert_eq!(tokens.len(), 9);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/auth/tests/keys/jwks.json");
    for (algorithm, token) in tokens {
        let token = token.as_str().expect("a text");
        let settings = match algorithm.starts_with("HS") {
            true => by_secret(),
            false => jwt(KeySource::JwksFile(path.into())),
        };
        let alice = let_in(settings, token).await;
        assert_eq!(alice.name(), Some("Zoë"), "{algorithm}");
        assert_eq!(role(&alice, "live-42"), Some(Role::Host));
    }
}

#[tokio::test]
async fn what_claims_mean() {
    let claims = json!({
        "sub": "alice", "name": "Alice L", "exp": now() + 60, "nbf": now() - 60, "iat": now(),
        "rooms": {"live-42": "host", "lobby-*": "viewer"}, "email": "a@example.com",
    });
    let settings = Settings {
        default_role: "lobby-*=member,*=viewer".parse().expect("grants"),
        ..by_secret()
    };
    let alice = let_in(settings, &forge::by_secret(&claims)).await;
    assert_eq!(alice.name(), Some("Alice L"));
    assert_eq!(role(&alice, "live-42"), Some(Role::Host));
    assert_eq!(role(&alice, "lobby-1"), Some(Role::Viewer));
    assert_eq!(role(&alice, "live-43"), Some(Role::Viewer));
    assert_eq!(role(&alice, "@bob"), None);
    let left = alice.expires().map(|at| at.duration_since(Instant::now()));
    let left = left.expect("it ends").as_secs();
    assert!((65..=70).contains(&left), "{left}");
}

#[tokio::test]
async fn at_the_edge() {
    let check = async |change: Value, settings: Settings| {
        let mut claims = json!({"sub": "alice", "exp": now() + 60});
        for (claim, value) in change.as_object().expect("an object") {
            claims[claim] = value.clone();
        }
        let_in(settings, &forge::by_secret(&claims)).await
    };
    let audience = || Settings {
        audience: Some("chat".to_owned()),
        ..by_secret()
    };
    let issuer = || Settings {
        issuer: Some("login".to_owned()),
        ..by_secret()
    };
    check(json!({"exp": now() - 5}), by_secret()).await;
    check(json!({"exp": now() as f64 + 1.5}), by_secret()).await;
    check(json!({"exp": u64::MAX}), by_secret()).await;
    check(json!({"nbf": now() + 5}), by_secret()).await;
    check(json!({"aud": "chat"}), audience()).await;
    check(json!({"aud": ["mail", "chat"]}), audience()).await;
    check(json!({"aud": null}), by_secret()).await;
    check(json!({"iss": "login"}), issuer()).await;
    check(json!({"iss": "anybody"}), by_secret()).await;
    check(json!({"rooms": {}, "name": null}), by_secret()).await;
    let long = check(
        json!({"sub": "a".repeat(128), "name": "ä".repeat(64)}),
        by_secret(),
    )
    .await;
    assert_eq!(long.name().map(str::len), Some(128));
}

#[tokio::test]
async fn back_ends() {
    for claims in [
        json!({"server": true}),
        json!({"rights": ["server"]}),
        json!({"server": true, "sub": "billing"}),
    ] {
        let mut all = claims.clone();
        all["exp"] = json!(now() + 60);
        let server = let_in(by_secret(), &forge::by_secret(&all)).await;
        assert!(server.is_server() && server.user().is_none(), "{claims}");
        assert_eq!(server.key_name(), claims["sub"].as_str());
        assert!(server.expires().is_some());
    }
}

#[tokio::test]
async fn minted() {
    let token = NewToken {
        user: UserName::parse("alice").ok(),
        name: Some("Alice".to_owned()),
        rooms: "live-42=host,@*=member".parse().expect("grants"),
        audience: Some("chat".to_owned()),
        issuer: Some("login".to_owned()),
        ..NewToken::default()
    };
    let pairs = [&RSA, &P256, &P384, &ED25519];
    let mut rows = vec![(
        SigningKey::from_secret(&SECRET.into()).expect("a key"),
        KeySource::Secret(SECRET.into()),
    )];
    rows.extend(pairs.map(|pair| {
        let key = SigningKey::from_pem(pair.private).expect("a key");
        (key, KeySource::PublicKey(pair.public.to_vec()))
    }));
    let hour = Duration::from_secs(3600);
    for (key, source) in &rows {
        let text = token.sign(key, SystemTime::now(), hour).expect("a token");
        let settings = Settings {
            audience: Some("chat".to_owned()),
            issuer: Some("login".to_owned()),
            ..jwt(source.clone())
        };
        let alice = let_in(settings, &text).await;
        assert_eq!(alice.name(), Some("Alice"));
        assert_eq!(role(&alice, "live-42"), Some(Role::Host));
        assert_eq!(role(&alice, "@bob"), Some(Role::Member));
    }
    let (key, _) = &rows[0];
    let check = |token: NewToken, ttl, want| {
        assert_eq!(token.sign(key, SystemTime::now(), ttl), Err(want));
    };
    check(NewToken::default(), hour, MintError::Nobody);
    check(token.clone(), Duration::ZERO, MintError::Time);
    check(token.clone(), Duration::MAX, MintError::Time);
    let name = Some("a\n".to_owned());
    check(NewToken { name, ..token }, hour, MintError::Name);
    assert!(SigningKey::from_pem(RSA.public).is_err());
    assert!(SigningKey::from_secret(&"short".into()).is_err());
}
