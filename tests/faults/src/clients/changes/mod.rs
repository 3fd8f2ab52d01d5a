//! Clients of rooms whose messages change. Each has a reader, which receives and folds, and a changer,
//! which changes messages.

mod attempt;
mod changer;
mod fold;
mod reader;
mod received;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

pub use wire::final_message;

use self::changer::Changer;
use self::fold::Room;
use self::reader::Reader;
use super::chat::Account;
use crate::history::Recorder;
use crate::history::changes::FinalMessage;

pub struct DeviceConfig {
    /// Unique in the run.
    pub name: String,
    /// Several devices may have the same account.
    pub account: Account,
    pub addresses: Vec<SocketAddr>,
    pub home_node: usize,
    pub rooms: Vec<String>,
    /// Whether it may delete messages of others.
    pub is_moderator: bool,
    /// The emojis with which it reacts. No other device of the account has them, so the order of the
    /// changes of each reaction is known.
    pub emojis: Vec<String>,
    /// If it missed more events than this, it reads the history instead.
    pub replay_limit: Option<u64>,
    /// The mean time between two changes.
    pub change_interval: Duration,
    /// The longest time for which it stays away, after it has broken its connection.
    pub longest_absence: Duration,
    /// A change without an answer is given up after this time.
    pub timeout: Duration,
}

/// A running client. Dropping it ends its tasks.
pub struct Device {
    pub name: String,
    shared: Arc<Mutex<Shared>>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

/// The state that the reader and the changer of a device share.
#[derive(Default)]
struct Shared {
    rooms: BTreeMap<String, RoomState>,
    /// Whether a change is under way.
    is_changing: bool,
}

#[derive(Default)]
struct RoomState {
    fold: Room,
    is_joined: bool,
    /// The history has been read only in part: the number up to which it was read.
    fetched: Option<u64>,
    epoch: Option<String>,
    /// The number of the last event.
    seq: Option<u64>,
}

/// A request that the reader makes for the changer.
struct Request {
    event: &'static str,
    payload: Value,
    answer: oneshot::Sender<Value>,
}

/// A version of a message of the device's account that has just become known.
#[derive(Clone)]
struct OwnVersion {
    room: String,
    seq: u64,
    version: u64,
}

impl Device {
    /// Starts a client. It changes messages while `changing` is true, and breaks its connection now and
    /// then.
    pub fn start(
        config: DeviceConfig,
        seed: u64,
        recorder: Recorder,
        changing: watch::Receiver<bool>,
    ) -> Self {
        let name = config.name.clone();
        let config = Arc::new(config);
        let shared = Arc::new(Mutex::new(Shared::default()));
        for room in &config.rooms {
            let mut shared = shared.lock();
            shared.rooms.insert(room.clone(), RoomState::default());
        }
        let (requests, pending) = mpsc::channel(1);
        let (own_versions, news) = watch::channel(None);
        let reader = Reader::new(
            (config.clone(), seed),
            recorder.clone(),
            shared.clone(),
            (pending, own_versions),
            changing.clone(),
        );
        let changer = Changer::new((config, seed), recorder, shared.clone(), (requests, news));
        Self {
            name,
            shared,
            tasks: [
                tokio::spawn(reader.run()),
                tokio::spawn(changer.run(changing)),
            ],
        }
    }

    /// Whether it is in all its rooms, and has read their histories.
    pub fn is_ready(&self) -> bool {
        let shared = self.shared.lock();
        let mut rooms = shared.rooms.values();
        rooms.all(|room| room.is_joined && room.fetched.is_none())
    }

    pub fn is_changing(&self) -> bool {
        self.shared.lock().is_changing
    }

    /// The number of the last event of the room.
    pub fn position(&self, room: &str) -> u64 {
        let shared = self.shared.lock();
        let position = shared.rooms.get(room).and_then(|room| room.seq);
        position.unwrap_or_default()
    }

    /// The folded state of a room.
    pub fn final_messages(&self, room: &str) -> Vec<FinalMessage> {
        let shared = self.shared.lock();
        let room = shared.rooms.get(room);
        room.map_or_else(Vec::new, |room| room.fold.final_messages())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
