//! The upgrade of a session from polling to a WebSocket: probe, answer, `5`. Some clients send `5`
//! without a probe.

use std::task::{Context, Poll, ready};

use tokio::io::AsyncWriteExt;

use super::codec::Message;
use super::connection::{Connection, End, NORMAL, PROTOCOL_ERROR};
use super::input::ReadStop;
use super::link::Link;
use crate::frame::Frame;
use crate::packet::Incoming;
use crate::scheduler::yield_slice;
use crate::session::UpgradeGuard;

impl<S: Link> Connection<S> {
    /// Upgrades the session to this WebSocket. The answer to the probe is written here and does not
    /// belong to the session's output.
    pub(super) async fn run_upgrade(&mut self, guard: UpgradeGuard) -> Result<(), End> {
        match self.next_candidate_packet(|cx| guard.park(cx)).await? {
            Incoming::Probe => self.answer_probe(&guard).await?,
            Incoming::Upgrade => return self.finish_upgrade(&guard).await,
            _ => return Err(End::SendClose(PROTOCOL_ERROR)),
        }
        match self.next_candidate_packet(|cx| guard.park(cx)).await {
            Ok(Incoming::Upgrade) => self.finish_upgrade(&guard).await,
            Ok(_) => Err(End::SendClose(PROTOCOL_ERROR)),
            Err(End::SessionClosed) if self.session.is_closed() => {
                self.outlive_session().await;
                Err(End::SessionClosed)
            }
            Err(end) => Err(end),
        }
    }

    /// Waits for the client's next packet, which is `5`, or for its end, at most the upgrade
    /// timeout. After the answer to its probe, a JavaScript client stops polling. If this
    /// WebSocket ended before its `5`, the client would have no transport that it reads, and
    /// would notice the end only by a missing heartbeat.
    async fn outlive_session(&mut self) {
        let limit = self.session.config.upgrade_timeout;
        let next = self.next_candidate_packet(|_| true);
        drop(tokio::time::timeout(limit, next).await);
    }

    async fn answer_probe(&mut self, guard: &UpgradeGuard) -> Result<(), End> {
        guard.probed();
        let answer = Frame::packet("3probe");
        let io = &mut self.io;
        let mut write = std::pin::pin!(async move {
            io.write_all(answer.as_bytes()).await?;
            io.flush().await
        });
        std::future::poll_fn(|cx| match write.as_mut().poll(cx) {
            Poll::Ready(written) => Poll::Ready(written.map_err(|_| End::Lost)),
            Poll::Pending if guard.park(cx) => Poll::Pending,
            Poll::Pending => Poll::Ready(Err(End::Lost)),
        })
        .await
    }

    async fn finish_upgrade(&mut self, guard: &UpgradeGuard) -> Result<(), End> {
        if !guard.finish() {
            return Err(End::SendClose(PROTOCOL_ERROR));
        }
        // A POST that began before the upgrade may still be arriving. Its packets were sent first,
        // so they must be processed first.
        let session = self.session.clone();
        std::future::poll_fn(|cx| {
            if session.awaits_post(cx) && !session.is_closed() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        Ok(())
    }

    /// The next packet on a WebSocket that does not carry its session. `park` registers the task
    /// before it sleeps, and returns false if there is nothing left to wait for.
    async fn next_candidate_packet(
        &mut self,
        park: impl Fn(&Context<'_>) -> bool,
    ) -> Result<Incoming, End> {
        let protocol = self.session.protocol;
        let mut packet = None;
        std::future::poll_fn(|cx| {
            if !park(cx) {
                return Poll::Ready(Err(End::SessionClosed));
            }
            let stop = ready!(self.poll_input(cx, |_, message| {
                packet = Some(match message {
                    Message::Text(text) => Incoming::parse(&text, protocol)
                        .map_err(|_| End::SendClose(PROTOCOL_ERROR))?,
                    Message::Ping(_) | Message::Pong => return Ok(()),
                    Message::Close => return Err(End::SendClose(NORMAL)),
                    Message::Binary(_) => return Err(End::SendClose(PROTOCOL_ERROR)),
                });
                // Stops reading after one packet: the input behind it belongs to the next step.
                // The value is not used.
                Err(End::SessionClosed)
            }));
            match (packet.take(), stop) {
                (Some(packet), _) => Poll::Ready(Ok(packet)),
                (None, Ok(ReadStop::End(end))) => Poll::Ready(Err(end)),
                (None, Err(_)) => Poll::Ready(Err(End::Lost)),
                (None, Ok(ReadStop::Yield)) => {
                    yield_slice(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }
}
