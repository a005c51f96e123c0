//! Accounts and access keys, all of them in memory.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::commit::Effects;
use crate::entry::{AccessKey, Account};
use crate::event::{ChangeKind, NO_BUCKET};
use crate::name::AccountId;

/// The number that no account has.
pub(crate) const NOBODY: i64 = 0;

/// Who owns what an account that was removed has left behind.
pub(crate) fn nobody() -> AccountId {
    AccountId::new(&"0".repeat(64))
}

impl Effects {
    /// Accounts or keys change: after the commit they are read again, and then it is told.
    pub(crate) fn change_accounts(&mut self) {
        self.accounts = true;
        self.changes
            .push((NO_BUCKET, None, ChangeKind::AccountsChanged));
    }
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    accounts: HashMap<i64, Arc<Account>>,
    numbers: HashMap<AccountId, i64>,
    keys: HashMap<String, AccessKey>,
}

/// What the index has of accounts; the committer replaces it after each change.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    inner: RwLock<Inner>,
}

impl Accounts {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the index has now: accounts with their numbers, and keys.
    pub(crate) fn replace(&self, accounts: Vec<(i64, Account)>, keys: Vec<AccessKey>) {
        let mut inner = Inner::default();
        for (number, account) in accounts {
            inner.numbers.insert(account.id.clone(), number);
            inner.accounts.insert(number, Arc::new(account));
        }
        inner.keys = keys.into_iter().map(|key| (key.id.clone(), key)).collect();
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = inner;
    }

    /// An account's number in the index.
    pub(crate) fn number(&self, id: &AccountId) -> Option<i64> {
        self.read().numbers.get(id).copied()
    }

    /// The account of a number; of one that was removed, an id that says so.
    pub(crate) fn id(&self, number: i64) -> AccountId {
        match self.read().accounts.get(&number) {
            Some(account) => account.id.clone(),
            None => nobody(),
        }
    }

    pub(crate) fn account(&self, id: &AccountId) -> Option<Arc<Account>> {
        let inner = self.read();
        inner.accounts.get(inner.numbers.get(id)?).cloned()
    }

    pub(crate) fn access_key(&self, id: &str) -> Option<(AccessKey, Arc<Account>)> {
        let inner = self.read();
        let key = inner.keys.get(id)?;
        let account = inner.accounts.get(inner.numbers.get(&key.account)?)?;
        Some((key.clone(), Arc::clone(account)))
    }

    pub(crate) fn list(&self) -> (Vec<Arc<Account>>, Vec<AccessKey>) {
        let inner = self.read();
        let mut accounts: Vec<_> = inner.accounts.values().cloned().collect();
        accounts.sort_by(|a, b| a.name.cmp(&b.name));
        let mut keys: Vec<_> = inner.keys.values().cloned().collect();
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        (accounts, keys)
    }
}
