//! The frames that are to be written to one plain client: bounded in bytes and number, queued by
//! any task, written by the client's socket task.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use engineioxide::{Scheduled, WriteScheduler};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::close_status::CloseStatus;
use crate::gateway::wire::{Envelope, going_away};

/// The size of a frame's header, at most.
const HEADER_BYTES: usize = 10;

/// The capacity of an outbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutboxLimits {
    pub bytes: usize,
    pub frames: usize,
}

type Callback = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    queue: VecDeque<Utf8Bytes>,
    /// How the connection is to be closed, and until when queued frames may still be written.
    closing: Option<(CloseStatus, Instant)>,
    /// Frames that are still to come, and that a close after a flush waits for.
    held: usize,
    /// Each is called once fewer bytes than that are unwritten.
    waiters: Vec<(usize, Callback)>,
}

impl State {
    /// Whether frames are discarded, because the connection closes and waits for none.
    fn discards(&self) -> bool {
        match self.closing {
            Some((_, until)) => self.held == 0 || Instant::now() >= until,
            None => false,
        }
    }
}

/// The outbox of one plain client.
pub struct Outbox {
    state: Mutex<State>,
    /// The bytes that are queued, or given to the socket and not written yet.
    unwritten: AtomicUsize,
    closed: AtomicBool,
    socket_task: AtomicWaker,
    scheduler: WriteScheduler,
    /// The outbox waits in the scheduler for its slice.
    is_scheduled: AtomicBool,
    /// Closed when the transport is gone.
    gone: Semaphore,
    limits: OutboxLimits,
}

/// The next step of the socket task.
pub(super) enum NextStep {
    /// Write these frames, which are that many bytes of the outbox.
    Write(Vec<Utf8Bytes>, usize),
    /// Close the connection.
    Close(CloseStatus),
    /// Wait: nothing is queued.
    Wait,
}

impl Outbox {
    pub(super) fn new(limits: OutboxLimits, scheduler: WriteScheduler) -> Self {
        Self {
            state: Mutex::default(),
            unwritten: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            socket_task: AtomicWaker::new(),
            scheduler,
            is_scheduled: AtomicBool::new(false),
            gone: Semaphore::new(0),
            limits,
        }
    }

    /// Queues a frame. No frame is ever dropped from the middle: one that does not fit closes the
    /// connection.
    pub(super) fn send(self: &Arc<Self>, frame: Utf8Bytes) {
        if !self.send_below(self.limits.bytes, frame) {
            self.close_now(CloseStatus::Slow);
        }
    }

    /// Queues a frame if no more than `max_unwritten` bytes are unwritten then. Returns false if
    /// the frame was not queued and may be offered again. If the connection is closing or closed,
    /// the frame is discarded and the result is true, so that it is not offered again.
    pub(super) fn send_below(self: &Arc<Self>, max_unwritten: usize, frame: Utf8Bytes) -> bool {
        let mut state = self.state.lock();
        if self.is_closed() || state.discards() {
            return true;
        }
        let bytes = frame.len() + HEADER_BYTES;
        if self.unwritten() + bytes > max_unwritten || state.queue.len() >= self.limits.frames {
            return false;
        }
        self.unwritten.fetch_add(bytes, Ordering::AcqRel);
        state.queue.push_back(frame);
        drop(state);
        if !self.is_scheduled.swap(true, Ordering::AcqRel) {
            self.scheduler.schedule(self.clone());
        }
        true
    }

    /// Notifies the client that this node drains, and when its connection will be closed.
    pub fn announce_end(self: &Arc<Self>, reconnect_in: Duration) {
        self.send(going_away(Envelope::Plain, reconnect_in).into());
    }

    /// Closes the connection when the queued frames have been written, at the latest after `limit`.
    /// The client reconnects.
    pub fn close_after_flush(&self, limit: Duration) {
        self.close_with(CloseStatus::Restart, Instant::now() + limit);
    }

    /// Closes the connection at once. The client reconnects.
    pub fn close(&self) {
        self.close_now(CloseStatus::Restart);
    }

    /// Closes the connection when the queued frames have been written, at the latest at that time.
    /// Accepts no more frames, unless some are [held](Self::hold).
    pub(super) fn close_with(&self, status: CloseStatus, until: Instant) {
        self.state.lock().closing.get_or_insert((status, until));
        self.socket_task.wake();
    }

    /// A frame is still to come that a close after a flush has to wait for. Each call needs a call
    /// of [`release`](Self::release) once the frame was queued.
    pub(super) fn hold(&self) {
        self.state.lock().held += 1;
    }

    /// Takes back a call of [`hold`](Self::hold).
    pub(super) fn release(&self) {
        let mut state = self.state.lock();
        state.held -= 1;
        let is_last = state.held == 0 && state.closing.is_some();
        drop(state);
        if is_last {
            self.socket_task.wake();
        }
    }

    /// Closes the connection at once and discards the queued frames.
    pub(super) fn close_now(&self, status: CloseStatus) {
        let mut state = self.state.lock();
        let bytes: usize = state
            .queue
            .drain(..)
            .map(|frame| frame.len() + HEADER_BYTES)
            .sum();
        self.unwritten.fetch_sub(bytes, Ordering::AcqRel);
        state.closing = Some((status, Instant::now()));
        drop(state);
        self.socket_task.wake();
    }

    /// The number of bytes that are not written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Acquire)
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Calls `callback` once, in the socket task or another one, as soon as fewer bytes than that
    /// are unwritten or the outbox is closed.
    pub(super) fn when_below(&self, bytes: usize, callback: Callback) {
        let mut state = self.state.lock();
        if self.is_closed() {
            drop(state);
            tokio::spawn(async move { callback() });
            return;
        }
        state.waiters.push((bytes, callback));
        drop(state);
        self.socket_task.wake();
    }

    /// Returns when the connection has ended and its transport is gone.
    pub async fn closed(&self) {
        let _ = self.gone.acquire().await;
    }
}

/// The side of the socket task.
impl Outbox {
    /// Registers the waker that is woken when a slice to write begins or the connection is to be
    /// closed.
    pub(super) fn register(&self, waker: &Waker) {
        self.socket_task.register(waker);
    }

    /// Whether the outbox still waits for its slice to write. The task is woken when it begins.
    pub(super) fn is_scheduled(&self) -> bool {
        self.is_scheduled.load(Ordering::Acquire)
    }

    /// The next step: at most that many bytes to write, or one frame if that is larger.
    pub(super) fn next(&self, max_bytes: usize) -> NextStep {
        let mut state = self.state.lock();
        let mut frames = Vec::new();
        let mut bytes = 0;
        while let Some(frame) = state.queue.front() {
            let frame_bytes = frame.len() + HEADER_BYTES;
            if bytes > 0 && bytes + frame_bytes > max_bytes {
                break;
            }
            bytes += frame_bytes;
            frames.extend(state.queue.pop_front());
        }
        if bytes > 0 {
            return NextStep::Write(frames, bytes);
        }
        if let Some((status, _)) = state.closing
            && state.discards()
        {
            return NextStep::Close(status);
        }
        // An idle client keeps no memory for a queue.
        state.queue = VecDeque::new();
        NextStep::Wait
    }

    /// How the connection is to be closed, and the time by which it has to be.
    pub(super) fn closing(&self) -> Option<(CloseStatus, Instant)> {
        self.state.lock().closing
    }

    /// Notes that bytes of the outbox have been written.
    pub(super) fn written(&self, bytes: usize) {
        self.unwritten.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Calls the callbacks that are due, without holding a lock.
    pub(super) fn notify_waiters(&self) {
        let unwritten = self.unwritten();
        let mut state = self.state.lock();
        if state.waiters.is_empty() {
            return;
        }
        let waiters = std::mem::take(&mut state.waiters);
        let (due, waiting): (Vec<_>, Vec<_>) = waiters
            .into_iter()
            .partition(|(bytes, _)| unwritten < *bytes);
        state.waiters = waiting;
        drop(state);
        for (_, callback) in due {
            callback();
        }
    }

    /// The connection has ended: accepts nothing any more, and calls all callbacks.
    pub(super) fn mark_closed(&self) {
        let waiters = {
            let mut state = self.state.lock();
            self.closed.store(true, Ordering::Release);
            state.queue = VecDeque::new();
            std::mem::take(&mut state.waiters)
        };
        for (_, callback) in waiters {
            callback();
        }
    }

    /// The transport is gone, too.
    pub(super) fn mark_gone(&self) {
        self.mark_closed();
        self.gone.close();
    }
}

impl Scheduled for Outbox {
    fn run_slice(self: Arc<Self>) {
        // Before the socket task looks into the queue: a frame queued from now on waits for another
        // slice.
        self.is_scheduled.store(false, Ordering::Release);
        self.socket_task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(bytes: usize, frames: usize) -> Arc<Outbox> {
        Arc::new(Outbox::new(
            OutboxLimits { bytes, frames },
            WriteScheduler::default(),
        ))
    }

    fn text(length: usize) -> Utf8Bytes {
        "x".repeat(length).into()
    }

    #[test]
    fn frames_are_written_in_order_and_in_batches() {
        let outbox = outbox(10_000, 100);
        for n in 0..5 {
            outbox.send(format!("{n}").into());
        }
        outbox.send(text(500));
        let NextStep::Write(frames, bytes) = outbox.next(3 * (1 + HEADER_BYTES)) else {
            panic!("nothing to write")
        };
        assert_eq!(
            frames.iter().map(Utf8Bytes::as_str).collect::<Vec<_>>(),
            ["0", "1", "2"]
        );
        assert_eq!(
            outbox.unwritten(),
            5 * (1 + HEADER_BYTES) + 500 + HEADER_BYTES,
            "frames given to the socket are not written yet"
        );
        outbox.written(bytes);
        assert!(matches!(outbox.next(30), NextStep::Write(frames, _) if frames.len() == 2));
        assert!(
            matches!(outbox.next(30), NextStep::Write(frames, _) if frames.len() == 1),
            "a single frame may be larger"
        );
        assert!(matches!(outbox.next(30), NextStep::Wait));
    }

    #[tokio::test]
    async fn a_frame_that_does_not_fit_closes_the_connection_and_discards_the_queue() {
        for outbox in [outbox(1000, 100), outbox(1 << 20, 9)] {
            for _ in 0..10 {
                outbox.send(text(100));
            }
            assert_eq!(
                (
                    outbox.closing().map(|(status, _)| status),
                    outbox.unwritten()
                ),
                (Some(CloseStatus::Slow), 0)
            );
            outbox.send(text(1));
            assert!(matches!(
                outbox.next(100),
                NextStep::Close(CloseStatus::Slow)
            ));
        }
    }

    #[tokio::test]
    async fn an_offered_frame_that_does_not_fit_closes_nothing() {
        let outbox = outbox(1000, 3);
        let each = 100 + HEADER_BYTES;
        assert!(outbox.send_below(2 * each, text(100)) && outbox.send_below(2 * each, text(100)));
        assert!(!outbox.send_below(2 * each, text(100)));
        outbox.send(text(100));
        assert!(!outbox.send_below(1000, text(1)), "too many frames");
        assert_eq!((outbox.unwritten(), outbox.closing()), (3 * each, None));
        outbox.close_now(CloseStatus::Slow);
        assert!(
            outbox.send_below(1000, text(1)),
            "it must not be offered again"
        );
        assert_eq!(outbox.unwritten(), 0);
    }

    #[tokio::test]
    async fn closing_writes_queued_frames_and_accepts_no_more() {
        let outbox = outbox(1000, 100);
        outbox.send("before".into());
        outbox.close_with(
            CloseStatus::Restart,
            Instant::now() + Duration::from_secs(2),
        );
        outbox.close_with(CloseStatus::Idle, Instant::now());
        outbox.send("after".into());
        assert!(
            matches!(outbox.next(100), NextStep::Write(frames, _) if frames[0].as_str() == "before")
        );
        assert!(matches!(
            outbox.next(100),
            NextStep::Close(CloseStatus::Restart)
        ));
        outbox.close_now(CloseStatus::Fault);
        assert!(
            matches!(outbox.next(100), NextStep::Close(CloseStatus::Fault)),
            "closing at once replaces closing later"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_frames_that_are_held_up_to_its_time_limit() {
        let outbox = outbox(1000, 100);
        outbox.hold();
        let limit = Duration::from_secs(2);
        outbox.close_after_flush(limit);
        assert!(matches!(outbox.next(100), NextStep::Wait));
        outbox.send("held".into());
        outbox.release();
        outbox.send("late".into());
        assert!(matches!(outbox.next(100), NextStep::Write(frames, _) if frames.len() == 1));
        assert!(matches!(outbox.next(100), NextStep::Close(_)));
        outbox.hold();
        assert!(matches!(outbox.next(100), NextStep::Wait));
        tokio::time::advance(limit).await;
        assert!(matches!(outbox.next(100), NextStep::Close(_)));
        outbox.send("too late".into());
        assert!(matches!(outbox.next(100), NextStep::Close(_)));
    }

    #[tokio::test]
    async fn a_waiter_is_called_once_fewer_bytes_are_unwritten_or_at_the_end() {
        let (outbox, called) = (outbox(1000, 100), Arc::new(AtomicUsize::new(0)));
        let note = || {
            let called = called.clone();
            Box::new(move || {
                called.fetch_add(1, Ordering::SeqCst);
            })
        };
        outbox.send(text(300));
        outbox.when_below(200, note());
        outbox.when_below(100, note());
        outbox.notify_waiters();
        assert_eq!(called.load(Ordering::SeqCst), 0);
        outbox.written(150);
        outbox.notify_waiters();
        assert_eq!(called.load(Ordering::SeqCst), 1);
        outbox.mark_gone();
        assert_eq!(called.load(Ordering::SeqCst), 2);
        outbox.closed().await;
        outbox.when_below(0, note());
        tokio::task::yield_now().await;
        assert_eq!(called.load(Ordering::SeqCst), 3);
    }
}
