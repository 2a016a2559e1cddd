//! Accounts: who registers here with a password gets a token for it, as a login service would give.
//!
//! Off unless asked for. It's made for a first try and for small sites: an application with users of
//! its own makes tokens itself. Accounts are kept by a [`Vault`]; a password is kept as its argon2id
//! hash only, and neither it nor a token is ever logged. What comes of logging in is a token like any
//! other, which every node checks by itself: nothing is looked up afterwards, and so a token holds
//! until it expires, whatever becomes of the account.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;

use crate::auth::identity::USER_NAME_MAX;
use crate::auth::mint::{MintError, NewToken, SigningKey};
use crate::auth::{Grants, Secret, UserName};
use crate::relay::log::LogError;

mod attempts;
mod password;

use self::attempts::Attempts;
use self::password::Hasher;
pub use self::password::{PASSWORD_MAX, PASSWORD_MIN};

/// How long one is logged in.
pub const SESSION: Duration = Duration::from_secs(7 * 24 * 3600);

/// An answer to come.
pub type Answer<T> = BoxFuture<'static, Result<T, LogError>>;

/// Keeps the accounts, for all nodes together.
pub trait Vault: Send + Sync + 'static {
    /// Keeps a new account, unless the name is taken: of any number who try, on whichever nodes, one
    /// gets true. Repeating the very same is no second try.
    fn create(&self, user: &UserName, account: Account) -> Answer<bool>;

    /// The account of that name.
    fn find(&self, user: &UserName) -> Answer<Option<Account>>;
}

/// What is kept of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The hash of their password, as a PHC string.
    pub hash: String,
    /// Their name as others see it.
    pub name: Option<String>,
    /// When they registered, in Unix milliseconds.
    pub created: u64,
}

/// How this part behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What tokens are signed with.
    pub key: SigningKey,
    /// Whom tokens are for.
    pub audience: Option<String>,
    /// Who makes them.
    pub issuer: Option<String>,
    /// Roles written into tokens; with none, the roles of everybody's tokens hold.
    pub rooms: Grants,
    /// Who is host everywhere.
    pub hosts: Vec<UserName>,
    /// Roles written into theirs.
    pub host_rooms: Grants,
}

/// Somebody who has logged in.
#[derive(Clone)]
pub struct Session {
    /// Who.
    pub user: UserName,
    /// Their name as others see it.
    pub name: Option<String>,
    /// Their token, which holds for [`SESSION`].
    pub token: String,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Somebody has it.
    #[error("this name is already taken; choose another")]
    Taken,
    /// It says not which.
    #[error("wrong name or password")]
    Wrong,
    /// Too short or too long.
    #[error("a password has {PASSWORD_MIN} to {PASSWORD_MAX} bytes")]
    Password,
    /// Would look like another one.
    #[error("a user name must not start or end with a space, or start with @")]
    UserName,
    /// Can't be shown.
    #[error("a display name has 1 to {USER_NAME_MAX} bytes and no control characters")]
    Name,
    /// Guessing is slow.
    #[error("too many attempts; try again in {} s", .0.as_secs() + 1)]
    TooOften(Duration),
    /// Too many passwords are being checked.
    #[error("too many logins at the moment; try again soon")]
    Busy,
    /// The accounts can't be read or written.
    #[error("{0}")]
    Log(#[from] LogError),
    /// Our fault.
    #[error("logging in fails on this node: {0}")]
    Internal(String),
}

impl From<MintError> for AccountError {
    fn from(error: MintError) -> Self {
        AccountError::Internal(error.to_string())
    }
}

/// Registers people and logs them in.
pub struct Accounts {
    vault: Arc<dyn Vault>,
    settings: Settings,
    hasher: Hasher,
    attempts: Attempts,
}

impl Accounts {
    /// Accounts in this vault.
    pub fn new(vault: Arc<dyn Vault>, settings: Settings) -> Arc<Self> {
        Arc::new(Accounts {
            vault,
            settings,
            hasher: Hasher::new(),
            attempts: Attempts::default(),
        })
    }

    /// Makes an account, and logs in.
    pub async fn register(
        &self,
        peer: Option<IpAddr>,
        user: UserName,
        password: Secret,
        name: Option<String>,
    ) -> Result<Session, AccountError> {
        if user.as_str().trim() != user.as_str() || user.as_str().starts_with('@') {
            return Err(AccountError::UserName);
        }
        let name = name.filter(|name| !name.is_empty());
        let may_be_shown =
            |name: &String| name.len() <= USER_NAME_MAX && !name.chars().any(char::is_control);
        if !name.as_ref().is_none_or(may_be_shown) {
            return Err(AccountError::Name);
        }
        if !password::is_fit(&password) {
            return Err(AccountError::Password);
        }
        self.attempts.take(None, peer)?;
        let hash = self.hasher.hash(password).await?;
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let created = created.map_or(0, |since| since.as_millis());
        let account = Account {
            hash,
            name: name.clone(),
            created: u64::try_from(created).unwrap_or(u64::MAX),
        };
        match self.vault.create(&user, account).await? {
            true => self.session(user, name),
            false => Err(AccountError::Taken),
        }
    }

    /// Checks a password, and logs in.
    pub async fn login(
        &self,
        peer: Option<IpAddr>,
        user: UserName,
        password: Secret,
    ) -> Result<Session, AccountError> {
        self.attempts.take(Some(&user), peer)?;
        if !password::is_fit(&password) {
            return Err(AccountError::Wrong);
        }
        let account = self.vault.find(&user).await?;
        // As much work for a name that nobody has: time must not tell which those are.
        let hash = account.as_ref().map(|account| account.hash.clone());
        let is_right = self.hasher.verify(password, hash).await?;
        match account.filter(|_| is_right) {
            Some(account) => {
                self.attempts.forget(&user);
                self.session(user, account.name)
            }
            None => Err(AccountError::Wrong),
        }
    }

    fn session(&self, user: UserName, name: Option<String>) -> Result<Session, AccountError> {
        let settings = &self.settings;
        let rooms = match settings.hosts.contains(&user) {
            true => &settings.host_rooms,
            false => &settings.rooms,
        };
        let token = NewToken {
            user: Some(user.clone()),
            name: name.clone(),
            rooms: rooms.clone(),
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
            ..NewToken::default()
        };
        let token = token.sign(&settings.key, SystemTime::now(), SESSION)?;
        Ok(Session { user, name, token })
    }
}
