//! What must happen to a connection at a certain time, for all connections in one task.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use engineioxide::SessionHandle;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection::Connection;

/// How late a deadline may be.
const TICK: Duration = Duration::from_millis(100);

/// What happens when the time has come.
pub(super) enum Deadline {
    /// Who hasn't said who it is by then is sent away.
    Authenticate(Weak<Connection>),
    /// The token's `exp` has come, unless it was prolonged.
    Expire(Weak<Connection>),
    /// The transport is closed.
    Close(SessionHandle),
}

type Due = Arc<Mutex<BTreeMap<(Instant, u64), Deadline>>>;

pub(super) struct Deadlines {
    due: Due,
    task: tokio::task::JoinHandle<()>,
}

impl Deadlines {
    pub fn start() -> Self {
        let due = Due::default();
        let task = tokio::spawn(watch(due.clone()));
        Self { due, task }
    }

    pub fn add(&self, after: Duration, deadline: Deadline) {
        // A time beyond the clock's end never comes.
        let Some(at) = Instant::now().checked_add(after) else { return };
        let mut due = self.due.lock();
        let number = due.last_key_value().map_or(0, |((_, number), _)| number + 1);
        // Unique for that instant, whatever order deadlines are added in.
        let number = (number..).find(|number| !due.contains_key(&(at, *number))).unwrap_or(number);
        due.insert((at, number), deadline);
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(due: Due) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let later = (Instant::now() + Duration::from_nanos(1), 0);
        let now = {
            let mut due = due.lock();
            let rest = due.split_off(&later);
            std::mem::replace(&mut *due, rest)
        };
        for deadline in now.into_values() {
            match deadline {
                Deadline::Authenticate(connection) => {
                    if let Some(connection) = connection.upgrade() {
                        connection.end_unless_authenticated();
                    }
                }
                Deadline::Expire(connection) => {
                    if let Some(connection) = connection.upgrade() {
                        connection.end_if_expired();
                    }
                }
                Deadline::Close(handle) => handle.close(),
            }
        }
    }
}
