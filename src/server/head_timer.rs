//! The time limits for the head of a request: one for the first byte, while the connection is idle
//! between two requests, and one from there to the end of the head.
//!
//! hyper has one limit for both, which it runs on the timer that it is given. This timer lets the
//! limit begin anew with the first read of bytes after hyper began to wait. Bytes of a head that
//! arrived before, with the previous request or while it was processed, are not noticed: hyper holds
//! them already. Such a head has the idle limit, until more bytes of it arrive and the limit begins
//! anew.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// Whether bytes have arrived since the connection began to wait for a request. Set by the stream,
/// and cleared by the timer of the same connection.
#[derive(Debug, Clone, Default)]
pub(super) struct BytesArrived(Arc<AtomicBool>);

impl BytesArrived {
    /// Cheap enough for every read: after the first one it only loads the flag.
    pub fn set(&self) {
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// hyper's timer for one connection. hyper uses it for nothing but the head of each request, and
/// starts it when it begins to wait for one. The durations and deadlines that hyper passes do not
/// count.
pub(super) struct HeadTimer {
    /// Between two requests, until the first read of bytes.
    idle: Duration,
    /// From the first read on, and for all of the first head of the connection.
    head: Duration,
    arrived: BytesArrived,
    is_first: AtomicBool,
}

impl HeadTimer {
    pub fn new(idle: Duration, head: Duration, arrived: BytesArrived) -> Self {
        Self {
            idle,
            head,
            arrived,
            is_first: AtomicBool::new(true),
        }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.arrived.clear();
        let is_first = self.is_first.swap(false, Ordering::Relaxed);
        let limit = if is_first { self.head } else { self.idle };
        Box::pin(HeadSleep {
            sleep: Box::pin(tokio::time::sleep(limit)),
            head: self.head,
            arrived: self.arrived.clone(),
            runs_for_head: is_first,
        })
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(Duration::ZERO)
    }
}

struct HeadSleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    head: Duration,
    arrived: BytesArrived,
    /// False while the limit is the one for idle connections.
    runs_for_head: bool,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    /// hyper polls it after each read that did not complete the head.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.runs_for_head && self.arrived.get() {
            self.runs_for_head = true;
            let deadline = tokio::time::Instant::now() + self.head;
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(cx)
    }
}
