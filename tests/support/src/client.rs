//! A small Socket.IO client: Engine.IO 4 over WebSocket. One task reads, and events are kept in
//! order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The longest wait for an answer or an event.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    events: Vec<(String, Value)>,
    acks: HashMap<u64, oneshot::Sender<Value>>,
}

pub struct Client {
    out: mpsc::UnboundedSender<Message>,
    state: Arc<Mutex<State>>,
    closed: Arc<AtomicBool>,
    next: AtomicU64,
}

impl Client {
    /// Connects to the namespace; the server's answer to CONNECT is the first event.
    pub async fn connect(address: SocketAddr) -> Self {
        let client = Self::open(address, "").await;
        client.await_event("connect").await;
        client
    }

    /// Connects with a token in the query, without waiting for the answer.
    pub async fn with_token(address: SocketAddr, token: &str) -> Self {
        Self::open(address, &format!("&token={token}")).await
    }

    async fn open(address: SocketAddr, query: &str) -> Self {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket{query}");
        Self::on(tokio_tungstenite::connect_async(url).await.unwrap().0)
    }

    /// Connects over an open WebSocket.
    pub async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        socket: WebSocketStream<S>,
    ) -> Self {
        let client = Self::on(socket);
        client.await_event("connect").await;
        client
    }

    fn on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(socket: WebSocketStream<S>) -> Self {
        let (mut sink, mut stream) = socket.split();
        let (out, mut outgoing) = mpsc::unbounded_channel();
        let (state, closed) = (
            Arc::new(Mutex::new(State::default())),
            Arc::new(AtomicBool::new(false)),
        );
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        });
        let client = Self {
            out: out.clone(),
            state: state.clone(),
            closed: closed.clone(),
            next: AtomicU64::new(0),
        };
        tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                let Message::Text(text) = message else {
                    continue;
                };
                take(&text, &state, &out);
            }
            closed.store(true, Ordering::SeqCst);
        });
        client.out.send(Message::text("40")).unwrap();
        client
    }

    /// Connects, authenticates as `user` and joins the room.
    pub async fn member(address: SocketAddr, user: &str, room: &str) -> Self {
        let client = Self::connect(address).await;
        client.done("authenticate", json!({"user_id": user})).await;
        client.done("join", json!({"room_id": room})).await;
        client
    }

    /// Sends an event without waiting; the acknowledgement arrives through the receiver.
    pub fn emit(&self, event: &str, payload: &Value) -> oneshot::Receiver<Value> {
        self.emit_raw(&json!([event, payload]).to_string()).1
    }

    /// The same with the event's JSON array as it is; also returns the id of the acknowledgement.
    pub fn emit_raw(&self, event: &str) -> (u64, oneshot::Receiver<Value>) {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let (acknowledge, acknowledged) = oneshot::channel();
        self.state.lock().unwrap().acks.insert(id, acknowledge);
        self.say(&format!("2{id}{event}"));
        (id, acknowledged)
    }

    pub async fn ask(&self, event: &str, payload: Value) -> Value {
        let acknowledged = self.emit(event, &payload);
        tokio::time::timeout(TIMEOUT, acknowledged)
            .await
            .unwrap_or_else(|_| panic!("no ack for {event}"))
            .unwrap()
    }

    /// Sends a request that must not be refused.
    pub async fn done(&self, event: &str, payload: Value) -> Value {
        let answer = self.ask(event, payload).await;
        assert_eq!(answer["ok"], true, "{event}: {answer}");
        answer
    }

    /// The payloads of all events with that name so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.state
            .lock()
            .unwrap()
            .events
            .iter()
            .filter(|(found, _)| found == name)
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// The number of events with that name so far.
    pub fn count(&self, name: &str) -> usize {
        let state = self.state.lock().unwrap();
        state
            .events
            .iter()
            .filter(|(found, _)| found == name)
            .count()
    }

    /// Everything received, in order: events, and acknowledgements as `["ack", [id, answer]]`.
    pub fn story(&self) -> Vec<(String, Value)> {
        self.state.lock().unwrap().events.clone()
    }

    /// Sends a Socket.IO packet's text as it is.
    pub fn say(&self, packet: &str) {
        let _ = self.out.send(Message::text(format!("4{packet}")));
    }

    /// The `seq` of the messages received so far.
    pub fn seqs(&self) -> Vec<u64> {
        self.events("message")
            .iter()
            .map(|message| message["seq"].as_u64().unwrap())
            .collect()
    }

    pub async fn eventually(&self, what: &str, check: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !check(self) {
            assert!(
                Instant::now() < deadline,
                "never: {what}; saw {:?}",
                self.state.lock().unwrap().events
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn await_event(&self, name: &str) -> Value {
        self.eventually(name, |client| !client.events(name).is_empty())
            .await;
        self.events(name)[0].clone()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Closes the transport, as a closing browser tab does.
    pub fn drop_transport(&self) {
        let _ = self.out.send(Message::Close(None));
    }
}

fn take(text: &str, state: &Mutex<State>, out: &mpsc::UnboundedSender<Message>) {
    let mut state = state.lock().unwrap();
    match text.as_bytes() {
        [b'2', ..] => drop(out.send(Message::text("3"))),
        [b'4', b'0', ..] => state.events.push(("connect".into(), Value::Null)),
        [b'4', b'1', ..] => state.events.push(("disconnect".into(), Value::Null)),
        [b'4', b'4', rest @ ..] => {
            state.events.push((
                "connect_error".into(),
                serde_json::from_slice(rest).unwrap(),
            ));
        }
        [b'4', b'2', rest @ ..] => {
            let event: Vec<Value> = serde_json::from_slice(rest).unwrap();
            state
                .events
                .push((event[0].as_str().unwrap().to_owned(), event[1].clone()));
        }
        [b'4', b'3', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let id: u64 = std::str::from_utf8(&rest[..digits])
                .unwrap()
                .parse()
                .unwrap();
            let answer: Vec<Value> = serde_json::from_slice(&rest[digits..]).unwrap();
            state.events.push(("ack".into(), json!([id, answer[0]])));
            if let Some(acknowledge) = state.acks.remove(&id) {
                let _ = acknowledge.send(answer[0].clone());
            }
        }
        _ => {}
    }
}
