//! A load generator: how many connections, messages and deliveries a cluster takes, how fast and at what cost, and
//! whether it keeps its promises meanwhile.
//!
//! It is one thread that reads no JSON while it measures, so one core of it keeps one core of any server busy.

mod client;
mod crowd;
mod duration;
mod frame;
mod process;
mod report;
mod room;
mod spread;
mod target;

use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;

use crowd::{Crowd, Manner};
pub use duration::parse_duration;
use process::{Process, Used};
use report::{Connecting, Load, Quantiles, Report, Servers, per_second};
use room::{MARK_BYTES, Room};
use spread::Spread;
use target::Target;

/// Messages that are sent when they are due before what has come is read.
const AT_ONCE_DUE: usize = 256;
/// So long everything rests once all have joined, before memory is measured.
const REST: Duration = Duration::from_millis(500);
/// When for so long after the end nothing was heard, what is missing is lost.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Puts load on a cluster, and measures it; fails when a message is missing, repeated or out of order
#[derive(Debug, Args)]
pub struct Options {
    /// A node, by http://host:port; several: separated by commas, each room's members are spread over all
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:8080")]
    url: Vec<String>,
    /// Connections
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Rooms that they are spread over
    #[arg(long, default_value_t = 10)]
    rooms: usize,
    /// Rooms that each client is in, all on its one connection; a room has clients × this / rooms members
    #[arg(long, default_value_t = 1)]
    rooms_each: usize,
    /// Messages of each room under way at a time: the next is sent when every member has one of them
    #[arg(long, default_value_t = 1, conflicts_with = "rate")]
    in_flight: u64,
    /// Messages a second, over all rooms, whether the server keeps up or not; latency counts from when each was due
    #[arg(long)]
    rate: Option<u64>,
    /// Members of each room who take turns at sending
    #[arg(long, default_value_t = 100)]
    senders: usize,
    /// Bytes of a message's content, at least 34
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// Seconds of measuring; also 90s, 15m, 12h
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Seconds of load before that
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,
    /// Says nothing: the connections are held for --duration
    #[arg(long, conflicts_with_all = ["rate", "in_flight"])]
    idle: bool,
    /// New connections a second at most [default: as many as are taken]
    #[arg(long, default_value_t = 0)]
    ramp: u64,
    /// Handshakes under way at a time
    #[arg(long, default_value_t = 256)]
    at_once: usize,
    /// At the end cuts all connections off at once, and measures how soon all are back where they were
    #[arg(long)]
    storm: bool,
    /// Signs a token for each connection with the secret of the nodes; without a value with JWT_SECRET of the environment,
    /// which is in no list of processes [default: they say who they are, AUTH_MODE=open]
    #[arg(long, num_args = 0..=1)]
    token_secret: Option<Option<String>>,
    /// Processes of the servers on this machine, separated by commas: their CPU and memory are measured
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Addresses of this machine to connect from, separated by commas; on loopback they are found without
    #[arg(long, value_delimiter = ',')]
    source: Vec<IpAddr>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// What the servers had used at one moment, and this process.
struct Usage {
    at: Instant,
    servers: Vec<Used>,
    own: Used,
}

impl Usage {
    fn now(servers: &[Process]) -> anyhow::Result<Self> {
        let own = Process::own().used()?;
        let servers = servers
            .iter()
            .map(|server| server.used())
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            at: Instant::now(),
            servers,
            own,
        })
    }

    /// Processor time of each server since then.
    fn of_servers(&self, before: &Self) -> anyhow::Result<Vec<Duration>> {
        self.servers
            .iter()
            .zip(&before.servers)
            .map(|(now, before)| now.since(before))
            .collect()
    }
}

/// Runs the load.
///
/// `sign` makes a token for a user (first argument) with the secret of the nodes (second argument).
///
/// # Errors
/// Options that contradict each other, and servers that cannot be reached or measured. The texts are for the terminal.
pub fn run(
    options: &Options,
    sign: fn(&str, &str) -> anyhow::Result<String>,
) -> anyhow::Result<ExitCode> {
    let spread = Spread::new(options.clients, options.rooms, options.rooms_each)?;
    ensure!(
        options.payload >= MARK_BYTES,
        "--payload: {MARK_BYTES} bytes are needed to tell messages apart"
    );
    ensure!(
        options.at_once > 0 && options.in_flight > 0,
        "--at-once and --in-flight must be at least 1"
    );
    ensure!(
        options.rate != Some(0),
        "--rate must be at least 1; --idle says nothing"
    );
    let files = rlimit::increase_nofile_limit(u64::MAX)?;
    ensure!(
        files > options.clients as u64 + 32,
        "{} connections need as many open files, and this process may have {files} (ulimit -Hn)",
        options.clients
    );
    let targets = options
        .url
        .iter()
        .map(|url| Target::parse(url))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let servers = options
        .pid
        .iter()
        .map(|pid| Process::of(*pid))
        .collect::<anyhow::Result<Vec<_>>>()?;
    // Names of this run's own, so that no other run in the same rooms disturbs the counts.
    let prefix = format!("bench-{}-", std::process::id());
    let rooms = (0..options.rooms)
        .map(|room| {
            Room::new(
                format!("{prefix}{room}"),
                spread.members(room),
                options.senders,
                options.payload,
            )
        })
        .collect();
    let manner = Manner {
        targets,
        sources: options.source.clone(),
        token_secret: options
            .token_secret
            .clone()
            .map(|secret| token_secret(secret, std::env::var("JWT_SECRET").ok()))
            .transpose()?,
        sign,
        prefix,
    };
    let mut crowd = Crowd::new(manner, rooms, spread)?;
    let report = measure(options, &servers, &mut crowd)?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    if !report.ok && !crowd.last_failure().is_empty() {
        eprintln!("the last failure: {}", crowd.last_failure());
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What was given, or what stands in the environment.
fn token_secret(given: Option<String>, environment: Option<String>) -> anyhow::Result<String> {
    given
        .or(environment)
        .filter(|secret| !secret.is_empty())
        .context("--token-secret: no value, and JWT_SECRET is not set")
}

fn measure(options: &Options, servers: &[Process], crowd: &mut Crowd) -> anyhow::Result<Report> {
    let memory = || {
        servers
            .iter()
            .map(|server| server.memory())
            .collect::<anyhow::Result<Vec<u64>>>()
    };
    let mut line = Line::new();
    let memory_before = memory()?;
    let before = Usage::now(servers)?;
    let took = crowd.assemble(options.at_once, options.ramp, |joined| {
        line.show(|| format!("{joined} have joined"))
    })?;
    let connecting = connecting(crowd, took);
    let came = Usage::now(servers)?;
    rest(
        crowd,
        if options.idle { options.duration } else { REST },
        &mut line,
    )?;
    let memory_there = memory()?;
    let for_connections = came.of_servers(&before)?;
    let (load, cores, cpu) = if options.idle {
        (
            None,
            for_connections
                .iter()
                .map(|used| cores(*used, came.at - before.at))
                .collect(),
            None,
        )
    } else {
        let (load, usage, deliveries) = put_load(options, servers, crowd, &mut line)?;
        let cpu = usage.iter().sum::<Duration>().as_secs_f64() * 1e6 / deliveries.max(1) as f64;
        let time = Duration::from_secs_f64(load.seconds);
        (
            Some(load),
            usage.iter().map(|used| cores(*used, time)).collect(),
            Some(cpu),
        )
    };
    let storm = if options.storm {
        crowd.scatter();
        let took = crowd.assemble(options.clients, 0, |joined| {
            line.show(|| format!("{joined} are back"))
        })?;
        let storm = self::connecting(crowd, took);
        rest(crowd, REST, &mut line)?;
        Some(storm)
    } else {
        None
    };
    line.clear();
    let mut findings = crowd.found;
    crowd
        .rooms
        .iter()
        .for_each(|room| room.close(&mut findings));
    let count = options.clients as f64;
    let bytes_more: Vec<f64> = memory_there
        .iter()
        .zip(&memory_before)
        .map(|(there, before)| *there as f64 - *before as f64)
        .collect();
    Ok(Report {
        clients: options.clients,
        rooms: options.rooms,
        rooms_each: options.rooms_each,
        members: crowd.spread.members_of_a_room(),
        connecting,
        load,
        storm,
        servers: (!servers.is_empty()).then(|| Servers {
            cores,
            cpu_us_per_connection: for_connections.iter().sum::<Duration>().as_secs_f64() * 1e6
                / count,
            cpu_us_per_delivery: cpu,
            memory_before_bytes: memory_before.iter().sum(),
            memory_bytes: memory_there.iter().sum(),
            bytes_per_connection: bytes_more.iter().sum::<f64>() / count,
            bytes_more,
        }),
        checked: crowd.heard.deliveries,
        checked_by: if crowd.rooms.iter().all(Room::is_numbered) {
            "seq"
        } else {
            "sender"
        },
        ok: findings.is_clean(),
        findings,
    })
}

fn cores(used: Duration, time: Duration) -> f64 {
    used.as_secs_f64() / time.as_secs_f64().max(1e-9)
}

fn connecting(crowd: &mut Crowd, took: Duration) -> Connecting {
    Connecting {
        seconds: took.as_secs_f64(),
        per_second: per_second(crowd.clients.len() as u64, took),
        time_ms: Quantiles::of(&crowd.join_time),
        failed_attempts: std::mem::take(&mut crowd.attempts_failed),
    }
}

/// Answers heartbeats, and nothing else.
fn rest(crowd: &mut Crowd, time: Duration, line: &mut Line) -> anyhow::Result<()> {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        crowd.turn(Some(left.min(Duration::from_millis(200))))?;
        line.show(|| format!("at rest for another {} s", left.as_secs()));
    }
    Ok(())
}

/// When the next message is sent.
enum Pace {
    InFlight(u64),
    Rate {
        per_sec: u64,
        from: Instant,
        sent: u64,
        room: usize,
    },
}

impl Pace {
    /// Sends what is due. Returns how long nothing will be, unless something comes in.
    fn send_due(&mut self, crowd: &mut Crowd, stirred: &mut Vec<usize>) -> Duration {
        match self {
            Self::InFlight(at_once) => {
                crowd.stirred(stirred);
                for room in stirred.drain(..) {
                    while crowd.rooms[room].sent < crowd.rooms[room].done() + *at_once {
                        let now = crowd.now_us();
                        crowd.speak(room, now);
                    }
                }
                Duration::from_millis(100)
            }
            Self::Rate {
                per_sec,
                from,
                sent,
                room,
            } => {
                for _ in 0..AT_ONCE_DUE {
                    let due = *from
                        + Duration::from_nanos(
                            u64::try_from(u128::from(*sent) * 1_000_000_000 / u128::from(*per_sec))
                                .unwrap_or(u64::MAX),
                        );
                    if let Some(left) = due.checked_duration_since(Instant::now()) {
                        // The system's poll knows whole milliseconds; what is sooner is waited for awake.
                        return Duration::from_millis(
                            u64::try_from(left.as_millis()).unwrap_or(u64::MAX).min(100),
                        );
                    }
                    // From when it was due, though it may be sent later: so a server that stalls can't hide it.
                    let sent_us = crowd.us_of(due);
                    crowd.speak(*room, sent_us);
                    *sent += 1;
                    *room = crowd.spread.next(*room);
                }
                // More is due than can be written: what has come is read first.
                Duration::ZERO
            }
        }
    }
}

/// Warms up, measures, and hears the last words. Returns what was measured, what each server used, and the deliveries.
fn put_load(
    options: &Options,
    servers: &[Process],
    crowd: &mut Crowd,
    line: &mut Line,
) -> anyhow::Result<(Load, Vec<Duration>, u64)> {
    let begin = Instant::now();
    let measured_from = begin + options.warm_up;
    let mut pace = match options.rate {
        Some(per_sec) => Pace::Rate {
            per_sec,
            from: begin,
            sent: 0,
            room: 0,
        },
        None => Pace::InFlight(options.in_flight),
    };
    let mut stirred: Vec<usize> = Vec::new();
    if let Pace::InFlight(at_once) = pace {
        let mut room = 0;
        for _ in 0..crowd.rooms.len() {
            for _ in 0..at_once {
                let now = crowd.now_us();
                crowd.speak(room, now);
            }
            room = crowd.spread.next(room);
        }
    }
    crowd.latency_from = crowd.us_of(measured_from);
    let counts = |crowd: &Crowd| {
        (
            crowd.rooms.iter().map(|room| room.sent).sum::<u64>(),
            crowd.heard.deliveries,
        )
    };
    let mut first = None;
    let (before, after) = loop {
        let now = Instant::now();
        if first.is_none() && now >= measured_from {
            first = Some((Usage::now(servers)?, counts(crowd)));
        }
        if let Some((before, _)) = &first
            && now >= before.at + options.duration
        {
            break (first, (Usage::now(servers)?, counts(crowd)));
        }
        let patience = pace.send_due(crowd, &mut stirred);
        crowd.turn(Some(patience))?;
        line.show(|| {
            let deliveries = per_second(crowd.heard.deliveries, begin.elapsed());
            let p99 = crowd.heard.latency.value_at_quantile(0.99) as f64 / 1000.0;
            format!(
                "{:.0} s: {deliveries:.0} deliveries/s, p99 {p99:.2} ms",
                begin.elapsed().as_secs_f64()
            )
        });
    };
    let (mut last_words, mut heard) = (Instant::now(), crowd.heard.deliveries);
    while !crowd.is_quiet() && last_words.elapsed() < LAST_WORDS {
        crowd.turn(Some(Duration::from_millis(20)))?;
        // A server that is slow has lost nothing yet.
        if crowd.heard.deliveries > heard {
            (heard, last_words) = (crowd.heard.deliveries, Instant::now());
        }
    }
    let Some((before, (messages, deliveries))) = before else {
        anyhow::bail!("nothing was measured")
    };
    let (after, (messages_after, deliveries_after)) = after;
    let time = after.at - before.at;
    let load = Load {
        seconds: time.as_secs_f64(),
        messages_per_second: per_second(messages_after - messages, time),
        deliveries_per_second: per_second(deliveries_after - deliveries, time),
        latency_ms: Quantiles::of(&crowd.heard.latency),
        generator_cores: cores(after.own.since(&before.own)?, time),
    };
    Ok((
        load,
        after.of_servers(&before)?,
        deliveries_after - deliveries,
    ))
}

/// One line on the terminal that tells how it goes; none where nobody watches.
struct Line {
    is_watched: bool,
    shown: Instant,
}

impl Line {
    fn new() -> Self {
        Self {
            is_watched: std::io::stderr().is_terminal(),
            shown: Instant::now(),
        }
    }

    fn show(&mut self, text: impl FnOnce() -> String) {
        if self.is_watched && self.shown.elapsed() > Duration::from_millis(500) {
            self.shown = Instant::now();
            self.say(&text());
        }
    }

    fn say(&self, text: &str) {
        if self.is_watched {
            // A terminal that is gone is no reason to stop.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }

    fn clear(&self) {
        self.say("");
    }
}
