//! Listings for S3, which wait for files that are being closed on the mount.

use rusqlite::Connection;

use crate::accounts::Accounts;
use crate::api::List;
use crate::error::Result;
use crate::store::Store;

/// Reads a page from the index.
type Page<T> = fn(&Connection, &Accounts, &List) -> Result<T>;

impl Store {
    /// One page of a listing.
    pub(super) async fn page<T: Send + 'static>(&self, list: List, page: Page<T>) -> Result<T> {
        self.shared.closing.wait(list.bucket, None).await;
        self.read(move |shared, connection| page(connection, &shared.accounts, &list))
            .await
    }
}
