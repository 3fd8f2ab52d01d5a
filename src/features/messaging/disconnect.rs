//! Ending all connections of a user, on every node.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Messaging;
use crate::delivery::DisconnectUser;
use crate::domain::{ConnId, Refusal, UserId};

/// How long to wait for the connections to end.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often to publish the request again, because the bus may have lost it.
const REPUBLISH_INTERVAL: Duration = Duration::from_millis(200);
/// How often to check whether the connections have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The outcome of ending a user's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnected {
    /// The number of connections that have ended.
    pub ended: usize,
    /// The number of connections that the backplane still counted after one second: their node
    /// died, or can't reach the backplane now.
    pub remaining: usize,
}

impl Messaging {
    /// Sets the handler that ends a user's connections on this node. Called once, within a tokio
    /// runtime.
    pub fn on_disconnect(&self, disconnect: DisconnectUser) {
        self.delivery.on_disconnect(&self.backplane, disconnect);
    }

    /// Ends the connections that the user has now, in the whole cluster, and waits at most one
    /// second until they have ended. The user's tokens stay valid: to keep a user out, issue no new
    /// token, and only tokens that expire soon.
    ///
    /// # Errors
    /// `unavailable`: some connections may have ended.
    pub async fn disconnect(&self, user: &UserId) -> Result<Disconnected, Refusal> {
        self.ready()?;
        let connections =
            async || Ok::<_, Refusal>(self.backplane.presence.connections(user).await?);
        let before: HashSet<ConnId> = connections().await?.into_iter().collect();
        let deadline = Instant::now() + DISCONNECT_TIMEOUT;
        loop {
            self.backplane.bus.publish_disconnect(user).await?;
            let republish_at = Instant::now() + REPUBLISH_INTERVAL;
            loop {
                let remaining = connections()
                    .await?
                    .iter()
                    .filter(|conn| before.contains(conn))
                    .count();
                if remaining == 0 || Instant::now() >= deadline {
                    return Ok(Disconnected {
                        ended: before.len() - remaining,
                        remaining,
                    });
                }
                if Instant::now() >= republish_at {
                    break;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
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

    /// A bus that loses the first requests to disconnect.
    struct LossyBus {
        inner: Arc<dyn Bus>,
        lost: usize,
        published: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Bus for LossyBus {
        fn deliver_to(&self, sink: Arc<dyn BusSink>) {
            self.inner.deliver_to(sink);
        }
        async fn subscribe(&self, topic: &BusTopic) -> Result<()> {
            self.inner.subscribe(topic).await
        }
        async fn unsubscribe(&self, topic: &BusTopic) {
            self.inner.unsubscribe(topic).await;
        }
        async fn publish_receipt(
            &self,
            receipt: &crate::backplane::ReadReceipt,
        ) -> crate::backplane::Result<()> {
            self.inner.publish_receipt(receipt).await
        }

        async fn publish_typing(&self, typing: &Typing) -> Result<()> {
            self.inner.publish_typing(typing).await
        }
        async fn publish_disconnect(&self, user: &UserId) -> Result<()> {
            if self.published.fetch_add(1, Ordering::SeqCst) < self.lost {
                return Ok(());
            }
            self.inner.publish_disconnect(user).await
        }
    }

    /// Disconnects a user with two connections over a bus that loses the first `lost` requests.
    /// Returns the outcome, and how often the request was published.
    async fn disconnect(lost: usize) -> (Disconnected, usize) {
        let embedded = memory::embedded(BackplaneLimits::default());
        let published = Arc::new(AtomicUsize::new(0));
        let bus = Arc::new(LossyBus {
            inner: embedded.bus.clone(),
            lost,
            published: published.clone(),
        });
        let backplane = Backplane { bus, ..embedded };
        let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
        let messaging = Messaging::new(backplane.clone(), delivery, Limits::default());
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
        messaging.on_disconnect(Box::new(move |user| {
            let (presence, user, conns) = (presence.clone(), user.clone(), conns.clone());
            tokio::spawn(async move {
                for conn in &conns {
                    presence.connection_lost(conn, &user, &[]).await;
                }
            });
        }));
        // The node has to subscribe before the request is published.
        tokio::time::sleep(Duration::from_secs(1)).await;
        (
            messaging.disconnect(&ann).await.unwrap(),
            published.load(Ordering::SeqCst),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_the_bus_loses_is_published_again() {
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
    async fn connections_that_never_end_are_reported_as_remaining() {
        let (done, published) = disconnect(usize::MAX).await;
        assert_eq!(
            done,
            Disconnected {
                ended: 0,
                remaining: 2
            }
        );
        assert!((4..=6).contains(&published), "{published}");
    }
}
