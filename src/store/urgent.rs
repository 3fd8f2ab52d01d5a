//! Rows of the outbox that take something away, and are not published yet.

use async_trait::async_trait;

use super::{OutboxId, Result};
use crate::domain::RoomId;

/// An urgent row: one of [`Change::URGENT_EVENTS`](crate::domain::Change::URGENT_EVENTS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrgentRow {
    /// Its number.
    pub id: OutboxId,
    /// The room that it is published to.
    pub room: RoomId,
    /// The name of the event.
    pub kind: String,
    /// A JSON object.
    pub payload: String,
}

/// The urgent rows of the outbox.
#[async_trait]
pub trait UrgentRows: Send + Sync {
    /// Urgent rows that are not published, with greater numbers than `after`: those of the lowest numbers,
    /// in their order. Rows that are claimed, postponed or given up are among them. Reads no other rows.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn urgent(&self, after: OutboxId, limit: usize) -> Result<Vec<UrgentRow>>;
}
