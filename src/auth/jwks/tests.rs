//! Keys that come and go, from a server of our own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::*;

const P256: &[u8] = include_bytes!("../tests/keys/p256.pub.pem");
const P384: &[u8] = include_bytes!("../tests/keys/p384.pub.pem");
const ED25519: &[u8] = include_bytes!("../tests/keys/ed25519.pub.pem");

/// A JWK of a public key on a curve.
fn jwk(pem: &[u8], kid: Option<&str>) -> Value {
    use base64::Engine;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let key = Key::from_pem(pem).expect("a key");
    let bytes = key.decoding.try_get_as_bytes().expect("a point");
    let mut jwk = match bytes.len() {
        32 => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(bytes)}),
        length => {
            let (x, y) = bytes[1..].split_at(length / 2);
            let curve = if length == 65 { "P-256" } else { "P-384" };
            json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
        }
    };
    if let Some(kid) = kid {
        jwk["kid"] = kid.into();
    }
    jwk
}

fn header(kid: Option<&str>, algorithm: Algorithm) -> Header {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(ToOwned::to_owned);
    header
}

/// Serves a JWKS, and counts how often it's asked for.
struct Server {
    url: String,
    body: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

impl Server {
    fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Server {
            url: format!("http://{}/keys", listener.local_addr().expect("an address")),
            body: Arc::default(),
            asked: Arc::default(),
            broken: Arc::default(),
        };
        server.set(keys);
        let (body, asked, broken) = (
            Arc::clone(&server.body),
            Arc::clone(&server.asked),
            Arc::clone(&server.broken),
        );
        // Ends with the test's process.
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { continue };
                let mut lines = BufReader::new(socket.try_clone().expect("cloned")).lines();
                while lines
                    .next()
                    .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                {}
                asked.fetch_add(1, Ordering::SeqCst);
                let body = body.lock().expect("not poisoned").clone();
                let status = match broken.load(Ordering::SeqCst) {
                    true => "500 Broken",
                    false => "200 OK",
                };
                let length = body.len();
                let _ = write!(
                    socket,
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            }
        });
        server
    }

    fn set(&self, keys: &[Value]) {
        let body = json!({"keys": keys}).to_string();
        *self.body.lock().expect("not poisoned") = body;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn jwks(&self) -> Arc<Jwks> {
        Jwks::new(Source::Url(self.url.clone()), None, Pace::default())
    }
}

async fn is_known(jwks: &Arc<Jwks>, kid: &str, algorithm: Algorithm) -> bool {
    match jwks.key(&header(Some(kid), algorithm)).await {
        Ok(key) => key.algorithms == [algorithm],
        Err(_) => false,
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_rotated() {
    use Algorithm::{ES256, ES384};
    let server = Server::start(&[jwk(P256, Some("one"))]);
    let jwks = server.jwks();
    assert!(is_known(&jwks, "one", ES256).await);
    assert_eq!(server.asked(), 1);

    // The new key is there after the pause that any unknown one has to keep.
    server.set(&[jwk(P256, Some("one")), jwk(P384, Some("two"))]);
    assert!(!is_known(&jwks, "two", ES384).await);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(is_known(&jwks, "two", ES384).await);
    assert!(is_known(&jwks, "one", ES256).await);
    assert_eq!(server.asked(), 2);

    // Unknown keys without end cost one look each 30 seconds.
    for round in 0..3 {
        for index in 0..100 {
            assert!(!is_known(&jwks, &format!("{round}-{index}"), ES256).await);
        }
        assert_eq!(server.asked(), 2 + round);
        tokio::time::advance(Duration::from_secs(30)).await;
    }

    // The old key goes once the list was read without it.
    server.set(&[jwk(P384, Some("two"))]);
    assert!(!is_known(&jwks, "three", ES256).await);
    assert!(!is_known(&jwks, "one", ES256).await);
}

#[tokio::test(start_paused = true)]
async fn many_at_once_ask_once() {
    let server = Server::start(&[jwk(P256, Some("one"))]);
    let jwks = server.jwks();
    let one = header(Some("one"), Algorithm::ES256);
    let all = (0..50).map(|_| jwks.key(&one));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn old_keys_stay_while_the_server_is_away() {
    let server = Server::start(&[jwk(P256, Some("one"))]);
    server.broken.store(true, Ordering::SeqCst);
    let jwks = server.jwks();
    let one = header(Some("one"), Algorithm::ES256);
    let refused = jwks.key(&one).await;
    assert!(
        matches!(refused, Err(AuthError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(jwks.key(&one).await.is_err());
    assert_eq!(server.asked(), 1, "not again at once");

    server.broken.store(false, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(jwks.key(&one).await.is_ok());

    server.broken.store(true, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(601)).await;
    assert!(!is_known(&jwks, "two", Algorithm::ES256).await);
    assert_eq!(server.asked(), 3);
    assert!(jwks.key(&one).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn stale_keys_are_read_again_in_the_background() {
    let server = Server::start(&[jwk(P256, Some("one"))]);
    let jwks = server.jwks();
    assert!(is_known(&jwks, "one", Algorithm::ES256).await);
    server.set(&[jwk(P384, Some("two"))]);
    tokio::time::advance(Duration::from_secs(600)).await;
    assert!(
        is_known(&jwks, "one", Algorithm::ES256).await,
        "it waits for nobody"
    );
    while is_known(&jwks, "one", Algorithm::ES256).await {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.asked(), 2);
}

#[test]
fn what_is_no_jwks() {
    let server = Server::start(&[jwk(P256, Some("one"))]);
    let source = Source::Url(server.url.clone());
    assert!(source.read().is_ok());
    let mut large = server.body.lock().expect("not poisoned").clone();
    large.push_str(&" ".repeat(1024 * 1024));
    for body in ["", "<html>", &large] {
        body.clone_into(&mut server.body.lock().expect("not poisoned"));
        assert!(source.read().is_err());
    }
    server.set(&[jwk(P256, Some("one"))]);
    server.broken.store(true, Ordering::SeqCst);
    assert!(source.read().is_err(), "a status that is no success");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let source = Source::File(path.clone());
    assert!(source.read().is_err());
    fs::write(&path, server.body.lock().expect("not poisoned").as_str()).expect("written");
    assert!(source.read().is_ok());
    fs::write(&path, large).expect("written");
    assert!(matches!(source.read(), Err(ReadError::TooLarge)));
}

#[test]
fn which_key() {
    let set = |keys: &[Value]| {
        let text = json!({"keys": keys}).to_string();
        KeySet::parse(text.as_bytes()).expect("keys")
    };
    let check = |set: &KeySet, kid: Option<&str>, algorithm, want: Option<Algorithm>| {
        let found = set.find(&header(kid, algorithm));
        assert_eq!(found.map(|key| key.algorithms[0]), want, "{kid:?}");
    };
    use Algorithm::{ES256, ES384, EdDSA};
    let only = set(&[jwk(P256, Some("one"))]);
    check(&only, Some("one"), ES256, Some(ES256));
    check(&only, None, ES256, Some(ES256));
    check(&only, Some("../one"), ES256, None);
    let nameless = set(&[jwk(P256, None)]);
    check(&nameless, Some("any"), ES256, Some(ES256));
    let several = set(&[
        jwk(P256, Some("a")),
        jwk(P384, Some("a")),
        jwk(ED25519, None),
    ]);
    check(&several, Some("a"), ES256, Some(ES256));
    check(&several, Some("a"), ES384, Some(ES384));
    check(&several, Some("a"), EdDSA, Some(ES256));
    check(&several, None, EdDSA, None);
    check(&several, Some(""), EdDSA, None);
}

#[test]
fn keys_of_no_use() {
    let check = |key: Value| {
        let text = json!({"keys": [key]}).to_string();
        let parsed = KeySet::parse(text.as_bytes());
        assert!(matches!(parsed, Err(ReadError::Empty)), "{key}: {parsed:?}");
    };
    let with = |name: &str, value: Value| {
        let mut key = jwk(P256, Some("one"));
        key[name] = value;
        key
    };
    check(json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"}));
    check(json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}));
    check(json!({"kty": "new"}));
    check(json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}));
    check(with("use", json!("enc")));
    check(with("alg", json!("HS256")));
    check(with("alg", json!("ES384")));
    check(with("alg", json!("none")));
    check(with("crv", json!("P-384")));
    check(with("x", json!("AAAA")));
    check(json!(7));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
    // One odd key does not spoil the others.
    let keys = json!({"keys": [json!({"kty": "new"}), jwk(P256, Some("one"))]});
    assert!(KeySet::parse(keys.to_string().as_bytes()).is_ok());
}

#[test]
fn rsa_keys() {
    // 2048 bits, with and without the zero in front that DER has.
    let modulus = |zero: bool| {
        use base64::Engine;
        let mut n = vec![0; usize::from(zero)];
        n.extend([0xc3; 256]);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(n)
    };
    for zero in [true, false] {
        let jwk = json!({"kty": "RSA", "n": modulus(zero), "e": "AQAB", "alg": "RS384"});
        let jwk: Jwk = serde_json::from_value(jwk).expect("a JWK");
        let key = Key::from_jwk(&jwk).expect("a key");
        assert_eq!(key.algorithms, [Algorithm::RS384]);
    }
}
