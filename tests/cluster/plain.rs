//! A small plain WebSocket client: one task reads, and frames are kept in order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, StatusCode};

const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Seen {
    frames: Vec<Value>,
    /// The end of the connection: the close frame's code and reason; 1006 if there was none.
    closed: Option<(u16, String)>,
}

pub struct Plain {
    out: mpsc::UnboundedSender<Message>,
    seen: Arc<Mutex<Seen>>,
    /// The answer to the handshake.
    pub answered: HeaderMap,
    next: Mutex<u64>,
}

/// A handshake that was refused: its status and body.
pub type Refused = (StatusCode, Value);

impl Plain {
    /// In open mode, for broadcasts from now on.
    pub async fn connect(address: SocketAddr, user: &str) -> Self {
        Self::with(address, &format!("user_id={user}"), &[])
            .await
            .unwrap()
    }

    /// In open mode, to chat.
    pub async fn chat(address: SocketAddr, user: &str) -> Self {
        Self::with(address, &format!("user_id={user}&chat=1"), &[])
            .await
            .unwrap()
    }

    /// Connects with that query and those headers.
    pub async fn with(
        address: SocketAddr,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let mut request = format!("ws://{address}/ws?{query}")
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let (socket, answer) = match tokio_tungstenite::connect_async(request).await {
            Ok(connected) => connected,
            Err(Error::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                return Err((
                    answer.status(),
                    serde_json::from_slice(body).unwrap_or_default(),
                ));
            }
            Err(error) => panic!("{error}"),
        };
        let (mut sink, mut stream) = socket.split();
        let (out, mut outgoing) = mpsc::unbounded_channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        });
        let record = seen.clone();
        tokio::spawn(async move {
            let mut end = (1006, String::new());
            while let Some(Ok(message)) = stream.next().await {
                match message {
                    Message::Text(text) => record
                        .lock()
                        .unwrap()
                        .frames
                        .push(serde_json::from_str(&text).unwrap()),
                    Message::Close(Some(frame)) => {
                        end = (frame.code.into(), frame.reason.to_string())
                    }
                    _ => {}
                }
            }
            record.lock().unwrap().closed = Some(end);
        });
        Ok(Self {
            out,
            seen,
            answered: answer.headers().clone(),
            next: Mutex::new(0),
        })
    }

    /// Sends a frame without waiting.
    pub fn tell(&self, kind: &str, payload: &Value) {
        self.say(Message::text(
            json!({"type": kind, "payload": payload}).to_string(),
        ));
    }

    pub fn say(&self, message: Message) {
        let _ = self.out.send(message);
    }

    /// Sends a frame with a `ref`, and returns the `ref`.
    pub fn emit(&self, kind: &str, payload: &Value) -> String {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        let reference = format!("r{next}");
        self.say(Message::text(
            json!({"type": kind, "payload": payload, "ref": reference}).to_string(),
        ));
        reference
    }

    pub async fn answer(&self, reference: &str) -> Value {
        let is_answer = |frame: &Value| frame["type"] == "ack" && frame["ref"] == reference;
        self.await_frame(&format!("the ack of {reference}"), is_answer)
            .await["payload"]
            .clone()
    }

    pub async fn ask(&self, kind: &str, payload: Value) -> Value {
        self.answer(&self.emit(kind, &payload)).await
    }

    /// Sends a request that must not be refused.
    pub async fn done(&self, kind: &str, payload: Value) -> Value {
        let answer = self.ask(kind, payload).await;
        assert_eq!(answer["ok"], true, "{kind}: {answer}");
        answer
    }

    /// All frames received so far.
    pub fn frames(&self) -> Vec<Value> {
        self.seen.lock().unwrap().frames.clone()
    }

    /// The payloads of frames with that type.
    pub fn of(&self, kind: &str) -> Vec<Value> {
        self.frames()
            .into_iter()
            .filter(|frame| frame["type"] == kind)
            .map(|frame| frame["payload"].clone())
            .collect()
    }

    /// The `seq` of the broadcasts received so far.
    pub fn broadcasts(&self) -> Vec<u64> {
        self.frames()
            .iter()
            .filter_map(|frame| frame["seq"].as_u64())
            .collect()
    }

    /// The `seq` of the messages received so far.
    pub fn seqs(&self) -> Vec<u64> {
        self.of("message")
            .iter()
            .map(|message| message["seq"].as_u64().unwrap())
            .collect()
    }

    pub async fn eventually(&self, what: &str, check: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !check(self) {
            let seen = self.seen.lock().unwrap();
            assert!(
                Instant::now() < deadline,
                "never: {what}; saw {:?}, {:?}",
                seen.frames,
                seen.closed
            );
            drop(seen);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn await_frame(&self, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        self.eventually(what, |client| client.frames().iter().any(&check))
            .await;
        self.frames().into_iter().find(check).unwrap()
    }

    pub fn is_closed(&self) -> bool {
        self.seen.lock().unwrap().closed.is_some()
    }

    /// Waits for the end; returns the code and reason of the close frame.
    pub async fn closed(&self) -> (u16, String) {
        self.eventually("it is closed", Self::is_closed).await;
        self.seen.lock().unwrap().closed.clone().unwrap()
    }

    /// Ends the connection as a closing tab does.
    pub fn drop_transport(&self) {
        self.say(Message::Close(None));
    }
}
