//! When events are processed: queued if everything runs on one thread, and at once otherwise.

mod acks;
mod changes;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::processing::MAX_SCHEDULED;
use super::*;
use crate::backplane::{BackplaneLimits, memory};
use crate::delivery::{Delivery, DeliverySettings, Outlet};
use crate::domain::{Code, Limits, Rates, Refusal};
use crate::gateway::wire::ServerEvent;
use crate::server::admission::Caps;

/// The acknowledgements of all connections, in order: the connection's number, and the number of
/// its event.
type Acks = Arc<Mutex<Vec<(usize, i64)>>>;

/// A transport on which every event is invalid and asks for an acknowledgement.
struct Client {
    number: usize,
    acks: Acks,
}

impl ClientTransport for Client {
    fn decode(&self, text: &EventText, _: &Limits) -> IncomingEvent {
        IncomingEvent {
            name: RequestName::Known(ClientEvent::History),
            reply_to: ReplyTo::Ack(text.ack().unwrap()),
            request: Err(Refusal::new(Code::BadRequest, "on purpose")),
        }
    }

    fn acknowledge(&self, reply_to: &ReplyTo, _: &str) {
        let ReplyTo::Ack(event) = reply_to else {
            panic!("every event asks for an acknowledgement")
        };
        self.acks.lock().push((self.number, *event));
    }

    fn send_event(&self, event: ServerEvent, json: &str) {
        panic!("{event:?} {json}");
    }

    fn outlet(&self, _: &ConnId, _: &UserId) -> Arc<dyn Outlet> {
        unreachable!("no client authenticates")
    }

    fn unwritten(&self) -> usize {
        0
    }

    fn when_below(&self, _: usize, _: Box<dyn FnOnce() + Send>) {
        unreachable!("nothing is unwritten")
    }

    fn hold(&self) {
        unreachable!("no message is sent")
    }

    fn release(&self) {
        unreachable!("no message is sent")
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn end_reason(&self) -> EndReason {
        EndReason::ClientClosed
    }

    fn close(&self, reason: CloseReason) {
        panic!("{reason:?}");
    }

    fn disconnect(&self, refusal: &Refusal) {
        panic!("{refusal:?}");
    }

    fn mark_authenticated(&self) {}

    fn connection_ended(&self) {}
}

/// Connections of a node without Redis, and their acknowledgements.
fn connections(count: usize) -> (Vec<Arc<Connection>>, Acks) {
    let backplane = memory::embedded(BackplaneLimits::default());
    let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
    let limits = Limits {
        socket: Rates::default(),
        ..Limits::default()
    };
    let messaging = Arc::new(Messaging::new(backplane, delivery, limits));
    let admission = Arc::new(Admission::new(Caps::default()));
    let node = Connections::new(
        messaging,
        None,
        Arc::new(Authenticator::open()),
        admission,
        1 << 20,
        LineBudget::only_debug(),
    );
    let acks = Acks::default();
    let open = |number| {
        let connection = node.open(
            Arc::new(Client {
                number,
                acks: acks.clone(),
            }),
            None,
        );
        connection.start();
        connection
    };
    ((0..count).map(open).collect(), acks)
}

fn receive(connection: &Arc<Connection>, event: i64) {
    let text = EventText::new(r#"["history"]"#.to_owned().into(), 0);
    connection.receive(text.with_ack(Some(event)));
}

/// The acknowledgements, once there are that many.
async fn acknowledged(acks: &Acks, count: usize) -> Vec<(usize, i64)> {
    let all = async {
        while acks.lock().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .unwrap();
    acks.lock().clone()
}

#[tokio::test]
async fn on_one_thread_all_connections_are_read_before_any_event_is_processed() {
    let (all, acks) = connections(3);
    for event in 0..2 {
        for connection in &all {
            receive(connection, event);
        }
    }
    assert_eq!(*acks.lock(), [], "while they are read");
    // Each connection's events in their order, and connections in the order of their first events.
    let expected = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)];
    assert_eq!(acknowledged(&acks, 6).await, expected);
}

#[tokio::test]
async fn on_one_thread_a_connection_with_many_events_lets_others_go_after_128() {
    let (all, acks) = connections(2);
    (0..300).for_each(|event| receive(&all[0], event));
    receive(&all[1], 0);
    let acks = acknowledged(&acks, 301).await;
    let of_the_second = acks.iter().position(|(number, _)| *number == 1).unwrap();
    assert!(
        of_the_second <= 128,
        "behind {of_the_second} of the first connection"
    );
    let of_the_first: Vec<i64> = acks
        .iter()
        .filter(|(number, _)| *number == 0)
        .map(|(_, event)| *event)
        .collect();
    assert!(of_the_first.iter().copied().eq(0..300), "{of_the_first:?}");
}

#[tokio::test]
async fn on_one_thread_events_are_processed_inline_while_the_queue_is_full() {
    let (all, acks) = connections(MAX_SCHEDULED + 1);
    all.iter()
        .take(MAX_SCHEDULED)
        .for_each(|connection| receive(connection, 0));
    assert_eq!(*acks.lock(), []);
    receive(&all[MAX_SCHEDULED], 0);
    assert_eq!(
        *acks.lock(),
        [(MAX_SCHEDULED, 0)],
        "processed while it was read"
    );
    acknowledged(&acks, MAX_SCHEDULED + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn on_several_threads_an_event_is_processed_by_the_thread_that_read_it() {
    let (all, acks) = connections(1);
    receive(&all[0], 0);
    assert_eq!(*acks.lock(), [(0, 0)]);
}
