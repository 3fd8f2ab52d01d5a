//! One connection of the generator: its state, its rooms, and its bytes in both directions.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

/// The state of a connection, in the order in which they follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientState {
    /// There is no connection: it was not dialled yet, or has ended.
    Disconnected,
    /// The TCP connection is being established.
    Dialing,
    /// Waits for the response to the WebSocket upgrade.
    Upgrading,
    /// Waits for Engine.IO's `open` packet.
    Opening,
    /// Waits for the reply to Socket.IO's CONNECT packet.
    Connecting,
    /// Waits for the ack of `authenticate`.
    Authenticating,
    /// Waits for the acks of `join`, one for each of its rooms.
    Joining,
    /// Has joined all of its rooms.
    Joined,
}

/// A client's membership of one room.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) room: usize,
    /// The client's member index in the room.
    pub(crate) member: usize,
    /// The number of the last message that the client received in this room.
    pub(crate) last_seq: u64,
    /// The epoch of the room's log, if the server has one; needed to resume.
    pub(crate) epoch: Option<Box<str>>,
    /// Whether the server has accepted the join.
    pub(crate) is_joined: bool,
}

impl Membership {
    pub(crate) fn new(room: usize, member: usize) -> Self {
        Self {
            room,
            member,
            last_seq: 0,
            epoch: None,
            is_joined: false,
        }
    }
}

/// One client and its connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// The first room, in most runs the only one. It is stored here and not behind a pointer,
    /// because every message that arrives needs it.
    first: Membership,
    /// All other rooms.
    others: Box<[Membership]>,
    /// Index of the node that the client connects to.
    pub(crate) target: usize,
    pub(crate) state: ClientState,
    /// Number of rooms that the client has joined on this connection.
    joined_rooms: u8,
    /// The time of the first dial since the client was last in all of its rooms.
    first_dialled_at: Option<Instant>,
    stream: Option<TcpStream>,
    /// The beginning of a frame that has not arrived completely.
    partial_frame: Vec<u8>,
    /// Bytes that the kernel has not accepted yet.
    unsent: Vec<u8>,
}

impl Client {
    pub(crate) fn new(first: Membership, others: Box<[Membership]>, target: usize) -> Self {
        Self {
            first,
            others,
            target,
            state: ClientState::Disconnected,
            joined_rooms: 0,
            first_dialled_at: None,
            stream: None,
            partial_frame: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// The number of its first room.
    pub(crate) fn first_room(&self) -> usize {
        self.first.room
    }

    /// All of its memberships, from the first one.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = &Membership> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The membership at this index, from 0.
    pub(crate) fn membership(&mut self, index: usize) -> Option<&mut Membership> {
        if index == 0 {
            Some(&mut self.first)
        } else {
            self.others.get_mut(index - 1)
        }
    }

    /// Number of rooms that the client has joined on this connection.
    pub(crate) fn joined_rooms(&self) -> usize {
        usize::from(self.joined_rooms)
    }

    /// An attempt to connect begins. If earlier attempts failed, the first one counts.
    pub(crate) fn begin_attempt(&mut self) {
        self.first_dialled_at.get_or_insert_with(Instant::now);
    }

    /// Uses this stream from now on. Returns it, to be registered with the poll.
    pub(crate) fn attach(&mut self, stream: TcpStream) -> &mut TcpStream {
        self.state = ClientState::Dialing;
        self.stream.insert(stream)
    }

    /// The client has joined one more of its rooms. If it was the last one, returns the time since
    /// the first dial: it includes attempts that failed, because such a client has waited longest.
    pub(crate) fn room_joined(&mut self) -> Option<Duration> {
        self.joined_rooms += 1;
        if self.joined_rooms() <= self.others.len() {
            return None;
        }
        self.state = ClientState::Joined;
        let time = match self.first_dialled_at.take() {
            Some(first_dialled_at) => first_dialled_at.elapsed(),
            None => Duration::ZERO,
        };
        Some(time)
    }

    /// Closes the connection at once.
    pub(crate) fn disconnect(&mut self) {
        self.stream = None;
        self.state = ClientState::Disconnected;
        self.joined_rooms = 0;
        self.first.is_joined = false;
        for membership in &mut self.others {
            membership.is_joined = false;
        }
        self.partial_frame = Vec::new();
        self.unsent = Vec::new();
    }

    /// The error that the connection ended with, if there is one. Clears it.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.stream.as_ref()?.take_error().ok()?
    }

    /// Writes the bytes. Keeps those that the kernel does not accept until [`flush`](Self::flush).
    ///
    /// # Errors
    /// If the connection is closed.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let written = self.try_write(bytes)?;
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes the bytes that the kernel has not accepted so far.
    ///
    /// # Errors
    /// If the connection is closed.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            let written = self.try_write(&unsent)?;
            self.unsent.extend_from_slice(&unsent[written..]);
        }
        Ok(())
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        match stream.write(bytes) {
            Err(error) if is_retryable(&error) => Ok(0),
            other => other,
        }
    }

    /// Reads into `buffer`, behind the partial frame of the last read, which is copied to its
    /// beginning. Returns the number of bytes in the buffer, or `None` if nothing has arrived.
    ///
    /// # Errors
    /// If the connection is closed.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let partial = self.partial_frame.len();
        buffer[..partial].copy_from_slice(&self.partial_frame);
        match stream.read(&mut buffer[partial..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => Ok(Some(partial + read)),
            Err(error) if is_retryable(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the beginning of a frame for the next [`read`](Self::read).
    pub(crate) fn keep(&mut self, partial_frame: &[u8]) {
        self.partial_frame.clear();
        self.partial_frame.extend_from_slice(partial_frame);
    }
}

fn is_retryable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn connect_time_counts_from_the_first_of_several_attempts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = Client::new(Membership::new(0, 0), Box::default(), 0);
        client.begin_attempt();
        let first = client.first_dialled_at.unwrap();
        for _ in 0..2 {
            client.attach(TcpStream::connect(address).unwrap());
            client.disconnect();
            client.begin_attempt();
            assert_eq!(client.first_dialled_at, Some(first));
        }
        let least = first.elapsed();
        assert!(client.room_joined().unwrap() >= least);
        client.disconnect();
        client.begin_attempt();
        assert!(
            client.first_dialled_at.unwrap() > first,
            "after a join the time starts again"
        );
    }

    #[test]
    fn a_client_has_joined_when_it_is_in_the_last_of_its_rooms() {
        let mut client = Client::new(
            Membership::new(4, 0),
            Box::new([Membership::new(5, 0), Membership::new(0, 1)]),
            0,
        );
        let rooms: Vec<_> = client.memberships().map(|its| its.room).collect();
        assert_eq!(rooms, [4, 5, 0]);
        let rooms: Vec<_> = (0..4)
            .filter_map(|index| Some(client.membership(index)?.room))
            .collect();
        assert_eq!(rooms, [4, 5, 0]);
        for _ in 0..2 {
            client.begin_attempt();
            client.state = ClientState::Joining;
            for joined in 1..3 {
                assert!(client.room_joined().is_none());
                assert_eq!(
                    (client.joined_rooms(), client.state),
                    (joined, ClientState::Joining)
                );
            }
            assert!(client.room_joined().is_some());
            assert_eq!(client.state, ClientState::Joined);
            client.disconnect();
            assert_eq!(client.joined_rooms(), 0, "in no room after the end");
        }
    }
}
