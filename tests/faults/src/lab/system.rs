//! Ports and libraries of the machine.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use rand::Rng;

use super::eventually;

/// A Redis Cluster server also listens on its port plus this number.
const CLUSTER_BUS_OFFSET: u16 = 10_000;
const LISTEN_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns a port that no process listens on, and that this run has not returned before: scenarios
/// run in parallel, and one must not use another's Redis. The port is low enough that the cluster
/// bus port is valid, and that one is free, too.
pub fn free_port() -> u16 {
    static RETURNED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::rng().random_range(11_000..32_000);
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + CLUSTER_BUS_OFFSET) && RETURNED.lock().insert(port) {
            return port;
        }
    }
}

/// Waits until a process listens on this port.
pub async fn wait_for_port(port: u16) -> anyhow::Result<()> {
    let connects = async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    };
    eventually(
        &format!("a process listens on port {port}"),
        LISTEN_TIMEOUT,
        connects,
    )
    .await
}

/// The path of the library that shifts a process's clock.
///
/// # Errors
/// It isn't installed.
pub fn faketime_library() -> anyhow::Result<String> {
    let directories = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib",
    ];
    directories
        .map(|directory| format!("{directory}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("libfaketime is not installed (Debian: faketime)")
}
