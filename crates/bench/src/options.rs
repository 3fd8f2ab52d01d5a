//! The command line of `hubbub bench`.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;

use crate::duration::parse_duration;
use crate::room::STAMP_BYTES;
use crate::room_assignment::RoomAssignment;

// The doc comments of this type and its fields are the help text of `hubbub bench --help`.
/// Puts load on running nodes and measures them; fails if a message is missing, repeated or out of
/// order
#[derive(Debug, Args)]
pub struct Options {
    /// A node's address, http://host:port; several are separated by commas, and the members of each
    /// room are spread over all of them
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:8080")]
    pub(crate) url: Vec<String>,
    /// Number of connections
    #[arg(long, default_value_t = 1000)]
    pub(crate) clients: usize,
    /// Number of rooms that the connections are spread over
    #[arg(long, default_value_t = 10)]
    pub(crate) rooms: usize,
    /// Rooms per client, all on its one connection; a room has clients × rooms-each / rooms members
    #[arg(long, default_value_t = 1)]
    pub(crate) rooms_each: usize,
    /// Messages in flight per room: the next one is sent when every member has received one of them.
    /// With --acks: messages of each sender that wait for their acknowledgements
    #[arg(long, default_value_t = 1, conflicts_with = "rate")]
    pub(crate) in_flight: u64,
    /// Messages per second in all rooms together, regardless of whether the servers keep up;
    /// latency counts from the moment at which each message was due
    #[arg(long)]
    pub(crate) rate: Option<u64>,
    /// Number of members of each room that send, in turn. With --acks and without --rate all of them
    /// send at the same time
    #[arg(long, default_value_t = 100)]
    pub(crate) senders: usize,
    /// Requests an acknowledgement of each message, and measures it. Without --rate each sender
    /// sends its next message when one of its messages was acknowledged
    #[arg(long, conflicts_with = "idle")]
    pub(crate) acks: bool,
    /// Messages that the servers refuse are counted and are no failure. A sender whose message was
    /// refused waits 50 ms
    #[arg(long, requires = "acks")]
    pub(crate) allow_refusals: bool,
    /// Bytes of a message's content, at least 34
    #[arg(long, default_value_t = 100)]
    pub(crate) payload: usize,
    /// Duration of the measurement in seconds; also 90s, 15m, 12h
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// Duration of the load before the measurement, in seconds
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub(crate) warm_up: Duration,
    /// Sends no messages: holds the connections for --duration
    #[arg(long, conflicts_with_all = ["rate", "in_flight"])]
    pub(crate) idle: bool,
    /// Maximum of new connections per second; 0: no limit
    #[arg(long, default_value_t = 0)]
    pub(crate) ramp: u64,
    /// Maximum of concurrent handshakes
    #[arg(long, default_value_t = 256)]
    pub(crate) at_once: usize,
    /// At the end cuts all connections at once, and measures the time until all are back in their
    /// rooms
    #[arg(long)]
    pub(crate) storm: bool,
    /// Signs a token for each connection with this secret of the nodes. Without a value it uses
    /// JWT_SECRET of the environment, which does not appear in the list of processes [default: no
    /// tokens, for nodes with AUTH_MODE=open]
    #[arg(long, num_args = 0..=1)]
    token_secret: Option<Option<String>>,
    /// Ids of the server processes on this machine, separated by commas: measures their CPU and
    /// memory
    #[arg(long, value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// Local addresses to connect from, separated by commas; on loopback they are chosen
    /// automatically
    #[arg(long, value_delimiter = ',')]
    pub(crate) source: Vec<IpAddr>,
    /// Prints the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    /// Checks the options that are numbers, and assigns the clients to rooms.
    ///
    /// # Errors
    /// If an option is out of range, or two of them contradict each other; the text names them.
    pub(crate) fn validate(&self) -> anyhow::Result<RoomAssignment> {
        let assignment = RoomAssignment::new(self.clients, self.rooms, self.rooms_each)?;
        ensure!(
            self.payload >= STAMP_BYTES,
            "--payload must be at least {STAMP_BYTES}: these bytes tell messages apart"
        );
        ensure!(
            self.at_once > 0 && self.in_flight > 0,
            "--at-once and --in-flight must be at least 1"
        );
        ensure!(
            self.rate != Some(0),
            "--rate must be at least 1; use --idle to send nothing"
        );
        Ok(assignment)
    }

    /// The secret that signs tokens: the value of `--token-secret`, or `JWT_SECRET` of the
    /// environment if the option has no value. `None` without the option.
    ///
    /// # Errors
    /// If the option is given and the secret is missing or empty.
    pub(crate) fn token_secret(&self) -> anyhow::Result<Option<String>> {
        let Some(value) = &self.token_secret else {
            return Ok(None);
        };
        let secret = match value {
            Some(value) => value.clone(),
            None => std::env::var("JWT_SECRET").unwrap_or_default(),
        };
        if secret.is_empty() {
            bail!("--token-secret has no value, and JWT_SECRET is not set");
        }
        Ok(Some(secret))
    }
}
