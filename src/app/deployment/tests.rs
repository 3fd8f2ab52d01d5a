//! Tests of the checks: on a fake Redis whose name changes at will, and on real servers.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::server::RedisServer;
use parking_lot::Mutex;

use super::*;
use crate::backplane::{self, BackplaneError, BackplaneKind, Counters, redis};
use crate::config::Config;
use crate::store::DatabaseSettings;
use crate::store::sql::{self, DatabaseUrl, PreparedDatabase};

/// A database that deployments use.
struct Shared {
    store: Arc<SqlStore>,
    _prepared: PreparedDatabase,
    _database: TestDatabase,
}

impl Shared {
    async fn new() -> Self {
        let database = TestDatabase::new(DatabaseKind::Sqlite);
        let settings = DatabaseSettings::new(DatabaseUrl::parse(&database.url).unwrap());
        let prepared = sql::prepare(&settings).await.unwrap();
        let store = SqlStore::open(&(&settings).into()).await.unwrap();
        Self {
            store: Arc::new(store),
            _prepared: prepared,
            _database: database,
        }
    }

    /// A node that has made no check yet.
    fn node(&self, redis: &Arc<Redis>) -> DeploymentWatch {
        self.node_on(redis.clone())
    }

    fn node_on(&self, backplane: Arc<dyn Lifecycle>) -> DeploymentWatch {
        DeploymentWatch {
            store: self.store.clone(),
            backplane,
            run: 0,
            last: None,
        }
    }
}

/// The Redis of a deployment; without a name it is down.
struct Redis {
    name: Mutex<Option<&'static str>>,
    /// The name after the next read, which another node then records in the database.
    flush: Mutex<Option<(Arc<SqlStore>, &'static str)>>,
}

impl Redis {
    fn named(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name: Mutex::new(Some(name)),
            flush: Mutex::default(),
        })
    }

    fn rename(&self, name: &'static str) {
        *self.name.lock() = Some(name);
    }

    fn stop(&self) {
        *self.name.lock() = None;
    }

    fn flush_after_next_read(&self, store: &Arc<SqlStore>, name: &'static str) {
        *self.flush.lock() = Some((store.clone(), name));
    }
}

#[async_trait]
impl Lifecycle for Redis {
    fn kind(&self) -> BackplaneKind {
        BackplaneKind::Redis
    }
    fn describe(&self) -> String {
        String::new()
    }
    fn is_up(&self) -> bool {
        true
    }
    async fn deployment(&self) -> backplane::Result<Option<String>> {
        let name = *self.name.lock();
        let flush = self.flush.lock().take();
        if let Some((store, next)) = flush {
            self.rename(next);
            let recorded = store.recorded_log().await.unwrap();
            let is_recorded = store.record_log(next, recorded.as_deref()).await;
            assert!(is_recorded.unwrap());
        }
        let unavailable = || BackplaneError::Unavailable(String::new());
        name.map(|name| Some(name.to_owned()))
            .ok_or_else(unavailable)
    }
    fn counters(&self) -> Counters {
        Counters::default()
    }
    async fn stop(&self) {}
}

async fn check(node: &mut DeploymentWatch) -> Option<Meaning> {
    node.check().await.unwrap().map(|replaced| replaced.meaning)
}

#[tokio::test]
async fn two_deployments_that_run_at_once_both_find_the_other_one() {
    let database = Shared::new().await;
    let (one, two) = (Redis::named("one"), Redis::named("two"));
    let (mut first, mut second) = (database.node(&one), database.node(&one));
    assert_eq!(check(&mut first).await, None);
    assert_eq!(check(&mut second).await, None);
    let mut other = database.node(&two);
    assert_eq!(check(&mut other).await, Some(Meaning::EarlierDeployment));
    for _ in 0..2 {
        let replaced = first.check().await.unwrap();
        let expected = Replaced {
            found: "two".to_owned(),
            own: "one".to_owned(),
            meaning: Meaning::OtherDeployment,
        };
        assert_eq!(replaced, Some(expected));
        assert_eq!(check(&mut second).await, None);
        assert_eq!(check(&mut other).await, Some(Meaning::OtherDeployment));
    }
}

/// A backplane on this server, with the default prefix and database.
async fn backplane_on(server: &RedisServer) -> Arc<dyn Lifecycle> {
    let environment = BTreeMap::from([("REDIS_URL".to_owned(), server.url())]);
    let config = Config::from_sources(environment, Path::new("/nonexistent/.env")).unwrap();
    let settings = config.redis.unwrap();
    let connected = redis::connect(settings, config.backplane, None).await;
    connected.unwrap().lifecycle
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_redis_servers_are_two_deployments_also_after_a_flush() {
    let database = Shared::new().await;
    let (server, other_server) = (RedisServer::start(), RedisServer::start());
    let mut first = database.node_on(backplane_on(&server).await);
    let mut second = database.node_on(backplane_on(&server).await);
    for node in [&mut first, &mut second] {
        assert_eq!(check(node).await, None);
    }
    server.cli(&["FLUSHALL"]);
    assert_eq!(check(&mut second).await, Some(Meaning::Renamed));
    let mut third = database.node_on(backplane_on(&server).await);
    for node in [&mut first, &mut second, &mut third] {
        assert_eq!(check(node).await, None);
    }
    let mut other = database.node_on(backplane_on(&other_server).await);
    assert_eq!(check(&mut other).await, Some(Meaning::EarlierDeployment));
    for node in [&mut third, &mut other, &mut first] {
        assert_eq!(check(node).await, Some(Meaning::OtherDeployment));
    }
}

#[tokio::test]
async fn no_running_node_takes_a_deployment_whose_redis_was_flushed_for_another_one() {
    let database = Shared::new().await;
    let redis = Redis::named("before");
    let (mut first, mut second) = (database.node(&redis), database.node(&redis));
    for node in [&mut first, &mut second] {
        assert_eq!(check(node).await, None);
    }
    redis.rename("after");
    assert_eq!(check(&mut first).await, Some(Meaning::Renamed));
    for node in [&mut first, &mut second, &mut database.node(&redis)] {
        assert_eq!(check(node).await, None);
    }
    // Twice between two checks of the second node.
    redis.rename("after 2");
    assert_eq!(check(&mut first).await, Some(Meaning::Renamed));
    redis.rename("after 3");
    assert_eq!(check(&mut second).await, Some(Meaning::Renamed));
    assert_eq!(check(&mut first).await, None);
}

#[tokio::test]
async fn of_all_nodes_that_are_restarted_after_a_flush_one_warns() {
    let database = Shared::new().await;
    let redis = Redis::named("before");
    let mut nodes = [(); 3].map(|()| database.node(&redis));
    for node in &mut nodes {
        assert_eq!(check(node).await, None);
    }
    redis.rename("after");
    let mut found = Vec::new();
    for index in 0..nodes.len() {
        nodes[index] = database.node(&redis);
        for node in &mut nodes {
            found.extend(check(node).await);
        }
    }
    assert_eq!(found, [Meaning::EarlierDeployment]);
}

#[tokio::test]
async fn a_node_whose_redis_is_flushed_during_a_check_does_not_record_its_former_name() {
    let database = Shared::new().await;
    let redis = Redis::named("before");
    let mut node = database.node(&redis);
    assert_eq!(check(&mut node).await, None);
    let other = database.store.record_log("other", Some("before")).await;
    assert!(other.unwrap());
    redis.flush_after_next_read(&database.store, "after");
    assert_eq!(check(&mut node).await, None);
    let recorded = database.store.recorded_log().await.unwrap();
    assert_eq!(recorded.as_deref(), Some("after"));
}

#[tokio::test]
async fn a_check_is_skipped_while_redis_is_down() {
    let database = Shared::new().await;
    let redis = Redis::named("one");
    let mut node = database.node(&redis);
    redis.stop();
    assert_eq!(check(&mut node).await, None);
    assert_eq!(database.store.recorded_log().await.unwrap(), None);
    redis.rename("one");
    let other = database.store.record_log("other", None).await;
    assert!(other.unwrap());
    assert_eq!(check(&mut node).await, Some(Meaning::EarlierDeployment));
    redis.stop();
    let other = database.store.record_log("other", Some("one")).await;
    assert!(other.unwrap());
    assert_eq!(check(&mut node).await, None);
    redis.rename("one");
    assert_eq!(check(&mut node).await, Some(Meaning::OtherDeployment));
}

#[test]
fn a_restart_of_a_lone_node_is_no_other_deployment() {
    let first_check =
        |found: &str, own: &str| Replaced::new(found.to_owned(), own.to_owned(), None).meaning;
    assert_eq!(first_check("memory 1", "memory 2"), Meaning::EarlierRun);
    for (found, own) in [
        ("memory 1", "redis hubbub: 0 a"),
        ("redis hubbub: 0 a", "memory 2"),
        ("redis hubbub: 0 a", "redis hubbub: 0 b"),
    ] {
        assert_eq!(first_check(found, own), Meaning::EarlierDeployment);
    }
}
