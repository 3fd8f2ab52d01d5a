//! Rooms' logs in Redis: appends are batched, a read is one script, heads are plain commands.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fred::types::Value;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::fault::Fault;
use super::keys::{Partition, encode_name};
use super::link::ConnectionPool;
use super::restore::RestoreRounds;
use super::script::{EXPECT_CHANGES, READ, ScriptReply};
use super::{Node, entry_kind, forms};
use crate::backplane::{
    AnnouncedForms, Appended, Entry, NewChange, Result, RoomLog, Slice, Traces, Window,
    message_form, record, until_error,
};
use crate::domain::{Epoch, Head, LogSpan, MessageForm, NewMessage, RoomId, Timestamp};

/// Concurrent small reads of one call for many rooms or topics.
pub(super) const CONCURRENT_READS: usize = 64;
/// Messages whose forms one call reads.
const FORMS_PER_CALL: usize = 500;
/// The largest seq that Lua represents exactly.
const MAX_SEQ: u64 = 1 << 53;

#[async_trait]
impl RoomLog for Node {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.appends
            .append(message.into(), key, record::encode(message))
            .await
    }

    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        until_error(self.appends.append_changes(room, changes).await)
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        let read = self.read_with(room, window, limit, max_bytes, &[]).await?;
        let mut entries = read.entries;
        if !read.forms.is_empty() {
            message_form::resolve(&mut entries, &read.forms);
            let is_from_end = !matches!(window, Window::After(_));
            message_form::limit_bytes(&mut entries, is_from_end, max_bytes);
        }
        Ok(Slice {
            entries,
            span: read.span,
            traces: read.traces,
        })
    }

    async fn expect_changes(&self, room: &RoomId) -> Result<()> {
        let args = vec![encode_name(room.as_str()).into()];
        let partition = Partition::of_room(room);
        self.link.run(&EXPECT_CHANGES, partition, args).await?;
        Ok(())
    }

    async fn announced_forms(&self, room: &RoomId, seqs: &[u64]) -> Result<AnnouncedForms> {
        let (mut forms, mut oldest) = (BTreeMap::new(), 0);
        // Lua limits the number of arguments that unpack returns.
        for part in seqs.chunks(FORMS_PER_CALL) {
            let read = self.read_with(room, Window::Newest, 0, 0, part).await?;
            forms.extend(read.forms);
            oldest = oldest.max(read.span.oldest);
        }
        Ok(AnnouncedForms { forms, oldest })
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        let heads: Vec<_> = rooms.iter().map(|room| self.head(room)).collect();
        stream::iter(heads)
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await
            .map_err(|fault: Fault| fault.into())
    }
}

/// What `read.lua` returns.
struct Read {
    span: LogSpan,
    traces: Traces,
    forms: BTreeMap<u64, MessageForm>,
    /// As they are in the log.
    entries: Vec<Entry>,
}

impl Node {
    /// Reads a part of the log, and the forms of these messages as well.
    async fn read_with(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
        forms: &[u64],
    ) -> Result<Read> {
        let (mode, seq) = match window {
            Window::After(seq) => ("A", seq.min(MAX_SEQ)),
            Window::Before(seq) => ("B", seq.min(MAX_SEQ)),
            Window::Newest => ("N", 0),
        };
        let mut args = vec![
            encode_name(room.as_str()).into(),
            mode.into(),
            i64::try_from(seq).unwrap_or(i64::MAX).into(),
            limit_arg(limit),
            limit_arg(max_bytes),
            self.link.archive.name(),
        ];
        args.extend(forms.iter().map(|seq| Value::from(seq.to_string())));
        let mut rounds = RestoreRounds::new();
        let mut reply = loop {
            let reply = self.link.run(&READ, Partition::of_room(room), args.clone());
            match reply.await {
                Err(Fault::Unrestored) => {
                    self.restore_rooms(std::slice::from_ref(room), &mut rounds)
                        .await?;
                }
                reply => break reply?,
            }
        };
        let span = parse_span(&mut reply, self.limits.history_size)?;
        let traces = Traces {
            oldest: span.oldest,
            has_changes: reply.number()? == 1,
            last_reply: reply.number()?,
            watermark: reply.number()?,
        };
        Ok(Read {
            span,
            traces,
            forms: forms::parse(&mut reply)?,
            entries: parse_entries(reply)?,
        })
    }

    async fn head(&self, room: &RoomId) -> std::result::Result<Option<Head>, Fault> {
        let args = vec![
            self.link.keys.numbering(room).into(),
            "e".into(),
            "s".into(),
        ];
        let partition = Partition::of_room(room);
        let fields = self
            .link
            .command(ConnectionPool::Log, "HMGET", partition, args)
            .await?;
        let mut fields = ScriptReply::new(fields);
        let (epoch, seq) = (fields.value()?, fields.value()?);
        Ok(epoch.as_str().zip(seq.as_u64()).map(|(epoch, seq)| Head {
            epoch: Epoch::trusted(&epoch),
            seq,
        }))
    }
}

/// Parses the first four values of the replies of `read.lua` and `join.lua`.
pub(super) fn parse_span(
    reply: &mut ScriptReply,
    history_size: usize,
) -> std::result::Result<LogSpan, Fault> {
    let head = Head {
        epoch: Epoch::trusted(&reply.text()?),
        seq: reply.number()?,
    };
    let oldest = reply.number()?;
    let past = parse_past(&reply.text()?)?;
    // Before an archive the log may keep more than that.
    let recent = head
        .seq
        .saturating_sub(history_size as u64)
        .saturating_add(1);
    let span = LogSpan::of_log(head, oldest, past);
    Ok(LogSpan {
        recent: oldest.max(recent),
        ..span
    })
}

/// Parses previous epochs: `<epoch> <seq> <epoch> <seq> …`.
pub(super) fn parse_past(past: &str) -> std::result::Result<Vec<Head>, Fault> {
    let words: Vec<_> = past.split_ascii_whitespace().collect();
    let past = words.chunks_exact(2).map(|pair| {
        let seq = pair[1]
            .parse()
            .map_err(|_| Fault::broken("the end of an epoch isn't a number"))?;
        Ok(Head {
            epoch: Epoch::trusted(pair[0]),
            seq,
        })
    });
    past.collect()
}

/// Parses the entries in the reply of `read.lua`, which follow the span and the forms.
pub(super) fn parse_entries(mut reply: ScriptReply) -> std::result::Result<Vec<Entry>, Fault> {
    let mut entries = Vec::new();
    while !reply.is_empty() {
        entries.push(Entry {
            seq: reply.number()?,
            epoch: Epoch::trusted(&reply.text()?),
            at: Timestamp(reply.number()?),
            kind: entry_kind::of_stream_field(&reply.bytes()?),
            record: reply.bytes()?,
        });
    }
    Ok(entries)
}

/// A limit as an argument of a script.
pub(super) fn limit_arg(limit: usize) -> Value {
    i64::from(u32::try_from(limit).unwrap_or(u32::MAX)).into()
}
