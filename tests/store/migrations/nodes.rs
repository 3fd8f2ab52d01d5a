//! Whole nodes that start at once on a database that lacks steps.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::http;
use hubbub_test_support::server::{RedisServer, free_port};
use tokio::net::TcpStream;

use super::{assert_complete, hubbub, migrate, steps};

const NODES: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(120);

/// A node that is ended with the test.
struct Node {
    child: Child,
    address: SocketAddr,
}

impl Node {
    fn start(database: &TestDatabase, redis: &RedisServer) -> Self {
        let port = free_port();
        let child = hubbub(database, &["serve"])
            .env("SERVER_PORT", port.to_string())
            .env("REDIS_URL", redis.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self {
            child: child.unwrap(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    async fn await_ready(&mut self) {
        let begin = Instant::now();
        while !self.is_ready().await {
            let exit = self.child.try_wait().unwrap();
            assert!(exit.is_none(), "the node has ended: {exit:?}");
            assert!(begin.elapsed() < TIMEOUT, "the node does not become ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        TcpStream::connect(self.address).await.is_ok()
            && http(self.address, "GET", "/readyz", &[], "").await.0 == 200
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start_five(database: &TestDatabase) {
    let redis = RedisServer::start();
    let mut nodes: Vec<Node> = (0..NODES).map(|_| Node::start(database, &redis)).collect();
    for node in &mut nodes {
        node.await_ready().await;
    }
    assert_complete(database);
}

async fn five_nodes_on_an_empty_database(kind: DatabaseKind) {
    start_five(&TestDatabase::new(kind)).await;
}

/// Starts the nodes on a database with all steps but the newest `missing`.
async fn five_nodes_on_an_earlier_schema(kind: DatabaseKind, missing: usize) {
    let database = TestDatabase::new(kind);
    migrate(&database, &["up"]);
    migrate(&database, &["down", &missing.to_string()]);
    start_five(&database).await;
}

async fn five_nodes_on_version_1(kind: DatabaseKind) {
    five_nodes_on_an_earlier_schema(kind, steps(kind).len() - 1).await;
}

async fn five_nodes_on_the_previous_schema(kind: DatabaseKind) {
    five_nodes_on_an_earlier_schema(kind, 1).await;
}

#[tokio::test]
async fn postgres_five_nodes_that_start_at_once_on_an_empty_database_become_ready() {
    five_nodes_on_an_empty_database(DatabaseKind::Postgres).await;
}

#[tokio::test]
async fn mariadb_five_nodes_that_start_at_once_on_an_empty_database_become_ready() {
    five_nodes_on_an_empty_database(DatabaseKind::MariaDb).await;
}

#[tokio::test]
async fn postgres_five_nodes_that_start_at_once_on_the_previous_schema_become_ready() {
    five_nodes_on_the_previous_schema(DatabaseKind::Postgres).await;
}

#[tokio::test]
async fn mariadb_five_nodes_that_start_at_once_on_the_previous_schema_become_ready() {
    five_nodes_on_the_previous_schema(DatabaseKind::MariaDb).await;
}

#[tokio::test]
async fn postgres_five_nodes_that_start_at_once_on_version_1_become_ready() {
    five_nodes_on_version_1(DatabaseKind::Postgres).await;
}

#[tokio::test]
async fn mariadb_five_nodes_that_start_at_once_on_version_1_become_ready() {
    five_nodes_on_version_1(DatabaseKind::MariaDb).await;
}
