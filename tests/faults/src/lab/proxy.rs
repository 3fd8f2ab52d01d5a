//! A TCP proxy between two parts of the cluster, which simulates faults of the network.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const BUFFER_BYTES: usize = 16 * 1024;

/// The condition of the simulated network link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Everything passes.
    Healthy,
    /// Nothing passes, and no side gets an error. Data that was sent meanwhile passes afterwards,
    /// as TCP would retransmit it.
    Blackhole,
    /// Nothing passes to the server. Its answers still reach the client.
    BlackholeToServer,
    /// Nothing passes to the client. Its requests still reach the server.
    BlackholeToClient,
    /// Every connection is reset, including new ones.
    Reset,
    /// Each chunk of data is delayed by this time.
    Delay(Duration),
}

/// A listening proxy. Dropping it closes the listener and resets all connections.
pub struct Proxy {
    /// The address on which it listens.
    pub address: SocketAddr,
    link: watch::Sender<Link>,
    /// The port of the server, for new connections.
    target_port: watch::Sender<u16>,
    /// A counter. Each increment resets all present connections.
    resets: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port, for a server on this port of the same machine.
    pub async fn start(target_port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (link, link_receiver) = watch::channel(Link::Healthy);
        let (resets, resets_receiver) = watch::channel(0);
        let (target_port, target_receiver) = watch::channel(target_port);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(
                    client,
                    target_receiver.clone(),
                    link_receiver.clone(),
                    resets_receiver.clone(),
                ));
            }
        });
        Ok(Self {
            address,
            link,
            target_port,
            resets,
            task,
        })
    }

    /// Changes the condition of the link, for present and new connections.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
        if link == Link::Reset {
            self.reset_connections();
        }
    }

    /// Forwards new connections to another server, and resets the present ones.
    pub fn redirect_to(&self, target_port: u16) {
        self.target_port.send_replace(target_port);
        self.reset_connections();
    }

    /// Resets all present connections. New ones are accepted if the condition of the link allows
    /// it.
    fn reset_connections(&self) {
        self.resets.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.reset_connections();
    }
}

/// Forwards one connection until one side closes it, or it is reset.
async fn forward(
    client: TcpStream,
    target_port: watch::Receiver<u16>,
    link: watch::Receiver<Link>,
    mut resets: watch::Receiver<u64>,
) {
    resets.borrow_and_update();
    configure(&client);
    tokio::select! {
        _ = forward_until_closed(client, target_port, link) => {}
        _ = resets.changed() => {}
    }
}

async fn forward_until_closed(
    client: TcpStream,
    target_port: watch::Receiver<u16>,
    mut link: watch::Receiver<Link>,
) -> Option<()> {
    link.wait_for(|link| !matches!(link, Link::Blackhole | Link::BlackholeToServer))
        .await
        .ok()?;
    if *link.borrow() == Link::Reset {
        return None;
    }
    let target_port = *target_port.borrow();
    let server = TcpStream::connect(("127.0.0.1", target_port)).await.ok()?;
    configure(&server);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When one side closes the connection, both directions end.
    tokio::select! {
        _ = copy(from_client, to_server, link.clone(), Link::BlackholeToServer) => {}
        _ = copy(from_server, to_client, link.clone(), Link::BlackholeToClient) => {}
    }
    Some(())
}

fn configure(stream: &TcpStream) {
    // With a linger time of zero, dropping the stream sends a RST.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.set_nodelay(true);
}

/// Copies one direction, as the condition of the link allows. `blocking` is the condition that
/// stops this direction only.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut link: watch::Receiver<Link>,
    blocking: Link,
) -> Option<()> {
    let passes = |link: &Link| *link != Link::Blackhole && *link != blocking;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        link.wait_for(passes).await.ok()?;
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.ok()?,
            _ = link.changed() => continue,
        };
        if read == 0 {
            return None;
        }
        // The condition may have changed during the read.
        link.wait_for(passes).await.ok()?;
        let condition = *link.borrow();
        if let Link::Delay(delay) = condition {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&buffer[..read]).await.ok()?;
    }
}
