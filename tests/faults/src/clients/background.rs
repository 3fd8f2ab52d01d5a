//! Threads with a lower priority, for clients that only produce load. Real clients run on machines
//! of their own; here they must not take processor time from the nodes and from the clients that
//! measure latencies.

use tokio::runtime::{Builder, EnterGuard, Runtime};

/// The niceness of the threads. They get about a third of the processor time of a thread with the
/// usual niceness.
const NICENESS: i32 = 5;

/// A runtime on these threads. Dropping it ends them.
#[derive(Debug)]
pub struct BackgroundRuntime(Option<Runtime>);

impl BackgroundRuntime {
    pub fn new() -> anyhow::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder
            .enable_all()
            .thread_name("background")
            .on_thread_start(|| {
                // If this fails, the threads keep the usual priority.
                let _ = rustix::process::setpriority_process(None, NICENESS);
            });
        Ok(Self(Some(builder.build()?)))
    }

    /// Tasks that are spawned while the guard lives run on this runtime.
    pub fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Not a blocking shutdown, which panics when a task drops this.
            runtime.shutdown_background();
        }
    }
}
