//! What integration tests can't catch in the act: waiting polls, stale upgrades.

use std::task::{Context, Poll as TaskPoll, Waker};
use std::time::Duration;

use super::*;
use crate::rota::Waiting;

fn session(transport: TransportType) -> Arc<Session> {
    let config = Arc::new(EngineIoConfig::default());
    Session::open(
        Sid::new(),
        ProtocolVersion::V4,
        transport,
        Control::default(),
        config,
        false,
    )
}

fn answer(ticket: &mut PollTicket) -> TaskPoll<Poll> {
    ticket.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_websocket_writes_when_it_is_its_turn_and_then_all_there_is() {
    let session = session(TransportType::Websocket);
    let (mut batch, cx) = (Queue::new(), Context::from_waker(Waker::noop()));
    let look = |batch: &mut Queue| session.next_batch(0, batch, &cx);
    assert!(matches!(look(&mut batch), Written::Idle));
    session.send(Frame::text("first"));
    assert!(
        matches!(look(&mut batch), Written::Idle),
        "something came in meanwhile"
    );
    session.send(Frame::text("second"));
    session.clone().begin_turn();
    assert!(matches!(look(&mut batch), Written::More));
    assert_eq!(batch.len(), 2);
}

#[tokio::test]
async fn a_text_is_seen_first_by_who_asked_last_and_then_by_the_layer_above_until_the_end() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<Str>>);
    impl Owner for Seen {
        fn message(&self, text: Str) {
            self.0.lock().push(text);
        }
        fn binary(&self, _: bytes::Bytes) {}
        fn disconnected(&self, _: DisconnectReason) {}
    }
    struct Taking(&'static str, Arc<Seen>);
    impl Intercept for Taking {
        fn text(&self, text: Str) -> Result<(), Str> {
            if !text.starts_with(self.0) {
                return Err(text);
            }
            self.1.message(text);
            Ok(())
        }
    }
    let session = session(TransportType::Websocket);
    let (above, first, last) = (
        Seen::default(),
        Arc::new(Seen::default()),
        Arc::new(Seen::default()),
    );
    let say = |text: &'static str| {
        session
            .take(Incoming::Message(text.into()), &above)
            .unwrap()
    };
    say("a1");
    session.intercept(Arc::new(Taking("a", first.clone())));
    let _ = (say("a2"), say("b1"));
    session.intercept(Arc::new(Taking("b", last.clone())));
    let _ = (say("a3"), say("b2"));
    let texts = |seen: &Seen| seen.0.lock().iter().map(Str::to_string).collect::<Vec<_>>();
    assert_eq!(
        (texts(&above), texts(&first), texts(&last)),
        (
            vec!["a1".into(), "b1".into(), "a3".into()],
            vec!["a2".into()],
            vec!["b2".into()]
        )
    );
    assert_eq!(Arc::strong_count(&first), 1, "let go when another came");
    close(&session, Farewell::Refuse);
    session.intercept(Arc::new(Taking("a", first.clone())));
    let let_go = async {
        while Arc::strong_count(&last) + Arc::strong_count(&first) > 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), let_go)
        .await
        .unwrap();
}

fn close(session: &Arc<Session>, farewell: Farewell) {
    session.close(DisconnectReason::TransportClose, farewell);
}

#[tokio::test]
async fn a_waiting_poll_is_answered_as_the_session_ends() {
    let session_of = || session(TransportType::Polling);
    let (refused, noop, closed) = (session_of(), session_of(), session_of());
    let mut tickets = [&refused, &noop, &closed].map(|session| session.begin_poll().unwrap());
    for ticket in &mut tickets {
        assert!(answer(ticket).is_pending());
    }
    close(&refused, Farewell::Refuse);
    close(&noop, Farewell::Noop);
    assert!(closed.begin_poll().is_none(), "a second poll");
    let [first, second, third] = &mut tickets;
    assert!(matches!(answer(first), TaskPoll::Ready(Poll::Refuse)));
    assert!(matches!(answer(second), TaskPoll::Ready(Poll::Noop)));
    assert!(matches!(answer(third), TaskPoll::Ready(Poll::ClosePacket)));
}

#[tokio::test]
async fn an_upgrade_that_was_given_up_does_not_end_the_next() {
    let session = session(TransportType::Polling);
    let first = session.begin_upgrade().unwrap();
    assert!(session.begin_upgrade().is_none(), "one at a time");
    first.probed();
    let timeout = Instant::now() + session.config.upgrade_timeout;
    session.on_deadline(timeout, timeout);
    assert!(!first.finish(), "too late");
    let second = session.begin_upgrade().unwrap();
    drop(first);
    second.probed();
    assert!(second.finish());
    assert_eq!(session.transport(), TransportType::Websocket);
    assert_eq!(
        session
            .control
            .count(TransportType::Websocket, ProtocolVersion::V4),
        1
    );
    assert_eq!(
        session
            .control
            .count(TransportType::Polling, ProtocolVersion::V4),
        0
    );
}

#[tokio::test]
async fn polls_are_released_while_the_upgrade_stands() {
    let session = session(TransportType::Polling);
    let upgrade = session.begin_upgrade().unwrap();
    let mut poll = session.begin_poll().unwrap();
    assert!(answer(&mut poll).is_pending());
    upgrade.probed();
    assert!(matches!(answer(&mut poll), TaskPoll::Ready(Poll::Probed)));
    poll.hurry();
    assert!(matches!(answer(&mut poll), TaskPoll::Ready(Poll::Noop)));
    session.send(Frame::text("queued"));
    let mut poll = session.begin_poll().unwrap();
    assert!(
        matches!(answer(&mut poll), TaskPoll::Ready(Poll::Frames(frames)) if frames.len() == 1)
    );
    let mut late = session.begin_poll().unwrap();
    assert!(matches!(answer(&mut late), TaskPoll::Ready(Poll::Probed)));
    assert!(upgrade.finish());
    assert!(matches!(answer(&mut late), TaskPoll::Ready(Poll::Refuse)));
}

#[tokio::test]
async fn polls_wait_again_when_the_upgrade_is_given_up() {
    let session = session(TransportType::Polling);
    let upgrade = session.begin_upgrade().unwrap();
    upgrade.probed();
    drop(upgrade);
    let mut poll = session.begin_poll().unwrap();
    assert!(answer(&mut poll).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline() {
    let session = session(TransportType::Polling);
    session.send(Frame::text("never fetched"));
    session.close_after_flush(Duration::from_secs(3));
    tokio::time::sleep(Duration::from_millis(2_900)).await;
    assert!(!session.is_closed());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_when_it_should_be() {
    let session = session(TransportType::Websocket);
    tokio::time::sleep(Duration::from_millis(25_100)).await;
    assert_eq!(session.unwritten(), Frame::packet("2").len());
    tokio::time::sleep(Duration::from_millis(19_800)).await;
    assert!(!session.is_closed());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(session.is_closed());
    assert_eq!(session.control.counters().heartbeat_timeouts, 1);
}
