//! Ending all of a user's connections, on whichever node they are.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Chat;
use crate::delivery::Disconnect;
use crate::domain::{ConnId, Refusal, UserId};

/// How long to wait for all nodes.
const PATIENCE: Duration = Duration::from_secs(1);
/// When to say it again, as the bus may have lost it.
const AGAIN: Duration = Duration::from_millis(200);
/// How often to look whether it has happened.
const LOOK: Duration = Duration::from_millis(20);

/// What became of a user's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnected {
    /// Those that have ended.
    pub ended: usize,
    /// Those of which nobody has said so within a second: their node died, or can't reach the backplane now.
    pub remaining: usize,
}

impl Chat {
    /// Names who ends a user's connections on this node. Called once, within a tokio runtime.
    pub fn on_disconnect(&self, end: Disconnect) {
        self.delivery.on_disconnect(&self.backplane, end);
    }

    /// Ends the connections that the user has now, in the whole cluster, and waits a second at most to see it done. The user's
    /// tokens stay good: who shall not come back must get no new one, and have none that lasts.
    ///
    /// # Errors
    /// `unavailable`: some may have ended.
    pub async fn disconnect(&self, user: &UserId) -> Result<Disconnected, Refusal> {
        self.ready()?;
        let connections = async || Ok::<_, Refusal>(self.backplane.presence.connections(user).await?);
        let before: HashSet<ConnId> = connections().await?.into_iter().collect();
        let until = Instant::now() + PATIENCE;
        loop {
            self.backplane.bus.publish_disconnect(user).await?;
            let again = Instant::now() + AGAIN;
            loop {
                let remaining = connections().await?.iter().filter(|conn| before.contains(conn)).count();
                if remaining == 0 || Instant::now() >= until {
                    return Ok(Disconnected { ended: before.len() - remaining, remaining });
                }
                if Instant::now() >= again {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
