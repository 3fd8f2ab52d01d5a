//! A connection's stream and its output, shared by the task that reads and whoever gives turns to write.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;
use super::output::{Output, Step};
use crate::session::{Carrier, Farewell, Session};
use crate::socket::DisconnectReason;

/// The stream as the connection's task sees it. Cheap to clone: all clones are one stream.
pub(super) struct Stream<S>(Arc<Mutex<Shared<S>>>);

struct Shared<S> {
    io: S,
    output: Output,
    /// The task, once it carries its session and until it leaves: without it nobody else writes.
    task: Option<Waker>,
    /// What others came to when they wrote: the task ends with it.
    failed: Option<io::Error>,
}

impl<S: Link> Stream<S> {
    pub(super) fn new(io: S) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            io,
            output: Output::default(),
            task: None,
            failed: None,
        })))
    }

    /// For the task: as [`Output::poll`]. From then on the session has it written, too, when it is its turn.
    pub(super) fn poll_output(
        &self,
        session: &Arc<Session>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Step>> {
        let mut shared = self.0.lock();
        let Shared {
            io,
            output,
            task,
            failed,
        } = &mut *shared;
        if let Some(error) = failed.take() {
            return Poll::Ready(Err(error));
        }
        match task {
            Some(known) => known.clone_from(cx.waker()),
            none => {
                *none = Some(cx.waker().clone());
                session.carried_by(self.0.clone());
            }
        }
        output.poll(session, io, cx)
    }

    /// The task leaves: nobody else writes any more. Whether nothing has been begun that isn't ended.
    pub(super) fn leave(&self) -> bool {
        let mut shared = self.0.lock();
        shared.task = None;
        !shared.output.is_mid_frame()
    }
}

impl<S: Link> Carrier for Mutex<Shared<S>> {
    fn write(&self, session: &Arc<Session>) -> bool {
        // Whoever has it writes what there is, or reads.
        let Some(mut shared) = self.try_lock() else {
            return false;
        };
        let Shared {
            io,
            output,
            task: Some(task),
            failed,
        } = &mut *shared
        else {
            return true;
        };
        let poll = || output.poll(session, io, &mut Context::from_waker(task));
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending | Poll::Ready(Ok(Step::Idle))) => true,
            Ok(Poll::Ready(Ok(Step::Yield | Step::Closed))) => false,
            Ok(Poll::Ready(Err(error))) => {
                *failed = Some(error);
                false
            }
            // Someone who waited for room. Others have their turn after this one.
            Err(_) => {
                #[cfg(feature = "tracing")]
                tracing::error!(sid = %session.id, "a callback of who waited for room panicked; the session is closed");
                session.close(DisconnectReason::TransportError, Farewell::Abort);
                true
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use engineioxide_core::{ProtocolVersion, Sid, TransportType};
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::super::link::Foreign;
    use super::*;
    use crate::config::EngineIoConfig;
    use crate::control::Control;
    use crate::frame::Frame;

    /// A task that is never run: it only counts how often it should have been.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        fn look<L: Link>(
            self: &Arc<Self>,
            stream: &Stream<L>,
            session: &Arc<Session>,
        ) -> Poll<io::Result<Step>> {
            let waker = Waker::from(self.clone());
            stream.poll_output(session, &mut Context::from_waker(&waker))
        }

        async fn woken(&self) {
            let woken = async {
                while self.0.load(Ordering::Relaxed) == 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), woken)
                .await
                .unwrap();
        }
    }

    /// A session on that link, and its task, asleep.
    fn carried_by<L: Link>(control: &Control, link: L) -> (Arc<Session>, Stream<L>, Arc<Task>) {
        let config = Arc::new(EngineIoConfig::default());
        let (version, transport) = (ProtocolVersion::V4, TransportType::Websocket);
        let session = Session::open(
            Sid::new(),
            version,
            transport,
            control.clone(),
            config,
            false,
        );
        let (stream, task) = (Stream::new(link), Arc::new(Task::default()));
        assert!(matches!(
            task.look(&stream, &session),
            Poll::Ready(Ok(Step::Idle))
        ));
        (session, stream, task)
    }

    type Near = Stream<Foreign<DuplexStream>>;

    /// A session on a stream that takes so many bytes, its task asleep, and the other end.
    fn carried(control: &Control, room: usize) -> (Arc<Session>, Near, DuplexStream, Arc<Task>) {
        let (near, far) = tokio::io::duplex(room);
        let (session, stream, task) = carried_by(control, Foreign(near));
        (session, stream, far, task)
    }

    async fn read(far: &mut DuplexStream, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        tokio::time::timeout(Duration::from_secs(5), far.read_exact(&mut read))
            .await
            .unwrap()
            .unwrap();
        read
    }

    #[tokio::test]
    async fn who_has_its_turn_is_written_without_its_task() {
        let (session, _stream, mut far, task) = carried(&Control::default(), 1024);
        for round in 0..3 {
            let frames = [format!("{round}"), "second".into()].map(|text| Frame::text(&text));
            for frame in &frames {
                session.send(frame.clone());
            }
            let expected = frames
                .iter()
                .map(Frame::as_bytes)
                .collect::<Vec<_>>()
                .concat();
            assert_eq!(read(&mut far, expected.len()).await, expected);
        }
        assert_eq!(
            (task.0.load(Ordering::Relaxed), session.unwritten()),
            (0, 0)
        );
    }

    #[tokio::test]
    async fn what_the_peer_does_not_take_is_its_tasks_to_write() {
        let (session, stream, mut far, task) = carried(&Control::default(), 8);
        let frame = Frame::text("more than eight bytes");
        session.send(frame.clone());
        let begun = read(&mut far, 8).await;
        task.woken().await;
        let mut rest = Vec::new();
        while begun.len() + rest.len() < frame.len() {
            assert!(task.look(&stream, &session).is_pending() || session.unwritten() == 0);
            rest.extend(read(&mut far, 8.min(frame.len() - begun.len() - rest.len())).await);
        }
        assert_eq!([begun, rest].concat(), frame.as_bytes());
    }

    /// A peer that takes so many bytes of each write, and nothing when none of these are left.
    #[derive(Default)]
    struct Peer {
        takes: std::collections::VecDeque<usize>,
        taken: Vec<u8>,
        writes: usize,
    }

    struct Scripted(Arc<Mutex<Peer>>);

    impl Link for Scripted {
        fn write_now(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
            let mut peer = self.0.lock();
            peer.writes += 1;
            let Some(takes) = peer.takes.pop_front() else {
                return Some(Err(io::ErrorKind::WouldBlock.into()));
            };
            let taken = &bytes[..takes.min(bytes.len())];
            peer.taken.extend_from_slice(taken);
            Some(Ok(taken.len()))
        }
    }

    impl AsyncRead for Scripted {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Scripted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            // The test looks itself when there is room.
            self.write_now(bytes)
                .and_then(Result::ok)
                .map_or(Poll::Pending, |taken| Poll::Ready(Ok(taken)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_a_link_refuses_is_kept_and_written_in_order() {
        let (control, peer) = (Control::default(), Arc::new(Mutex::new(Peer::default())));
        let (session, stream, task) = carried_by(&control, Scripted(peer.clone()));
        let frames = ["first", "second", "third"].map(Frame::text);
        let all = frames
            .iter()
            .map(Frame::as_bytes)
            .collect::<Vec<_>>()
            .concat();
        for frame in &frames[..2] {
            session.send(frame.clone());
        }
        control.rota().turn().await;
        // It was offered at once, and then as to any stream.
        assert_eq!(
            (peer.lock().writes, session.unwritten()),
            (2, all.len() - frames[2].len())
        );
        session.send(frames[2].clone());
        peer.lock().takes = [3, 1, 100, 4].into();
        assert!(task.look(&stream, &session).is_pending());
        assert_eq!(session.unwritten(), frames[2].len() - 4);
        peer.lock().takes = [100].into();
        assert!(matches!(
            task.look(&stream, &session),
            Poll::Ready(Ok(Step::Idle))
        ));
        assert_eq!((&peer.lock().taken, session.unwritten()), (&all, 0));
    }

    #[tokio::test]
    async fn many_small_writes_end_a_turn() {
        let (control, peer) = (Control::default(), Arc::new(Mutex::new(Peer::default())));
        let (session, stream, task) = carried_by(&control, Scripted(peer.clone()));
        peer.lock().takes = std::iter::repeat_n(1, 1000).collect();
        session.send(Frame::text(&"x".repeat(500)));
        control.rota().turn().await;
        assert_eq!(peer.lock().writes, 128);
        // Its task has to ask for another one.
        task.woken().await;
        assert!(matches!(
            task.look(&stream, &session),
            Poll::Ready(Ok(Step::Yield))
        ));
        assert_eq!(peer.lock().writes, 256);
    }

    #[tokio::test]
    async fn a_task_that_never_begins_ends_its_session() {
        let (session, ..) = carried(&Control::default(), 1024);
        let role = crate::websocket::Role::Carrier(crate::websocket::Last(session.clone()));
        drop(crate::websocket::connection::run(
            Foreign(tokio::io::duplex(1024).0),
            Vec::new(),
            role,
        ));
        assert!(session.is_closed());
    }

    #[tokio::test]
    async fn a_stream_that_breaks_ends_the_task() {
        let (session, stream, far, task) = carried(&Control::default(), 1024);
        drop(far);
        session.send(Frame::text("nobody hears it"));
        task.woken().await;
        assert!(matches!(task.look(&stream, &session), Poll::Ready(Err(_))));
    }

    #[tokio::test]
    async fn a_callback_that_panics_ends_its_session_and_no_others_turn() {
        let control = Control::default();
        let (broken, _stream, _far, task) = carried(&control, 1024);
        let (sound, _sound_stream, mut far, _) = carried(&control, 1024);
        let frame = Frame::text("written");
        broken.send(frame.clone());
        broken.when_below(1, Box::new(|| panic!("on purpose")));
        sound.send(frame.clone());
        assert_eq!(read(&mut far, frame.len()).await, frame.as_bytes());
        task.woken().await;
        assert!(broken.is_closed() && !sound.is_closed());
    }

    #[tokio::test]
    async fn nothing_is_left_of_who_is_closed() {
        struct Above;
        impl crate::session::Owner for Above {
            fn message(&self, _: engineioxide_core::Str) {}
            fn binary(&self, _: bytes::Bytes) {}
            fn disconnected(&self, _: DisconnectReason) {}
        }
        let config = Arc::new(EngineIoConfig::default());
        let (version, transport) = (ProtocolVersion::V4, TransportType::Websocket);
        let session = Session::open(
            Sid::new(),
            version,
            transport,
            Control::default(),
            config,
            false,
        );
        session.attach(Arc::new(Above));
        let (near, mut far) = tokio::io::duplex(1024);
        let role = crate::websocket::Role::Carrier(crate::websocket::Last(session.clone()));
        let task = tokio::spawn(crate::websocket::connection::run(
            Foreign(near),
            Vec::new(),
            role,
        ));
        let frame = Frame::text("heard");
        session.send(frame.clone());
        assert_eq!(read(&mut far, frame.len()).await, frame.as_bytes());
        session.close(DisconnectReason::TransportClose, Farewell::Refuse);
        assert_eq!(
            read(&mut far, 4).await,
            Frame::websocket_close(1000).as_bytes()
        );
        drop(far);
        tokio::time::timeout(Duration::from_secs(5), task)
            .await
            .unwrap()
            .unwrap();
        let gone = Arc::downgrade(&session);
        drop(session);
        let let_go = async {
            while gone.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), let_go)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_session_that_is_closed_holds_no_stream() {
        let (session, stream, _far, task) = carried(&Control::default(), 1024);
        let held = Arc::downgrade(&stream.0);
        drop(stream);
        assert_eq!(held.strong_count(), 1, "it is written by it");
        session.close(DisconnectReason::TransportClose, Farewell::Refuse);
        assert_eq!(held.strong_count(), 0);
        // Nor does it take one then.
        let (near, _far) = tokio::io::duplex(1024);
        let late = Stream::new(Foreign(near));
        assert!(matches!(
            task.look(&late, &session),
            Poll::Ready(Ok(Step::Closed))
        ));
        assert_eq!(Arc::strong_count(&late.0), 1);
    }

    #[tokio::test]
    async fn who_leaves_is_written_no_more() {
        let (session, stream, mut far, _) = carried(&Control::default(), 1024);
        assert!(stream.leave());
        session.send(Frame::text("too late"));
        session.control.rota().turn().await;
        drop((
            stream,
            session.close(DisconnectReason::TransportClose, Farewell::Refuse),
        ));
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), far.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert!(rest.is_empty());
    }
}
