//! Random correct histories, and the same with one thing changed.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::history_builder::{HistoryBuilder, received};
use crate::history::{Fact, Position, Record};

const CLIENTS: [&str; 4] = ["ann", "bob", "cid", "sue"];

/// A model of a server with one room, and of its clients.
struct World {
    history: HistoryBuilder,
    log: Vec<Position>,
    /// The number of the room's present epoch.
    epoch: u64,
    clients: [ClientModel; 4],
    /// Whether `tim` is online.
    online: bool,
    version: u64,
}

#[derive(Clone, Copy, Default)]
struct ClientModel {
    connected: bool,
    /// `None`: it never joined.
    progress: Option<Progress>,
}

/// A client's position in the room.
#[derive(Clone, Copy)]
struct Progress {
    /// The number of messages of the log that it received or skipped.
    received: usize,
    /// The number of the epoch that it names when it resumes.
    epoch: u64,
}

impl World {
    fn new() -> Self {
        Self {
            history: HistoryBuilder::default(),
            log: Vec::new(),
            epoch: 1,
            clients: [ClientModel::default(); 4],
            online: true,
            version: 5,
        }
    }

    fn head(&self) -> String {
        format!("e{}/{}", self.epoch, self.log.len())
    }

    fn send(&mut self) {
        let position = Position {
            epoch: format!("e{}", self.epoch),
            seq: self.log.len() as u64 + 1,
        };
        let message = format!("{}/{}", position.epoch, position.seq);
        self.log.push(position);
        self.history.sends(&message);
        if message.ends_with('3') {
            self.history.sends(&message).acked(&message, true);
        } else {
            self.history.acked(&message, false);
        }
    }

    /// Delivers up to `count` of the messages that a client hasn't received.
    fn deliver(&mut self, client: usize, count: usize) {
        let ClientModel {
            connected: true,
            progress: Some(Progress { received: from, .. }),
        } = self.clients[client]
        else {
            return;
        };
        let until = self.log.len().min(from + count);
        for position in &self.log[from..until] {
            self.history.record(CLIENTS[client], received(position));
        }
        if until > from {
            let epoch = self.log[until - 1].epoch[1..].parse().unwrap();
            self.clients[client].progress = Some(Progress {
                received: until,
                epoch,
            });
        }
    }

    fn connect(&mut self, client: usize) {
        let name = CLIENTS[client];
        let head = self.head();
        let progress = self.clients[client].progress;
        let received = progress.map_or(self.log.len(), |progress| progress.received);
        let missing = self.log.len() - received;
        let since = progress.map(|progress| format!("e{}/{received}", progress.epoch));
        self.history
            .connects(name)
            .watches(name, self.online, self.version)
            .joined(
                name,
                since.as_deref(),
                &head,
                since.is_some(),
                false,
                missing as u64,
            );
        self.clients[client] = ClientModel {
            connected: true,
            progress: Some(Progress {
                received,
                epoch: self.epoch,
            }),
        };
        self.deliver(client, missing);
        self.history.gets_room_users(name, &CLIENTS);
    }

    fn disconnect(&mut self, client: usize) {
        self.history.disconnects(CLIENTS[client]);
        self.clients[client].connected = false;
    }

    /// `tim` goes online or offline.
    fn change_status(&mut self) {
        self.online = !self.online;
        self.version += 3;
        self.history.presence_changed("tim", self.online);
        for (name, client) in CLIENTS.iter().zip(&self.clients) {
            if client.connected {
                self.history.sees_status(name, self.online, self.version);
            }
        }
    }

    fn finish(mut self) -> HistoryBuilder {
        self.send();
        for client in 0..4 {
            if !self.clients[client].connected {
                self.connect(client);
            }
            self.deliver(client, self.log.len());
        }
        let head = self.head();
        self.history
            .final_head(&head)
            .final_status(self.online, self.version)
            .final_members(&CLIENTS);
        self.history
    }
}

/// Four clients, the first of them unaffected. Deliveries are late, connections break, epochs
/// change, and `tim` goes online and offline.
fn random_history(random: &mut ChaCha8Rng) -> HistoryBuilder {
    let mut world = World::new();
    for client in 0..4 {
        world.connect(client);
    }
    world.history.unaffected("ann");
    world.change_status();
    for _ in 0..random.random_range(20..80) {
        let client = random.random_range(0..4);
        let connected = world.clients[client].connected;
        match random.random_range(0..20) {
            0 if world.log.len() > 3 => world.epoch += 1,
            1..=2 if client > 0 && connected => world.disconnect(client),
            3..=6 if !connected => world.connect(client),
            7..=8 => world.change_status(),
            9..=14 => world.deliver(client, random.random_range(1..5)),
            _ => world.send(),
        }
    }
    world.finish()
}

#[derive(Debug, Clone, Copy)]
enum Mutation {
    DropDelivery,
    RepeatDelivery,
    SwapDeliveries,
    ChangeId,
    DropLastDelivery,
    DropUnaffectedStatus,
    AddStatus,
}

const MUTATIONS: [Mutation; 7] = [
    Mutation::DropDelivery,
    Mutation::RepeatDelivery,
    Mutation::SwapDeliveries,
    Mutation::ChangeId,
    Mutation::DropLastDelivery,
    Mutation::DropUnaffectedStatus,
    Mutation::AddStatus,
];

/// The indices of a client's records that satisfy the predicate.
fn find(records: &[Record], client: &str, predicate: impl Fn(&Fact) -> bool) -> Vec<usize> {
    let found = records
        .iter()
        .enumerate()
        .filter(|(_, record)| record.source == client && predicate(&record.fact));
    found.map(|(index, _)| index).collect()
}

fn find_status_changes(records: &[Record], client: &str) -> Vec<usize> {
    find(records, client, |fact| {
        matches!(fact, Fact::Status { initial: false, .. })
    })
}

/// Changes one thing. `None` if the history has nothing to change in this way.
fn mutate(records: &mut Vec<Record>, mutation: Mutation, random: &mut ChaCha8Rng) -> Option<()> {
    let client = *CLIENTS.choose(random).unwrap();
    let deliveries = find(records, client, |fact| {
        matches!(fact, Fact::Received { .. })
    });
    match mutation {
        Mutation::DropDelivery => {
            records.remove(*deliveries.choose(random)?);
        }
        Mutation::DropLastDelivery => {
            records.remove(*deliveries.last()?);
        }
        Mutation::RepeatDelivery => {
            let index = *deliveries.choose(random)?;
            let later: Vec<_> = deliveries
                .iter()
                .filter(|other| **other >= index)
                .copied()
                .collect();
            records.insert(later.choose(random).unwrap() + 1, records[index].clone());
        }
        Mutation::SwapDeliveries => {
            let mut shuffled = deliveries;
            shuffled.shuffle(random);
            let [one, other, ..] = shuffled[..] else {
                return None;
            };
            let fact = records[one].fact.clone();
            records[one].fact = std::mem::replace(&mut records[other].fact, fact);
        }
        Mutation::ChangeId => {
            let index = *deliveries.choose(random)?;
            if let Fact::Received { id, .. } = &mut records[index].fact {
                *id = "other".into();
            }
        }
        Mutation::DropUnaffectedStatus => {
            let changes = find_status_changes(records, "ann");
            records.remove(*changes.choose(random)?);
        }
        Mutation::AddStatus => {
            let changes = find_status_changes(records, client);
            let index = *changes.choose(random)?;
            let mut added = records[index].clone();
            if let Fact::Status {
                online, version, ..
            } = &mut added.fact
            {
                *online = random.random();
                *version += 1;
            }
            records.insert(index + 1, added);
        }
    }
    Some(())
}

#[test]
fn random_histories_are_accepted_until_one_thing_is_changed() {
    let mut applied = [0; MUTATIONS.len()];
    for seed in 0..500 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut history = random_history(&mut random);
        let faults = history.faults();
        assert!(faults.is_empty(), "seed {seed}: {faults:#?}");
        let kind = random.random_range(0..MUTATIONS.len());
        if mutate(&mut history.records, MUTATIONS[kind], &mut random).is_some() {
            applied[kind] += 1;
            assert!(
                !history.faults().is_empty(),
                "seed {seed}: the checker did not notice {:?}",
                MUTATIONS[kind]
            );
        }
    }
    assert!(applied.iter().all(|count| *count > 40), "{applied:?}");
}

/// Not a test of speed, but of complexity: if an algorithm becomes quadratic, this test takes
/// minutes.
#[test]
fn checking_a_long_history_is_not_quadratic() {
    let mut history = HistoryBuilder::with_two_members();
    for seq in 1..=50_000 {
        history.sends_to_both(&format!("e1/{seq}"));
    }
    for _ in 0..2_000 {
        history
            .disconnects("ann")
            .connects_and_resumes("ann", "e1/50000", "e1/50000");
    }
    history.final_head("e1/50000").assert_accepted();
}
