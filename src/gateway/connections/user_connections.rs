//! The connections of each user on this node, so that all connections of a user can be ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::connection::Connection;
use crate::domain::UserId;

/// Connections by user and connection number, ordered so that a user's connections are adjacent.
#[derive(Default)]
pub(super) struct UserConnections(Mutex<BTreeMap<(UserId, u64), Weak<Connection>>>);

impl UserConnections {
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
        connections
            .range((user.clone(), 0)..=(user.clone(), u64::MAX))
            .filter_map(|(_, connection)| connection.upgrade())
            .collect()
    }
}
