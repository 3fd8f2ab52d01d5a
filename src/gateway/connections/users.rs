//! Which connections of this node belong to a user, so that all of them can be ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::connection::Connection;
use crate::domain::UserId;

/// Connections by user and number: one entry each, a user's beside each other.
#[derive(Default)]
pub(super) struct Users(Mutex<BTreeMap<(UserId, u64), Weak<Connection>>>);

impl Users {
    pub fn insert(&self, user: &UserId, number: u64, connection: &Arc<Connection>) {
        self.0
            .lock()
            .insert((user.clone(), number), Arc::downgrade(connection));
    }

    pub fn remove(&self, user: &UserId, number: u64) {
        self.0.lock().remove(&(user.clone(), number));
    }

    pub fn of(&self, user: &UserId) -> Vec<Arc<Connection>> {
        let connections = self.0.lock();
        let theirs = connections.range((user.clone(), 0)..=(user.clone(), u64::MAX));
        theirs
            .filter_map(|(_, connection)| connection.upgrade())
            .collect()
    }
}
