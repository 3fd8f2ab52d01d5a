//! What watchers of a user, and members of a room, see when Redis loses what it knew: the truth in the end, and each state
//! of a user once, in rising versions.

use std::sync::Arc;
use std::time::Duration;

use hubbub::backplane::{Backplane, BackplaneLimits};
use hubbub::delivery::{
    CloseReason, Delivery, DeliverySettings, Event, Outlet, ReplayFrom, SharedEvent,
};
use hubbub::domain::{ChangeKind, ConnId, UserId};
use parking_lot::Mutex;

use crate::fixture::{Fixture, SOON, conn, enter, eventually, limits, name, room, user};

/// Online or not, and in which version: all that the watcher was told.
struct Watcher {
    conn: ConnId,
    user: UserId,
    /// The lists of the room's members.
    lists: Mutex<Vec<Vec<UserId>>>,
    changes: Mutex<Vec<(ChangeKind, UserId)>>,
    told: Mutex<Vec<(bool, u64)>>,
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
            self.told.lock().push((status.online, status.version));
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
    fn new(with: &str) -> Arc<Self> {
        let (lists, changes, told) = Default::default();
        Arc::new(Self {
            conn: conn(with),
            user: user(with),
            lists,
            changes,
            told,
        })
    }

    /// Watches Zoe.
    async fn of_zoe(delivery: &Delivery, with: &str) -> Arc<Self> {
        let watcher = Self::new(with);
        delivery
            .watch(user("zoe"), watcher.clone(), Box::new(|_| ()))
            .await
            .unwrap();
        watcher
    }

    fn told(&self) -> Vec<(bool, u64)> {
        self.told.lock().clone()
    }

    async fn hears(&self, online: bool) -> u64 {
        eventually(SOON, "the newest state", async || {
            self.told()
                .last()
                .filter(|told| told.0 == online)
                .map(|told| told.1)
        })
        .await
    }
}

/// Zoe is connected through the second of two nodes; watchers are on the first.
async fn watched(fixture: &Fixture, grace: Duration) -> (Backplane, Backplane, Delivery) {
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
async fn who_is_gone_with_the_data_goes_offline_for_watchers() {
    let mut fixture = Fixture::redis();
    let (one, two, delivery) = watched(&fixture, Duration::from_secs(5)).await;
    let watcher = Watcher::of_zoe(&delivery, "w").await;
    let online = watcher.hears(true).await;
    // Her grace runs, and nobody but Redis knows of it.
    two.presence
        .connection_lost(&conn("z"), &user("zoe"), &[])
        .await;
    assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
    let offline = watcher.hears(false).await;
    assert!(offline > online);
    assert_eq!(watcher.told(), [(true, online), (false, offline)]);
    // Who comes new is told the same.
    let status = one.presence.status(&user("zoe")).await.unwrap();
    assert_eq!(
        (status.online, status.version, status.username),
        (false, offline, Some(name("Zoe")))
    );
    assert!(status.last_seen.is_some());
    let late = Watcher::of_zoe(&delivery, "late").await;
    assert_eq!(late.told(), [(false, offline)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_offline_stays_what_watchers_know() {
    let mut fixture = Fixture::redis();
    let (one, two, delivery) = watched(&fixture, Duration::from_millis(1)).await;
    let watcher = Watcher::of_zoe(&delivery, "w").await;
    let online = watcher.hears(true).await;
    two.presence
        .connection_lost(&conn("z"), &user("zoe"), &[])
        .await;
    let offline = watcher.hears(false).await;
    assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
    let known = eventually(SOON, "Redis knows her again", async || {
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
    let again = watcher.hears(true).await;
    assert_eq!(
        watcher.told(),
        [(true, online), (false, offline), (true, again)]
    );
    assert!(again > offline);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lives_is_never_said_to_be_offline() {
    let mut fixture = Fixture::redis();
    let (one, two, delivery) = watched(&fixture, Duration::from_millis(100)).await;
    let watcher = Watcher::of_zoe(&delivery, "w").await;
    watcher.hears(true).await;
    for _ in 0..3 {
        assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
        eventually(
            SOON,
            "she is registered again, and no grace runs",
            async || {
                let redis = fixture.server();
                let back = !redis.cli(&["KEYS", "{p*}c:em9l"]).is_empty()
                    && redis.cli(&["KEYS", "{p*}g"]).is_empty();
                back.then_some(())
            },
        )
        .await;
    }
    eventually(SOON, "the watcher knows what Redis knows", async || {
        let status = one.presence.status(&user("zoe")).await.ok()?;
        (watcher.told().last() == Some(&(status.online, status.version))).then_some(())
    })
    .await;
    two.presence
        .connection_lost(&conn("z"), &user("zoe"), &[])
        .await;
    watcher.hears(false).await;
    let told = watcher.told();
    assert!(told.is_sorted_by(|one, next| one.1 < next.1), "{told:?}");
    let (offline, online) = told.split_last().unwrap();
    assert!(!offline.0 && online.iter().all(|told| told.0), "{told:?}");
    assert!(
        online.len() <= 4,
        "the newest state once for each loss: {told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_learn_of_an_older_list_that_came_back() {
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
    // Bob joins through a node that dies with the server, whose replica has heard nothing of it.
    enter(&node, "bob", "b", "lobby").await;
    let changes = async |all: &[(ChangeKind, &str)]| {
        let all: Vec<_> = all.iter().map(|(kind, who)| (*kind, user(who))).collect();
        eventually(SOON, "changes", async || {
            (*ann.changes.lock() == all).then_some(())
        })
        .await;
    };
    changes(&[(ChangeKind::Joined, "bob")]).await;
    let redis = fixture.server();
    redis.cli(&["ZREM", "{c85}u:bG9iYnk", "bob"]);
    redis.cli(&["DEL", "{c85}p:bG9iYnk"]);
    redis.cli(&["HSET", "{c85}m:bG9iYnk", "v", &before.version.to_string()]);
    node.presence
        .connect(&conn("c"), &user("cid"), &name("cid"))
        .await
        .unwrap();
    let lists = [[user("ann")], [user("ann")]];
    eventually(SOON, "the list without bob", async || {
        (*ann.lists.lock() == lists).then_some(())
    })
    .await;
    // And from then on changes follow that one.
    node.presence
        .join(&conn("c"), &user("cid"), &name("cid"), &room("lobby"))
        .await
        .unwrap();
    node.presence
        .leave(&conn("c"), &user("cid"), &room("lobby"))
        .await
        .unwrap();
    changes(&[
        (ChangeKind::Joined, "bob"),
        (ChangeKind::Joined, "cid"),
        (ChangeKind::Left, "cid"),
    ])
    .await;
    assert_eq!(*ann.lists.lock(), lists);
}
