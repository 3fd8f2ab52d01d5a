//! Who is in which room: clients that are in as many rooms each, evenly, and by arithmetic alone.

use anyhow::ensure;

/// As many rooms as a node lets one connection be in, if nobody changed it (`MAX_ROOMS_PER_SOCKET`).
const MOST: usize = 100;

/// An odd number without pattern: 2^64 by the golden ratio.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// How clients are spread over rooms: seats are counted through all clients, and dealt to the rooms in turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    clients: usize,
    rooms: usize,
    /// Rooms of each client.
    each: usize,
}

impl Spread {
    /// # Errors
    /// In words for whoever typed the numbers.
    pub(super) fn new(clients: usize, rooms: usize, each: usize) -> anyhow::Result<Self> {
        ensure!(
            clients > 0 && rooms > 0,
            "--clients and --rooms must be at least 1"
        );
        ensure!(
            (1..=MOST).contains(&each),
            "--rooms-each must be 1 to {MOST}, as many as a node lets a connection be in"
        );
        ensure!(
            each <= rooms,
            "--rooms-each: a client can't be in {each} different rooms, there are {rooms}"
        );
        ensure!(
            rooms.div_ceil(each) <= clients,
            "--rooms: each needs a member, and there are {clients} clients in {each} each"
        );
        Ok(Self {
            clients,
            rooms,
            each,
        })
    }

    /// How many clients there are.
    pub(super) fn clients(self) -> usize {
        self.clients
    }

    /// Rooms of each client.
    pub(super) fn each(self) -> usize {
        self.each
    }

    /// Members of a room; where they don't come out even, a room has one more or less.
    pub(super) fn members_of_a_room(self) -> f64 {
        (self.clients * self.each) as f64 / self.rooms as f64
    }

    /// Who is in the room, by place.
    pub(super) fn members(self, room: usize) -> Vec<usize> {
        (room..self.clients * self.each)
            .step_by(self.rooms)
            .map(|seat| seat / self.each)
            .collect()
    }

    /// The rooms of a client, each with the client's place in it. One follows the other, behind the last the first.
    pub(super) fn seats(self, client: usize) -> impl Iterator<Item = (usize, usize)> {
        (client * self.each..(client + 1) * self.each)
            .map(move |seat| (seat % self.rooms, seat / self.rooms))
    }

    /// The how many-th of its rooms it is to a client whose first one is `first`, from 0.
    pub(super) fn which(self, first: usize, room: usize) -> Option<usize> {
        let behind = if room < first {
            room + self.rooms - first
        } else {
            room - first
        };
        (room < self.rooms && behind < self.each).then_some(behind)
    }

    /// Which of so many nodes the client connects to: the members of each room are spread over all.
    pub(super) fn target(self, client: usize, targets: usize) -> usize {
        if !self.rooms.is_multiple_of(self.each) {
            // Who shares a room has no numbers that a pattern would fit: they are scattered.
            return usize::try_from((client as u64).wrapping_mul(SCATTER) >> 32)
                .unwrap_or_default()
                % targets;
        }
        // With as many clients in a row as fill all rooms once, those who share rooms stand below each other.
        let row_length = self.rooms / self.each;
        (client / row_length + client % row_length) % targets
    }

    /// The room to speak in after this one: all have their turn, from 0 on, and neighbours are rooms of different clients.
    pub(super) fn next(self, room: usize) -> usize {
        let next = room + self.each;
        if next < self.rooms {
            next
        } else {
            (next + 1) % self.each
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Even and uneven ones.
    const SPREADS: [(usize, usize, usize); 9] = [
        (1000, 10, 1),
        (7, 3, 1),
        (10, 1000, 100),
        (100, 1000, 100),
        (9, 150, 100),
        (5, 7, 3),
        (6, 4, 4),
        (3, 100, 100),
        (1, 1, 1),
    ];

    fn spreads() -> impl Iterator<Item = Spread> {
        SPREADS
            .into_iter()
            .map(|(clients, rooms, each)| Spread::new(clients, rooms, each).unwrap())
    }

    #[test]
    fn rooms_and_clients_agree_on_who_is_where() {
        for spread in spreads() {
            let mut seats = 0;
            for room in 0..spread.rooms {
                let members = spread.members(room);
                let distinct: HashSet<_> = members.iter().collect();
                assert_eq!(
                    distinct.len(),
                    members.len(),
                    "{spread:?}: nobody is in a room twice"
                );
                for (place, client) in members.iter().enumerate() {
                    assert!(
                        spread.seats(*client).any(|seat| seat == (room, place)),
                        "{spread:?}"
                    );
                }
                let mean = spread.members_of_a_room();
                assert!(
                    (members.len() as f64 - mean).abs() < 1.0,
                    "{spread:?}: {} members",
                    members.len()
                );
                seats += members.len();
            }
            assert_eq!(seats, spread.clients * spread.each);
        }
    }

    #[test]
    fn a_client_knows_its_rooms_and_no_other() {
        for spread in spreads() {
            for client in 0..spread.clients {
                let rooms: Vec<usize> = spread.seats(client).map(|(room, _)| room).collect();
                for room in 0..spread.rooms + 2 {
                    let found = rooms.iter().position(|its| *its == room);
                    assert_eq!(
                        spread.which(rooms[0], room),
                        found,
                        "{spread:?}, client {client}, room {room}"
                    );
                }
            }
        }
    }

    #[test]
    fn who_is_in_one_room_is_where_it_was_before_there_were_several() {
        let spread = Spread::new(25, 4, 1).unwrap();
        assert_eq!(spread.members(1), [1, 5, 9, 13, 17, 21]);
        assert_eq!(spread.seats(9).collect::<Vec<_>>(), [(1, 2)]);
        assert_eq!(spread.target(9, 2), 1);
        assert_eq!((spread.next(0), spread.next(3)), (1, 0));
    }

    #[test]
    fn the_members_of_a_room_are_spread_over_all_nodes() {
        for spread in spreads().filter(|spread| spread.rooms.is_multiple_of(spread.each)) {
            for room in 0..spread.rooms {
                let members = spread.members(room);
                let second = members
                    .iter()
                    .filter(|client| spread.target(**client, 2) == 1)
                    .count();
                assert!(
                    second.abs_diff(members.len() - second) <= 1,
                    "{spread:?}, room {room}: {second}"
                );
            }
        }
        // About as many where rooms don't come out even.
        let uneven = Spread::new(300, 150, 100).unwrap();
        for room in 0..150 {
            let second = uneven
                .members(room)
                .iter()
                .filter(|client| uneven.target(**client, 2) == 1)
                .count();
            assert!(
                (80..=120).contains(&second),
                "{second} of 200 members of {room}"
            );
        }
        // Where a room has one member the nodes have as many clients.
        let alone = Spread::new(1000, 100_000, 100).unwrap();
        assert_eq!(
            (0..1000)
                .filter(|client| alone.target(*client, 2) == 1)
                .count(),
            500
        );
    }

    #[test]
    fn every_room_has_its_turn_and_no_client_two_in_a_row() {
        for spread in spreads() {
            let turns: Vec<usize> = std::iter::successors(Some(0), |room| Some(spread.next(*room)))
                .take(spread.rooms + 1)
                .collect();
            let distinct: HashSet<_> = turns[1..].iter().collect();
            assert_eq!(
                (distinct.len(), turns[spread.rooms]),
                (spread.rooms, 0),
                "{spread:?}"
            );
        }
        let alone = Spread::new(10, 1000, 100).unwrap();
        let turns = std::iter::successors(Some(0), |room| Some(alone.next(*room)));
        let clients: Vec<usize> = turns.map(|room| alone.members(room)[0]).take(12).collect();
        assert_eq!(clients, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        for (clients, rooms, each, word) in [
            (0, 1, 1, "at least 1"),
            (1, 0, 1, "at least 1"),
            (10, 200, 0, "1 to 100"),
            (10, 200, 101, "1 to 100"),
            (10, 5, 6, "there are 5"),
            (10, 11, 1, "needs a member"),
            (10, 1001, 100, "needs a member"),
        ] {
            let refused = Spread::new(clients, rooms, each).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
