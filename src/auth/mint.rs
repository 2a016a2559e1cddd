//! Makes tokens, for `tailcast token` and for tests: what a login service does for its users.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use super::claims::{SERVER, may_be_shown};
use super::crypto;
use super::grants::Grants;
use super::identity::{USER_NAME_MAX, UserName};
use super::key::{self, KeyError, SECRET_MIN};
use super::secret::Secret;

/// A key to sign tokens with.
#[derive(Debug, Clone)]
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
}

impl SigningKey {
    /// The secret that the nodes have, too; signs with HS256.
    pub fn from_secret(secret: &Secret) -> Result<Self, KeyError> {
        let secret = secret.expose();
        if secret.len() < SECRET_MIN {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Ok(SigningKey {
            key: EncodingKey::from_secret(secret),
            algorithm: Algorithm::HS256,
        })
    }

    /// A private key in PEM form; signs with RS256, ES256, ES384 or EdDSA, by its kind.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let (key, algorithm) = key::private_key(pem)?;
        Ok(SigningKey { key, algorithm })
    }
}

/// What a new token shall say.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// Whose it is.
    pub user: Option<UserName>,
    /// Their name as others see it.
    pub name: Option<String>,
    /// Their roles.
    pub rooms: Grants,
    /// Whether it's a back end's.
    pub server: bool,
    /// Whom it is for.
    pub audience: Option<String>,
    /// Who made it.
    pub issuer: Option<String>,
    /// Which key of a JWKS signed it.
    pub kid: Option<String>,
}

/// Why a token can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// Nobody's.
    #[error("a token is a user's or a back end's; name one, or the other")]
    Nobody,
    /// Would be refused.
    #[error("a shown name has at most {USER_NAME_MAX} bytes and no control characters")]
    Name,
    /// Ends before it begins, or beyond all times.
    #[error("a token can't hold for so long; choose another time")]
    Time,
    /// The key does not do.
    #[error("the key can't sign: {0}")]
    Sign(String),
}

impl NewToken {
    /// Makes it, to hold from now on for so long.
    pub fn sign(
        &self,
        key: &SigningKey,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<String, MintError> {
        if self.user.is_none() && !self.server {
            return Err(MintError::Nobody);
        }
        if self.name.as_deref().is_some_and(|name| !may_be_shown(name)) {
            return Err(MintError::Name);
        }
        let now = now
            .duration_since(UNIX_EPOCH)
            .map_err(|_| MintError::Time)?;
        let exp = now.checked_add(ttl).filter(|_| !ttl.is_zero());
        let exp = exp.ok_or(MintError::Time)?;

        let mut claims = Map::new();
        let mut texts = |claim: &str, text: Option<&str>| {
            if let Some(text) = text {
                claims.insert(claim.to_owned(), text.into());
            }
        };
        texts("sub", self.user.as_ref().map(UserName::as_str));
        texts("name", self.name.as_deref());
        texts("aud", self.audience.as_deref());
        texts("iss", self.issuer.as_deref());
        if !self.rooms.is_empty() {
            let rooms = self.rooms.iter();
            let rooms: Map<String, Value> = rooms
                .map(|(pattern, role)| (pattern.to_string(), role.as_str().into()))
                .collect();
            claims.insert("rooms".to_owned(), rooms.into());
        }
        if self.server {
            claims.insert(SERVER.to_owned(), true.into());
        }
        claims.insert("iat".to_owned(), now.as_secs().into());
        claims.insert("exp".to_owned(), exp.as_secs().into());

        crypto::install();
        let mut header = Header::new(key.algorithm);
        header.kid.clone_from(&self.kid);
        jsonwebtoken::encode(&header, &claims, &key.key)
            .map_err(|error| MintError::Sign(error.to_string()))
    }
}
