//! A TCP proxy between any two parts of the cluster, which can be cut in the ways in which networks are.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Fine,
    /// Nothing passes, and nobody is told. What was sent meanwhile passes afterwards, as TCP would send it again.
    Silent,
    /// Nothing passes to the server; its answers still reach the client.
    SilentToServer,
    /// Nothing passes to the client; its requests still reach the server.
    SilentToClient,
    /// Every connection is reset, new ones too.
    Refusing,
    /// Everything passes, each piece so much later.
    Slow(Duration),
}

/// A listening proxy. Ends, and breaks its connections, when dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    /// The port that new connections are led to.
    port: watch::Sender<u16>,
    /// Counts up; each step resets all connections there are.
    resets: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port, for a server on a port of this machine.
    pub async fn to(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, fair) = watch::channel(Weather::Fine);
        let (resets, reset) = watch::channel(0);
        let (port, target) = watch::channel(port);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target.clone(), fair.clone(), reset.clone()));
            }
        });
        Ok(Self {
            address,
            weather,
            port,
            resets,
            task,
        })
    }

    /// Changes the weather, for connections there are as for new ones.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
        if weather == Weather::Refusing {
            self.reset();
        }
    }

    /// Leads new connections to another server, and resets those there are.
    pub fn lead_to(&self, port: u16) {
        self.port.send_replace(port);
        self.reset();
    }

    /// Resets all connections there are. New ones are let in as the weather says.
    pub fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.reset();
    }
}

async fn pass(
    client: TcpStream,
    port: watch::Receiver<u16>,
    weather: watch::Receiver<Weather>,
    mut reset: watch::Receiver<u64>,
) {
    reset.borrow_and_update();
    // With this, closing sends a RST.
    let abrupt = |stream: &TcpStream| SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = (abrupt(&client), client.set_nodelay(true));
    let work = async {
        let mut fair = weather.clone();
        fair.wait_for(|now| !matches!(now, Weather::Silent | Weather::SilentToServer))
            .await
            .ok()?;
        if *weather.borrow() == Weather::Refusing {
            return None;
        }
        let port = *port.borrow();
        let server = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let _ = (abrupt(&server), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let up = copy(
            from_client,
            to_server,
            weather.clone(),
            Weather::SilentToServer,
        );
        let down = copy(
            from_server,
            to_client,
            weather.clone(),
            Weather::SilentToClient,
        );
        // Either side's end is the end of both.
        tokio::select! { _ = up => {}, _ = down => {} }
        Some(())
    };
    tokio::select! { _ = work => {}, _ = reset.changed() => {} }
}

/// Copies one way, as the weather allows.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    deaf: Weather,
) -> Option<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        weather
            .wait_for(|now| *now != Weather::Silent && *now != deaf)
            .await
            .ok()?;
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.ok()?,
            _ = weather.changed() => continue,
        };
        if read == 0 {
            return None;
        }
        // It may have turned between.
        weather
            .wait_for(|now| *now != Weather::Silent && *now != deaf)
            .await
            .ok()?;
        let now = *weather.borrow();
        if let Weather::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&buffer[..read]).await.ok()?;
    }
}
