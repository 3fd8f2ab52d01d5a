//! A client that behaves as the protocol asks: it reconnects by itself, resumes each room at the
//! last message that it received, and repeats a message with the same `client_msg_id` until it is
//! acknowledged.

mod events;
mod requests;
mod task;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::task::ClientTask;
use super::{ClientState, Latencies};
use crate::history::Recorder;

#[derive(Debug, Clone, Default)]
pub struct ClientConfig {
    /// Unique in the run.
    pub name: String,
    /// Several clients may have the same user.
    pub user: String,
    pub rooms: Vec<String>,
    /// The users whose status the client watches.
    pub watches: Vec<String>,
    /// The addresses of the nodes. After a lost connection the client uses the next one.
    pub addresses: Vec<SocketAddr>,
    /// The index of the address to which the client connects first.
    pub home_node: usize,
    /// The mean time between two messages. `None`: the client does not send.
    pub send_interval: Option<Duration>,
    /// The minimum length of a message's content, in bytes.
    pub content_bytes: usize,
    /// The size of the kernel's receive buffer, for clients that stop reading: a large buffer would
    /// hide that from the server.
    pub receive_window: Option<u32>,
    /// Whether the client measures the latency of the messages that it receives.
    pub measures_latency: bool,
}

enum Command {
    /// Break the connection, and reconnect after this time.
    Disconnect(Duration),
    /// Read nothing for this time.
    StopReading(Duration),
    /// Stop for good.
    End,
    /// Send one message to this room now.
    Send(String),
}

/// A running client. Dropping it ends its task.
pub struct Client {
    pub config: ClientConfig,
    pub state: Arc<ClientState>,
    commands: mpsc::UnboundedSender<Command>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Starts a client. It sends messages while `sending` is true.
    pub fn start(
        config: ClientConfig,
        seed: u64,
        recorder: Recorder,
        sending: watch::Receiver<bool>,
        latencies: Latencies,
    ) -> Self {
        let state = Arc::new(ClientState::default());
        let (commands, pending_commands) = mpsc::unbounded_channel();
        let task = ClientTask::new(
            config.clone(),
            seed,
            recorder,
            sending,
            latencies,
            state.clone(),
            pending_commands,
        );
        Self {
            config,
            state,
            commands,
            task: tokio::spawn(task.run()),
        }
    }

    /// Breaks the connection. The client reconnects after this time.
    pub fn disconnect_for(&self, time: Duration) {
        let _ = self.commands.send(Command::Disconnect(time));
    }

    /// The client reads nothing for this time.
    pub fn stop_reading_for(&self, time: Duration) {
        let _ = self.commands.send(Command::StopReading(time));
    }

    /// The client stops for good, without notifying the server.
    pub fn end(&self) {
        let _ = self.commands.send(Command::End);
    }

    /// The client sends one message to this room.
    pub fn send_one(&self, room: &str) {
        // Counted here and not in the task: otherwise the client would look idle until the task has
        // run.
        self.state.unacknowledged.fetch_add(1, Ordering::SeqCst);
        let _ = self.commands.send(Command::Send(room.to_owned()));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    use super::*;
    use crate::history::Fact;

    /// A server that accepts one client, and then sends this packet.
    async fn start_server(packet: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            for text in [r#"0{"pingInterval":25000,"pingTimeout":20000}"#, "40{}"] {
                socket.send(Message::text(text)).await.unwrap();
            }
            for text in [r#"431[{"ok":true}]"#, packet] {
                // The client's CONNECT, then its `authenticate`.
                socket.next().await;
                socket.send(Message::text(text)).await.unwrap();
            }
            socket.next().await;
        });
        address
    }

    #[tokio::test]
    async fn a_client_that_the_server_disconnects_has_not_ended_by_its_own_decision() {
        let file = std::env::temp_dir().join(format!("hubbub-disconnected-{}", std::process::id()));
        let (recorder, writer) = Recorder::create(&file).unwrap();
        let config = ClientConfig {
            name: "ann".into(),
            user: "ann".into(),
            addresses: vec![start_server("41").await],
            ..ClientConfig::default()
        };
        let (_sending, not_sending) = watch::channel(false);
        let mut client = Client::start(config, 1, recorder, not_sending, Latencies::default());
        (&mut client.task).await.unwrap();
        assert!(!client.state.has_ended());
        writer.finish().await.unwrap();
        let facts: Vec<_> = crate::history::read(&file)
            .unwrap()
            .into_iter()
            .map(|record| record.fact)
            .collect();
        std::fs::remove_file(&file).unwrap();
        let user = "ann".into();
        assert_eq!(facts, [Fact::Connected { user }, Fact::Disconnected]);
    }
}
