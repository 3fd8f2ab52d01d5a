//! Random histories that are right, and the same with one thing changed.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tale::{Tale, got};
use crate::history::{Fact, Position, Record};

const CLIENTS: [&str; 4] = ["ann", "bob", "cid", "sue"];

/// A room as a server keeps it, and where each client stands.
struct World {
    tale: Tale,
    log: Vec<Position>,
    epochs: u64,
    stands: [Stand; 4],
    online: bool,
    version: u64,
}

#[derive(Clone, Copy, Default)]
struct Stand {
    open: bool,
    /// How much of the log it had, and the epoch that it names its place by. `None`: it never joined.
    had: Option<(usize, u64)>,
}

impl World {
    fn epoch(&self) -> String {
        format!("e{}", self.epochs)
    }

    fn say(&mut self) {
        let at = Position {
            epoch: self.epoch(),
            seq: self.log.len() as u64 + 1,
        };
        let text = format!("{}/{}", at.epoch, at.seq);
        self.log.push(at);
        self.tale.sends(&text);
        if text.ends_with('3') {
            self.tale.sends(&text).acked(&text, true);
        } else {
            self.tale.acked(&text, false);
        }
    }

    /// Some of what a client hasn't had comes.
    fn deliver(&mut self, client: usize, count: usize) {
        let Stand {
            open: true,
            had: Some((had, _)),
        } = self.stands[client]
        else {
            return;
        };
        let until = self.log.len().min(had + count);
        for at in &self.log[had..until] {
            self.tale.tell(CLIENTS[client], got(at));
        }
        if until > had {
            let epoch = self.log[until - 1].epoch[1..].parse().unwrap();
            self.stands[client].had = Some((until, epoch));
        }
    }

    fn open(&mut self, client: usize) {
        let (who, head) = (
            CLIENTS[client],
            format!("{}/{}", self.epoch(), self.log.len()),
        );
        self.tale.opens(who).watches(who, self.online, self.version);
        match self.stands[client].had {
            None => {
                self.tale.joined(who, None, &head, false, false, 0);
                self.stands[client] = Stand {
                    open: true,
                    had: Some((self.log.len(), self.epochs)),
                };
            }
            Some((had, epoch)) => {
                let missing = self.log.len() - had;
                self.tale.joined(
                    who,
                    Some(&format!("e{epoch}/{had}")),
                    &head,
                    true,
                    false,
                    missing as u64,
                );
                self.stands[client] = Stand {
                    open: true,
                    had: Some((had, self.epochs)),
                };
                self.deliver(client, missing);
            }
        }
        self.tale.lists(who, &CLIENTS);
    }

    fn turn(&mut self) {
        self.online = !self.online;
        self.version += 3;
        self.tale.change("tim", self.online);
        for (who, _) in CLIENTS
            .iter()
            .zip(&self.stands)
            .filter(|(_, stand)| stand.open)
        {
            self.tale.is_told(who, self.online, self.version);
        }
    }
}

/// Four clients, of whom the first is calm; messages come late, connections break, epochs change, `tim` comes and goes.
fn history(random: &mut ChaCha8Rng) -> Tale {
    let (tale, stands) = (Tale::default(), [Stand::default(); 4]);
    let mut world = World {
        tale,
        log: Vec::new(),
        epochs: 1,
        stands,
        online: true,
        version: 5,
    };
    (0..4).for_each(|client| world.open(client));
    world.tale.calm("ann");
    world.turn();
    for _ in 0..random.random_range(20..80) {
        let client = random.random_range(0..4);
        match random.random_range(0..20) {
            0 if world.log.len() > 3 => world.epochs += 1,
            1..=2 if client > 0 && world.stands[client].open => {
                world.tale.closes(CLIENTS[client]);
                world.stands[client].open = false;
            }
            3..=6 if !world.stands[client].open => world.open(client),
            7..=8 => world.turn(),
            9..=14 => world.deliver(client, random.random_range(1..5)),
            _ => world.say(),
        }
    }
    world.say();
    for client in 0..4 {
        if !world.stands[client].open {
            world.open(client);
        }
        world.deliver(client, world.log.len());
    }
    let head = format!("{}/{}", world.epoch(), world.log.len());
    world
        .tale
        .head(&head)
        .state(world.online, world.version)
        .members(&CLIENTS);
    world.tale
}

#[derive(Debug, Clone, Copy)]
enum Mutation {
    DropGot,
    DoubleGot,
    SwapGots,
    ChangeId,
    DropLastGot,
    DropCalmStatus,
    AddStatus,
}

const MUTATIONS: [Mutation; 7] = [
    Mutation::DropGot,
    Mutation::DoubleGot,
    Mutation::SwapGots,
    Mutation::ChangeId,
    Mutation::DropLastGot,
    Mutation::DropCalmStatus,
    Mutation::AddStatus,
];

/// Where records of one client are that fulfil something.
fn find(records: &[Record], who: &str, what: impl Fn(&Fact) -> bool) -> Vec<usize> {
    let found = records
        .iter()
        .enumerate()
        .filter(|(_, record)| record.who == who && what(&record.fact));
    found.map(|(index, _)| index).collect()
}

/// `false`: there is nothing to change in this way.
fn mutate(records: &mut Vec<Record>, mutation: Mutation, random: &mut ChaCha8Rng) -> bool {
    let who = *CLIENTS.choose(random).unwrap();
    let gots = find(records, who, |fact| matches!(fact, Fact::Got { .. }));
    let changes = |records: &[Record], who| {
        find(records, who, |fact| {
            matches!(fact, Fact::Status { initial: false, .. })
        })
    };
    match mutation {
        Mutation::DropGot => gots
            .choose(random)
            .map(|index| drop(records.remove(*index))),
        Mutation::DropLastGot => gots.last().map(|index| drop(records.remove(*index))),
        Mutation::DoubleGot => gots.choose(random).map(|index| {
            let later = gots
                .iter()
                .filter(|other| *other >= index)
                .copied()
                .collect::<Vec<_>>();
            records.insert(later.choose(random).unwrap() + 1, records[*index].clone());
        }),
        Mutation::SwapGots => {
            let mut two = gots;
            two.shuffle(random);
            let [one, other, ..] = two[..] else {
                return false;
            };
            let fact = records[one].fact.clone();
            records[one].fact = std::mem::replace(&mut records[other].fact, fact);
            Some(())
        }
        Mutation::ChangeId => gots.choose(random).map(|index| {
            if let Fact::Got { id, .. } = &mut records[*index].fact {
                *id = "other".into();
            }
        }),
        Mutation::DropCalmStatus => changes(records, "ann")
            .choose(random)
            .map(|index| drop(records.remove(*index))),
        Mutation::AddStatus => changes(records, who).choose(random).map(|index| {
            let mut added = records[*index].clone();
            if let Fact::Status {
                online, version, ..
            } = &mut added.fact
            {
                (*online, *version) = (random.random(), *version + 1);
            }
            records.insert(index + 1, added);
        }),
    }
    .is_some()
}

#[test]
fn random_histories_are_right_until_something_is_changed() {
    let mut applied = [0; MUTATIONS.len()];
    for seed in 0..500 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut tale = history(&mut random);
        let faults = tale.faults();
        assert!(faults.is_empty(), "seed {seed}: {faults:#?}");
        let kind = random.random_range(0..MUTATIONS.len());
        if mutate(&mut tale.records, MUTATIONS[kind], &mut random) {
            applied[kind] += 1;
            assert!(
                !tale.faults().is_empty(),
                "seed {seed}: {:?} wasn't seen",
                MUTATIONS[kind]
            );
        }
    }
    assert!(applied.iter().all(|count| *count > 40), "{applied:?}");
}

/// Not a test of speed, but of its order: a mistake that makes it quadratic takes minutes here.
#[test]
fn a_long_history_takes_no_long_time() {
    let mut tale = Tale::of_two();
    for seq in 1..=50_000 {
        tale.talk(&format!("e1/{seq}"));
    }
    for _ in 0..2_000 {
        tale.closes("ann").resumes("ann", "e1/50000", "e1/50000");
    }
    tale.head("e1/50000").is_fine();
}
