//! Makes tokens of all kinds, bad ones too.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::auth::{crypto, key};

/// The secret of these tests.
pub(super) const SECRET: &str = "a secret that has 32 bytes, just";

/// A key pair in PEM form.
pub(super) struct Pair {
    pub(super) private: &'static [u8],
    pub(super) public: &'static [u8],
}

macro_rules! pair {
    ($name:literal) => {
        Pair {
            private: include_bytes!(concat!("keys/", $name, ".pem")),
            public: include_bytes!(concat!("keys/", $name, ".pub.pem")),
        }
    };
}

pub(super) const RSA: Pair = pair!("rsa");
pub(super) const OTHER_RSA: Pair = pair!("other-rsa");
pub(super) const P256: Pair = pair!("p256");
pub(super) const P384: Pair = pair!("p384");
pub(super) const ED25519: Pair = pair!("ed25519");

impl Pair {
    pub(super) fn key(&self) -> EncodingKey {
        crypto::install();
        key::private_key(self.private).expect("a private key").0
    }
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

pub(super) fn encode(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token of these very texts, signed by this key.
pub(super) fn raw(header: &str, payload: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    crypto::install();
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm);
    format!("{message}.{}", signature.expect("signed"))
}

/// A token with this payload, signed by this key.
pub(super) fn signed(payload: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let header = json!({"alg": algorithm, "typ": "JWT"});
    raw(&header.to_string(), &payload.to_string(), key, algorithm)
}

/// A token with this payload by the secret of these tests.
pub(super) fn by_secret(payload: &Value) -> String {
    signed(payload, &secret(), Algorithm::HS256)
}

pub(super) fn secret() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}
