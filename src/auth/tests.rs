//! Who is let in and who is not, with real keys.

use serde_json::json;

use super::*;
use crate::relay::entry::RoomName;

mod forge;
mod good;
mod hostile;

use forge::{SECRET, now};

/// An [`Auth`] that takes tokens by this key.
fn jwt(key: KeySource) -> Settings {
    Settings {
        mode: Mode::Jwt,
        key: Some(key),
        ..Settings::default()
    }
}

fn by_secret() -> Settings {
    jwt(KeySource::Secret(SECRET.into()))
}

async fn identify(settings: Settings, credentials: &Credentials) -> Result<Identity, AuthError> {
    let auth = Auth::new(settings).expect("good settings");
    auth.identify(credentials).await
}

fn role(identity: &Identity, room: &str) -> Option<Role> {
    identity.role(&RoomName::parse(room).expect("a room"))
}

fn query(query: &str) -> Credentials {
    Credentials::of(&axum::http::HeaderMap::new(), query, "token")
}

fn with_key(key: &str) -> Credentials {
    let mut headers = axum::http::HeaderMap::new();
    headers.insert("x-api-key", key.parse().expect("a header"));
    Credentials::of(&headers, "", "token")
}

#[tokio::test]
async fn nobody_is_checked() {
    let alice = identify(Settings::default(), &query("user=alice")).await;
    let alice = alice.expect("let in");
    assert_eq!(alice.user().map(UserName::as_str), Some("alice"));
    assert_eq!(role(&alice, "any"), Some(Role::Host));
    assert!(!alice.is_server() && alice.expires().is_none());
    let rights = |room| alice.rights(&RoomName::parse(room).expect("a room"));
    assert_eq!(rights("any"), Rights::ALL);
    assert!(rights("@alice").has(Right::Subscribe));
    assert_eq!(rights("@bob"), Rights::NONE.with(Right::Publish));

    // A token says nothing here, not even a good one.
    let token = forge::by_secret(&json!({"sub": "bob", "exp": now() + 60}));
    for credentials in [
        Credentials::token(&token),
        Credentials::token("junk"),
        query(""),
    ] {
        let nobody = identify(Settings::default(), &credentials).await;
        let nobody = nobody.expect("let in");
        assert!(nobody.user().is_none());
        assert_eq!(role(&nobody, "any"), Some(Role::Host));
    }

    let settings = Settings {
        default_role: "lobby=viewer".parse().expect("grants"),
        ..Settings::default()
    };
    let alice = identify(settings, &query("user=alice")).await;
    let alice = alice.expect("let in");
    assert_eq!(role(&alice, "lobby"), Some(Role::Viewer));
    assert_eq!(role(&alice, "any"), None);

    let bad = identify(Settings::default(), &query("user=a%0Ab")).await;
    assert!(matches!(bad, Err(AuthError::Invalid(_))), "{bad:?}");
}

#[tokio::test]
async fn without_a_token() {
    let missing = identify(by_secret(), &query("user=alice")).await;
    assert_eq!(missing.err(), Some(AuthError::Missing));
    let settings = || Settings {
        anonymous_role: "lobby-*=viewer".parse().expect("grants"),
        default_role: "*=member".parse().expect("grants"),
        ..by_secret()
    };
    let nobody = identify(settings(), &query("user=alice")).await;
    let nobody = nobody.expect("let in");
    assert!(nobody.user().is_none() && !nobody.is_server());
    assert_eq!(role(&nobody, "lobby-1"), Some(Role::Viewer));
    assert_eq!(role(&nobody, "live"), None);
    // A bad token is not the same as none.
    let bad = identify(settings(), &Credentials::token("junk")).await;
    assert!(matches!(bad, Err(AuthError::Invalid(_))), "{bad:?}");
}

#[tokio::test]
async fn whom_a_cookie_names() {
    let settings = || Settings {
        mode: Mode::Cookie,
        api_keys: vec![("billing".to_owned(), "0123456789abcdef".into())],
        ..Settings::default()
    };
    let cookie = |value: &str| {
        let mut headers = axum::http::HeaderMap::new();
        let header = format!("token={value}");
        headers.insert("cookie", header.parse().expect("a header"));
        Credentials::of(&headers, "user=mallory", "token")
    };
    let alice = identify(settings(), &cookie("alice")).await.expect("in");
    assert_eq!(alice.user().map(UserName::as_str), Some("alice"));
    assert_eq!(role(&alice, "any"), Some(Role::Host));
    assert!(!alice.is_server());

    let missing = identify(settings(), &query("user=alice")).await;
    assert_eq!(missing.err(), Some(AuthError::Missing));
    // The key of a back end is no user's name, nor the other way round.
    let key = identify(settings(), &cookie("0123456789abcdef")).await;
    assert!(!key.expect("in").is_server());
    for server in [
        with_key("0123456789abcdef"),
        Credentials::token("0123456789abcdef"),
    ] {
        let server = identify(settings(), &server).await;
        assert!(server.expect("in").is_server());
    }
    let long = "a".repeat(129);
    for bad in [
        cookie(&long),
        query("token=alice"),
        Credentials::token("alice"),
        with_key("alice"),
    ] {
        let bad = identify(settings(), &bad).await;
        assert!(matches!(bad, Err(AuthError::Invalid(_))), "{bad:?}");
    }

    let roles = || Settings {
        default_role: "lobby=viewer".parse().expect("grants"),
        anonymous_role: "*=viewer".parse().expect("grants"),
        ..settings()
    };
    let alice = identify(roles(), &cookie("alice")).await.expect("in");
    assert_eq!(role(&alice, "any"), None);
    let nobody = identify(roles(), &query("")).await.expect("in");
    assert!(nobody.user().is_none());
    assert_eq!(role(&nobody, "any"), Some(Role::Viewer));
}

#[tokio::test]
async fn back_ends_have_keys() {
    let settings = |mode: Settings| Settings {
        api_keys: vec![
            ("billing".to_owned(), "0123456789abcdef".into()),
            ("mail".to_owned(), "fedcba9876543210".into()),
        ],
        ..mode
    };
    for mode in [by_secret, Settings::default] {
        let bearer = Credentials::token("0123456789abcdef");
        for (credentials, name) in [
            (with_key("0123456789abcdef"), "billing"),
            (with_key("fedcba9876543210"), "mail"),
            (bearer, "billing"),
        ] {
            let server = identify(settings(mode()), &credentials).await;
            let server = server.expect("let in");
            assert!(server.is_server() && server.user().is_none());
            assert_eq!(server.key_name(), Some(name));
            let inbox = RoomName::parse("@alice").expect("a room");
            assert_eq!(server.rights(&inbox), Rights::ALL);
        }
        for bad in ["0123456789abcdeF", "0123456789abcde", "billing", "0"] {
            let refused = identify(settings(mode()), &with_key(bad)).await;
            assert!(matches!(refused, Err(AuthError::Invalid(_))), "{bad}");
        }
    }
    // Addresses end up in logs and in histories: a key is not taken from one.
    let refused = identify(settings(by_secret()), &query("token=0123456789abcdef")).await;
    assert!(matches!(refused, Err(AuthError::Invalid(_))), "{refused:?}");
}

#[test]
fn settings_that_can_not_be() {
    let check = |settings: Settings, want: &str| {
        let error = Auth::new(settings).err().expect("refused").to_string();
        assert!(error.contains(want), "{error}");
        assert!(!error.contains("hush"), "{error}");
    };
    let key = |name: &str, key: &str| (name.to_owned(), Secret::from(key));
    let keys = |api_keys| Settings {
        api_keys,
        ..Settings::default()
    };
    let pem = |pem: &[u8]| jwt(KeySource::PublicKey(pem.to_vec()));
    check(jwt(KeySource::Secret("hush".into())), "only 4 bytes");
    let mut none = by_secret();
    none.key = None;
    check(none, "nothing to check tokens with");
    check(pem(forge::RSA.private), "private key");
    check(pem(b"hush"), "no key that can be used");
    check(pem(b"-----BEGIN CERTIFICATE-----"), "certificate");
    check(
        pem(include_bytes!("tests/keys/p521.pub.pem")),
        "no key that",
    );
    check(pem(include_bytes!("tests/keys/short-rsa.pub.pem")), "2048");
    check(jwt(KeySource::JwksUrl("ftp://h/k".to_owned())), "https://");
    check(jwt(KeySource::JwksFile("/nowhere/k".into())), "/nowhere/k");
    check(keys(vec![key("a", "hush")]), "API key a is shorter");
    let (one, other) = ("0123456789abcdef", "fedcba9876543210");
    check(keys(vec![key("a", one), key("a", other)]), "two API keys");
    check(keys(vec![key("a", one), key("b", one)]), "two names");
    let leeway = Duration::from_secs(31);
    check(
        Settings {
            leeway,
            ..by_secret()
        },
        "leeway",
    );
}

#[test]
fn secrets_are_not_printed() {
    let mut settings = by_secret();
    settings.api_keys = vec![("a".to_owned(), SECRET.into())];
    assert!(!format!("{settings:?}").contains(SECRET));
}
