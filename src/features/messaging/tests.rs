//! Nothing of a chat reaches a connection that joins before its membership is checked.

use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::*;
use crate::backplane::{BackplaneLimits, memory};
use crate::delivery::{
    CloseReason, DeliverySettings, JoinOutcome, Outlet, ReplayFrom, SharedEvent,
};
use crate::domain::policy::RoomScope;
use crate::domain::{ConnId, MessageFields, NewMessage, Username};
use crate::features::chats::tests::OneRight;

/// An outlet that counts its events.
struct Receiver {
    conn: ConnId,
    user: UserId,
    received: Mutex<usize>,
}

impl Outlet for Receiver {
    fn conn(&self) -> &ConnId {
        &self.conn
    }

    fn user(&self) -> &UserId {
        &self.user
    }

    fn deliver(&self, _: &SharedEvent) {
        *self.received.lock() += 1;
    }

    fn has_capacity(&self) -> bool {
        true
    }

    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        wake();
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn close(&self, reason: CloseReason) {
        panic!("{reason:?}");
    }
}

struct Scene {
    backplane: Backplane,
    messaging: Arc<Messaging>,
    /// Its reads wait for permits.
    store: Arc<OneRight>,
    user: UserId,
    receiver: Arc<Receiver>,
}

impl Scene {
    /// An account with a connection.
    async fn new() -> (Self, ConnectionState) {
        let backplane = memory::embedded(BackplaneLimits::default());
        let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
        let store = OneRight::new(0);
        let memberships = Arc::new(Memberships::new(store.clone()));
        let messaging = Messaging::new(backplane.clone(), delivery, Limits::default())
            .with_memberships(memberships);
        let user = UserId::trusted(&Uuid::now_v7().to_string());
        let receiver = Arc::new(Receiver {
            conn: ConnId::trusted("c"),
            user: user.clone(),
            received: Mutex::new(0),
        });
        let outlet = receiver.clone();
        let mut connection =
            ConnectionState::new(ConnId::trusted("c"), Box::new(move |_| outlet.clone()));
        let new = NewUser {
            user: user.clone(),
            username: Username::from(&user),
            scope: RoomScope::Everywhere,
            has_account: true,
            is_admin: false,
        };
        messaging.authenticate(&mut connection, new).await.unwrap();
        let scene = Self {
            backplane,
            messaging: Arc::new(messaging),
            store,
            user,
            receiver,
        };
        (scene, connection)
    }

    /// A message of another member reaches this node.
    async fn deliver_message(&self, room: &RoomId) {
        let fields = MessageFields {
            content: "x".into(),
            ..MessageFields::default()
        };
        let ann = UserId::trusted("ann");
        let name = Username::from(&ann);
        let message = NewMessage::new(room.clone(), ann, name, fields, &Limits::default());
        let message = message.unwrap();
        self.backplane.log.append(&message, None).await.unwrap();
        self.messaging.delivery.flush(room).await;
    }

    async fn await_reads(&self, count: usize) {
        while self.store.reads() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn received(&self) -> usize {
        *self.receiver.received.lock()
    }

    async fn is_occupant(&self, room: &RoomId) -> bool {
        let found = self.messaging.is_occupant(room, &self.user).await;
        found.unwrap()
    }
}

/// Joins a chat while its membership is read; returns the number of acknowledgements.
async fn join_while_messages_arrive(
    scene: &Scene,
    mut connection: ConnectionState,
    room: &RoomId,
    right: Option<Membership>,
) -> (Result<(), Refusal>, usize) {
    let member = *scene.store.right.lock();
    let permit = connection.may_join(room, member).unwrap();
    *scene.store.right.lock() = right;
    let acknowledged = Arc::new(Mutex::new(0));
    let count = acknowledged.clone();
    let on_joined = Box::new(move |_: &JoinOutcome| *count.lock() += 1);
    let messaging = scene.messaging.clone();
    let joining = tokio::spawn(async move {
        let joining = messaging.join(&mut connection, permit, ReplayFrom::Live, on_joined);
        joining.await
    });
    scene.await_reads(1).await;
    assert!(scene.is_occupant(room).await, "it is attached");
    for _ in 0..3 {
        scene.deliver_message(room).await;
    }
    assert_eq!((scene.received(), *acknowledged.lock()), (0, 0));
    scene.store.permits.add_permits(1);
    let joined = joining.await.unwrap();
    let acknowledged = *acknowledged.lock();
    (joined, acknowledged)
}

#[tokio::test(start_paused = true)]
async fn a_join_that_races_with_a_removal_delivers_nothing() {
    let (scene, connection) = Scene::new().await;
    let room = RoomId::chat(Uuid::now_v7());
    let (joined, acknowledged) = join_while_messages_arrive(&scene, connection, &room, None).await;
    assert_eq!(joined.unwrap_err().code, Code::Forbidden);
    scene.deliver_message(&room).await;
    assert_eq!((scene.received(), acknowledged), (0, 0));
    assert!(!scene.is_occupant(&room).await);
}

#[tokio::test(start_paused = true)]
async fn a_join_of_a_chat_delivers_everything_once_its_membership_is_checked() {
    let (scene, connection) = Scene::new().await;
    let room = RoomId::chat(Uuid::now_v7());
    let right = *scene.store.right.lock();
    let (joined, acknowledged) = join_while_messages_arrive(&scene, connection, &room, right).await;
    assert_eq!((joined, acknowledged), (Ok(()), 1));
    // Three messages, and the list of occupants.
    while scene.received() < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(scene.is_occupant(&room).await);
}

#[tokio::test(start_paused = true)]
async fn sync_checks_its_chats_side_by_side_before_anything_is_delivered() {
    let (scene, mut connection) = Scene::new().await;
    let member = *scene.store.right.lock();
    let rooms: Vec<_> = (0..40)
        .map(|_| {
            let room = RoomId::chat(Uuid::now_v7());
            let permit = connection.may_join(&room, member);
            (room, ReplayFrom::Live, permit)
        })
        .collect();
    let first = rooms[0].0.clone();
    let request = SyncRequest {
        feed: ReplayFrom::Live,
        rooms,
    };
    let messaging = scene.messaging.clone();
    let syncing = tokio::spawn(async move {
        let mut refused = Vec::new();
        let on_synced = |outcome: &SyncOutcome| {
            let outcomes = outcome.rooms.iter();
            refused.extend(outcomes.filter_map(|(_, outcome)| outcome.as_ref().err().cloned()));
        };
        messaging
            .sync(&mut connection, request, on_synced)
            .await
            .unwrap();
        refused
    });
    scene.await_reads(16).await;
    scene.deliver_message(&first).await;
    assert_eq!(scene.received(), 0);
    // The members of the other chats are removed.
    *scene.store.right.lock() = None;
    scene.store.permits.add_permits(40);
    let refused = syncing.await.unwrap();
    assert_eq!(refused.len(), 24);
    assert!(
        refused
            .iter()
            .all(|refusal| refusal.code == Code::Forbidden)
    );
    assert!(scene.is_occupant(&first).await);
}
