//! Requests that fail, and events that reach only the worker that they belong to.

use tokio::sync::mpsc;

use super::*;

/// An embedded backplane that has reached its limit of one room.
async fn full_backplane() -> Backplane {
    let backplane = memory::embedded(BackplaneLimits {
        rooms: 1,
        ..BackplaneLimits::default()
    });
    say(&backplane, "takes the only room").await;
    backplane
}

fn other_room() -> RoomId {
    RoomId::trusted("another room")
}

fn never_called<T: ?Sized>() -> Box<dyn FnOnce(&T) + Send> {
    Box::new(|_| panic!("a failed request must not call back"))
}

#[tokio::test(start_paused = true)]
async fn a_failed_join_returns_the_error_and_calls_no_callback() {
    let delivery = start(&full_backplane().await, 1, 500);
    let ann = Recorder::new("ann");
    let name = Username::from(&ann.user);
    let joined = delivery
        .join(
            other_room(),
            ann.clone(),
            name,
            ReplayFrom::Live,
            never_called(),
        )
        .await;
    assert!(matches!(joined, Err(BackplaneError::Full)), "{joined:?}");
    let listening = delivery
        .listen(other_room(), ann.clone(), ReplayFrom::Live, never_called())
        .await;
    assert!(
        matches!(listening, Err(BackplaneError::Full)),
        "{listening:?}"
    );
    assert_eq!(ann.story(), [""; 0]);
}

/// A bus that can't subscribe.
struct Unreachable(Arc<dyn Bus>);

#[async_trait]
impl Bus for Unreachable {
    fn deliver_to(&self, sink: Arc<dyn BusSink>) {
        self.0.deliver_to(sink);
    }
    async fn subscribe(&self, _: &BusTopic) -> Result<()> {
        Err(BackplaneError::Unavailable("on purpose".into()))
    }
    async fn unsubscribe(&self, topic: &BusTopic) {
        self.0.unsubscribe(topic).await;
    }
    async fn publish_receipt(
        &self,
        receipt: &crate::backplane::ReadReceipt,
    ) -> crate::backplane::Result<()> {
        self.0.publish_receipt(receipt).await
    }

    async fn publish_typing(&self, typing: &Typing) -> Result<()> {
        self.0.publish_typing(typing).await
    }
    async fn publish_disconnect(&self, user: &UserId) -> Result<()> {
        self.0.publish_disconnect(user).await
    }
}

#[tokio::test(start_paused = true)]
async fn requests_fail_when_their_topic_cannot_be_subscribed() {
    let inner = lossy(0);
    let backplane = Backplane {
        bus: Arc::new(Unreachable(inner.bus.clone())),
        ..inner
    };
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    let name = Username::from(&ann.user);
    let joined = delivery
        .join(room(), ann.clone(), name, ReplayFrom::Live, never_called())
        .await;
    assert!(matches!(joined, Err(BackplaneError::Unavailable(_))));
    let watched = delivery
        .watch(UserId::trusted("bob"), ann.clone(), never_called())
        .await;
    assert!(matches!(watched, Err(BackplaneError::Unavailable(_))));
    assert_eq!(ann.story(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn requests_fail_when_the_workers_have_stopped() {
    let delivery = start(&lossy(0), 1, 500);
    delivery.stop();
    tokio::task::yield_now().await;
    let ann = Recorder::new("ann");
    let name = Username::from(&ann.user);
    let joined = delivery
        .join(room(), ann.clone(), name, ReplayFrom::Live, never_called())
        .await;
    assert!(matches!(joined, Err(BackplaneError::Unavailable(_))));
    let watched = delivery
        .watch(UserId::trusted("bob"), ann.clone(), never_called())
        .await;
    assert!(matches!(watched, Err(BackplaneError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_join_succeeds_when_its_outlet_closes_during_the_replay() {
    let backplane = lossy(0);
    let delivery = Arc::new(start(&backplane, 1, 500));
    say(&backplane, "x").await;
    let slow = Recorder::new("slow");
    slow.full.store(true, Ordering::SeqCst);
    let joining = {
        let (delivery, slow) = (delivery.clone(), slow.clone());
        let from_start = ReplayFrom::Since {
            seq: 0,
            epoch: None,
            limit: None,
        };
        tokio::spawn(async move { join(&delivery, &slow, from_start).await })
    };
    eventually("the replay waits", || !slow.wakers.lock().is_empty()).await;
    slow.close(CloseReason::ReplayOutrun);
    assert_eq!(joining.await.unwrap().replayed, 1);
    assert_eq!(slow.seqs(), [0; 0]);
}

#[tokio::test]
async fn an_interrupted_topic_is_queued_only_to_the_worker_that_owns_it() {
    let settings = DeliverySettings {
        workers: 4,
        ..DeliverySettings::default()
    };
    let (queues, mut receivers) = Queues::new(&settings, Arc::default());
    let mut interrupted = |topic: Option<BusTopic>| -> Vec<usize> {
        queues.interrupted(topic);
        let count = |receiver: &mut mpsc::Receiver<Command>| {
            let mut count = 0;
            while let Ok(Command::Interrupted(_)) = receiver.try_recv() {
                count += 1;
            }
            count
        };
        receivers.iter_mut().map(count).collect()
    };
    for n in 0..20 {
        let name = format!("name-{n}");
        for topic in [
            BusTopic::Room(RoomId::trusted(&name)),
            BusTopic::User(UserId::trusted(&name)),
        ] {
            let queued = interrupted(Some(topic.clone()));
            assert_eq!(queued.iter().sum::<usize>(), 1, "{topic:?}: {queued:?}");
        }
    }
    assert_eq!(interrupted(Some(BusTopic::Nodes)), [0; 4], "no feed has it");
    assert_eq!(interrupted(None), [1; 4]);
}
