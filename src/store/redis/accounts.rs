//! Accounts in Redis: a hash for each, `password`, `name` and `created`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use redis::{Pipeline, Value};

use super::command::{Commands, Repeat};
use super::{RedisLog, reply};
use crate::accounts::{Account, Answer, Vault};
use crate::auth::UserName;
use crate::relay::log::LogError;

/// How long one question may take, reconnecting included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Writes an account unless there is one; answers 1 if it's ours. KEYS: its hash. ARGV: pairs, the
/// password's hash first, which nobody else's equals: so it may be asked again when an answer was lost.
const CREATE: &str = "\
local old = redis.call('HGET', KEYS[1], 'password') \
if old then return old == ARGV[2] and 1 or 0 end \
redis.call('HSET', KEYS[1], unpack(ARGV)) \
return 1";

async fn create(commands: Arc<Commands>, key: String, account: Account) -> Result<bool, LogError> {
    let mut pipe = Pipeline::with_capacity(1);
    pipe.cmd("EVAL").arg(CREATE).arg(1).arg(key);
    pipe.arg("password").arg(account.hash);
    pipe.arg("created").arg(account.created);
    if let Some(name) = account.name {
        pipe.arg("name").arg(name);
    }
    Ok(reply::count(one(&commands, &pipe).await?)? == 1)
}

async fn find(commands: Arc<Commands>, key: String) -> Result<Option<Account>, LogError> {
    let mut pipe = Pipeline::with_capacity(1);
    pipe.cmd("HMGET").arg(key);
    pipe.arg("password").arg("name").arg("created");
    let mut values = reply::list(one(&commands, &pipe).await?)?.into_iter();
    let mut text = || -> Result<Option<String>, LogError> {
        let bytes = reply::bytes_or_nil(values.next().unwrap_or(Value::Nil))?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()))
    };
    let (hash, name, created) = (text()?, text()?, text()?);
    Ok(hash.map(|hash| Account {
        hash,
        name,
        created: created.and_then(|at| at.parse().ok()).unwrap_or(0),
    }))
}

async fn one(commands: &Commands, pipe: &Pipeline) -> Result<Value, LogError> {
    let mut values = commands.all(pipe, TIMEOUT, Repeat::Safe).await?;
    reply::check(values.pop().unwrap_or(Value::Nil))
}

impl Vault for RedisLog {
    fn create(&self, user: &UserName, account: Account) -> Answer<bool> {
        create(
            self.commands.clone(),
            self.keys.account(user.as_str()),
            account,
        )
        .boxed()
    }

    fn find(&self, user: &UserName) -> Answer<Option<Account>> {
        find(self.commands.clone(), self.keys.account(user.as_str())).boxed()
    }
}
