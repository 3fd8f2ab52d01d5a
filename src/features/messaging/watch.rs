//! The online status of users: read once, or watched.

use super::{ConnectionState, Messaging};
use crate::delivery::OnWatched;
use crate::domain::{Code, OnlineStatus, Refusal, UserId};

impl Messaging {
    /// Watches a user. First `on_watched` is called, then the current status is delivered, then
    /// every change.
    ///
    /// # Errors
    /// `unauthorized`, `too_many_subscriptions`, `unavailable`, `internal`; `on_watched` is not
    /// called then.
    pub async fn watch(
        &self,
        connection: &mut ConnectionState,
        target: UserId,
        on_watched: OnWatched,
    ) -> Result<(), Refusal> {
        self.ready()?;
        let outlet = connection.authenticated()?.outlet.clone();
        let limit = self.limits.status_subscriptions;
        if !connection.watched.contains(&target) && connection.watched.len() >= limit {
            let text = format!("a connection may watch at most {limit} users");
            return Err(Refusal::new(Code::TooManySubscriptions, text));
        }
        let is_new = connection.watched.insert(target.clone());
        let watched = self
            .delivery
            .watch(target.clone(), outlet, on_watched)
            .await;
        // A user that was watched before the call still is.
        if is_new && watched.is_err() {
            connection.watched.remove(&target);
        }
        Ok(watched?)
    }

    /// Stops watching a user. Succeeds also when the connection doesn't watch the user.
    ///
    /// # Errors
    /// `unauthorized`.
    pub async fn unwatch(
        &self,
        connection: &mut ConnectionState,
        target: &UserId,
    ) -> Result<(), Refusal> {
        connection.authenticated()?;
        if connection.watched.remove(target) {
            self.delivery.unwatch(target, &connection.conn).await;
        }
        Ok(())
    }

    /// The user's current online status.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn status(&self, user: &UserId) -> Result<OnlineStatus, Refusal> {
        self.ready()?;
        Ok(self.backplane.presence.status(user).await?)
    }
}
