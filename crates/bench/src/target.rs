//! The nodes that the load goes to, and the local addresses that it comes from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections from one source address to one node. It is well below the number of ports, because a
/// used port is unavailable for a minute (`TIME_WAIT`).
const CONNECTIONS_PER_SOURCE: usize = 4000;

/// `EINPROGRESS`: the connection of a non-blocking socket is being established.
const IN_PROGRESS: i32 = 115;

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The whole HTTP request of the WebSocket upgrade.
    pub(crate) upgrade_request: Vec<u8>,
}

impl Target {
    /// Parses `http://host:port`; `ws://host:port` means the same.
    ///
    /// # Errors
    /// If the text is not such a URL, or the host has no address. The text is for the terminal.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let url = url::Url::parse(text).with_context(|| format!("{text} is not a URL"))?;
        if !["http", "ws"].contains(&url.scheme()) {
            bail!("{text}: only http and ws are supported; use the address of a node itself");
        }
        let host = url
            .host_str()
            .with_context(|| format!("{text} has no host"))?
            .trim_matches(['[', ']']);
        let port = url.port_or_known_default().unwrap_or(80);
        let address = (host, port)
            .to_socket_addrs()?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        let upgrade_request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n\
             Host: {host}:{port}\r\n\
             Connection: Upgrade\r\n\
             Upgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: aHViYnViIGxvYWQgdGVzdA==\r\n\r\n"
        );
        Ok(Self {
            address,
            upgrade_request: upgrade_request.into_bytes(),
        })
    }

    /// Begins a connection. It is established when the stream becomes writable.
    ///
    /// # Errors
    /// If no files or ports are left, or the source address cannot be used.
    pub(crate) fn dial(&self, source: Option<IpAddr>) -> io::Result<TcpStream> {
        let socket = Socket::new(
            Domain::for_address(self.address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Dropping the socket resets the connection: a port in TIME_WAIT would be unavailable to
        // the next run.
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

/// The source address of the `index`-th connection to a target; with `None` the system chooses.
///
/// The given addresses are used in turn. Without any, connections on IPv4 loopback come from
/// 127.0.0.1 and up, so that ports do not run out: loopback has 16 million addresses.
pub(crate) fn source_address(target: &Target, given: &[IpAddr], index: usize) -> Option<IpAddr> {
    if !given.is_empty() {
        return Some(given[index % given.len()]);
    }
    match target.address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let number = u32::try_from(index / CONNECTIONS_PER_SOURCE + 1).unwrap_or(1);
            let [_, _, high, low] = number.to_be_bytes();
            Some(IpAddr::V4(Ipv4Addr::new(127, 0, high, low)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_plain_http_and_websocket_are_accepted() {
        let target = Target::parse("ws://127.0.0.1:8080").unwrap();
        assert_eq!(target.address.to_string(), "127.0.0.1:8080");
        assert!(target.upgrade_request.starts_with(b"GET /socket.io/?EIO=4"));
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
    fn loopback_connections_use_another_source_address_every_4000() {
        let target = Target::parse("http://127.0.0.1:8080").unwrap();
        let source = |index| source_address(&target, &[], index).unwrap().to_string();
        assert_eq!(
            (source(0), source(3999), source(4000)),
            ("127.0.0.1".into(), "127.0.0.1".into(), "127.0.0.2".into())
        );
        assert_eq!(source(1_200_000), "127.0.1.45");
        let elsewhere = Target::parse("http://192.0.2.1").unwrap();
        assert_eq!(source_address(&elsewhere, &[], 5), None);
        let given = ["192.0.2.7".parse().unwrap()];
        assert_eq!(source_address(&elsewhere, &given, 5), Some(given[0]));
    }
}
