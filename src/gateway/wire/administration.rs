//! Administration of accounts in the REST API.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::{Refusal, Role};
use crate::features::accounts::{AuditEntry, Invite, InviteRequest, UserPatch};

/// The body of `PATCH /api/v1/users/{id}`. A field that is missing, or `null`, stays as it is.
#[derive(Deserialize)]
pub(crate) struct UserRequest {
    /// `user` or `admin`.
    #[serde(default)]
    role: Option<String>,
    /// Whether the account may not be used.
    #[serde(default)]
    disabled: Option<bool>,
}

impl UserRequest {
    /// The change.
    ///
    /// # Errors
    /// `bad_request` for an unknown role.
    pub fn patch(&self) -> Result<UserPatch, Refusal> {
        let unknown = || Refusal::bad_request("role must be user or admin");
        let role = self.role.as_deref();
        let role = role.map(|name| Role::named(name).ok_or_else(unknown));
        Ok(UserPatch {
            role: role.transpose()?,
            is_disabled: self.disabled,
        })
    }
}

/// An entry of `GET /api/v1/audit`.
#[derive(Serialize)]
pub(crate) struct AuditJson<'a> {
    id: String,
    at: String,
    /// The admin; `null` for the command line.
    actor_id: Option<&'a str>,
    /// The name of the action.
    action: &'a str,
    /// The user, or the invitation's address.
    target: &'a str,
    /// A JSON object.
    details: &'a RawValue,
}

impl<'a> From<&'a AuditEntry> for AuditJson<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        Self {
            id: entry.id.to_string(),
            at: entry.at.to_string(),
            actor_id: entry.actor.as_deref(),
            action: &entry.action,
            target: &entry.target,
            details: serde_json::from_str(&entry.details).unwrap_or(RawValue::NULL),
        }
    }
}

/// The body of `POST /api/v1/invites`.
#[derive(Deserialize)]
pub(crate) struct InviteBody {
    /// The only address that may sign up by the invitation.
    #[serde(default)]
    email: Option<String>,
    /// For how many days it is valid: 1 to 3650; 7 by default.
    #[serde(default)]
    expires_in_days: Option<u64>,
}

impl From<InviteBody> for InviteRequest {
    fn from(body: InviteBody) -> Self {
        Self {
            email: body.email,
            expires_in_days: body.expires_in_days,
        }
    }
}

/// An invitation.
#[derive(Serialize)]
pub(crate) struct InviteJson<'a> {
    /// The code that signing up takes as `invite`, once.
    code: &'a str,
    /// The page to sign up by it.
    url: &'a str,
    expires_at: String,
}

impl<'a> From<&'a Invite> for InviteJson<'a> {
    fn from(invite: &'a Invite) -> Self {
        Self {
            code: &invite.code,
            url: &invite.url,
            expires_at: invite.expires_at.to_string(),
        }
    }
}
