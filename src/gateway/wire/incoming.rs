//! An event as a client sent it: its name, and a payload that is not decoded yet.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::fields::Fields;
use crate::domain::{Limits, Refusal};

/// A client's event, whichever transport it came over.
pub struct RawEvent<'a> {
    pub(super) name: Cow<'a, str>,
    payload: Payload<'a>,
}

enum Payload<'a> {
    Missing,
    /// JSON that is not parsed yet.
    Json(&'a RawValue),
    /// An object that was checked and split in the pass that found the event's name.
    Fields(Fields<'a>),
}

impl<'a> RawEvent<'a> {
    pub(super) fn new(name: Cow<'a, str>, payload: Option<&'a RawValue>) -> Self {
        let payload = payload.map_or(Payload::Missing, Payload::Json);
        Self { name, payload }
    }

    /// An event with a payload that passed [`Fields::check`].
    pub(super) fn with_fields(name: Cow<'a, str>, fields: Fields<'a>) -> Self {
        let payload = Payload::Fields(fields);
        Self { name, payload }
    }

    /// The name as the client wrote it; there may be no event of that name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name, without the payload.
    #[must_use]
    pub fn into_name(self) -> String {
        self.name.into_owned()
    }

    /// The payload's fields.
    ///
    /// # Errors
    /// `bad_request` if the payload is missing or is not an object; `too_large`.
    pub fn into_fields(self, limits: &Limits) -> Result<Fields<'a>, Refusal> {
        match self.payload {
            Payload::Fields(fields) => Ok(fields),
            Payload::Json(json) => Fields::parse(json.get(), limits.event_bytes, "payload"),
            Payload::Missing => Err(Refusal::bad_request("the payload is missing")),
        }
    }
}

/// Text that is no event.
pub struct MalformedEvent {
    /// The event's name for the refusal; empty if it could not be read.
    pub name: String,
    /// The reason.
    pub refusal: Refusal,
}
