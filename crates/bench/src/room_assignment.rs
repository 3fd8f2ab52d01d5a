//! Assigns clients to rooms and nodes: each client is in the same number of rooms, and all rooms
//! have the same number of members, give or take one. Everything is computed, nothing is stored.

use anyhow::ensure;

/// The default limit of a node on the rooms of one connection (`MAX_ROOMS_PER_SOCKET`).
const MAX_ROOMS_PER_CLIENT: usize = 100;

/// The multiplier of Fibonacci hashing: 2^64 divided by the golden ratio, made odd.
const FIBONACCI_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The assignment. Memberships are numbered through all clients and dealt to the rooms in turn:
/// with E rooms per client, membership M belongs to client M / E and to room M % rooms, and has the
/// member index M / rooms there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomAssignment {
    clients: usize,
    rooms: usize,
    rooms_each: usize,
}

impl RoomAssignment {
    /// # Errors
    /// If the numbers contradict each other. The text names the options that they come from.
    pub(crate) fn new(clients: usize, rooms: usize, rooms_each: usize) -> anyhow::Result<Self> {
        ensure!(
            clients > 0 && rooms > 0,
            "--clients and --rooms must be at least 1"
        );
        ensure!(
            (1..=MAX_ROOMS_PER_CLIENT).contains(&rooms_each),
            "--rooms-each must be 1 to {MAX_ROOMS_PER_CLIENT}, the default limit of a node on the \
             rooms of one connection"
        );
        ensure!(
            rooms_each <= rooms,
            "--rooms-each: a client cannot be in {rooms_each} different rooms, there are {rooms}"
        );
        ensure!(
            rooms.div_ceil(rooms_each) <= clients,
            "--rooms: each room needs a member, and there are {clients} clients in {rooms_each} \
             rooms each"
        );
        Ok(Self {
            clients,
            rooms,
            rooms_each,
        })
    }

    /// Number of clients.
    pub(crate) fn clients(self) -> usize {
        self.clients
    }

    /// Number of rooms that each client is in.
    pub(crate) fn rooms_each(self) -> usize {
        self.rooms_each
    }

    /// Average number of members of a room. If the division has a remainder, some rooms have one
    /// member more than the others.
    pub(crate) fn members_per_room(self) -> f64 {
        (self.clients * self.rooms_each) as f64 / self.rooms as f64
    }

    /// The clients in a room, by member index.
    pub(crate) fn members(self, room: usize) -> Vec<usize> {
        (room..self.clients * self.rooms_each)
            .step_by(self.rooms)
            .map(|membership| membership / self.rooms_each)
            .collect()
    }

    /// The rooms of a client, each with the client's member index in it. Their numbers are
    /// consecutive; room 0 follows on the last one.
    pub(crate) fn rooms_of(self, client: usize) -> impl Iterator<Item = (usize, usize)> {
        (client * self.rooms_each..(client + 1) * self.rooms_each)
            .map(move |membership| (membership % self.rooms, membership / self.rooms))
    }

    /// The position of a room, from 0, among the rooms of the client whose first room is given.
    /// `None` if the client is not in the room.
    pub(crate) fn membership_index(self, first_room: usize, room: usize) -> Option<usize> {
        if room >= self.rooms {
            return None;
        }
        let index = if room < first_room {
            room + self.rooms - first_room
        } else {
            room - first_room
        };
        if index < self.rooms_each {
            Some(index)
        } else {
            None
        }
    }

    /// The index of the node that a client connects to. The members of each room are spread over
    /// all nodes.
    pub(crate) fn node_of(self, client: usize, nodes: usize) -> usize {
        if !self.rooms.is_multiple_of(self.rooms_each) {
            // The clients that share a room have no regular distance, so no alternation would
            // spread each room. A hash does so approximately.
            let hash = (client as u64).wrapping_mul(FIBONACCI_MULTIPLIER) >> 32;
            return usize::try_from(hash).unwrap_or_default() % nodes;
        }
        // A row is as many consecutive clients as fill all rooms once. Clients that share rooms
        // have the same position in different rows. So nodes alternate from row to row, and within
        // a row.
        let row_length = self.rooms / self.rooms_each;
        (client / row_length + client % row_length) % nodes
    }

    /// The room that gets a message after this one. From room 0 on, each room has its turn once
    /// before the first one is repeated, and consecutive rooms belong to different clients.
    pub(crate) fn next_room(self, room: usize) -> usize {
        let next = room + self.rooms_each;
        if next < self.rooms {
            next
        } else {
            (next + 1) % self.rooms_each
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Clients, rooms and rooms per client: with and without a remainder.
    const SIZES: [(usize, usize, usize); 9] = [
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

    fn assignments() -> impl Iterator<Item = RoomAssignment> {
        SIZES.into_iter().map(|(clients, rooms, rooms_each)| {
            RoomAssignment::new(clients, rooms, rooms_each).unwrap()
        })
    }

    /// Number of a room's members that connect to the second of two nodes.
    fn members_on_second_node(assignment: RoomAssignment, room: usize) -> usize {
        assignment
            .members(room)
            .iter()
            .filter(|client| assignment.node_of(**client, 2) == 1)
            .count()
    }

    #[test]
    fn members_of_rooms_and_rooms_of_clients_agree() {
        for assignment in assignments() {
            let mut memberships = 0;
            for room in 0..assignment.rooms {
                let members = assignment.members(room);
                let distinct: HashSet<_> = members.iter().collect();
                assert_eq!(
                    distinct.len(),
                    members.len(),
                    "{assignment:?}: no client is in a room twice"
                );
                for (member, client) in members.iter().enumerate() {
                    assert!(
                        assignment
                            .rooms_of(*client)
                            .any(|its| its == (room, member)),
                        "{assignment:?}"
                    );
                }
                let mean = assignment.members_per_room();
                assert!(
                    (members.len() as f64 - mean).abs() < 1.0,
                    "{assignment:?}: {} members",
                    members.len()
                );
                memberships += members.len();
            }
            assert_eq!(memberships, assignment.clients * assignment.rooms_each);
        }
    }

    #[test]
    fn only_rooms_of_the_client_have_a_membership_index() {
        for assignment in assignments() {
            for client in 0..assignment.clients {
                let rooms: Vec<usize> = assignment.rooms_of(client).map(|(room, _)| room).collect();
                for room in 0..assignment.rooms + 2 {
                    let expected = rooms.iter().position(|its| *its == room);
                    assert_eq!(
                        assignment.membership_index(rooms[0], room),
                        expected,
                        "{assignment:?}, client {client}, room {room}"
                    );
                }
            }
        }
    }

    #[test]
    fn with_one_room_per_client_rooms_and_nodes_alternate() {
        let assignment = RoomAssignment::new(25, 4, 1).unwrap();
        assert_eq!(assignment.members(1), [1, 5, 9, 13, 17, 21]);
        assert_eq!(assignment.rooms_of(9).collect::<Vec<_>>(), [(1, 2)]);
        assert_eq!(assignment.node_of(9, 2), 1);
        assert_eq!((assignment.next_room(0), assignment.next_room(3)), (1, 0));
    }

    #[test]
    fn members_of_each_room_are_spread_over_all_nodes() {
        let without_remainder = assignments()
            .filter(|assignment| assignment.rooms.is_multiple_of(assignment.rooms_each));
        for assignment in without_remainder {
            for room in 0..assignment.rooms {
                let all = assignment.members(room).len();
                let second = members_on_second_node(assignment, room);
                assert!(
                    second.abs_diff(all - second) <= 1,
                    "{assignment:?}, room {room}: {second}"
                );
            }
        }
        // Approximately, if the division has a remainder.
        let with_remainder = RoomAssignment::new(300, 150, 100).unwrap();
        for room in 0..150 {
            let second = members_on_second_node(with_remainder, room);
            assert!(
                (80..=120).contains(&second),
                "{second} of 200 members of {room}"
            );
        }
        // If each room has one member, the nodes have the same number of clients.
        let one_member_each = RoomAssignment::new(1000, 100_000, 100).unwrap();
        assert_eq!(
            (0..1000)
                .filter(|client| one_member_each.node_of(*client, 2) == 1)
                .count(),
            500
        );
    }

    #[test]
    fn every_room_has_its_turn_and_consecutive_rooms_belong_to_different_clients() {
        for assignment in assignments() {
            let turns: Vec<usize> =
                std::iter::successors(Some(0), |room| Some(assignment.next_room(*room)))
                    .take(assignment.rooms + 1)
                    .collect();
            let distinct: HashSet<_> = turns[1..].iter().collect();
            assert_eq!(
                (distinct.len(), turns[assignment.rooms]),
                (assignment.rooms, 0),
                "{assignment:?}"
            );
        }
        let one_member_each = RoomAssignment::new(10, 1000, 100).unwrap();
        let turns = std::iter::successors(Some(0), |room| Some(one_member_each.next_room(*room)));
        let clients: Vec<usize> = turns
            .map(|room| one_member_each.members(room)[0])
            .take(12)
            .collect();
        assert_eq!(clients, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    }

    #[test]
    fn contradicting_numbers_are_rejected_with_the_reason() {
        for (clients, rooms, rooms_each, expected) in [
            (0, 1, 1, "at least 1"),
            (1, 0, 1, "at least 1"),
            (10, 200, 0, "1 to 100"),
            (10, 200, 101, "1 to 100"),
            (10, 5, 6, "there are 5"),
            (10, 11, 1, "needs a member"),
            (10, 1001, 100, "needs a member"),
        ] {
            let error = RoomAssignment::new(clients, rooms, rooms_each)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
