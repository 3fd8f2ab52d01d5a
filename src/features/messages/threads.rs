//! The root of a thread.

use uuid::Uuid;

use super::{find, message_deleted, message_ref, no_such_message};
use crate::backplane::EditableRecord;
use crate::domain::policy::{Permit, Sending};
use crate::domain::{FormContent, Refusal};
use crate::features::messaging::Messaging;
use crate::store::MessageStore;

impl Messaging {
    /// Checks that a message may be the root of a thread: it is in the room, and is no reply itself.
    ///
    /// # Errors
    /// `bad_request`, `not_found`, `message_deleted`, `unavailable`.
    pub(in crate::features) async fn check_root(
        &self,
        store: &dyn MessageStore,
        permit: &Permit<Sending>,
        root: Uuid,
    ) -> Result<(), Refusal> {
        let message = message_ref(permit.room(), root);
        let found = find(store, self, &message).await?;
        if found.form.position.seq <= permit.hidden_seq() {
            return Err(no_such_message());
        }
        if matches!(found.form.content, FormContent::Deleted(_)) {
            return Err(message_deleted());
        }
        let record = EditableRecord::decode(&found.record);
        if record.is_some_and(|record| record.is_reply()) {
            let text = "thread_id names a reply: a thread has one level";
            return Err(Refusal::bad_request(text).field("thread_id"));
        }
        Ok(())
    }
}
