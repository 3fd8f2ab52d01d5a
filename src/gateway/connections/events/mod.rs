//! The events that clients may send: how each is decoded and handled.
//!
//! To add an event, implement [`ClientRequest`] in a file of this folder and add a line to the
//! table below. The JSON of its acknowledgement is declared in `gateway/wire`.

mod changes;
mod identity;
mod messages;
mod positions;
mod rooms;
mod status;
mod sync;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use super::connection::Connection;
use super::reply::Reply;
use crate::domain::{Code, Limits, Membership, Refusal, RoomId, RoomKind};
use crate::features::messages::{Messages, not_configured};
use crate::features::messaging::{ConnectionState, Messaging};
use crate::gateway::wire::{Fields, MalformedEvent, RawEvent};

pub use changes::{DeleteMessage, EditMessage, PinMessage, React, UnpinMessage};
pub use identity::Authenticate;
pub use messages::{History, SendMessage, Typing};
pub use positions::Read;
pub use rooms::{Join, Leave};
pub use status::{SubscribeStatus, UnsubscribeStatus};
pub use sync::Sync;

/// A client's request: one kind of event, valid in form.
pub(super) trait ClientRequest: Sized {
    /// The event's name on the wire.
    const EVENT: &'static str;
    /// Whether connections may send it before they have a user.
    const ANONYMOUS: bool = false;
    /// What it waits for while replies to earlier events are pending.
    const WAITS_FOR: Earlier = Earlier::Replies;

    /// Reads the request from its payload.
    ///
    /// # Errors
    /// `bad_request`, `too_large`; the text names the field.
    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal>;

    /// Calls one use case and acknowledges the request. A refusal is sent by the caller.
    fn handle(
        self,
        context: RequestContext<'_>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// What must precede an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Earlier {
    /// Nothing beside the handling of the events before it: its own reply waits for theirs.
    Nothing,
    /// No change of a message that the client has sent before is repeated.
    Changes,
    /// All replies: its own has to precede other events of the server, or is large.
    Replies,
}

/// The environment of a request's handler.
pub(super) struct RequestContext<'a> {
    pub connection: &'a Arc<Connection>,
    /// Locked until the request is handled, as events of a connection are handled one by one.
    pub state: &'a mut ConnectionState,
    pub reply: &'a Reply,
    /// The size of the event's JSON.
    pub event_bytes: usize,
}

impl<'a> RequestContext<'a> {
    fn messaging(&self) -> &'a Messaging {
        &self.connection.connections.messaging
    }

    /// The use cases of messages that change.
    ///
    /// # Errors
    /// `not_configured`.
    fn messages(&self) -> Result<&'a Arc<Messages>, Refusal> {
        let messages = self.connection.connections.messages.as_ref();
        messages.ok_or_else(not_configured)
    }

    /// The rights of the connection's user in the room's chat; `None` for other rooms.
    async fn member_of(&self, room: &RoomId) -> Result<Option<Membership>, Refusal> {
        if room.kind() != RoomKind::Chat {
            return Ok(None);
        }
        // From the heap: see the table of events.
        Box::pin(self.messaging().membership(self.state, room)).await
    }
}

/// Awaits a handler's future in place, or from the heap.
macro_rules! run {
    (inline $future:expr) => {
        $future.await
    };
    (boxed $future:expr) => {
        Box::pin($future).await
    };
}

/// The table of events. Each line names a request and where the future of its handler is kept.
///
/// Names are looked up in the table's order, so frequent events come first. The future of a
/// connection's task is as large as the largest `inline` handler. So the handlers of frequent
/// events are `inline`, which saves an allocation for each event, and the others are `boxed`.
macro_rules! client_events {
    ($($kept:ident $request:ident;)*) => {
        /// The events that clients may send.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ClientEvent {
            $(#[doc = concat!("The event of [`", stringify!($request), "`].")] $request),*
        }

        impl ClientEvent {
            /// The event of that name on the wire.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($request::EVENT => Some(Self::$request),)*
                    _ => None,
                }
            }

            /// The event's name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$request => $request::EVENT),* }
            }

            const fn allows_anonymous(self) -> bool {
                match self { $(Self::$request => $request::ANONYMOUS),* }
            }
        }

        /// A client's request.
        #[derive(Debug)]
        pub enum Request {
            $(#[doc = concat!("A request of the event [`", stringify!($request), "`].")]
            $request($request)),*
        }

        impl Request {
            fn decode(event: ClientEvent, fields: &Fields<'_>) -> Result<Self, Refusal> {
                match event {
                    $(ClientEvent::$request => $request::decode(fields).map(Self::$request)),*
                }
            }

            pub(super) const fn waits_for(&self) -> Earlier {
                match self { $(Self::$request(_) => $request::WAITS_FOR),* }
            }

            /// Handles the request, as [`ClientRequest::handle`] describes.
            // An `async fn` would keep a second copy of `self` in its future.
            pub(super) fn handle(
                self,
                context: RequestContext<'_>,
            ) -> impl Future<Output = Result<(), Refusal>> + Send {
                async move {
                    match self {
                        $(Self::$request(request) => run!($kept request.handle(context))),*
                    }
                }
            }
        }
    };
}

client_events! {
    inline SendMessage;
    boxed Join;
    boxed Authenticate;
    boxed Leave;
    inline Typing;
    boxed History;
    boxed SubscribeStatus;
    boxed UnsubscribeStatus;
    boxed Sync;
    boxed Read;
    boxed React;
    boxed EditMessage;
    boxed DeleteMessage;
    boxed PinMessage;
    boxed UnpinMessage;
}

/// The name of an event as refusals show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestName {
    /// An event of the table.
    Known(ClientEvent),
    /// A name that is not in the table; empty if none could be read.
    Other(Cow<'static, str>),
}

impl RequestName {
    fn of(name: String) -> Self {
        match ClientEvent::named(&name) {
            Some(event) => Self::Known(event),
            None => Self::Other(name.into()),
        }
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(event) => event.name(),
            Self::Other(name) => name,
        }
    }

    /// Whether the event is accepted from connections that have no user yet.
    pub(super) fn allows_anonymous(&self) -> bool {
        match self {
            Self::Known(event) => event.allows_anonymous(),
            Self::Other(_) => false,
        }
    }
}

/// Decodes an event: its name, which a refusal needs in any case, and the request.
///
/// # Errors
/// `unknown_event`, `bad_request`, `too_large`.
pub fn decode_event(
    event: Result<RawEvent<'_>, MalformedEvent>,
    limits: &Limits,
) -> (RequestName, Result<Request, Refusal>) {
    let raw = match event {
        Ok(raw) => raw,
        Err(malformed) => return (RequestName::of(malformed.name), Err(malformed.refusal)),
    };
    let Some(event) = ClientEvent::named(raw.name()) else {
        let refusal = Refusal::new(Code::UnknownEvent, "there is no such event");
        return (RequestName::Other(raw.into_name().into()), Err(refusal));
    };
    let request = raw
        .into_fields(limits)
        .and_then(|fields| Request::decode(event, &fields));
    (RequestName::Known(event), request)
}
