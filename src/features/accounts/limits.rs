//! Limits of the attempts of an account and of an address.

use std::net::IpAddr;
use std::time::Duration;

use super::Device;
use crate::auth;
use crate::store::{Digest, LoginLimit};

/// Attempts are counted for so long after the first one.
pub(super) const WINDOW: Duration = Duration::from_secs(15 * 60);

/// The subject of a limit.
pub(super) fn digest(kind: &str, subject: &str) -> Digest {
    auth::digest(format!("{kind} {subject}").as_bytes())
}

/// The subject of the failed logins of an account: its id, or the text that names none.
pub(super) fn account_failures(account: &str) -> Digest {
    digest("account", account)
}

/// The limit of the device's address, if it is known.
pub(super) fn address_limit(kind: &str, device: &Device, failures: u64) -> Option<LoginLimit> {
    let address = device.address.as_ref()?;
    let subject = digest(kind, &network(*address));
    Some(LoginLimit {
        subject,
        failures,
        forgotten_by_success: false,
    })
}

/// An address, or the network that one subscriber has: 64 bits of an IPv6 address.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
    }
}
