//! Removes expired rows.

use std::sync::Arc;
use std::time::Duration;

use super::Accounts;
use super::limits::WINDOW;

/// How often that is done.
const INTERVAL: Duration = Duration::from_secs(300);

impl Accounts {
    /// Removes expired rows, again and again, until the task is aborted.
    pub async fn remove_expired(self: Arc<Self>) {
        loop {
            if let Err(error) = self.store.remove_expired(WINDOW).await {
                tracing::debug!(%error, "accounts: what has expired is removed later");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
