//! The load generator behind `hubbub bench`. It measures how many connections, messages and
//! deliveries a cluster sustains, with which latency and at which cost, and checks the cluster's
//! delivery guarantees at the same time.
//!
//! The generator is one thread, and parses no JSON of messages while it measures. So it is cheap
//! enough to keep one core of any server busy from one core.
//!
//! | module | contents |
//! | --- | --- |
//! | `options` | the command line |
//! | `measurement`, `load`, `send_schedule` | the phases of a run; when messages are sent |
//! | `generator`, `client`, `frame`, `target` | the connections and their protocol |
//! | `acks` | acknowledgements of messages |
//! | `limits` | limits of the nodes that refuse a part of the load |
//! | `room`, `room_assignment`, `findings` | the rooms, their members, and the checks |
//! | `usage`, `process` | CPU time and memory of processes |
//! | `report`, `progress_line` | output |

mod acks;
mod client;
mod digits;
mod duration;
mod findings;
mod frame;
mod generator;
mod limits;
mod load;
mod measurement;
mod options;
mod process;
mod progress_line;
mod report;
mod room;
mod room_assignment;
mod send_schedule;
mod target;
mod usage;

use std::process::ExitCode;

use anyhow::ensure;

pub use duration::parse_duration;
use generator::{ConnectSettings, LoadGenerator};
use measurement::Measurement;
pub use options::Options;
use process::Process;
use report::Report;
use room::Room;
use target::Target;

/// Open files that a run needs besides its connections.
const OTHER_OPEN_FILES: u64 = 32;

/// Signs a token for a user (first argument) with the secret of the nodes (second argument).
pub type SignToken = fn(&str, &str) -> anyhow::Result<String>;

/// Runs the load, and prints the report. The exit code is a failure if a check of the server's
/// guarantees failed. Without a report, the run was void, because a limit of the nodes refused
/// messages.
///
/// # Errors
/// If options contradict each other, or if servers cannot be reached or measured. The texts are
/// for the terminal.
pub fn run(options: &Options, sign_token: SignToken) -> anyhow::Result<ExitCode> {
    let assignment = options.validate()?;
    raise_open_files_limit(options.clients)?;
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
    // The prefix is unique to this run, so that no other run in the same rooms disturbs the counts.
    let name_prefix = format!("bench-{}-", std::process::id());
    let rooms = (0..options.rooms)
        .map(|room| {
            Room::new(
                format!("{name_prefix}{room}"),
                assignment.members(room),
                options.senders,
                options.payload,
                options.acks,
            )
        })
        .collect();
    let settings = ConnectSettings {
        targets,
        sources: options.source.clone(),
        token_secret: options.token_secret()?,
        sign_token,
        name_prefix,
    };
    let mut generator = LoadGenerator::new(settings, rooms, assignment)?;
    if options.acks {
        generator.expect_acks(options.allow_refusals)?;
    }
    let report = Measurement::new(options, &servers, &mut generator).run()?;
    print_report(&report, options.json)?;
    if report.ok {
        return Ok(ExitCode::SUCCESS);
    }
    if !generator.last_failure().is_empty() {
        eprintln!("last failure: {}", generator.last_failure());
    }
    Ok(ExitCode::FAILURE)
}

/// Raises the limit on open files as far as the system allows.
///
/// # Errors
/// If that is too few for the connections.
fn raise_open_files_limit(clients: usize) -> anyhow::Result<()> {
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    ensure!(
        limit > clients as u64 + OTHER_OPEN_FILES,
        "{clients} connections need as many open files, and this process may have only {limit} \
         (ulimit -Hn)"
    );
    Ok(())
}

fn print_report(report: &Report, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
