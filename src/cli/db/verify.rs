//! `hubbub db verify`: whether the archive is complete.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::progress::Progress;
use super::summary::Summary;
use super::{Databases, FOUND, LogOption, Output, settings};
use crate::archive::verify::{Finding, RoomReport, Verifier};
use crate::config::CommandLine;
use crate::domain::RoomId;
use crate::store::sql::SqlStore;
use crate::store::{self, ArchiveStore as _, ArchiveTransfer as _, StoreError};

/// The rooms that are listed at once.
const ROOMS_PER_PAGE: usize = 500;
/// The findings of a room that are printed.
const FINDINGS_PER_ROOM: usize = 20;
/// The pause before a room with findings is checked again: a commit that was under way may have been
/// seen in part.
const RECHECK_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// Check this room only
    #[arg(long)]
    room: Option<String>,
    #[command(flatten)]
    log: LogOption,
    #[command(flatten)]
    output: Output,
}

/// The sums over all rooms.
#[derive(Default)]
struct Totals {
    rooms: u64,
    messages: u64,
    bytes: u64,
    lost: u64,
    unarchived: u64,
    findings: Vec<Value>,
}

pub(super) async fn run(
    options: &Options,
    command_line: &CommandLine,
    databases: &Databases,
) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let settings = settings(command_line)?;
    let opened = databases.open_existing(&settings).await?;
    let store = &opened.store;
    let fault = check_identity(store)
        .await
        .with_context(|| opened.url.to_string())?;
    // Only the log of the archive with the right id can be compared with it.
    let log = match fault {
        None => options.log.open(command_line, store).await?,
        Some(_) => None,
    };
    let verifier = Verifier {
        store,
        log: log.as_deref(),
    };
    let mut totals = match fault {
        Some(IdentityFault::IncompleteCopy) => Totals::default(),
        _ => check_all(&verifier, options)
            .await
            .with_context(|| opened.url.to_string())?,
    };
    totals.findings.extend(fault.map(IdentityFault::described));
    let has_findings = !totals.findings.is_empty();
    let mut summary = Summary::default();
    summary.add("rooms", totals.rooms);
    summary.add("messages", totals.messages);
    summary.add("record_bytes", totals.bytes);
    summary.add("recorded_as_lost", totals.lost);
    summary.add("has_log", log.is_some());
    summary.add("not_yet_archived", totals.unarchived);
    summary.add("findings", totals.findings);
    summary.add("is_complete", !has_findings);
    summary.add_seconds(began);
    summary.print(options.output);
    Ok(ExitCode::from(if has_findings { FOUND } else { 0 }))
}

/// Why a database is no usable archive as a whole.
#[derive(Debug, Clone, Copy)]
enum IdentityFault {
    IncompleteCopy,
    NoId,
}

impl IdentityFault {
    fn described(self) -> Value {
        match self {
            Self::IncompleteCopy => json!({
                "kind": "incomplete_copy",
                "detail": "incomplete copy: run `hubbub db copy` again",
            }),
            Self::NoId => json!({
                "kind": "no_id",
                "detail": "hubbub_meta has no valid id of this archive (name = 'deployment')",
            }),
        }
    }
}

/// An archive without rooms needs no id yet.
async fn check_identity(store: &SqlStore) -> store::Result<Option<IdentityFault>> {
    let identity = match store.identity().await {
        Ok(identity) => identity,
        Err(StoreError::Broken(_)) => return Ok(Some(IdentityFault::NoId)),
        Err(error) => return Err(error),
    };
    if identity.copy_of.is_some() {
        return Ok(Some(IdentityFault::IncompleteCopy));
    }
    let is_used = identity.id.is_none() && !store.rooms(0, 1).await?.is_empty();
    Ok(is_used.then_some(IdentityFault::NoId))
}

async fn check_all(verifier: &Verifier<'_>, options: &Options) -> anyhow::Result<Totals> {
    let mut totals = Totals::default();
    let mut progress = Progress::new("checking", None);
    if let Some(room) = &options.room {
        let room = RoomId::parse("--room", room).map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        let is_known = verifier.store.room(&room).await?.is_some();
        anyhow::ensure!(is_known, "the archive doesn't know the room {room}");
        check(verifier, &room, &mut progress, &mut totals).await?;
        return Ok(totals);
    }
    let mut after = 0;
    loop {
        let rooms = verifier.store.rooms(after, ROOMS_PER_PAGE).await?;
        let Some((last, _)) = rooms.last() else { break };
        after = *last;
        for (_, room) in &rooms {
            check(verifier, room, &mut progress, &mut totals).await?;
        }
    }
    for orphans in verifier.store.orphans().await? {
        let (table, rows, rooms) = (orphans.table, orphans.rows, orphans.rooms);
        let detail = format!(
            "{table} has {rows} rows of {rooms} rooms that hubbub_rooms doesn't have; the first has \
             the number {}",
            orphans.first
        );
        let finding = json!({"kind": "orphans", "table": table, "count": rows, "detail": detail});
        totals.findings.push(finding);
    }
    for id in verifier.doubled_ids().await? {
        let detail = format!("two messages have the id {id}");
        let finding = json!({"kind": "doubled_id", "id": id.to_string(), "detail": detail});
        totals.findings.push(finding);
    }
    Ok(totals)
}

async fn check(
    verifier: &Verifier<'_>,
    room: &RoomId,
    progress: &mut Progress,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    let mut report = verifier
        .check(room, &mut |count| progress.add(count))
        .await?;
    if !report.findings.is_empty() {
        tokio::time::sleep(RECHECK_PAUSE).await;
        report = verifier.check(room, &mut |_| {}).await?;
    }
    let RoomReport {
        entries,
        bytes,
        lost,
        unarchived,
        findings,
    } = report;
    totals.rooms += 1;
    totals.messages += entries;
    totals.bytes += bytes;
    totals.lost += lost;
    totals.unarchived += unarchived;
    totals.findings.extend(described(room, &findings));
    Ok(())
}

fn described(room: &RoomId, findings: &[Finding]) -> Vec<Value> {
    let described = |finding: &Finding| json!({"room": room.as_str(), "kind": finding.kind(), "detail": finding.to_string()});
    let mut shown: Vec<Value> = findings
        .iter()
        .take(FINDINGS_PER_ROOM)
        .map(described)
        .collect();
    let more = findings.len().saturating_sub(FINDINGS_PER_ROOM);
    if more > 0 {
        let detail = format!("{more} more findings");
        shown.push(json!({"room": room.as_str(), "kind": "more", "count": more, "detail": detail}));
    }
    shown
}
