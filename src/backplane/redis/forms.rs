//! The newest forms of changed messages, as arguments and in replies of scripts.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::fault::Fault;
use super::script::ScriptReply;
use crate::backplane::message_form;
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
