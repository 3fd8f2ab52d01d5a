//! Cases that integration tests cannot time exactly: waiting polls and abandoned upgrades.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::scheduler::Scheduled;

fn session(transport: TransportType) -> Arc<Session> {
    session_with(ProtocolVersion::V4, transport, EngineIoConfig::default())
}

fn session_with(
    protocol: ProtocolVersion,
    transport: TransportType,
    config: EngineIoConfig,
) -> Arc<Session> {
    let (id, control) = (Sid::new(), Control::default());
    Session::open(id, protocol, transport, control, Arc::new(config), false)
}

fn poll(guard: &mut PollGuard) -> Poll<PollReply> {
    guard.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_websocket_writes_everything_queued_but_only_in_its_slice() {
    let session = session(TransportType::Websocket);
    let cx = Context::from_waker(Waker::noop());
    let mut batch = Queue::new();
    let next_batch = |batch: &mut Queue| session.next_batch(0, batch, &cx);
    assert!(matches!(next_batch(&mut batch), NextBatch::Idle));
    session.send(Frame::text("first"));
    assert!(
        matches!(next_batch(&mut batch), NextBatch::Idle),
        "woken by input before its slice"
    );
    session.send(Frame::text("second"));
    session.clone().run_slice();
    assert!(matches!(next_batch(&mut batch), NextBatch::Frames));
    assert_eq!(batch.len(), 2);
}

#[tokio::test]
async fn the_latest_interceptor_receives_texts_first_and_is_dropped_at_the_close() {
    #[derive(Default)]
    struct Received(Mutex<Vec<Str>>);
    impl SessionHandler for Received {
        fn on_message(&self, text: Str) {
            self.0.lock().push(text);
        }
        fn on_binary(&self, _: bytes::Bytes) {}
        fn on_disconnect(&self, _: DisconnectReason) {}
    }
    struct InterceptPrefix(&'static str, Arc<Received>);
    impl Intercept for InterceptPrefix {
        fn text(&self, text: Str) -> Result<(), Str> {
            if !text.starts_with(self.0) {
                return Err(text);
            }
            self.1.on_message(text);
            Ok(())
        }
    }
    let session = session(TransportType::Websocket);
    let above = Received::default();
    let first = Arc::new(Received::default());
    let last = Arc::new(Received::default());
    let receive = |text: &'static str| {
        let message = Incoming::Message(text.into());
        session.process_packet(message, &above).unwrap();
    };
    receive("a1");
    session.intercept(Arc::new(InterceptPrefix("a", first.clone())));
    receive("a2");
    receive("b1");
    session.intercept(Arc::new(InterceptPrefix("b", last.clone())));
    receive("a3");
    receive("b2");
    let texts = |received: &Received| {
        let received = received.0.lock();
        received.iter().map(Str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts(&above), ["a1", "b1", "a3"]);
    assert_eq!(texts(&first), ["a2"]);
    assert_eq!(texts(&last), ["b2"]);
    assert_eq!(Arc::strong_count(&first), 1, "dropped when it was replaced");
    close(&session, CloseMode::Refuse);
    session.intercept(Arc::new(InterceptPrefix("a", first.clone())));
    let dropped = async {
        while Arc::strong_count(&last) + Arc::strong_count(&first) > 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dropped)
        .await
        .unwrap();
}

fn close(session: &Arc<Session>, close_mode: CloseMode) {
    session.close(DisconnectReason::TransportClose, close_mode);
}

#[tokio::test]
async fn the_answer_to_a_waiting_poll_follows_the_close_mode() {
    let refused = session(TransportType::Polling);
    let noop = session(TransportType::Polling);
    let closed = session(TransportType::Polling);
    let mut guards = [&refused, &noop, &closed].map(|session| session.begin_poll().unwrap());
    for guard in &mut guards {
        assert!(poll(guard).is_pending());
    }
    close(&refused, CloseMode::Refuse);
    close(&noop, CloseMode::Noop);
    assert!(closed.begin_poll().is_none(), "a second poll");
    let [first, second, third] = &mut guards;
    assert!(matches!(poll(first), Poll::Ready(PollReply::Refuse)));
    assert!(matches!(poll(second), Poll::Ready(PollReply::Noop)));
    assert!(matches!(poll(third), Poll::Ready(PollReply::ClosePacket)));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_upgrade_does_not_end_the_next_one() {
    let session = session(TransportType::Polling);
    let first = session.begin_upgrade().unwrap();
    assert!(session.begin_upgrade().is_none(), "one at a time");
    first.probed();
    tokio::time::sleep(session.config.upgrade_timeout + Duration::from_millis(1)).await;
    assert!(!first.finish(), "too late");
    let second = session.begin_upgrade().unwrap();
    drop(first);
    second.probed();
    assert!(second.finish());
    assert_eq!(session.transport(), TransportType::Websocket);
    let count = |transport| session.control.count(transport, ProtocolVersion::V4);
    assert_eq!(count(TransportType::Websocket), 1);
    assert_eq!(count(TransportType::Polling), 0);
}

#[tokio::test]
async fn polls_are_answered_at_once_during_a_probed_upgrade() {
    let session = session(TransportType::Polling);
    let upgrade = session.begin_upgrade().unwrap();
    let mut waiting = session.begin_poll().unwrap();
    assert!(poll(&mut waiting).is_pending());
    upgrade.probed();
    assert!(matches!(poll(&mut waiting), Poll::Ready(PollReply::Probed)));
    waiting.answer_probed_with_noop();
    assert!(matches!(poll(&mut waiting), Poll::Ready(PollReply::Noop)));
    session.send(Frame::text("queued"));
    let mut next = session.begin_poll().unwrap();
    let Poll::Ready(PollReply::Frames(frames)) = poll(&mut next) else {
        panic!("the poll was not answered with frames");
    };
    assert_eq!(frames.len(), 1);
    let mut late = session.begin_poll().unwrap();
    assert!(matches!(poll(&mut late), Poll::Ready(PollReply::Probed)));
    assert!(upgrade.finish());
    assert!(matches!(poll(&mut late), Poll::Ready(PollReply::Refuse)));
}

#[tokio::test]
async fn polls_wait_again_after_an_abandoned_upgrade() {
    let session = session(TransportType::Polling);
    let upgrade = session.begin_upgrade().unwrap();
    upgrade.probed();
    drop(upgrade);
    let mut guard = session.begin_poll().unwrap();
    assert!(poll(&mut guard).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_draining_session_is_closed_at_its_time_limit() {
    let session = session(TransportType::Polling);
    session.send(Frame::text("never fetched"));
    session.close_after_flush(Duration::from_secs(3));
    tokio::time::sleep(Duration::from_millis(2_900)).await;
    assert!(!session.is_closed());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_after_the_ping_interval_and_the_ping_timeout() {
    let session = session(TransportType::Websocket);
    tokio::time::sleep(Duration::from_millis(25_100)).await;
    assert_eq!(session.unwritten(), Frame::packet("2").len());
    tokio::time::sleep(Duration::from_millis(19_800)).await;
    assert!(!session.is_closed());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(session.is_closed());
    assert_eq!(session.control.counters().heartbeat_timeouts, 1);
}

/// Lets the timer and the monitor of pauses run.
async fn let_others_run() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_process_pings_before_it_judges_silence() {
    let ping = Frame::packet("2").len();
    // The pause begins before the ping is due, or while its pong is on its way.
    for (before, pings) in [(Duration::from_secs(1), 1), (Duration::from_secs(26), 2)] {
        let session = session(TransportType::Websocket);
        tokio::time::sleep(before).await;
        tokio::time::advance(Duration::from_secs(100)).await;
        let_others_run().await;
        assert!(!session.is_closed());
        assert_eq!(session.unwritten(), pings * ping);
        tokio::time::sleep(Duration::from_millis(19_900)).await;
        assert!(!session.is_closed(), "before the end of the ping timeout");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(session.is_closed(), "a silent client is closed");
    }
}

/// Moves the clock as the process sees it that is stalled for 1.2 s at the end of every 3 s.
async fn stall_repeatedly(for_secs: u64) {
    for _ in 0..for_secs / 3 {
        tokio::time::sleep(Duration::from_millis(1_800)).await;
        tokio::time::advance(Duration::from_millis(1_200)).await;
        let_others_run().await;
    }
}

#[tokio::test(start_paused = true)]
async fn repeated_stalls_do_not_keep_a_silent_client_open() {
    for protocol in [ProtocolVersion::V3, ProtocolVersion::V4] {
        let config = EngineIoConfig {
            ping_interval: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(4),
            ..EngineIoConfig::default()
        };
        let session = session_with(protocol, TransportType::Websocket, config);
        stall_repeatedly(18).await;
        assert!(session.is_closed(), "{protocol:?}");
        assert_eq!(session.control.counters().heartbeat_timeouts, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn each_pong_makes_a_deadline_extendable_again() {
    let config = EngineIoConfig {
        ping_interval: Duration::from_secs(1),
        ping_timeout: Duration::from_secs(4),
        ..EngineIoConfig::default()
    };
    let session = session_with(ProtocolVersion::V4, TransportType::Websocket, config);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        tokio::time::advance(Duration::from_secs(20)).await;
        let_others_run().await;
        assert!(!session.is_closed());
        session.record_heartbeat();
    }
}

#[tokio::test(start_paused = true)]
async fn repeated_stalls_do_not_keep_a_slow_consumer_open() {
    let mut session = session(TransportType::Polling);
    session.send(Frame::text("never fetched"));
    stall_repeatedly(30).await;
    assert!(session.is_closed(), "a client that does not poll");
    session = self::session(TransportType::Websocket);
    session.send(Frame::text("never read"));
    assert!(session.record_blocked(0, &Context::from_waker(Waker::noop())));
    stall_repeatedly(30).await;
    assert!(session.is_closed(), "a WebSocket without progress");
    assert!(session.is_slow_consumer());
}

#[tokio::test(start_paused = true)]
async fn repeated_stalls_do_not_keep_an_upgrade_open() {
    let session = session(TransportType::Polling);
    let upgrade = session.begin_upgrade().unwrap();
    stall_repeatedly(30).await;
    assert!(!upgrade.finish());
    assert!(session.begin_upgrade().is_some(), "a second upgrade");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_first_after_a_pause_does_not_close_its_session() {
    let session = session(TransportType::Polling);
    tokio::time::sleep(Duration::from_secs(26)).await;
    let paused = Instant::now() + Duration::from_secs(100);
    session.on_deadline(paused, paused);
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_outbox_that_nobody_could_read_in_a_pause_is_not_stalled() {
    let session = session(TransportType::Polling);
    session.send(Frame::text("queued"));
    tokio::time::advance(Duration::from_secs(20)).await;
    let_others_run().await;
    assert!(!session.is_closed());
    tokio::time::sleep(Duration::from_millis(10_100)).await;
    assert!(session.is_closed());
}
