//! Actions of admins, which the audit log records.

use uuid::Uuid;

use super::account::Role;

/// The one that carries out an action of admins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// An admin.
    Admin(Uuid),
    /// The operator of the server, by the command line.
    Operator,
}

/// An action of an admin. Its target is a user, or an invitation's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAction {
    /// Has created an account.
    UserCreated {
        /// The account's role.
        role: Role,
    },
    /// Has changed the role of an account.
    RoleChanged {
        /// The role before.
        from: Role,
        /// The role since.
        to: Role,
    },
    /// Has disabled an account.
    UserDisabled,
    /// Has enabled an account.
    UserEnabled,
    /// Has ended the sessions of a user.
    SessionsEnded {
        /// Their number.
        count: usize,
    },
    /// Has set the password of an account.
    PasswordReset,
    /// Has made an invitation.
    InviteCreated,
}

impl AdminAction {
    /// The name of the action.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::UserCreated { .. } => "user_created",
            Self::RoleChanged { .. } => "role_changed",
            Self::UserDisabled => "user_disabled",
            Self::UserEnabled => "user_enabled",
            Self::SessionsEnded { .. } => "sessions_ended",
            Self::PasswordReset => "password_reset",
            Self::InviteCreated => "invite_created",
        }
    }

    /// The action's details, each with its name.
    #[must_use]
    pub fn details(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::UserCreated { role } => vec![("role", role.as_str().to_owned())],
            Self::RoleChanged { from, to } => vec![
                ("from", from.as_str().to_owned()),
                ("to", to.as_str().to_owned()),
            ],
            Self::SessionsEnded { count } => vec![("sessions", count.to_string())],
            Self::UserDisabled | Self::UserEnabled | Self::PasswordReset | Self::InviteCreated => {
                Vec::new()
            }
        }
    }
}
