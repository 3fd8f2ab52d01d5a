//! A whole node: the only part that knows every concrete type.
//!
//! [`build`] puts the parts together and starts them, [`lifecycle`] drains and stops them, and
//! [`metrics`] collects their samples.

mod accounts;
mod archive;
mod build;
mod deployment;
mod lifecycle;
mod metrics;
mod users;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backplane::Backplane;
use crate::delivery::Delivery;
use crate::server::admission::Admission;

use archive::NodeArchive;
pub(crate) use archive::open_log;
use lifecycle::ClientConnections;
pub(crate) use users::{SignUp, UserAdministration, UserPatch, user_administration};
pub use worker::OutboxWorker;

/// A node that runs.
pub struct App {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    admission: Arc<Admission>,
    connections: ClientConnections,
    delivery: Arc<Delivery>,
    backplane: Backplane,
    archive: Option<Arc<NodeArchive>>,
    /// Becomes true when the listeners must stop.
    stop: watch::Sender<bool>,
    /// The workers of the outbox; they stop with the listeners, and finish their rows.
    workers: Vec<JoinHandle<()>>,
    /// The listeners and the background tasks.
    tasks: Vec<JoinHandle<()>>,
}

impl App {
    /// The address on which the node listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the additional listener for `/metrics`, if there is one.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Names the kind of backplane for the log, and the address of its Redis.
    #[must_use]
    pub fn describe_backplane(&self) -> String {
        self.backplane.lifecycle.describe()
    }
}
