//! Accounts in memory: they are gone with the process, as everything here is.

use std::collections::HashMap;

use super::MemoryLog;
use crate::accounts::{Account, Answer, Vault};
use crate::auth::UserName;

/// What is kept.
#[derive(Default)]
pub(super) struct State {
    accounts: HashMap<UserName, Account>,
}

impl Vault for MemoryLog {
    fn create(&self, user: &UserName, account: Account) -> Answer<bool> {
        let user = user.clone();
        self.answer(move |streams, _, _| {
            let accounts = &mut streams.accounts.accounts;
            let kept = accounts.entry(user).or_insert_with(|| account.clone());
            Ok(kept.hash == account.hash)
        })
    }

    fn find(&self, user: &UserName) -> Answer<Option<Account>> {
        let user = user.clone();
        self.answer(move |streams, _, _| Ok(streams.accounts.accounts.get(&user).cloned()))
    }
}
