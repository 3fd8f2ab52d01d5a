//! What watchers of a user see when Redis loses what it knew: the truth in the end, each state once, in rising versions.

use std::sync::Arc;
use std::time::Duration;

use hubbub::backplane::{Backplane, BackplaneLimits};
use hubbub::delivery::{CloseReason, Delivery, DeliverySettings, Event, Outlet, Shared, WatchReply};
use hubbub::domain::{ConnId, UserId};
use parking_lot::Mutex;

use crate::fixture::{Fixture, SOON, conn, eventually, limits, name, user};

/// Online or not, and in which version: all that the watcher was told.
struct Watcher {
    conn: ConnId,
    user: UserId,
    told: Mutex<Vec<(bool, u64)>>,
}

impl Outlet for Watcher {
    fn conn(&self) -> &ConnId {
        &self.conn
    }
    fn user(&self) -> &UserId {
        &self.user
    }
    fn deliver(&self, event: &Shared) {
        if let Event::Status { status, .. } = event.event() {
            self.told.lock().push((status.online, status.version));
        }
    }
    fn has_room(&self) -> bool {
        true
    }
    fn when_roomy(&self, wake: Box<dyn FnOnce() + Send>) {
        wake();
    }
    fn is_closed(&self) -> bool {
        false
    }
    fn close(&self, _: CloseReason) {}
}

impl Watcher {
    /// Watches Zoe.
    async fn of_zoe(delivery: &Delivery, with: &str) -> Arc<Self> {
        let watcher = Arc::new(Self { conn: conn(with), user: user(with), told: Mutex::default() });
        let reply: WatchReply = Box::new(|status| assert!(status.is_ok()));
        delivery.watch(user("zoe"), watcher.clone(), reply).await;
        watcher
    }

    fn told(&self) -> Vec<(bool, u64)> {
        self.told.lock().clone()
    }

    async fn hears(&self, online: bool) -> u64 {
        eventually(SOON, "the newest state", async || {
            self.told().last().filter(|told| told.0 == online).map(|told| told.1)
        })
        .await
    }
}

/// Zoe is connected through the second of two nodes; watchers are on the first.
async fn watched(fixture: &Fixture, grace: Duration) -> (Backplane, Backplane, Delivery) {
    let limits = BackplaneLimits { presence_grace: grace, ..limits() };
    let (one, two) = (fixture.start(limits.clone()).await, fixture.start(limits).await);
    two.presence.connect(&conn("z"), &user("zoe"), &name("Zoe")).await.unwrap();
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
    two.presence.lost(&conn("z"), &user("zoe"), &[]).await;
    assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
    let offline = watcher.hears(false).await;
    assert!(offline > online);
    assert_eq!(watcher.told(), [(true, online), (false, offline)]);
    // Who comes new is told the same.
    let status = one.presence.status(&user("zoe")).await.unwrap();
    assert_eq!((status.online, status.version, status.username), (false, offline, Some(name("Zoe"))));
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
    two.presence.lost(&conn("z"), &user("zoe"), &[]).await;
    let offline = watcher.hears(false).await;
    assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
    let known = eventually(SOON, "Redis knows her again", async || {
        one.presence.status(&user("zoe")).await.ok().filter(|status| status.version != 0)
    })
    .await;
    assert_eq!((known.online, known.version), (false, offline));
    two.presence.connect(&conn("z2"), &user("zoe"), &name("Zoe")).await.unwrap();
    let again = watcher.hears(true).await;
    assert_eq!(watcher.told(), [(true, online), (false, offline), (true, again)]);
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
        eventually(SOON, "she is registered again, and no grace runs", async || {
            let redis = fixture.server();
            let back = !redis.cli(&["KEYS", "{p*}c:em9l"]).is_empty() && redis.cli(&["KEYS", "{p*}g"]).is_empty();
            back.then_some(())
        })
        .await;
    }
    eventually(SOON, "the watcher knows what Redis knows", async || {
        let status = one.presence.status(&user("zoe")).await.ok()?;
        (watcher.told().last() == Some(&(status.online, status.version))).then_some(())
    })
    .await;
    two.presence.lost(&conn("z"), &user("zoe"), &[]).await;
    watcher.hears(false).await;
    let told = watcher.told();
    assert!(told.is_sorted_by(|one, next| one.1 < next.1), "{told:?}");
    let (offline, online) = told.split_last().unwrap();
    assert!(!offline.0 && online.iter().all(|told| told.0), "{told:?}");
    assert!(online.len() <= 4, "the newest state once for each loss: {told:?}");
}
