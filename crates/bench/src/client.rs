//! One connection of the generator: bytes in, bytes out.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not begun, or to be begun again.
    Away,
    /// The TCP connection is on its way.
    Dialing,
    /// The answer to the upgrade is awaited.
    Upgrading,
    /// Engine.IO's `open` is awaited.
    Opening,
    /// Socket.IO's CONNECT is awaited.
    Connecting,
    /// The ack of `authenticate` is awaited.
    Authenticating,
    /// The acks of `join` are awaited, one for each of its rooms.
    Joining,
    /// In all of its rooms.
    Joined,
}

/// A place in a room.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) room: usize,
    /// Among the room's members.
    pub(super) place: usize,
    /// The last number that was heard here.
    pub(super) last_seq: u64,
    pub(super) epoch: Option<Box<str>>,
    /// It is there by now.
    pub(super) taken: bool,
}

impl Seat {
    pub(super) fn new(room: usize, place: usize) -> Self {
        Self {
            room,
            place,
            last_seq: 0,
            epoch: None,
            taken: false,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    /// In the first of its rooms, mostly the only one: here and not behind a pointer, as it is asked for at every message.
    first: Seat,
    /// In the others.
    others: Box<[Seat]>,
    pub(super) target: usize,
    pub(super) stage: Stage,
    /// Its rooms that it is in by now.
    entered: u8,
    /// When it was dialled first, while it has not joined.
    began: Option<Instant>,
    stream: Option<TcpStream>,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// What the kernel has not taken yet.
    unsent: Vec<u8>,
}

impl Client {
    pub(super) fn new(first: Seat, others: Box<[Seat]>, target: usize) -> Self {
        Self {
            first,
            others,
            target,
            stage: Stage::Away,
            entered: 0,
            began: None,
            stream: None,
            partial: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// The number of its first room.
    pub(super) fn first_room(&self) -> usize {
        self.first.room
    }

    /// All of its places, from the first on.
    pub(super) fn seats(&self) -> impl Iterator<Item = &Seat> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// One of them, from 0.
    pub(super) fn seat(&mut self, which: usize) -> Option<&mut Seat> {
        if which == 0 {
            Some(&mut self.first)
        } else {
            self.others.get_mut(which - 1)
        }
    }

    /// Its rooms that it is in by now.
    pub(super) fn entered(&self) -> usize {
        usize::from(self.entered)
    }

    /// It is dialled, perhaps not for the first time.
    pub(super) fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// Goes on with this stream.
    pub(super) fn dialled(&mut self, stream: TcpStream) {
        self.stream = Some(stream);
        self.stage = Stage::Dialing;
    }

    /// It is in one more of its rooms. In the last one it has joined: then returns the time since it was dialled first, as
    /// who was turned away has waited longest.
    pub(super) fn enter(&mut self) -> Option<Duration> {
        self.entered += 1;
        (self.entered() > self.others.len()).then(|| {
            self.stage = Stage::Joined;
            self.began
                .take()
                .map_or(Duration::ZERO, |began| began.elapsed())
        })
    }

    /// Ends the connection at once.
    pub(super) fn hang_up(&mut self) {
        self.stream = None;
        self.stage = Stage::Away;
        self.entered = 0;
        self.first.taken = false;
        self.others.iter_mut().for_each(|seat| seat.taken = false);
        self.partial = Vec::new();
        self.unsent = Vec::new();
    }

    /// The stream, to be registered.
    pub(super) fn stream(&mut self) -> Option<&mut TcpStream> {
        self.stream.as_mut()
    }

    /// Writes the bytes, or keeps what the kernel doesn't take until [`flush`](Self::flush).
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let written = self.try_write(bytes)?;
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes what is left over.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
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
            Err(error) if is_later(&error) => Ok(0),
            other => other,
        }
    }

    /// Reads behind what was left over of the last time. Returns how much of `buffer` is filled, or `None` when nothing came.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let held = self.partial.len();
        buffer[..held].copy_from_slice(&self.partial);
        match stream.read(&mut buffer[held..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => Ok(Some(held + read)),
            Err(error) if is_later(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the beginning of a frame for the next [`read`](Self::read).
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.partial.clear();
        self.partial.extend_from_slice(rest);
    }
}

fn is_later(error: &io::Error) -> bool {
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
    fn who_is_turned_away_waits_since_the_first_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = Client::new(Seat::new(0, 0), Box::default(), 0);
        client.begin();
        let first = client.began.unwrap();
        for _ in 0..2 {
            client.dialled(TcpStream::connect(address).unwrap());
            client.hang_up();
            client.begin();
            assert_eq!(client.began, Some(first));
        }
        let least = first.elapsed();
        assert!(client.enter().unwrap() >= least);
        client.hang_up();
        client.begin();
        assert!(client.began.unwrap() > first, "who joined begins anew");
    }

    #[test]
    fn who_is_in_the_last_of_its_rooms_has_joined() {
        let mut client = Client::new(
            Seat::new(4, 0),
            Box::new([Seat::new(5, 0), Seat::new(0, 1)]),
            0,
        );
        assert_eq!(
            client.seats().map(|seat| seat.room).collect::<Vec<_>>(),
            [4, 5, 0]
        );
        assert_eq!(
            (0..4)
                .filter_map(|which| Some(client.seat(which)?.room))
                .collect::<Vec<_>>(),
            [4, 5, 0]
        );
        for _ in 0..2 {
            client.begin();
            client.stage = Stage::Joining;
            for entered in 1..3 {
                assert!(client.enter().is_none());
                assert_eq!((client.entered(), client.stage), (entered, Stage::Joining));
            }
            assert!(client.enter().is_some());
            assert_eq!(client.stage, Stage::Joined);
            client.hang_up();
            assert_eq!(client.entered(), 0, "and in none after the end");
        }
    }
}
