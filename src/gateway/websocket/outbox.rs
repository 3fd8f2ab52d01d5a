//! What is to be written to one plain client: bounded in bytes and frames, filled by anyone, emptied by its transport.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use axum::extract::ws::Utf8Bytes;
use engineioxide::{Scheduled, WriteScheduler};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::end::End;

/// What a frame takes besides its text: its header, at most.
const HEADER: usize = 10;

/// The most that waits for one client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    pub bytes: usize,
    pub frames: usize,
}

type Wake = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    queue: VecDeque<Utf8Bytes>,
    /// How it is to end, and until when what is queued may still be written.
    end: Option<(End, Instant)>,
    /// Who waits until fewer bytes than that are unwritten.
    waiting: Vec<(usize, Wake)>,
}

/// One client's way out.
pub struct Outbox {
    state: Mutex<State>,
    /// Bytes that are queued, or given to the transport and not yet written.
    unwritten: AtomicUsize,
    closed: AtomicBool,
    transport: AtomicWaker,
    /// Where it waits to write, and whether it does.
    scheduler: WriteScheduler,
    in_line: AtomicBool,
    /// Closed when the transport is gone.
    gone: Semaphore,
    most: Most,
}

/// What the transport is to do.
pub(super) enum Task {
    /// Write these; so many bytes of the outbox they are.
    Write(Vec<Utf8Bytes>, usize),
    /// End the connection.
    End(End),
    /// Wait.
    Nothing,
}

impl Outbox {
    /// Empty; it waits to write in that line.
    pub(super) fn new(most: Most, scheduler: WriteScheduler) -> Self {
        Self {
            state: Mutex::default(),
            unwritten: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            transport: AtomicWaker::new(),
            scheduler,
            in_line: AtomicBool::new(false),
            gone: Semaphore::new(0),
            most,
        }
    }

    /// Puts a frame at the end. Nothing is ever dropped from the middle: what doesn't fit ends the connection.
    pub(super) fn send(self: &Arc<Self>, frame: Utf8Bytes) {
        if !self.send_below(self.most.bytes, frame) {
            self.end(End::Slow);
        }
    }

    /// As [`Self::send`], if no more bytes than that are unwritten then. False: nothing was put in.
    pub(super) fn send_below(self: &Arc<Self>, most: usize, frame: Utf8Bytes) -> bool {
        let mut state = self.state.lock();
        if self.is_closed() || state.end.is_some() {
            return true;
        }
        let bytes = frame.len() + HEADER;
        if self.unwritten() + bytes > most || state.queue.len() >= self.most.frames {
            return false;
        }
        self.unwritten.fetch_add(bytes, Ordering::AcqRel);
        state.queue.push_back(frame);
        drop(state);
        if !self.in_line.swap(true, Ordering::AcqRel) {
            self.scheduler.schedule(self.clone());
        }
        true
    }

    /// Ends the connection when what is queued has been written, at the latest at that time. Nothing more is taken in.
    pub(super) fn end_by(&self, end: End, until: Instant) {
        self.state.lock().end.get_or_insert((end, until));
        self.transport.wake();
    }

    /// Ends the connection at once: what is queued is lost.
    pub(super) fn end(&self, end: End) {
        self.abandon(&mut self.state.lock(), end);
        self.transport.wake();
    }

    fn abandon(&self, state: &mut State, end: End) {
        let bytes: usize = state
            .queue
            .drain(..)
            .map(|frame| frame.len() + HEADER)
            .sum();
        self.unwritten.fetch_sub(bytes, Ordering::AcqRel);
        state.end = Some((end, Instant::now()));
    }

    /// Bytes not yet written.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Acquire)
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Calls `wake` once, on the transport's task or another, as soon as fewer bytes are unwritten or the outbox is closed.
    pub(super) fn when_below(&self, bytes: usize, wake: Wake) {
        let mut state = self.state.lock();
        if self.is_closed() {
            drop(state);
            tokio::spawn(async move { wake() });
            return;
        }
        state.waiting.push((bytes, wake));
        drop(state);
        self.transport.wake();
    }

    /// Resolves when the connection is over, and its transport gone.
    pub async fn closed(&self) {
        let _ = self.gone.acquire().await;
    }

    // What follows is for the transport alone.

    /// From now on this is woken when it is the transport's turn to write, or the connection is to end.
    pub(super) fn register(&self, waker: &Waker) {
        self.transport.register(waker);
    }

    /// Whether it isn't its turn to write. Once it is, the transport is woken.
    pub(super) fn is_in_line(&self) -> bool {
        self.in_line.load(Ordering::Acquire)
    }

    /// What to do next: write at most so many bytes, or one frame if that is more.
    pub(super) fn next(&self, most: usize) -> Task {
        let mut state = self.state.lock();
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while let Some(frame) = state.queue.front() {
            let length = frame.len() + HEADER;
            if bytes > 0 && bytes + length > most {
                break;
            }
            bytes += length;
            frames.extend(state.queue.pop_front());
        }
        match state.end {
            _ if bytes > 0 => Task::Write(frames, bytes),
            Some((end, _)) => Task::End(end),
            None => {
                // A client to whom nothing is said keeps no memory for it.
                state.queue = VecDeque::new();
                Task::Nothing
            }
        }
    }

    /// How the connection is to end, and the time by which it has to.
    pub(super) fn ending(&self) -> Option<(End, Instant)> {
        self.state.lock().end
    }

    /// So many bytes have been written.
    pub(super) fn written(&self, bytes: usize) {
        self.unwritten.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Calls whoever waited for what is the case now. No lock is held meanwhile.
    pub(super) fn wake_waiting(&self) {
        let unwritten = self.unwritten();
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            return;
        }
        let (due, waiting) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition(|(bytes, _)| unwritten < *bytes);
        state.waiting = waiting;
        drop(state);
        let due: Vec<(usize, Wake)> = due;
        due.into_iter().for_each(|(_, wake)| wake());
    }

    /// The transport is gone, too.
    pub(super) fn depart(&self) {
        self.shut();
        self.gone.close();
    }

    /// The connection is over.
    pub(super) fn shut(&self) {
        let waiting = {
            let mut state = self.state.lock();
            self.closed.store(true, Ordering::Release);
            state.queue = VecDeque::new();
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|(_, wake)| wake());
    }
}

impl Scheduled for Outbox {
    fn run_slice(self: Arc<Self>) {
        // Before the transport looks: what is put in from now on waits for another turn.
        self.in_line.store(false, Ordering::Release);
        self.transport.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outbox(bytes: usize, frames: usize) -> Arc<Outbox> {
        Arc::new(Outbox::new(
            Most { bytes, frames },
            WriteScheduler::default(),
        ))
    }

    fn text(length: usize) -> Utf8Bytes {
        "x".repeat(length).into()
    }

    #[test]
    fn frames_leave_in_their_order_and_in_batches() {
        let outbox = outbox(10_000, 100);
        for n in 0..5 {
            outbox.send(format!("{n}").into());
        }
        outbox.send(text(500));
        let Task::Write(frames, bytes) = outbox.next(3 * (1 + HEADER)) else {
            panic!("nothing to write")
        };
        assert_eq!(
            frames.iter().map(Utf8Bytes::as_str).collect::<Vec<_>>(),
            ["0", "1", "2"]
        );
        assert_eq!(
            outbox.unwritten(),
            5 * (1 + HEADER) + 500 + HEADER,
            "given to the transport isn't written"
        );
        outbox.written(bytes);
        assert!(matches!(outbox.next(30), Task::Write(frames, _) if frames.len() == 2));
        assert!(
            matches!(outbox.next(30), Task::Write(frames, _) if frames.len() == 1),
            "one may be larger"
        );
        assert!(matches!(outbox.next(30), Task::Nothing));
    }

    #[tokio::test]
    async fn what_does_not_fit_ends_the_connection_and_keeps_nothing() {
        for outbox in [outbox(1000, 100), outbox(1 << 20, 9)] {
            for _ in 0..10 {
                outbox.send(text(100));
            }
            assert_eq!(
                (outbox.ending().map(|(end, _)| end), outbox.unwritten()),
                (Some(End::Slow), 0)
            );
            outbox.send(text(1));
            assert!(matches!(outbox.next(100), Task::End(End::Slow)));
        }
    }

    #[tokio::test]
    async fn what_is_offered_goes_in_below_a_bound_and_ends_nothing() {
        let outbox = outbox(1000, 3);
        let each = 100 + HEADER;
        assert!(outbox.send_below(2 * each, text(100)) && outbox.send_below(2 * each, text(100)));
        assert!(!outbox.send_below(2 * each, text(100)));
        outbox.send(text(100));
        assert!(!outbox.send_below(1000, text(1)), "too many");
        assert_eq!((outbox.unwritten(), outbox.ending()), (3 * each, None));
        outbox.end(End::Slow);
        assert!(
            outbox.send_below(1000, text(1)),
            "nobody shall offer it again"
        );
        assert_eq!(outbox.unwritten(), 0);
    }

    #[tokio::test]
    async fn an_end_lets_out_what_was_queued_and_nothing_after_it() {
        let outbox = outbox(1000, 100);
        outbox.send("before".into());
        outbox.end_by(End::Restart, Instant::now() + Duration::from_secs(2));
        outbox.end_by(End::Idle, Instant::now());
        outbox.send("after".into());
        assert!(
            matches!(outbox.next(100), Task::Write(frames, _) if frames[0].as_str() == "before")
        );
        assert!(matches!(outbox.next(100), Task::End(End::Restart)));
        outbox.end(End::Fault);
        assert!(
            matches!(outbox.next(100), Task::End(End::Fault)),
            "at once is sooner"
        );
    }

    #[tokio::test]
    async fn who_waits_for_room_is_called_once_there_is_or_at_the_end() {
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
        outbox.wake_waiting();
        assert_eq!(called.load(Ordering::SeqCst), 0);
        outbox.written(150);
        outbox.wake_waiting();
        assert_eq!(called.load(Ordering::SeqCst), 1);
        outbox.depart();
        assert_eq!(called.load(Ordering::SeqCst), 2);
        outbox.closed().await;
        outbox.when_below(0, note());
        tokio::task::yield_now().await;
        assert_eq!(called.load(Ordering::SeqCst), 3);
    }
}
