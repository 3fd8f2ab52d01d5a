//! Threads of lesser weight, for clients that only make work. Real ones bring machines of their own: here they must leave
//! the nodes and those who measure their share of this one.

use tokio::runtime::{Builder, EnterGuard, Runtime};

/// Niceness of the threads, about a third of the usual weight.
const NICENESS: i32 = 5;

/// The threads; they end with this.
#[derive(Debug)]
pub struct Aside(Option<Runtime>);

impl Aside {
    /// Starts them.
    pub fn new() -> anyhow::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder
            .enable_all()
            .thread_name("aside")
            .on_thread_start(|| {
                // Without it they are as others are.
                let _ = rustix::process::setpriority_process(None, NICENESS);
            });
        Ok(Self(Some(builder.build()?)))
    }

    /// What is spawned until the guard goes runs there.
    pub fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // It may be dropped by a task.
            runtime.shutdown_background();
        }
    }
}
