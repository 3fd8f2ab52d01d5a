//! A bounded number of connections to one database, opened when they are needed.
//!
//! This is not sqlx's pool, for reasons that its users have reported: there a transaction whose `begin`
//! was cancelled stays open in a pooled connection, a connection that hangs when it is returned keeps
//! its permit, and an error of connecting is hidden by a timeout. Here a connection is either returned
//! in order or closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::conn::{Conn, Connector};
use super::fault::{Fault, Outcome};

/// A connection that was idle for longer is tested before its next use.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

pub(crate) struct Pool {
    connector: Connector,
    permits: Arc<Semaphore>,
    size: usize,
    /// The connection returned last is used first.
    idle: Mutex<Vec<Idle>>,
    waiting: AtomicUsize,
    acquire_timeout: Duration,
}

struct Idle {
    conn: Conn,
    since: Instant,
}

/// The use of a pool at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Connections that may be open.
    pub size: usize,
    /// Connections in use.
    pub in_use: usize,
    /// Connections that are open and not in use.
    pub idle: usize,
    /// Calls that wait for a connection, or for it to open.
    pub waiting: usize,
}

/// A connection in use. Dropping it closes the connection; [`Lease::release`] returns it.
pub(crate) struct Lease {
    conn: Conn,
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
    is_reused: bool,
}

impl Pool {
    pub(crate) fn new(connector: Connector, size: usize, acquire_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            connector,
            permits: Arc::new(Semaphore::new(size)),
            size,
            idle: Mutex::default(),
            waiting: AtomicUsize::new(0),
            acquire_timeout,
        })
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// A connection that works. Calls are served in order.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Outcome<Lease> {
        let _waiting = Waiting::new(&self.waiting);
        let lease = timeout(self.acquire_timeout, self.wait_for_connection()).await;
        lease.unwrap_or_else(|_| {
            self.forget_idle();
            let seconds = self.acquire_timeout.as_secs_f32();
            Err(Fault::Unavailable(format!(
                "no connection within {seconds} s"
            )))
        })
    }

    async fn wait_for_connection(self: &Arc<Self>) -> Outcome<Lease> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Fault::Unavailable("the store is closed".to_owned()))?;
        let idle = self.tested_idle().await;
        let is_reused = idle.is_some();
        let conn = match idle {
            Some(conn) => conn,
            None => self.connector.connect().await?,
        };
        Ok(Lease {
            conn,
            pool: self.clone(),
            permit,
            is_reused,
        })
    }

    async fn tested_idle(&self) -> Option<Conn> {
        let Idle { mut conn, since } = self.idle.lock().pop()?;
        if since.elapsed() < TRUSTED_IDLE || conn.ping().await.is_ok() {
            return Some(conn);
        }
        // The server was restarted, or has closed connections that were idle.
        self.forget_idle();
        None
    }

    /// Closes the connections that nothing uses.
    pub(crate) fn forget_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let idle = self.idle.lock().len();
        PoolStats {
            size: self.size,
            in_use: self.size.saturating_sub(self.permits.available_permits()),
            idle,
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }

    /// Refuses calls from now on, and closes the connections that nothing uses.
    pub(crate) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        for Idle { conn, .. } in idle {
            let _ = timeout(self.acquire_timeout, conn.close()).await;
        }
    }
}

impl Lease {
    pub(crate) fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Whether the connection was used before. The server may have closed it since.
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Returns the connection, which must be outside of a transaction.
    pub(crate) fn release(self) {
        let Self {
            conn, pool, permit, ..
        } = self;
        if !pool.permits.is_closed() {
            let since = Instant::now();
            pool.idle.lock().push(Idle { conn, since });
        }
        drop(permit);
    }
}

/// Counts a call while it waits.
struct Waiting<'p>(&'p AtomicUsize);

impl<'p> Waiting<'p> {
    fn new(count: &'p AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
