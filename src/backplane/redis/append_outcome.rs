//! The outcomes that `append.lua` returns.

use fred::types::Value;
use uuid::Uuid;

use super::fault::Fault;
use super::script::ScriptReply;
use crate::backplane::Appended;
use crate::domain::{Epoch, Timestamp};

/// The script's outcome for a message.
pub(super) enum AppendOutcome {
    Position(Appended),
    /// The text of the error for which the message was refused.
    Refused(String),
    /// The room must be restored first.
    Unrestored,
}

/// Parses the reply of `append.lua` to a call with messages of these ids, grouped by room.
pub(super) fn parse_outcomes(
    mut reply: ScriptReply,
    rooms: &[Vec<Uuid>],
) -> std::result::Result<Vec<AppendOutcome>, Fault> {
    let at = Timestamp(reply.number()?);
    let mut outcomes = Vec::with_capacity(rooms.iter().map(Vec::len).sum());
    for ids in rooms {
        let epoch = reply.text()?;
        for &id in ids {
            outcomes.push(match reply.value()? {
                Value::Integer(seq) => AppendOutcome::Position(Appended {
                    id,
                    seq: u64::try_from(seq).map_err(|_| Fault::broken("a seq is negative"))?,
                    epoch: Epoch::trusted(&epoch),
                    at,
                    duplicate: false,
                }),
                line => line
                    .into_string()
                    .and_then(|line| parse_text_outcome(&line))
                    .ok_or_else(|| Fault::broken("the outcome of an append is malformed"))?,
            });
        }
    }
    Ok(outcomes)
}

/// Parses `1 <id> <seq> <epoch> <time>` of a duplicate, `! <error>`, or `?`.
fn parse_text_outcome(line: &str) -> Option<AppendOutcome> {
    if line == "?" {
        return Some(AppendOutcome::Unrestored);
    }
    let (first, rest) = line.split_once(' ')?;
    if first == "!" {
        return Some(AppendOutcome::Refused(rest.to_owned()));
    }
    let mut words = rest.split(' ');
    Some(AppendOutcome::Position(Appended {
        duplicate: true,
        id: words.next()?.parse().ok()?,
        seq: words.next()?.parse().ok()?,
        epoch: Epoch::trusted(words.next()?),
        at: Timestamp(words.next()?.parse().ok()?),
    }))
}
