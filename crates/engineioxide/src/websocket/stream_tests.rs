//! Writing by the task and by the write scheduler on the same stream.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use engineioxide_core::{ProtocolVersion, Sid, TransportType};
use tokio::io::{AsyncReadExt, DuplexStream};

use super::super::link::AnyStream;
use super::*;
use crate::config::EngineIoConfig;
use crate::control::Control;
use crate::frame::Frame;

/// A task that is never run: it only counts how often it is woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn poll_output<L: Link>(
        self: &Arc<Self>,
        stream: &Stream<L>,
        session: &Arc<Session>,
    ) -> Poll<io::Result<WriteStep>> {
        let waker = Waker::from(self.clone());
        stream.poll_output(session, &mut Context::from_waker(&waker))
    }

    async fn wait_until_woken(&self) {
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

/// A session on `link` whose task is asleep.
fn session_on<L: Link>(control: &Control, link: L) -> (Arc<Session>, Stream<L>, Arc<Task>) {
    let config = Arc::new(EngineIoConfig::default());
    let session = Session::open(
        Sid::new(),
        ProtocolVersion::V4,
        TransportType::Websocket,
        control.clone(),
        config,
        false,
    );
    let stream = Stream::new(link);
    let task = Arc::new(Task::default());
    assert!(matches!(
        task.poll_output(&stream, &session),
        Poll::Ready(Ok(WriteStep::Idle))
    ));
    (session, stream, task)
}

type Near = Stream<AnyStream<DuplexStream>>;

/// A session on a stream that buffers `capacity` bytes, whose task is asleep, and the other end.
fn session_on_duplex(
    control: &Control,
    capacity: usize,
) -> (Arc<Session>, Near, DuplexStream, Arc<Task>) {
    let (near, far) = tokio::io::duplex(capacity);
    let (session, stream, task) = session_on(control, AnyStream(near));
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
async fn the_scheduler_writes_a_session_without_waking_its_task() {
    let (session, _stream, mut far, task) = session_on_duplex(&Control::default(), 1024);
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
async fn the_task_writes_what_the_peer_did_not_accept_from_the_scheduler() {
    let (session, stream, mut far, task) = session_on_duplex(&Control::default(), 8);
    let frame = Frame::text("more than eight bytes");
    session.send(frame.clone());
    let begun = read(&mut far, 8).await;
    task.wait_until_woken().await;
    let mut rest = Vec::new();
    while begun.len() + rest.len() < frame.len() {
        assert!(task.poll_output(&stream, &session).is_pending() || session.unwritten() == 0);
        rest.extend(read(&mut far, 8.min(frame.len() - begun.len() - rest.len())).await);
    }
    assert_eq!([begun, rest].concat(), frame.as_bytes());
}

/// A peer that accepts `accepts` bytes of each write in turn, and nothing when the list is empty.
#[derive(Default)]
struct Peer {
    accepts: std::collections::VecDeque<usize>,
    accepted: Vec<u8>,
    writes: usize,
}

struct Scripted(Arc<Mutex<Peer>>);

impl Link for Scripted {
    fn try_write(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let mut peer = self.0.lock();
        peer.writes += 1;
        let Some(accepts) = peer.accepts.pop_front() else {
            return Some(Err(io::ErrorKind::WouldBlock.into()));
        };
        let accepted = &bytes[..accepts.min(bytes.len())];
        peer.accepted.extend_from_slice(accepted);
        Some(Ok(accepted.len()))
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
        // Without a wakeup: the test polls by itself when the peer accepts more.
        self.try_write(bytes)
            .and_then(Result::ok)
            .map_or(Poll::Pending, |accepted| Poll::Ready(Ok(accepted)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn bytes_that_a_link_refuses_are_kept_and_written_in_order() {
    let (control, peer) = (Control::default(), Arc::new(Mutex::new(Peer::default())));
    let (session, stream, task) = session_on(&control, Scripted(peer.clone()));
    let frames = ["first", "second", "third"].map(Frame::text);
    let all = frames
        .iter()
        .map(Frame::as_bytes)
        .collect::<Vec<_>>()
        .concat();
    for frame in &frames[..2] {
        session.send(frame.clone());
    }
    control.write_scheduler().wait_for_slice().await;
    // `try_write` was called, and then `poll_write`.
    assert_eq!(
        (peer.lock().writes, session.unwritten()),
        (2, all.len() - frames[2].len())
    );
    session.send(frames[2].clone());
    peer.lock().accepts = [3, 1, 100, 4].into();
    assert!(task.poll_output(&stream, &session).is_pending());
    assert_eq!(session.unwritten(), frames[2].len() - 4);
    peer.lock().accepts = [100].into();
    assert!(matches!(
        task.poll_output(&stream, &session),
        Poll::Ready(Ok(WriteStep::Idle))
    ));
    assert_eq!((&peer.lock().accepted, session.unwritten()), (&all, 0));
}

#[tokio::test]
async fn many_small_writes_end_a_slice() {
    let (control, peer) = (Control::default(), Arc::new(Mutex::new(Peer::default())));
    let (session, stream, task) = session_on(&control, Scripted(peer.clone()));
    peer.lock().accepts = std::iter::repeat_n(1, 1000).collect();
    session.send(Frame::text(&"x".repeat(500)));
    control.write_scheduler().wait_for_slice().await;
    assert_eq!(peer.lock().writes, 128);
    // The task has to ask for another slice.
    task.wait_until_woken().await;
    assert!(matches!(
        task.poll_output(&stream, &session),
        Poll::Ready(Ok(WriteStep::Yield))
    ));
    assert_eq!(peer.lock().writes, 256);
}

#[tokio::test]
async fn a_task_that_is_dropped_before_its_first_poll_closes_its_session() {
    let (session, ..) = session_on_duplex(&Control::default(), 1024);
    let role = crate::websocket::Role::Transport(crate::websocket::CloseOnDrop(session.clone()));
    drop(crate::websocket::connection::run(
        AnyStream(tokio::io::duplex(1024).0),
        Vec::new(),
        role,
    ));
    assert!(session.is_closed());
}

#[tokio::test]
async fn a_write_error_in_the_scheduler_ends_the_task() {
    let (session, stream, far, task) = session_on_duplex(&Control::default(), 1024);
    drop(far);
    session.send(Frame::text("not delivered"));
    task.wait_until_woken().await;
    assert!(matches!(
        task.poll_output(&stream, &session),
        Poll::Ready(Err(_))
    ));
}

#[tokio::test]
async fn a_panicking_callback_closes_its_session_and_no_other() {
    let control = Control::default();
    let (broken, _stream, _far, task) = session_on_duplex(&control, 1024);
    let (sound, _sound_stream, mut far, _) = session_on_duplex(&control, 1024);
    let frame = Frame::text("written");
    broken.send(frame.clone());
    broken.when_below(1, Box::new(|| panic!("on purpose")));
    sound.send(frame.clone());
    assert_eq!(read(&mut far, frame.len()).await, frame.as_bytes());
    task.wait_until_woken().await;
    assert!(broken.is_closed() && !sound.is_closed());
}

#[tokio::test]
async fn a_closed_session_is_released_completely() {
    struct Ignore;
    impl crate::session::SessionHandler for Ignore {
        fn on_message(&self, _: engineioxide_core::Str) {}
        fn on_binary(&self, _: bytes::Bytes) {}
        fn on_disconnect(&self, _: DisconnectReason) {}
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
    session.attach_handler(Arc::new(Ignore));
    let (near, mut far) = tokio::io::duplex(1024);
    let role = crate::websocket::Role::Transport(crate::websocket::CloseOnDrop(session.clone()));
    let task = tokio::spawn(crate::websocket::connection::run(
        AnyStream(near),
        Vec::new(),
        role,
    ));
    let frame = Frame::text("delivered");
    session.send(frame.clone());
    assert_eq!(read(&mut far, frame.len()).await, frame.as_bytes());
    session.close(DisconnectReason::TransportClose, CloseMode::Refuse);
    assert_eq!(
        far.read(&mut [0]).await.unwrap(),
        0,
        "the end, without a close frame"
    );
    drop(far);
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap();
    let gone = Arc::downgrade(&session);
    drop(session);
    let released = async {
        while gone.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), released)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_closed_session_holds_no_stream() {
    let (session, stream, _far, task) = session_on_duplex(&Control::default(), 1024);
    let held = Arc::downgrade(&stream.0);
    drop(stream);
    assert_eq!(held.strong_count(), 1, "held as the direct writer");
    session.close(DisconnectReason::TransportClose, CloseMode::Refuse);
    assert_eq!(held.strong_count(), 0);
    // It does not accept a stream after the close either.
    let (near, _far) = tokio::io::duplex(1024);
    let late = Stream::new(AnyStream(near));
    assert!(matches!(
        task.poll_output(&late, &session),
        Poll::Ready(Ok(WriteStep::Closed))
    ));
    assert_eq!(Arc::strong_count(&late.0), 1);
}

#[tokio::test]
async fn the_scheduler_does_not_write_a_released_stream() {
    let (session, stream, mut far, _) = session_on_duplex(&Control::default(), 1024);
    assert!(stream.release());
    session.send(Frame::text("too late"));
    session.control.write_scheduler().wait_for_slice().await;
    drop((
        stream,
        session.close(DisconnectReason::TransportClose, CloseMode::Refuse),
    ));
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), far.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());
}
