//! Who somebody is, and what they may do where.
//!
//! [`Credentials`] are what a request brought; [`Auth::identify`] makes an [`Identity`] of them, or
//! says why not; an identity knows its [`Rights`] in each room. Tokens are JWTs that somebody else
//! makes, such as the login service of an application; `tailcast token` makes them, too. What can be
//! trusted is decided by settings alone: no algorithm, key or address is ever taken from a token.

mod claims;
pub mod credentials;
mod crypto;
pub mod grants;
pub mod identity;
mod jwks;
pub mod key;
pub mod mint;
pub mod pattern;
pub mod rights;
pub mod secret;
mod token;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::time::Instant;

use self::claims::{Expected, Subject};
use self::credentials::Place;
use self::identity::Rules;
use self::jwks::{Jwks, Pace, Source};
use self::key::{Key, KeyError};

pub use self::credentials::Credentials;
pub use self::grants::Grants;
pub use self::identity::{Identity, UserName};
pub use self::pattern::RoomPattern;
pub use self::rights::{Right, Rights, Role, Roles};
pub use self::secret::Secret;

/// Shortest API key, in bytes.
pub const API_KEY_MIN: usize = 16;

/// Most that clocks may be apart.
pub const LEEWAY_MAX: Duration = Duration::from_secs(30);

/// No connection outlives this, and sums with the clock stay small.
const EXPIRES_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Whom to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Anybody, whoever they say they are.
    #[default]
    None,
    /// Who has a token.
    Jwt,
    /// Whoever a cookie names, unchecked: behind a proxy that sets it, or for a demonstration.
    Cookie,
}

/// What tokens are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A shared secret, for HS256, HS384 and HS512.
    Secret(Secret),
    /// A public key in PEM form.
    PublicKey(Vec<u8>),
    /// Public keys in a file.
    JwksFile(PathBuf),
    /// Public keys at an address.
    JwksUrl(String),
}

/// Settings of this part.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom to believe.
    pub mode: Mode,
    /// What tokens are checked with; needed with [`Mode::Jwt`].
    pub key: Option<KeySource>,
    /// Whom tokens must be for.
    pub audience: Option<String>,
    /// Who must have made them.
    pub issuer: Option<String>,
    /// How far the clock of who makes them may be off; at most [`LEEWAY_MAX`].
    pub leeway: Duration,
    /// The cookie with a token.
    pub token_cookie: String,
    /// Keys of back ends, by name.
    pub api_keys: Vec<(String, Secret)>,
    /// What roles may.
    pub roles: Roles,
    /// Roles where a token names none.
    pub default_role: Grants,
    /// Roles of those who come without a token; with none at all, nobody may.
    pub anonymous_role: Grants,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::None,
            key: None,
            audience: None,
            issuer: None,
            leeway: Duration::from_secs(10),
            token_cookie: "token".to_owned(),
            api_keys: Vec::new(),
            roles: Roles::default(),
            default_role: Grants::default(),
            anonymous_role: Grants::default(),
        }
    }
}

/// Why somebody is not let in. The text may be shown to them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token and no key, and nobody may come in without.
    #[error(
        "no credential came: bring a token as Authorization: Bearer, ?token= or a token cookie"
    )]
    Missing,
    /// Not to be trusted, and why.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// Was good once.
    #[error("the token has expired")]
    Expired,
    /// Nobody can say now.
    #[error("tokens can't be checked now: {0}; try again soon")]
    Unavailable(String),
}

impl AuthError {
    /// A token that is not to be trusted.
    fn token(why: impl fmt::Display) -> Self {
        AuthError::Invalid(format!("the token is refused: {why}").into())
    }
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthSetupError {
    /// Nothing to check tokens with.
    #[error("there is nothing to check tokens with: give a secret, a public key or a JWKS")]
    NoKey,
    /// The key does not do.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The file with keys does not do.
    #[error("can't use the JWKS in {path}: {why}")]
    JwksFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The address of keys does not do.
    #[error("the address of a JWKS starts with https://, or http:// for one nearby")]
    JwksUrl,
    /// Could be guessed.
    #[error("the API key {0} is shorter than {API_KEY_MIN} bytes; use a longer one")]
    ShortApiKey(String),
    /// Which of the two was meant?
    #[error("there are two API keys with the name {0}, or two names for one key; leave one out")]
    TwoApiKeys(String),
    /// Tokens would hold too long.
    #[error("the leeway is more than 30 seconds; use less")]
    Leeway,
}

/// An API key's name, and the digest of the key.
struct ApiKey(Arc<str>, [u8; 32]);

/// What tokens are checked with, read.
enum Keys {
    None,
    One(Key),
    Set(Arc<Jwks>),
}

/// Tells who somebody is.
pub struct Auth {
    settings: Settings,
    keys: Keys,
    api_keys: Vec<ApiKey>,
    /// For users.
    rules: Arc<Rules>,
    /// For those without a name.
    anonymous: Arc<Rules>,
}

impl Auth {
    /// Reads keys and files; only a JWKS at an address is left for later.
    pub fn new(settings: Settings) -> Result<Arc<Auth>, AuthSetupError> {
        Auth::with_pace(settings, Pace::default())
    }

    fn with_pace(settings: Settings, pace: Pace) -> Result<Arc<Auth>, AuthSetupError> {
        crypto::install();
        if settings.leeway > LEEWAY_MAX {
            return Err(AuthSetupError::Leeway);
        }
        let keys = match settings.mode {
            Mode::None | Mode::Cookie => Keys::None,
            Mode::Jwt => read_keys(settings.key.as_ref(), pace)?,
        };
        let rules = |grants: &Grants| {
            Arc::new(Rules {
                roles: settings.roles,
                otherwise: grants.clone(),
            })
        };
        let (users, anonymous) = match settings.mode {
            Mode::Jwt => (&settings.default_role, &settings.anonymous_role),
            Mode::Cookie if settings.default_role.is_empty() => {
                (&host_everywhere(), &settings.anonymous_role)
            }
            Mode::Cookie => (&settings.default_role, &settings.anonymous_role),
            Mode::None if settings.default_role.is_empty() => {
                (&host_everywhere(), &host_everywhere())
            }
            Mode::None => (&settings.default_role, &settings.default_role),
        };
        let (rules, anonymous) = (rules(users), rules(anonymous));
        Ok(Arc::new(Auth {
            api_keys: read_api_keys(&settings.api_keys)?,
            keys,
            rules,
            anonymous,
            settings,
        }))
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Fetches a JWKS ahead of the first token, if there is one at an address.
    pub async fn warm_up(&self) {
        if let Keys::Set(jwks) = &self.keys {
            jwks.reread().await;
        }
    }

    /// Tells who sent these credentials.
    pub async fn identify(&self, credentials: &Credentials) -> Result<Identity, AuthError> {
        let mode = self.settings.mode;
        let (place, text) = match credentials.secret() {
            Some(secret) => secret,
            None if mode == Mode::None => return self.believe(credentials),
            None if self.settings.anonymous_role.is_empty() => return Err(AuthError::Missing),
            None => return Ok(Identity::anonymous(&self.anonymous)),
        };
        let is_key = matches!(place, Place::ApiKey | Place::Bearer);
        if let Some(server) = self.api_key(text).filter(|_| is_key) {
            return Ok(server);
        }
        match (place, mode) {
            (Place::ApiKey, _) => Err(AuthError::Invalid("the API key is unknown".into())),
            (_, Mode::Jwt) => self.token(text).await,
            (Place::Cookie, Mode::Cookie) => self.named(text, "the cookie"),
            (_, Mode::Cookie) => Err(AuthError::Invalid(
                "users are known by their cookie alone here, and back ends by an API key".into(),
            )),
            (_, Mode::None) => self.believe(credentials),
        }
    }

    /// Takes somebody's word for who they are.
    fn believe(&self, credentials: &Credentials) -> Result<Identity, AuthError> {
        let Some(user) = credentials.user() else {
            return Ok(Identity::anonymous(&self.anonymous));
        };
        self.named(user, "?user=")
    }

    /// The user of that name, which came without any proof.
    fn named(&self, name: &str, from: &str) -> Result<Identity, AuthError> {
        let user = UserName::parse(name)
            .map_err(|error| AuthError::Invalid(format!("{from} is refused: {error}").into()))?;
        let none = Grants::default();
        Ok(Identity::of_user(user, None, none, None, &self.rules))
    }

    /// The back end with this key. Compares digests, and all of them, so that time tells nothing.
    fn api_key(&self, key: &str) -> Option<Identity> {
        if self.api_keys.is_empty() {
            return None;
        }
        let sent = digest(&SHA256, key.as_bytes());
        let mut found = u32::MAX;
        for (index, ApiKey(_, own)) in (0..u32::MAX).zip(&self.api_keys) {
            found.conditional_assign(&index, own.ct_eq(sent.as_ref()));
        }
        let ApiKey(name, _) = self.api_keys.get(usize::try_from(found).ok()?)?;
        Some(Identity::of_server(Some(name.clone()), None, &self.rules))
    }

    async fn token(&self, text: &str) -> Result<Identity, AuthError> {
        let header = token::header(text)?;
        let claims = match &self.keys {
            Keys::None => return Err(AuthError::Missing),
            Keys::One(key) => token::verify(text, &header, key)?,
            Keys::Set(jwks) => token::verify(text, &header, &jwks.key(&header).await?)?,
        };
        let expected = Expected {
            audience: self.settings.audience.as_deref(),
            issuer: self.settings.issuer.as_deref(),
            leeway: self.settings.leeway,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let claims = claims.check(&expected, now.unwrap_or_default())?;
        // From here on the clock may be set as anybody likes.
        let expires = Some(Instant::now() + claims.remaining.min(EXPIRES_MAX));
        Ok(match claims.subject {
            Subject::User(user) => {
                Identity::of_user(user, claims.name, claims.rooms, expires, &self.rules)
            }
            Subject::Server(name) => {
                let name = name.map(|name| name.as_str().into());
                Identity::of_server(name, expires, &self.rules)
            }
        })
    }
}

/// With nobody checked, everybody may do everything; only inboxes are their owners'.
fn host_everywhere() -> Grants {
    let patterns = ["*", "@*"].into_iter().filter_map(|text| text.parse().ok());
    let grants = patterns.map(|pattern| (pattern, Role::Host)).collect();
    Grants::new(grants).unwrap_or_default()
}

fn read_keys(source: Option<&KeySource>, pace: Pace) -> Result<Keys, AuthSetupError> {
    Ok(match source {
        None => return Err(AuthSetupError::NoKey),
        Some(KeySource::Secret(secret)) => Keys::One(Key::from_secret(secret.expose())?),
        Some(KeySource::PublicKey(pem)) => Keys::One(Key::from_pem(pem)?),
        Some(KeySource::JwksFile(path)) => {
            let source = Source::File(path.clone());
            let keys = source.read().map_err(|error| AuthSetupError::JwksFile {
                path: path.clone(),
                why: error.to_string(),
            })?;
            Keys::Set(Jwks::new(source, Some(keys), pace))
        }
        Some(KeySource::JwksUrl(url)) => {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(AuthSetupError::JwksUrl);
            }
            Keys::Set(Jwks::new(Source::Url(url.clone()), None, pace))
        }
    })
}

fn read_api_keys(given: &[(String, Secret)]) -> Result<Vec<ApiKey>, AuthSetupError> {
    let mut keys: Vec<ApiKey> = Vec::with_capacity(given.len());
    for (name, key) in given {
        if key.expose().len() < API_KEY_MIN {
            return Err(AuthSetupError::ShortApiKey(name.clone()));
        }
        let mut own = [0; 32];
        own.copy_from_slice(digest(&SHA256, key.expose()).as_ref());
        if keys
            .iter()
            .any(|ApiKey(other, key)| **other == **name || *key == own)
        {
            return Err(AuthSetupError::TwoApiKeys(name.clone()));
        }
        keys.push(ApiKey(name.as_str().into(), own));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
