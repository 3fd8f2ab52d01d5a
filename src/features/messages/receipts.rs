//! Notices of positions that have moved, which are not stored.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::mentions::chat_of;
use super::{Messages, ReadingUser};
use crate::backplane::{ReadReceipt, ReceiptAudience};
use crate::domain::{Refusal, RoomId, UserId};
use crate::store::{ReadPosition, UNREAD_CAP};

/// How long the size of a room is used without another look.
const LIFETIME: Duration = Duration::from_secs(10);
/// The most rooms whose sizes are known.
const MAX_KNOWN: usize = 1 << 14;

/// The sizes of rooms, as far as they are known.
#[derive(Default)]
pub(super) struct Audiences(Mutex<HashMap<RoomId, (Instant, bool)>>);

impl Messages {
    /// Notifies the room's other occupants that the user has read it, if the room is small enough. A
    /// notice that fails is lost.
    pub(super) async fn send_receipt(&self, room: &RoomId, user: &UserId, last_read_seq: u64) {
        let limit = self.messaging.limits().receipts;
        if limit == 0 {
            return;
        }
        let receipt = ReadReceipt {
            room: room.clone(),
            user: user.clone(),
            last_read_seq,
            audience: ReceiptAudience::Others,
        };
        let sent = async {
            if self.is_small(room, limit).await? {
                self.messaging.publish_receipt(&receipt).await?;
            }
            Ok::<_, Refusal>(())
        };
        if let Err(error) = sent.await {
            tracing::debug!(%error, "a read receipt is lost");
        }
    }

    /// Notifies the connections in the room of a user without an account, whose position no feed announces.
    /// A notice that fails is lost.
    pub(super) async fn send_position(
        &self,
        room: &RoomId,
        by: &ReadingUser,
        position: &ReadPosition,
    ) {
        if by.has_account {
            return;
        }
        let receipt = ReadReceipt {
            room: room.clone(),
            user: by.user.clone(),
            last_read_seq: position.last_read_seq,
            audience: ReceiptAudience::Own {
                unread: position.unread.count,
                is_capped: position.unread.is_capped,
            },
        };
        if let Err(error) = self.messaging.publish_receipt(&receipt).await {
            tracing::debug!(%error, "a position is not announced");
        }
    }

    async fn is_small(&self, room: &RoomId, limit: u64) -> Result<bool, Refusal> {
        let known = self.audiences.0.lock().get(room).copied();
        if let Some((until, is_small)) = known
            && Instant::now() < until
        {
            return Ok(is_small);
        }
        let most = usize::try_from(limit.min(UNREAD_CAP)).unwrap_or(usize::MAX);
        let is_small = match (&self.chats, chat_of(room)) {
            (Some(chats), Some(chat)) => {
                let members = chats.chat_members(chat, None, most + 1).await;
                members.map_err(super::refused)?.len() <= most
            }
            _ => self.messaging.occupant_count(room).await? <= limit,
        };
        let mut known = self.audiences.0.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(room.clone(), (Instant::now() + LIFETIME, is_small));
        Ok(is_small)
    }
}
