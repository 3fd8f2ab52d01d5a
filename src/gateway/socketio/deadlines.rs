//! What must happen to a connection at a certain time, for all connections in one task.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use engineioxide::SessionHandle;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection::Connection;
use super::{Handshake, packet};

/// How long a last packet may take to be written.
const FLUSH: Duration = Duration::from_secs(2);
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
    /// The transport is closed, unless a later CONNECT on it was welcome. After a DISCONNECT: without it, JavaScript clients
    /// before 4 take the close for a broken transport, come back, and are refused again, without end.
    Refused(SessionHandle, Weak<Handshake>),
    /// The client has left the namespace. The transport is closed, unless it came back: or anyone could keep one without ever
    /// saying who it is.
    Deserted(SessionHandle, Weak<Handshake>),
}

/// Whether a transport is there and nobody on it. It is not held on to: its places in the counts are free when it is gone.
fn is_deserted(handshake: &Weak<Handshake>) -> bool {
    handshake.upgrade().is_some_and(|handshake| handshake.living.load(Ordering::Acquire) == 0)
}

/// By which a deadline is taken back.
pub(super) type Key = (Instant, u64);

type Due = Arc<Mutex<BTreeMap<Key, Deadline>>>;

pub(super) struct Deadlines {
    due: Due,
    /// Sets apart the deadlines of one instant.
    next: AtomicU64,
    task: tokio::task::JoinHandle<()>,
}

impl Deadlines {
    pub fn start() -> Self {
        let due = Due::default();
        let task = tokio::spawn(watch(due.clone()));
        Self { due, next: AtomicU64::new(0), task }
    }

    /// Returns the key to take it back by; none for a time beyond the clock's end, which never comes.
    pub fn add(&self, after: Duration, deadline: Deadline) -> Option<Key> {
        let key = (Instant::now().checked_add(after)?, self.next.fetch_add(1, Ordering::Relaxed));
        self.due.lock().insert(key, deadline);
        Some(key)
    }

    /// Takes a deadline back, which lets go of what it holds.
    pub fn remove(&self, key: Key) {
        self.due.lock().remove(&key);
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
                Deadline::Refused(handle, handshake) => {
                    if is_deserted(&handshake) {
                        handle.send(&packet::disconnect());
                        handle.close_after_flush(FLUSH);
                    }
                }
                Deadline::Deserted(handle, handshake) => {
                    if is_deserted(&handshake) {
                        handle.close();
                    }
                }
            }
        }
    }
}
