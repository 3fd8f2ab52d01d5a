//! Property test: random sequences of valid and invalid client events, with broken connections, are
//! run against a node and compared with a small model. A failing sequence is reduced to its
//! shortest form.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, http, post};

/// Connections in a sequence.
const SOCKETS: usize = 4;
const ROOMS: [&str; 2] = ["red", "blue"];
const USERS: [&str; 3] = ["ann", "bob", "cid"];
/// Set once a sequence failed: while it is reduced, waits that may be in vain are shorter.
static FOUND: AtomicBool = AtomicBool::new(false);

fn deadline() -> Duration {
    Duration::from_secs(if FOUND.load(Ordering::Relaxed) { 1 } else { 20 })
}

/// The starting point of a join.
#[derive(Debug, Clone, Copy)]
enum Start {
    Live,
    Last(u64),
    Since(u64),
    /// After the last message that this slot saw in the room, before or after it reconnected.
    Resume,
}

/// One step of a sequence.
#[derive(Debug, Clone)]
enum Step {
    Authenticate(&'static str),
    Join(&'static str, Start),
    Leave(&'static str),
    /// With a `client_msg_id`, or none.
    Say(&'static str, Option<&'static str>),
    Typing(&'static str),
    History(&'static str),
    Watch(&'static str),
    Unwatch(&'static str),
    /// An invalid event, with the code of its refusal once the connection is authenticated.
    Nonsense(&'static str, &'static str),
    /// The same, without an ack: the refusal comes as an event.
    Mutter(&'static str, &'static str),
    /// `POST /messages`.
    Post(&'static str),
    /// The connection breaks, and another takes its place.
    Reconnect,
    /// The client disconnects; another takes its place.
    Disconnect,
    /// Waits until every request so far is answered.
    Settle,
}

const NONSENSE: &[(&str, &str)] = &[
    (r#"["join"]"#, "bad_request"),
    (r#"["join",{"room_id":"\ud800"}]"#, "bad_request"),
    (
        r#"["join",{"room_id":"red","limit":1,"since_seq":1}]"#,
        "bad_request",
    ),
    (
        r#"["message",{"room_id":"red","content":7}]"#,
        "bad_request",
    ),
    (r#"["message",[[[[[[[[{}]]]]]]]]]"#, "bad_request"),
    (
        r#"["history",{"room_id":"red","limit":201}]"#,
        "bad_request",
    ),
    (
        r#"["leave",{"room_id":7},{"room_id":"red"}]"#,
        "bad_request",
    ),
    (r#"["no_such_event",{"room_id":"red"}]"#, "unknown_event"),
    (r#"["__proto__",null]"#, "unknown_event"),
];

fn step() -> impl Strategy<Value = Step> {
    let room = || select(&ROOMS[..]);
    let user = || select(&USERS[..]);
    let key = prop_oneof![2 => Just(None), 1 => select(&["k", "l"][..]).prop_map(Some)];
    let start = prop_oneof![
        3 => Just(Start::Live),
        1 => (0..4u64).prop_map(Start::Last),
        1 => (0..6u64).prop_map(Start::Since),
        3 => Just(Start::Resume)
    ];
    prop_oneof![
        6 => user().prop_map(Step::Authenticate),
        8 => (room(), start).prop_map(|(room, start)| Step::Join(room, start)),
        3 => room().prop_map(Step::Leave),
        12 => (room(), key).prop_map(|(room, key)| Step::Say(room, key)),
        1 => room().prop_map(Step::Typing),
        1 => room().prop_map(Step::History),
        1 => user().prop_map(Step::Watch),
        1 => user().prop_map(Step::Unwatch),
        2 => select(NONSENSE).prop_map(|(event, code)| Step::Nonsense(event, code)),
        1 => select(NONSENSE).prop_map(|(event, code)| Step::Mutter(event, code)),
        3 => room().prop_map(Step::Post),
        3 => Just(Step::Reconnect),
        1 => Just(Step::Disconnect),
        3 => Just(Step::Settle),
    ]
}

/// The expected result of a request.
#[derive(Clone)]
enum Promise {
    Joined(&'static str, Start, Option<u64>),
    Left(&'static str),
    /// The user, the room and the `client_msg_id`.
    Said(&'static str, &'static str, Option<&'static str>),
    Other,
}

struct Request {
    ack: u64,
    told: oneshot::Receiver<Value>,
    /// `Err`: the code of the refusal.
    expected: Result<Promise, &'static str>,
}

/// A slot that holds one connection after another.
struct Slot {
    client: Client,
    user: Option<&'static str>,
    rooms: BTreeSet<&'static str>,
    asked: Vec<Request>,
    /// Acks of joins and leaves.
    promised: HashMap<u64, Promise>,
    muttered: Vec<&'static str>,
    /// The last message seen in each room, including by earlier connections of the slot.
    seen: BTreeMap<&'static str, u64>,
}

/// An answer to a send: the room, its user and key, and the answer.
type Said = (&'static str, Option<(&'static str, &'static str)>, Value);

/// A running sequence and its results so far.
struct Sequence {
    cluster: Cluster,
    /// A client that is in every room throughout.
    witness: Client,
    places: Vec<Slot>,
    /// Answers to sends.
    said: Vec<Said>,
    /// Room and seq of every message that any client received, and its id.
    messages: HashMap<(String, u64), String>,
}

fn room_of(event: &Value) -> &'static str {
    ROOMS
        .into_iter()
        .find(|room| event["room_id"] == **room)
        .unwrap()
}

impl Slot {
    async fn new(cluster: &Cluster) -> Self {
        let client = Client::connect(cluster.address(0)).await;
        let (promised, muttered) = (HashMap::new(), Vec::new());
        Self {
            client,
            user: None,
            rooms: BTreeSet::new(),
            asked: vec![],
            promised,
            muttered,
            seen: BTreeMap::new(),
        }
    }

    fn ask(&mut self, event: &str, expected: Result<Promise, &'static str>) {
        let (ack, told) = self.client.emit_raw(event);
        // An unauthenticated connection is refused everything else.
        let known = self.user.is_some() || event.starts_with("[\"authenticate\"");
        let expected = if known { expected } else { Err("unauthorized") };
        self.asked.push(Request {
            ack,
            told,
            expected,
        });
    }

    fn in_room(&self, room: &str, promise: Promise) -> Result<Promise, &'static str> {
        if self.rooms.contains(room) {
            Ok(promise)
        } else {
            Err("not_in_room")
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Authenticate(user) => {
                let mine = *self.user.get_or_insert(user) == user;
                let expected = if mine {
                    Ok(Promise::Other)
                } else {
                    Err("already_authenticated")
                };
                self.ask(
                    &json!(["authenticate", {"user_id": user}]).to_string(),
                    expected,
                );
            }
            Step::Join(room, start) => {
                let since = match start {
                    Start::Since(seq) => Some(seq),
                    // Read now and not at the end, so that it is the client's own knowledge.
                    Start::Resume => Some(self.last_seen(room)),
                    Start::Live | Start::Last(_) => None,
                };
                let mut payload = json!({"room_id": room});
                if let Some(seq) = since {
                    payload["since_seq"] = json!(seq);
                }
                if let Start::Last(limit) = start {
                    payload["limit"] = json!(limit);
                }
                self.ask(
                    &json!(["join", payload]).to_string(),
                    Ok(Promise::Joined(room, start, since)),
                );
                if self.user.is_some() {
                    self.rooms.insert(room);
                }
            }
            Step::Leave(room) => {
                let expected = self.in_room(room, Promise::Left(room));
                self.ask(&json!(["leave", {"room_id": room}]).to_string(), expected);
                self.rooms.remove(room);
            }
            Step::Say(room, key) => {
                let expected = self.in_room(
                    room,
                    Promise::Said(self.user.unwrap_or_default(), room, key),
                );
                let payload = json!({"room_id": room, "content": "hi", "client_msg_id": key});
                self.ask(&json!(["message", payload]).to_string(), expected);
            }
            Step::Typing(room) => {
                let expected = self.in_room(room, Promise::Other);
                self.ask(&json!(["typing", {"room_id": room}]).to_string(), expected);
            }
            Step::History(room) => {
                let expected = self.in_room(room, Promise::Other);
                self.ask(&json!(["history", {"room_id": room}]).to_string(), expected);
            }
            Step::Watch(user) => {
                self.ask(
                    &json!(["subscribe_status", {"target_user_id": user}]).to_string(),
                    Ok(Promise::Other),
                );
            }
            Step::Unwatch(user) => {
                self.ask(
                    &json!(["unsubscribe_status", {"target_user_id": user}]).to_string(),
                    Ok(Promise::Other),
                );
            }
            Step::Nonsense(event, code) => self.ask(event, Err(code)),
            Step::Mutter(event, code) => {
                self.client.say(&format!("2{event}"));
                self.muttered.push(if self.user.is_some() {
                    code
                } else {
                    "unauthorized"
                });
            }
            Step::Post(_) | Step::Reconnect | Step::Disconnect | Step::Settle => {}
        }
    }

    fn last_seen(&self, room: &str) -> u64 {
        let of_room =
            |(name, event): &(String, Value)| name == "message" && event["room_id"] == room;
        let story = self.client.story();
        let now = story
            .iter()
            .rev()
            .find(|event| of_room(event))
            .and_then(|(_, message)| message["seq"].as_u64());
        now.or_else(|| self.seen.get(room).copied()).unwrap_or(0)
    }
}

/// Checks a client's events: after a join every message, once each and in order; nothing after a
/// leave. Returns its position in each room that it is in.
fn check_order(
    story: &[(String, Value)],
    promised: &HashMap<u64, Promise>,
    messages: &mut HashMap<(String, u64), String>,
) -> Result<BTreeMap<&'static str, u64>, TestCaseError> {
    let mut at = BTreeMap::new();
    for (name, event) in story {
        match name.as_str() {
            "message" => {
                let (room, seq) = (room_of(event), event["seq"].as_u64().unwrap());
                prop_assert_eq!(
                    at.get(room).map(|last| last + 1),
                    Some(seq),
                    "out of turn: {}",
                    event
                );
                at.insert(room, seq);
                let id = event["id"].as_str().unwrap().to_owned();
                let first = messages
                    .entry((room.to_owned(), seq))
                    .or_insert_with(|| id.clone());
                prop_assert_eq!(&*first, &id, "two messages in one place");
            }
            "ack" => match promised.get(&event[0].as_u64().unwrap()) {
                Some(Promise::Joined(room, ..)) => {
                    let (seq, replayed) = (
                        event[1]["seq"].as_u64().unwrap(),
                        event[1]["replayed"].as_u64().unwrap(),
                    );
                    at.insert(*room, seq - replayed);
                }
                Some(Promise::Left(room)) => drop(at.remove(room)),
                _ => {}
            },
            "disconnect" | "room_reset" => {
                return Err(TestCaseError::fail(format!("{name}: {event}")));
            }
            _ => {}
        }
    }
    Ok(at)
}

/// The occupants of a room, according to the events.
fn occupants_by_events(story: &[(String, Value)], room: &str) -> BTreeSet<String> {
    let mut members = BTreeSet::new();
    for (name, event) in story.iter().filter(|(_, event)| event["room_id"] == room) {
        let user = || event["user_id"].as_str().unwrap().to_owned();
        match name.as_str() {
            "room_users" => {
                members = event["users"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|user| user.as_str().unwrap().into())
                    .collect();
            }
            "user_joined" => drop(members.insert(user())),
            "user_left" => drop(members.remove(&user())),
            _ => {}
        }
    }
    members
}

impl Sequence {
    async fn begin() -> Self {
        // A lost connection counts at once, so the model needs no clock.
        let cluster = Cluster::alone(&[("PRESENCE_GRACE_MS", "0")]).await;
        let witness = Client::member(cluster.address(0), "witness", ROOMS[0]).await;
        witness.done("join", json!({"room_id": ROOMS[1]})).await;
        let mut places = Vec::new();
        for _ in 0..SOCKETS {
            places.push(Slot::new(&cluster).await);
        }
        Self {
            cluster,
            witness,
            places,
            said: Vec::new(),
            messages: HashMap::new(),
        }
    }

    async fn take(&mut self, at: usize, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Post(room) => {
                let body = json!({"room_id": room, "content": "posted"});
                let (status, answer) = post(self.cluster.address(0), &body).await;
                prop_assert_eq!(status, 201, "{}", answer);
                self.said.push((room, None, answer));
            }
            Step::Settle => {
                for at in 0..SOCKETS {
                    self.settle(at).await?;
                }
            }
            Step::Reconnect | Step::Disconnect => {
                self.replace(at, matches!(step, Step::Disconnect)).await?
            }
            step => self.places[at].take(step),
        }
        Ok(())
    }

    /// Waits for all answers, and compares them with the expected ones.
    async fn settle(&mut self, at: usize) -> Result<(), TestCaseError> {
        let place = &mut self.places[at];
        for Request {
            ack,
            told,
            expected,
        } in place.asked.drain(..)
        {
            let Ok(Ok(answer)) = tokio::time::timeout(deadline(), told).await else {
                return Err(TestCaseError::fail(format!("no answer to {ack}")));
            };
            let promise = match expected {
                Err(code) => {
                    prop_assert_eq!(
                        (&answer["ok"], &answer["code"]),
                        (&json!(false), &json!(code)),
                        "{}",
                        answer
                    );
                    continue;
                }
                Ok(promise) => promise,
            };
            prop_assert_eq!(&answer["ok"], &json!(true), "{}", answer);
            match promise {
                Promise::Joined(_, start, since) => {
                    let (seq, replayed) = (
                        answer["seq"].as_u64().unwrap(),
                        answer["replayed"].as_u64().unwrap(),
                    );
                    let recovered = since.is_some_and(|since| since <= seq);
                    prop_assert_eq!(&answer["recovered"], &json!(recovered), "{}", answer);
                    prop_assert_eq!(
                        &answer["gap"],
                        &json!(since.is_some() && !recovered),
                        "{}",
                        answer
                    );
                    let promised = match (start, since) {
                        (Start::Last(limit), _) => limit.min(seq),
                        (_, Some(since)) if recovered => seq - since,
                        (_, Some(_)) => replayed,
                        (_, None) => 0,
                    };
                    prop_assert_eq!(replayed, promised, "{}", answer);
                    place.promised.insert(ack, promise);
                }
                Promise::Left(_) => drop(place.promised.insert(ack, promise)),
                Promise::Said(user, room, key) => {
                    self.said.push((room, key.map(|key| (user, key)), answer))
                }
                Promise::Other => {}
            }
        }
        let codes = || {
            place
                .client
                .events("exception")
                .iter()
                .map(|refusal| refusal["code"].clone())
                .collect::<Vec<_>>()
        };
        let deadline = Instant::now() + deadline();
        while codes().len() < place.muttered.len() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        prop_assert_eq!(codes(), place.muttered.clone());
        Ok(())
    }

    /// Ends the connection in that slot, and opens another.
    async fn replace(&mut self, at: usize, politely: bool) -> Result<(), TestCaseError> {
        // A request that is under way when a connection breaks may or may not take effect.
        self.settle(at).await?;
        let place = &mut self.places[at];
        let story = place.client.story();
        check_order(&story, &place.promised, &mut self.messages)?;
        let seen: BTreeMap<_, _> = ROOMS
            .into_iter()
            .map(|room| (room, place.last_seen(room)))
            .collect();
        if politely {
            place.client.say("1");
        } else {
            place.client.drop_transport();
        }
        *place = Slot {
            seen,
            ..Slot::new(&self.cluster).await
        };
        Ok(())
    }

    /// Checks the final state.
    async fn end(mut self) -> Result<(), TestCaseError> {
        for at in 0..SOCKETS {
            self.settle(at).await?;
        }
        for room in ROOMS {
            let answer = self
                .witness
                .done("message", json!({"room_id": room, "content": "the end"}))
                .await;
            self.said.push((room, None, answer));
            self.check_numbers(room)?;
            self.check_occupants(room).await?;
        }
        self.check_delivery().await?;
        self.cluster.stop().await;
        Ok(())
    }

    /// Every number from 1 on is used once; repeats under one key have one number.
    fn check_numbers(&self, room: &str) -> Result<(), TestCaseError> {
        let said = || self.said.iter().filter(|(of, ..)| *of == room);
        let new = said().filter(|(.., answer)| answer["duplicate"] == json!(false));
        let mut seqs: Vec<u64> = new
            .map(|(.., answer)| answer["seq"].as_u64().unwrap())
            .collect();
        seqs.sort_unstable();
        prop_assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{:?}", seqs);
        let mut keyed: HashMap<_, Vec<&Value>> = HashMap::new();
        for (_, key, answer) in said() {
            match key {
                Some(key) => keyed.entry(key).or_default().push(answer),
                None => prop_assert_eq!(&answer["duplicate"], &json!(false)),
            }
        }
        for (key, answers) in keyed {
            let firsts = answers
                .iter()
                .filter(|answer| answer["duplicate"] == json!(false))
                .count();
            prop_assert_eq!(firsts, 1, "{:?}", key);
            let same = |answer: &&Value| (answer["id"].clone(), answer["seq"].clone());
            prop_assert!(
                answers
                    .iter()
                    .all(|answer| same(answer) == same(&answers[0])),
                "{:?}",
                answers
            );
        }
        Ok(())
    }

    /// The occupants are the users that joined, according to the backplane and according to the
    /// events.
    async fn check_occupants(&self, room: &str) -> Result<(), TestCaseError> {
        let of_places = self
            .places
            .iter()
            .filter(|place| place.rooms.contains(room))
            .filter_map(|place| place.user);
        let expected: BTreeSet<String> = of_places
            .chain(["witness"])
            .map(ToOwned::to_owned)
            .collect();
        let deadline = Instant::now() + deadline();
        loop {
            let path = format!("/rooms/{room}/users");
            let (_, _, answer) = http(self.cluster.address(0), "GET", &path, &[], "").await;
            let listed = answer["users"]
                .as_array()
                .unwrap()
                .iter()
                .map(|user| user["user_id"].as_str().unwrap().to_owned());
            let (listed, told) = (
                listed.collect::<BTreeSet<_>>(),
                occupants_by_events(&self.witness.story(), room),
            );
            if (&listed, &told) == (&expected, &expected) {
                return Ok(());
            }
            prop_assert!(
                Instant::now() < deadline,
                "{}: {:?} listed, {:?} told, {:?} joined",
                room,
                listed,
                told,
                expected
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Each occupant has received the room's last message, and all before it since joining.
    async fn check_delivery(&mut self) -> Result<(), TestCaseError> {
        let head = |room| {
            self.said
                .iter()
                .filter(|(of, ..)| *of == room)
                .filter_map(|(.., a)| a["seq"].as_u64())
                .max()
        };
        let heads: BTreeMap<_, _> = ROOMS
            .into_iter()
            .map(|room| (room, head(room).unwrap()))
            .collect();
        for place in &self.places {
            let expected: BTreeMap<_, _> = place
                .rooms
                .iter()
                .map(|room| (*room, heads[room]))
                .collect();
            let deadline = Instant::now() + deadline();
            loop {
                let at = check_order(&place.client.story(), &place.promised, &mut self.messages)?;
                if at == expected {
                    break;
                }
                prop_assert!(Instant::now() < deadline, "at {:?} of {:?}", at, expected);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            prop_assert!(!place.client.is_closed(), "a connection was closed");
        }
        Ok(())
    }
}

#[test]
fn promises_hold_for_random_sequences_of_client_events() {
    let cases = std::env::var("HUBBUB_STORIES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(64);
    let config = Config {
        cases,
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..Config::default()
    };
    let stories = proptest::collection::vec((0..SOCKETS, step()), 1..80);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let played = TestRunner::new(config).run(&stories, |steps| {
        let played = runtime.block_on(async {
            let mut story = Sequence::begin().await;
            for (at, step) in &steps {
                story.take(*at, step).await?;
            }
            story.end().await
        });
        played.inspect_err(|_| FOUND.store(true, Ordering::Relaxed))
    });
    if let Err(error) = played {
        panic!("{error}");
    }
}
