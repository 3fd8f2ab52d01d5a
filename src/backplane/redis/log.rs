//! Rooms' logs in Redis: appends go through `Appends`, reads are one script, heads a pipeline.

use async_trait::async_trait;
use fred::types::Value;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Node;
use super::keys::{Partition, part};
use super::link::{Fault, Lane};
use super::script::{READ, ScriptReply};
use crate::backplane::{Appended, Entry, Result, RoomLog, Slice, Window};
use crate::domain::{Epoch, Head, LogSpan, NewMessage, RoomId, Timestamp};

/// How many small reads of one call are under way at a time.
pub(super) const PIPELINE: usize = 64;
/// Larger numbers aren't whole in Lua.
const MAX_SEQ: u64 = 1 << 53;

#[async_trait]
impl RoomLog for Node {
    async fn append(&self, draft: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.appends.append(draft, key).await
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        let (mode, seq) = match window {
            Window::After(seq) => ("A", seq.min(MAX_SEQ)),
            Window::Before(seq) => ("B", seq.min(MAX_SEQ)),
            Window::Newest => ("N", 0),
        };
        let args = vec![
            part(room.as_str()).into(),
            mode.into(),
            whole(seq),
            size(limit),
            size(max_bytes),
        ];
        let mut answer = self.link.run(&READ, Partition::of_room(room), args).await?;
        let span = span(&mut answer)?;
        Ok(Slice {
            entries: entries(answer)?,
            span,
        })
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        let heads: Vec<_> = rooms
            .iter()
            .map(|room| {
                let partition = Partition::of_room(room);
                (
                    partition,
                    format!("{}m:{}", partition.tag(), part(room.as_str())),
                )
            })
            .collect();
        let heads = stream::iter(heads).map(|(partition, key)| async move {
            let found = self
                .link
                .command(
                    Lane::Log,
                    "HMGET",
                    partition,
                    vec![key.into(), "e".into(), "s".into()],
                )
                .await?;
            let mut answer = ScriptReply::new(found);
            let (epoch, seq) = (answer.value()?, answer.value()?);
            Ok(epoch.as_str().zip(seq.as_u64()).map(|(epoch, seq)| Head {
                epoch: Epoch::trusted(&epoch),
                seq,
            }))
        });
        heads
            .buffered(PIPELINE)
            .try_collect()
            .await
            .map_err(|fault: Fault| fault.into())
    }
}

/// The first four values of `read.lua` and `join.lua`.
pub(super) fn span(answer: &mut ScriptReply) -> std::result::Result<LogSpan, Fault> {
    let head = Head {
        epoch: Epoch::trusted(&answer.text()?),
        seq: answer.number()?,
    };
    let oldest = answer.number()?;
    let past = answer.text()?;
    let words: Vec<_> = past.split_ascii_whitespace().collect();
    let past = words.chunks_exact(2).map(|ended| {
        let seq = ended[1]
            .parse()
            .map_err(|_| Fault::nonsense("not where an epoch ended"))?;
        Ok(Head {
            epoch: Epoch::trusted(ended[0]),
            seq,
        })
    });
    Ok(LogSpan {
        head,
        oldest,
        past: past.collect::<std::result::Result<_, Fault>>()?,
    })
}

/// The messages that `read.lua` answers with behind the span.
pub(super) fn entries(mut answer: ScriptReply) -> std::result::Result<Vec<Entry>, Fault> {
    let mut entries = Vec::new();
    while !answer.is_empty() {
        entries.push(Entry {
            seq: answer.number()?,
            epoch: Epoch::trusted(&answer.text()?),
            at: Timestamp(answer.number()?),
            record: answer.bytes()?,
        });
    }
    Ok(entries)
}

fn whole(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

/// A limit for a script.
pub(super) fn size(number: usize) -> Value {
    i64::from(u32::try_from(number).unwrap_or(u32::MAX)).into()
}
