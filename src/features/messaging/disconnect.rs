//! Ending all of a user's connections, on whichever node they are.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Messaging;
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

impl Messaging {
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
        let connections =
            async || Ok::<_, Refusal>(self.backplane.presence.connections(user).await?);
        let before: HashSet<ConnId> = connections().await?.into_iter().collect();
        let until = Instant::now() + PATIENCE;
        loop {
            self.backplane.bus.publish_disconnect(user).await?;
            let again = Instant::now() + AGAIN;
            loop {
                let remaining = connections()
                    .await?
                    .iter()
                    .filter(|conn| before.contains(conn))
                    .count();
                if remaining == 0 || Instant::now() >= until {
                    return Ok(Disconnected {
                        ended: before.len() - remaining,
                        remaining,
                    });
                }
                if Instant::now() >= again {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::backplane::{
        Backplane, BackplaneLimits, Bus, BusSink, BusTopic, Result, Typing, memory,
    };
    use crate::delivery::{Delivery, DeliverySettings};
    use crate::domain::{Limits, Username};

    /// A bus that loses the first words that it is to pass on to all nodes.
    struct Forgetful {
        inner: Arc<dyn Bus>,
        lost: usize,
        said: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Bus for Forgetful {
        fn deliver_to(&self, sink: Arc<dyn BusSink>) {
            self.inner.deliver_to(sink);
        }
        async fn subscribe(&self, topic: &BusTopic) -> Result<()> {
            self.inner.subscribe(topic).await
        }
        async fn unsubscribe(&self, topic: &BusTopic) {
            self.inner.unsubscribe(topic).await;
        }
        async fn publish_typing(&self, typing: &Typing) -> Result<()> {
            self.inner.publish_typing(typing).await
        }
        async fn publish_disconnect(&self, user: &UserId) -> Result<()> {
            if self.said.fetch_add(1, Ordering::SeqCst) < self.lost {
                return Ok(());
            }
            self.inner.publish_disconnect(user).await
        }
    }

    /// What becomes of two connections when so many words are lost, and how often it was said.
    async fn disconnect(lost: usize) -> (Disconnected, usize) {
        let embedded = memory::embedded(BackplaneLimits::default());
        let said = Arc::new(AtomicUsize::new(0));
        let bus = Arc::new(Forgetful {
            inner: embedded.bus.clone(),
            lost,
            said: said.clone(),
        });
        let backplane = Backplane { bus, ..embedded };
        let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
        let chat = Messaging::new(backplane.clone(), delivery, Limits::default());
        let (ann, conns) = (
            UserId::trusted("ann"),
            [ConnId::trusted("one"), ConnId::trusted("two")],
        );
        for conn in &conns {
            backplane
                .presence
                .connect(conn, &ann, &Username::from(&ann))
                .await
                .unwrap();
        }
        let presence = backplane.presence.clone();
        chat.on_disconnect(Box::new(move |user| {
            let (presence, user, conns) = (presence.clone(), user.clone(), conns.clone());
            tokio::spawn(async move {
                for conn in &conns {
                    presence.connection_lost(conn, &user, &[]).await;
                }
            });
        }));
        // The node has to listen before anything is said.
        tokio::time::sleep(Duration::from_secs(1)).await;
        (
            chat.disconnect(&ann).await.unwrap(),
            said.load(Ordering::SeqCst),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_bus_loses_is_said_again() {
        assert_eq!(
            disconnect(0).await,
            (
                Disconnected {
                    ended: 2,
                    remaining: 0
                },
                1
            )
        );
        assert_eq!(
            disconnect(2).await,
            (
                Disconnected {
                    ended: 2,
                    remaining: 0
                },
                3
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_answers_is_told_of() {
        let (done, said) = disconnect(usize::MAX).await;
        assert_eq!(
            done,
            Disconnected {
                ended: 0,
                remaining: 2
            }
        );
        assert!((4..=6).contains(&said), "{said}");
    }
}
