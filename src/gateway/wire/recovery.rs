//! Forgotten passwords and the proof of addresses in the REST API.

use serde::{Deserialize, Serialize};

/// The body of `POST /api/v1/auth/password/forgot`.
#[derive(Deserialize)]
pub(crate) struct ForgotPasswordRequest {
    /// The e-mail address of the account.
    pub email: String,
}

/// The body of `POST /api/v1/auth/password/reset`.
#[derive(Deserialize)]
pub(crate) struct ResetPasswordRequest {
    /// The token of the mail.
    pub token: String,
    /// The new password: 10 to 128 characters.
    pub password: String,
}

/// The body of `POST /api/v1/auth/email/verify`.
#[derive(Deserialize)]
pub(crate) struct VerifyEmailRequest {
    /// The token of the mail.
    pub token: String,
}

/// The body of `DELETE /api/v1/me`.
#[derive(Deserialize)]
pub(crate) struct DeleteAccountRequest {
    /// The password of the account.
    pub password: String,
}

/// The answer to `POST /api/v1/auth/password/reset`.
#[derive(Serialize)]
pub(crate) struct PasswordReset {
    /// Always true.
    ok: bool,
    /// The sessions that have ended: all of the user.
    sessions: usize,
}

impl PasswordReset {
    pub fn new(sessions: usize) -> Self {
        Self { ok: true, sessions }
    }
}

/// An answer without content.
#[derive(Serialize)]
pub(crate) struct Done {
    /// Always true.
    ok: bool,
}

impl Done {
    pub const DONE: Self = Self { ok: true };
}
