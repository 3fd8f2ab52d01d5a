//! `subscribe_status`, `unsubscribe_status`: watches the online status of users.

use super::{ClientRequest, Earlier, RequestContext};
use crate::domain::{OnlineStatus, Refusal, UserId};
use crate::gateway::wire::{Fields, StatusJson, TargetAck};

/// `subscribe_status`: watches a user.
#[derive(Debug)]
pub struct SubscribeStatus {
    target: UserId,
}

impl ClientRequest for SubscribeStatus {
    const EVENT: &'static str = "subscribe_status";

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            target: fields.required("target_user_id", UserId::parse)?,
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let reply = context.reply.clone();
        // The user's worker calls it before the current status is delivered, so that the
        // acknowledgement precedes the status.
        let acknowledge = Box::new(move |status: &OnlineStatus| {
            reply.acknowledge(&StatusJson::ack(status));
        });
        context
            .messaging()
            .watch(context.state, self.target, acknowledge)
            .await
    }
}

/// `unsubscribe_status`: ends watching a user.
#[derive(Debug)]
pub struct UnsubscribeStatus {
    target: UserId,
}

impl ClientRequest for UnsubscribeStatus {
    const EVENT: &'static str = "unsubscribe_status";
    const WAITS_FOR: Earlier = Earlier::Nothing;

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            target: fields.required("target_user_id", UserId::parse)?,
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        context
            .messaging()
            .unwatch(context.state, &self.target)
            .await?;
        context.reply.acknowledge(&TargetAck::of(&self.target));
        Ok(())
    }
}
