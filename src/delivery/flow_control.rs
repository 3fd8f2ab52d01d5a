//! Bounds how many bytes a worker delivers before the outlets write them.

use std::task::{Context, Waker};

use super::Pause;
use super::settings::PauseFuture;

/// Counts the bytes delivered since outlets last had their turn to write, and waits for that turn
/// when they are many.
pub(super) struct FlowControl {
    pause: Pause,
    /// The most bytes that may be unwritten.
    limit: usize,
    /// Bytes delivered that no completed pause covers.
    unwritten: usize,
    /// Below this many unwritten bytes no pause is begun or polled.
    poll_above: usize,
    running: Option<RunningPause>,
}

/// A pause that has begun.
struct RunningPause {
    future: PauseFuture,
    /// The bytes that were unwritten when it began. All of them are written once it is over.
    covers: usize,
}

impl FlowControl {
    pub fn new(pause: Pause, limit: usize) -> Self {
        Self {
            pause,
            limit,
            unwritten: 0,
            poll_above: limit / 2,
            running: None,
        }
    }

    /// Counts bytes that were delivered to one outlet or to many, and returns when more may be
    /// delivered. A pause begins at half of the limit, so that it is mostly over before the worker
    /// would have to wait for it.
    pub async fn delivered(&mut self, bytes: usize) {
        self.unwritten += bytes;
        if self.unwritten > self.poll_above {
            self.poll_pause().await;
            while self.unwritten > self.limit {
                self.wait().await;
            }
        }
    }

    /// Begins a pause if none is running, and checks whether it is over.
    async fn poll_pause(&mut self) {
        let running = self.running.get_or_insert_with(|| RunningPause {
            future: self.pause.begin(),
            covers: self.unwritten,
        });
        // No waker is needed: the pause is polled again later, or awaited.
        let is_over = running
            .future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready();
        if is_over {
            // Where the pause only woke the outlets' tasks, they run now.
            tokio::task::yield_now().await;
            let covered = self.running.take().map_or(0, |running| running.covers);
            self.finish(covered);
        } else {
            self.poll_above = self.unwritten + self.limit / 16;
        }
    }

    async fn wait(&mut self) {
        let running = self.running.take().unwrap_or_else(|| RunningPause {
            future: self.pause.begin(),
            covers: self.unwritten,
        });
        running.future.await;
        self.finish(running.covers);
    }

    /// Waits until every outlet that has something to write now has had its turn.
    pub async fn pause(&mut self) {
        self.running = Some(RunningPause {
            future: self.pause.begin(),
            covers: self.unwritten,
        });
        self.wait().await;
    }

    fn finish(&mut self, covered: usize) {
        self.unwritten -= covered;
        self.poll_above = self.limit / 2;
    }
}
