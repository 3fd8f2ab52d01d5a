//! `/api/v1/auth/password` and `/api/v1/auth/email`: the routes behind the mails to users.

use super::super::accounts::{ClientDevice, RecoveryOfNode};
use super::super::extract::Body;
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::gateway::wire::{
    Done, ForgotPasswordRequest, PasswordReset, ResetPasswordRequest, VerifyEmailRequest,
};

/// `POST /api/v1/auth/password/forgot`: mails a link that resets the password. The answer is the same
/// whether or not there is an account.
pub(in crate::gateway::http) async fn forgot_password(
    RecoveryOfNode(recovery): RecoveryOfNode,
    ClientDevice(device): ClientDevice,
    Body(request): Body<ForgotPasswordRequest>,
) -> Result<Reply, Refusal> {
    recovery.forgot_password(&request.email, &device).await?;
    Ok(Reply::ok(&Done::DONE))
}

/// `POST /api/v1/auth/password/reset`: sets a new password, and ends all sessions of the user.
pub(in crate::gateway::http) async fn reset_password(
    RecoveryOfNode(recovery): RecoveryOfNode,
    Body(request): Body<ResetPasswordRequest>,
) -> Result<Reply, Refusal> {
    let ResetPasswordRequest { token, password } = request;
    let sessions = recovery.reset_password(&token, &password).await?;
    Ok(Reply::ok(&PasswordReset::new(sessions)))
}

/// `POST /api/v1/auth/email/verify`: records that the address is the user's.
pub(in crate::gateway::http) async fn verify_email(
    RecoveryOfNode(recovery): RecoveryOfNode,
    Body(request): Body<VerifyEmailRequest>,
) -> Result<Reply, Refusal> {
    recovery.verify_email(&request.token).await?;
    Ok(Reply::ok(&Done::DONE))
}
