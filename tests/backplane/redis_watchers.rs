//! Watchers of a user and members of a room after Redis has lost data: they receive the true state
//! in the end, and each state of a user once, in ascending versions.

use std::sync::Arc;
use std::time::Duration;

use hubbub::backplane::{Backplane, BackplaneLimits};
use hubbub::delivery::{
    CloseReason, Delivery, DeliverySettings, Event, Outlet, ReplayFrom, SharedEvent,
};
use hubbub::domain::{ChangeKind, ConnId, UserId};
use parking_lot::Mutex;

use crate::fixture::{
    DEADLINE, Fixture, conn, connect_and_join, eventually, limits, name, room, user,
};

/// An outlet that records the notifications of a watcher or a member.
struct Watcher {
    conn: ConnId,
    user: UserId,
    /// The full lists of the room's members that it received.
    lists: Mutex<Vec<Vec<UserId>>>,
    changes: Mutex<Vec<(ChangeKind, UserId)>>,
    /// The states of the watched user that it received: online or not, and the version.
    states: Mutex<Vec<(bool, u64)>>,
}

impl Outlet for Watcher {
    fn conn(&self) -> &ConnId {
        &self.conn
    }
    fn user(&self) -> &UserId {
        &self.user
    }
    fn deliver(&self, event: &SharedEvent) {
        if let Event::OnlineStatus { status, .. } = event.event() {
            self.states.lock().push((status.online, status.version));
        }
        if let Event::RoomUsers { users, .. } = event.event() {
            self.lists.lock().push(users.clone());
        }
        if let Event::RoomChanged(_, change) = event.event() {
            self.changes.lock().push((change.kind, change.user.clone()));
        }
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
    fn close(&self, _: CloseReason) {}
}

impl Watcher {
    fn new(conn_id: &str) -> Arc<Self> {
        let (lists, changes, states) = Default::default();
        Arc::new(Self {
            conn: conn(conn_id),
            user: user(conn_id),
            lists,
            changes,
            states,
        })
    }

    /// A new watcher of Zoe.
    async fn watching_zoe(delivery: &Delivery, conn_id: &str) -> Arc<Self> {
        let watcher = Self::new(conn_id);
        delivery
            .watch(user("zoe"), watcher.clone(), Box::new(|_| ()))
            .await
            .unwrap();
        watcher
    }

    fn states(&self) -> Vec<(bool, u64)> {
        self.states.lock().clone()
    }

    /// Waits until the newest state is this one. Returns its version.
    async fn wait_for_state(&self, online: bool) -> u64 {
        eventually(DEADLINE, "the newest state arrives", async || {
            self.states()
                .last()
                .filter(|state| state.0 == online)
                .map(|state| state.1)
        })
        .await
    }
}

/// Starts two nodes. Zoe is connected to the second one; watchers belong to the delivery of the
/// first.
async fn start_with_watched_user(
    fixture: &Fixture,
    grace: Duration,
) -> (Backplane, Backplane, Delivery) {
    let limits = BackplaneLimits {
        presence_grace: grace,
        ..limits()
    };
    let (one, two) = (
        fixture.start(limits.clone()).await,
        fixture.start(limits).await,
    );
    two.presence
        .connect(&conn("z"), &user("zoe"), &name("Zoe"))
        .await
        .unwrap();
    let delivery = Delivery::start(&one, &DeliverySettings::default());
    (one, two, delivery)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_grace_was_lost_goes_offline_for_watchers() {
    let mut fixture = Fixture::redis();
    let (one, two, delivery) = start_with_watched_user(&fixture, Duration::from_secs(5)).await;
    let watcher = Watcher::watching_zoe(&delivery, "w").await;
    let online = watcher.wait_for_state(true).await;
    // Her grace has begun, and only Redis knows of it.
    two.presence
        .connection_lost(&conn("z"), &user("zoe"), &[])
        .await;
    assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
    let offline = watcher.wait_for_state(false).await;
    assert!(offline > online);
    assert_eq!(watcher.states(), [(true, online), (false, offline)]);
    // A new watcher receives the same state.
    let status = one.presence.status(&user("zoe")).await.unwrap();
    assert_eq!(
        (status.online, status.version, status.username),
        (false, offline, Some(name("Zoe")))
    );
    assert!(status.last_seen.is_some());
    let late = Watcher::watching_zoe(&delivery, "late").await;
    assert_eq!(late.states(), [(false, offline)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offline_status_keeps_its_version_after_data_loss() {
    let mut fixture = Fixture::redis();
    let (one, two, delivery) = start_with_watched_user(&fixture, Duration::from_millis(1)).await;
    let watcher = Watcher::watching_zoe(&delivery, "w").await;
    let online = watcher.wait_for_state(true).await;
    two.presence
        .connection_lost(&conn("z"), &user("zoe"), &[])
        .await;
    let offline = watcher.wait_for_state(false).await;
    assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
    let known = eventually(DEADLINE, "Redis has her status again", async || {
        one.presence
            .status(&user("zoe"))
            .await
            .ok()
            .filter(|status| status.version != 0)
    })
    .await;
    assert_eq!((known.online, known.version), (false, offline));
    two.presence
        .connect(&conn("z2"), &user("zoe"), &name("Zoe"))
        .await
        .unwrap();
    let again = watcher.wait_for_state(true).await;
    assert_eq!(
        watcher.states(),
        [(true, online), (false, offline), (true, again)]
    );
    assert!(again > offline);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connected_user_is_never_reported_offline() {
    let mut fixture = Fixture::redis();
    let (one, two, delivery) = start_with_watched_user(&fixture, Duration::from_millis(100)).await;
    let watcher = Watcher::watching_zoe(&delivery, "w").await;
    watcher.wait_for_state(true).await;
    for _ in 0..3 {
        assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
        eventually(
            DEADLINE,
            "she is registered again and has no grace",
            async || {
                let redis = fixture.server();
                let is_back = !redis.cli(&["KEYS", "hubbub:{p*}c:em9l"]).is_empty()
                    && redis.cli(&["KEYS", "hubbub:{p*}g"]).is_empty();
                is_back.then_some(())
            },
        )
        .await;
    }
    eventually(
        DEADLINE,
        "the watcher has the state that Redis has",
        async || {
            let status = one.presence.status(&user("zoe")).await.ok()?;
            (watcher.states().last() == Some(&(status.online, status.version))).then_some(())
        },
    )
    .await;
    two.presence
        .connection_lost(&conn("z"), &user("zoe"), &[])
        .await;
    watcher.wait_for_state(false).await;
    let states = watcher.states();
    assert!(
        states.is_sorted_by(|one, next| one.1 < next.1),
        "{states:?}"
    );
    let (offline, online) = states.split_last().unwrap();
    assert!(
        !offline.0 && online.iter().all(|state| state.0),
        "{states:?}"
    );
    assert!(
        online.len() <= 4,
        "at most one state for each loss: {states:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_receive_the_older_list_after_a_rollback() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let delivery = Delivery::start(&node, &DeliverySettings::default());
    let ann = Watcher::new("ann");
    node.presence
        .connect(&ann.conn, &ann.user, &name("ann"))
        .await
        .unwrap();
    delivery
        .join(
            room("lobby"),
            ann.clone(),
            name("ann"),
            ReplayFrom::Live,
            Box::new(|_| ()),
        )
        .await
        .unwrap();
    let before = node.presence.roster(&room("lobby"), 9).await.unwrap();
    // Bob joins through a node that dies together with the server, before the replica has received
    // the join. The commands below put Redis into the state of that replica.
    connect_and_join(&node, "bob", "b", "lobby").await;
    let wait_for_changes = async |all: &[(ChangeKind, &str)]| {
        let all: Vec<_> = all
            .iter()
            .map(|(kind, user_id)| (*kind, user(user_id)))
            .collect();
        eventually(DEADLINE, "the changes arrive", async || {
            (*ann.changes.lock() == all).then_some(())
        })
        .await;
    };
    wait_for_changes(&[(ChangeKind::Joined, "bob")]).await;
    let redis = fixture.server();
    redis.cli(&["ZREM", "hubbub:{c85}u:bG9iYnk", "bob"]);
    redis.cli(&["DEL", "hubbub:{c85}p:bG9iYnk"]);
    redis.cli(&[
        "HSET",
        "hubbub:{c85}m:bG9iYnk",
        "v",
        &before.version.to_string(),
    ]);
    node.presence
        .connect(&conn("c"), &user("cid"), &name("cid"))
        .await
        .unwrap();
    let lists = [[user("ann")], [user("ann")]];
    eventually(DEADLINE, "the list without bob arrives", async || {
        (*ann.lists.lock() == lists).then_some(())
    })
    .await;
    // Later changes follow that list.
    node.presence
        .join(&conn("c"), &user("cid"), &name("cid"), &room("lobby"))
        .await
        .unwrap();
    node.presence
        .leave(&conn("c"), &user("cid"), &room("lobby"))
        .await
        .unwrap();
    wait_for_changes(&[
        (ChangeKind::Joined, "bob"),
        (ChangeKind::Joined, "cid"),
        (ChangeKind::Left, "cid"),
    ])
    .await;
    assert_eq!(*ann.lists.lock(), lists);
}
