//! Where the load goes to, and from which addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections from one source address to one server: well under the ports there are, which rest for a minute after use.
const PER_SOURCE: usize = 4000;

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// The whole upgrade request.
    pub(super) request: Vec<u8>,
}

impl Target {
    /// From `http://host:port`; `ws` is the same.
    ///
    /// # Errors
    /// In words for whoever typed it.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let url = url::Url::parse(text).with_context(|| format!("{text} is no URL"))?;
        if !["http", "ws"].contains(&url.scheme()) {
            bail!("{text}: only http and ws are spoken; give the address of a node itself");
        }
        let host = url
            .host_str()
            .with_context(|| format!("{text} names no host"))?
            .trim_matches(['[', ']']);
        let port = url.port_or_known_default().unwrap_or(80);
        let address = (host, port)
            .to_socket_addrs()?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aHViYnViIGxvYWQgdGVzdA==\r\n\r\n"
        );
        Ok(Self {
            address,
            request: request.into_bytes(),
        })
    }

    /// Begins a connection; that it is made shows when it can be written to.
    ///
    /// # Errors
    /// When there are no more files or ports.
    pub(super) fn dial(&self, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
        let socket = Socket::new(
            Domain::for_address(self.address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Ended at once when dropped: ports in TIME_WAIT would be missing in the next run.
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }
}

/// `EINPROGRESS`: a connection that doesn't block is on its way.
const IN_PROGRESS: i32 = 115;

/// The address that the `index`-th connection to a target comes from. Loopback has 16 million of them, so that ports
/// don't run out; elsewhere the ones given are used in turn, and with none the system chooses.
pub(super) fn source_of(target: &Target, given: &[IpAddr], index: usize) -> Option<IpAddr> {
    if !given.is_empty() {
        return Some(given[index % given.len()]);
    }
    let is_loopback = matches!(target.address.ip(), IpAddr::V4(ip) if ip.is_loopback());
    let [_, _, high, low] = u32::try_from(index / PER_SOURCE + 1)
        .unwrap_or(1)
        .to_be_bytes();
    is_loopback.then_some(IpAddr::V4(Ipv4Addr::new(127, 0, high, low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_in_words() {
        let target = Target::parse("ws://127.0.0.1:8080").unwrap();
        assert_eq!(target.address.to_string(), "127.0.0.1:8080");
        assert!(target.request.starts_with(b"GET /socket.io/?EIO=4"));
        assert_eq!(
            Target::parse("http://[::1]:81")
                .unwrap()
                .address
                .to_string(),
            "[::1]:81"
        );
        for wrong in ["https://127.0.0.1", "127.0.0.1:80", "http:", "wss://a"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_hundred_thousand_connections_have_ports_enough() {
        let target = Target::parse("http://127.0.0.1:8080").unwrap();
        let text = |index| source_of(&target, &[], index).unwrap().to_string();
        assert_eq!(
            (text(0), text(3999), text(4000)),
            ("127.0.0.1".into(), "127.0.0.1".into(), "127.0.0.2".into())
        );
        assert_eq!(text(1_200_000), "127.0.1.45");
        let elsewhere = Target::parse("http://192.0.2.1").unwrap();
        assert_eq!(source_of(&elsewhere, &[], 5), None);
        let given = ["192.0.2.7".parse().unwrap()];
        assert_eq!(source_of(&elsewhere, &given, 5), Some(given[0]));
    }
}
