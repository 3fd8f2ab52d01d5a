//! Nodes in this process, on free ports, configured as by a user.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use hubbub::app::App;
use hubbub::config::Config;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::RedisServer;

/// Nodes that share a backplane. Call [`Cluster::stop`] at the end of a test.
pub struct Cluster {
    pub nodes: Vec<App>,
    /// Kept until the nodes are dropped.
    _redis: Option<RedisServer>,
}

impl Cluster {
    /// One node with the embedded backplane.
    pub async fn alone(settings: &[(&str, &str)]) -> Self {
        Self {
            nodes: vec![start(settings).await],
            _redis: None,
        }
    }

    /// `count` nodes with a new redis-server.
    pub async fn of(count: usize, settings: &[(&str, &str)]) -> Self {
        let redis = RedisServer::start();
        let url = redis.url();
        Self::on(
            redis,
            count,
            &[&[("REDIS_URL", url.as_str())], settings].concat(),
        )
        .await
    }

    /// `count` nodes with that redis-server, which the settings must name.
    pub async fn on(redis: RedisServer, count: usize, settings: &[(&str, &str)]) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(start(settings).await);
        }
        let cluster = Self {
            nodes,
            _redis: Some(redis),
        };
        for index in 0..count {
            cluster.await_ready(index).await;
        }
        cluster
    }

    async fn await_ready(&self, index: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while http(self.address(index), "GET", "/readyz", &[], "").await.0 != 200 {
            assert!(Instant::now() < deadline, "the node does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn address(&self, index: usize) -> SocketAddr {
        self.nodes[index].address()
    }

    pub async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }
}

/// A Redis of its own, and the database of a test, for nodes that share both.
pub struct SharedStorage {
    pub redis: RedisServer,
    redis_url: String,
    database_url: String,
}

impl SharedStorage {
    pub fn new(database_url: &str) -> Self {
        let redis = RedisServer::start();
        Self {
            redis_url: redis.url(),
            redis,
            database_url: database_url.to_owned(),
        }
    }

    /// The settings that name both, and others.
    pub fn settings<'s>(&'s self, others: &[(&'s str, &'s str)]) -> Vec<(&'s str, &'s str)> {
        let own = [
            ("REDIS_URL", self.redis_url.as_str()),
            ("DATABASE_URL", self.database_url.as_str()),
        ];
        [&own, others].concat()
    }

    /// Starts a node on both.
    pub async fn start_node(&self, settings: &[(&str, &str)]) -> App {
        start(&self.settings(settings)).await
    }
}

pub async fn start(settings: &[(&str, &str)]) -> App {
    let mut environment: BTreeMap<String, String> = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    environment.insert("SERVER_PORT".into(), "0".into());
    // A node without Redis would keep a database file in the working directory.
    let database = environment.entry("DATABASE_URL".into());
    database.or_insert_with(|| "none".into());
    let config = Config::from_sources(environment, Path::new("/nonexistent/.env")).unwrap();
    App::start(&config).await.unwrap()
}

/// Sends one HTTP request; returns the status, the headers with names in lower case, and the body
/// as JSON (`null` if it is not JSON).
pub async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, BTreeMap<String, String>, Value) {
    let answer = http_text(address, method, path, headers, body).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
        .collect();
    (
        status,
        headers,
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

/// Sends one HTTP request; returns the answer's bytes as text.
pub async fn http_text(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Sends the head of a request as it is written (each line ends with CRLF; the empty line is added),
/// and returns the status and every header line of the response, with names in lower case.
pub async fn http_head(address: SocketAddr, request: &str) -> (u16, Vec<(String, String)>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{request}\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let headers = answer
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    (status, headers)
}

/// `POST /messages`.
pub async fn post(address: SocketAddr, body: &Value) -> (u16, Value) {
    let headers = [("content-type", "application/json")];
    let (status, _, answer) = http(address, "POST", "/messages", &headers, &body.to_string()).await;
    (status, answer)
}

/// The value of a metric of the node.
pub async fn metric(address: SocketAddr, name: &str) -> u64 {
    let text = http_text(address, "GET", "/metrics", &[], "").await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}"))
        .trim()
        .parse()
        .unwrap()
}
