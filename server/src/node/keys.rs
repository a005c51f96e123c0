//! Who may use a node whose origin can't verify what clients sign for the node.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use forebay_store::entry::{AccessKey, Account, Secret};
use forebay_store::name::AccountId;
use forebay_store::time::Timestamp;

/// Access keys of a node's clients. All of them may do what the node itself may do at its origin.
#[derive(Clone)]
pub struct NodeKeys {
    keys: Arc<HashMap<String, AccessKey>>,
    account: Arc<Account>,
}

impl fmt::Debug for NodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeKeys").field(&self.keys.len()).finish()
    }
}

impl NodeKeys {
    /// Keys as pairs of id and secret; of two with the same id, the last counts.
    pub fn new(keys: impl IntoIterator<Item = (String, String)>) -> Self {
        let account = Arc::new(Account {
            id: AccountId::new("node"),
            name: "node".to_owned(),
            created_at: Timestamp(0),
        });
        let key = |(id, secret): (String, String)| {
            let key = AccessKey {
                id: id.clone(),
                secret: Secret(secret),
                account: account.id.clone(),
                created_at: Timestamp(0),
            };
            (id, key)
        };
        let keys = Arc::new(keys.into_iter().map(key).collect());
        Self { keys, account }
    }

    /// A key by its id.
    pub(super) fn find(&self, id: &str) -> Option<(AccessKey, Arc<Account>)> {
        let key = self.keys.get(id)?;
        Some((key.clone(), Arc::clone(&self.account)))
    }
}
