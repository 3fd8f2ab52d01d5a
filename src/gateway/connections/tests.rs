//! When events are taken up: in a line where everything runs on one thread, and at once elsewhere.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::backplane::{BackplaneLimits, memory};
use crate::delivery::{Delivery, DeliverySettings, Outlet};
use crate::domain::{Code, Limits, Rates, Refusal};
use crate::gateway::wire::EventName;
use crate::server::admission::Caps;

/// The answers of all, in order: whose, and to which of its events.
type Answers = Arc<Mutex<Vec<(usize, i64)>>>;

/// A door whose clients only say what is refused.
struct Client {
    number: usize,
    answers: Answers,
}

impl ClientTransport for Client {
    fn decode(&self, arrived: &Arrived, _: &Limits) -> IncomingEvent {
        let reference = ReplyTo::Ack(arrived.ack().unwrap());
        IncomingEvent {
            event: "history".into(),
            reference,
            decoded: Err(Refusal::new(Code::BadRequest, "on purpose")),
        }
    }

    fn answer(&self, to: &ReplyTo, _: &str) {
        let ReplyTo::Ack(event) = to else {
            panic!("every event wants an answer")
        };
        self.answers.lock().push((self.number, *event));
    }

    fn tell(&self, name: EventName, json: &str) {
        panic!("{name:?} {json}");
    }

    fn outlet(&self, _: &ConnId, _: &UserId) -> Arc<dyn Outlet> {
        unreachable!("nobody says who it is")
    }

    fn unwritten(&self) -> usize {
        0
    }

    fn when_below(&self, _: usize, _: Box<dyn FnOnce() + Send>) {
        unreachable!("nothing is unwritten")
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn close(&self, why: CloseReason) {
        panic!("{why:?}");
    }

    fn send_away(&self, refusal: &Refusal) {
        panic!("{refusal:?}");
    }

    fn introduce(&self) {}

    fn ended(&self) {}
}

/// So many connections of a node on its own, and what they are answered.
fn connections(count: usize) -> (Vec<Arc<Connection>>, Answers) {
    let backplane = memory::embedded(BackplaneLimits::default());
    let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
    let limits = Limits {
        socket: Rates::default(),
        ..Limits::default()
    };
    let chat = Arc::new(Messaging::new(backplane, delivery, limits));
    let admission = Arc::new(Admission::new(Caps::default()));
    let node = Connections::new(chat, Arc::new(Authenticator::Open), admission, 1 << 20);
    let answers = Answers::default();
    let open = |number| {
        let connection = node.open(
            Arc::new(Client {
                number,
                answers: answers.clone(),
            }),
            None,
        );
        connection.start();
        connection
    };
    ((0..count).map(open).collect(), answers)
}

fn say(connection: &Arc<Connection>, event: i64) {
    connection.receive(Arrived::new(r#"["history"]"#.to_owned().into(), 0).with_ack(Some(event)));
}

async fn answered(answers: &Answers, count: usize) -> Vec<(usize, i64)> {
    let all = async {
        while answers.lock().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .unwrap();
    answers.lock().clone()
}

#[tokio::test]
async fn on_one_thread_all_that_came_in_is_read_before_any_of_it_is_taken_up() {
    let (all, answers) = connections(3);
    for event in 0..2 {
        for connection in &all {
            say(connection, event);
        }
    }
    assert_eq!(*answers.lock(), [], "while they are read");
    // Each its own in their order, and those who came first, first.
    let expected = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)];
    assert_eq!(answered(&answers, 6).await, expected);
}

#[tokio::test]
async fn on_one_thread_who_has_said_much_does_not_hold_up_the_others() {
    let (all, answers) = connections(2);
    (0..300).for_each(|event| say(&all[0], event));
    say(&all[1], 0);
    let answers = answered(&answers, 301).await;
    let of_the_other = answers.iter().position(|(number, _)| *number == 1).unwrap();
    assert!(
        of_the_other <= 128,
        "behind {of_the_other} of the first one's"
    );
    let of_the_first: Vec<i64> = answers
        .iter()
        .filter(|(number, _)| *number == 0)
        .map(|(_, event)| *event)
        .collect();
    assert!(of_the_first.iter().copied().eq(0..300), "{of_the_first:?}");
}

#[tokio::test]
async fn on_one_thread_reading_does_not_run_ahead_of_a_long_line() {
    let (all, answers) = connections(LINE + 1);
    all.iter()
        .take(LINE)
        .for_each(|connection| say(connection, 0));
    assert_eq!(*answers.lock(), []);
    say(&all[LINE], 0);
    assert_eq!(*answers.lock(), [(LINE, 0)], "taken up as it was read");
    answered(&answers, LINE + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn with_several_threads_an_event_is_taken_up_by_the_one_that_read_it() {
    let (all, answers) = connections(1);
    say(&all[0], 0);
    assert_eq!(*answers.lock(), [(0, 0)]);
}
