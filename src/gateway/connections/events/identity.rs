//! `authenticate`: binds the connection to its user, or replaces the user's name or token.

use super::{ClientRequest, RequestContext};
use crate::auth::Credentials;
use crate::domain::{Refusal, UserId, Username};
use crate::gateway::wire::{Authenticated, Fields};

/// `authenticate`.
#[derive(Debug)]
pub struct Authenticate(Credentials);

impl ClientRequest for Authenticate {
    const EVENT: &'static str = "authenticate";
    const ANONYMOUS: bool = true;

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self(Credentials {
            user: fields.id("user_id", UserId::parse)?,
            username: fields.id("username", Username::parse)?,
            token: fields.text("token")?,
        }))
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let connection = context.connection;
        let current = connection.identity();
        let bound = async {
            let auth = &connection.connections.auth;
            let identity = auth.identify(self.0, current.as_ref()).await?;
            let rooms_left = connection.bind(context.state, identity.clone()).await?;
            Ok((identity, rooms_left))
        };
        let (identity, rooms_left) = bound
            .await
            .inspect_err(|refusal| connection.log_authentication_refused(refusal))?;
        if current.is_none() {
            connection.log_authenticated("authenticate");
        }
        context.reply.acknowledge(&Authenticated::ack(&identity));
        connection.send_authenticated(&identity);
        for room in &rooms_left {
            connection.send_room_left(room);
        }
        Ok(())
    }
}
