//! The newest forms of changed messages, as arguments and in replies of scripts.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::fault::Fault;
use super::script::ScriptReply;
use crate::backplane::{Entry, Window, message_form};
use crate::domain::{Amendment, MessageForm};

/// The second argument of a pointer in `append.lua`.
pub(super) fn pointer_argument(record: &[u8], amendment: &Amendment) -> Bytes {
    let Amendment {
        raises_version,
        form,
    } = amendment;
    let (bytes, target, raises) = (record.len(), form.position.seq, u8::from(*raises_version));
    let (version, edited_at) = (form.version, form.edited_at.map_or(0, |at| at.0));
    let mut argument = format!("{bytes} {target} {raises} {version} {edited_at}\n").into_bytes();
    argument.extend_from_slice(record);
    argument.extend(message_form::encode_tail(form));
    argument.into()
}

/// Parses the number of forms, and the forms, in the reply of `read.lua`. A damaged form is left out.
pub(super) fn parse(
    reply: &mut ScriptReply,
) -> std::result::Result<BTreeMap<u64, MessageForm>, Fault> {
    let mut forms = BTreeMap::new();
    for _ in 0..reply.number()? {
        match message_form::decode(&reply.bytes()?) {
            Some(form) => drop(forms.insert(form.position.seq, form)),
            None => tracing::error!("the newest form of a message is damaged"),
        }
    }
    Ok(forms)
}

/// Limits a page to so many bytes of records, but to at least one entry. The script has counted the
/// stored records, which may be shorter.
pub(super) fn limit_bytes(entries: &mut Vec<Entry>, window: Window, max_bytes: usize) {
    let mut bytes = 0_usize;
    let mut fits = |entry: &Entry| {
        let is_first = bytes == 0;
        bytes = bytes.saturating_add(entry.record.len());
        is_first || bytes <= max_bytes
    };
    if let Window::After(_) = window {
        let count = entries.iter().take_while(|entry| fits(entry)).count();
        entries.truncate(count);
    } else {
        let count = entries.iter().rev().take_while(|entry| fits(entry)).count();
        entries.drain(..entries.len() - count);
    }
}
