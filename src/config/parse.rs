//! Parsers of single values. Sources give every value as text, so that a secret of digits never
//! becomes a number.
//!
//! An error says which values are accepted and continues a sentence that begins with the key. It
//! never quotes the value: a secret may have been put at the wrong key.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::nearest::is_link_address;

/// A value in its final type, or the fault of the text.
pub(super) type Parsed<T> = Result<T, String>;

/// The longest time that is accepted: ten years. Longer times are typing errors, and might not fit
/// the clock.
const MAX_SECONDS: u64 = 315_360_000;

pub(super) fn text(text: &str) -> Parsed<String> {
    Ok(text.to_owned())
}

/// Entries separated by commas; spaces around them and empty entries do not count.
pub(super) fn list(text: &str) -> Parsed<Vec<String>> {
    let entries = text.split(',').map(str::trim);
    Ok(entries
        .filter(|entry| !entry.is_empty())
        .map(ToOwned::to_owned)
        .collect())
}

/// The path of a file. PEM text in its place is refused here, as the errors of TLS_CERT, TLS_KEY and REDIS_CA show the path.
pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.contains("-----BEGIN") || text.contains(char::is_control) {
        return Err("must be the path of a file, not its content".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// A whole number from `min` to `max` that also fits into `T`.
pub(super) fn number<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(&str) -> Parsed<T> {
    move |text| {
        let number: Option<u64> = text.trim().parse().ok();
        let in_range = number.filter(|number| (min..=max).contains(number));
        match in_range.map(T::try_from) {
            Some(Ok(number)) => Ok(number),
            _ if max == u64::MAX => Err(format!("must be a whole number of at least {min}")),
            _ => Err(format!("must be a whole number from {min} to {max}")),
        }
    }
}

/// A TCP port. A Kubernetes Service named `redis` sets `REDIS_PORT` to its address in every pod of
/// its namespace, and one named `server` sets `SERVER_PORT`.
pub(super) fn port(text: &str) -> Parsed<u16> {
    if is_link_address(text) {
        return Err(
            "must be a port number, and is the address of a Kubernetes Service (a service link): \
             set enableServiceLinks: false in the pod, or set the key itself"
                .to_owned(),
        );
    }
    number(0, u16::MAX.into())(text)
}

/// A time in seconds, from `min` on and at most ten years.
pub(super) fn seconds(min: u64) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| match number(min, u64::MAX)(text)? {
        seconds if seconds > MAX_SECONDS => Err("must be less than ten years".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// A time in milliseconds, from `min` on and at most ten years.
pub(super) fn milliseconds(min: u64) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| match number::<u64>(min, u64::MAX)(text)? {
        millis if millis / 1000 > MAX_SECONDS => Err("must be less than ten years".to_owned()),
        millis => Ok(Duration::from_millis(millis)),
    }
}

pub(super) fn socket_address(text: &str) -> Parsed<SocketAddr> {
    text.parse()
        .map_err(|_| "must be an address and port, such as 127.0.0.1:9100".to_owned())
}

/// An HTTP URL that the node sends requests to. A user or password in it is refused: such URLs end
/// up in logs and proxies.
pub(super) fn http_url(text: &str) -> Parsed<Uri> {
    let refused = "must be an http:// or https:// URL without a user or password";
    let uri: Uri = text.parse().map_err(|_| refused.to_owned())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    match uri.authority() {
        Some(authority)
            if is_http && !authority.as_str().contains('@') && !authority.host().is_empty() =>
        {
            Ok(uri)
        }
        _ => Err(refused.to_owned()),
    }
}

/// Whether anyone on the network path could change the answer: HTTP without TLS to another machine.
pub(super) fn is_unprotected(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http") && !is_loopback(uri.host().unwrap_or_default())
}

/// Whether a host name or address means this machine. An IPv6 address may be in brackets.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
