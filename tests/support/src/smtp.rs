//! A mail server that keeps what it receives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Pair;

/// How a server treats its clients.
#[derive(Debug, Clone, Copy, Default)]
pub struct SmtpBehaviour {
    /// Offer STARTTLS, and refuse it.
    pub refuses_starttls: bool,
    /// Refuse each recipient, and repeat the address.
    pub refuses_recipients: bool,
}

/// A mail server on a loopback address. It ends when it is dropped.
pub struct SmtpSink {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Received {
    mails: Vec<ReceivedMail>,
    /// In clear text.
    commands: Vec<String>,
    /// By connections with TLS.
    encrypted_commands: Vec<String>,
}

/// A mail that a server has accepted.
#[derive(Debug, Clone)]
pub struct ReceivedMail {
    pub from: String,
    pub to: Vec<String>,
    /// Header and text, with quoted-printable decoded as far as links need it.
    pub text: String,
}

impl ReceivedMail {
    /// The token in the link of the mail.
    pub fn token(&self) -> String {
        let (_, rest) = self
            .text
            .split_once("#token=")
            .expect("a link with a token");
        let is_token = |c: &char| c.is_ascii_alphanumeric() || "-_".contains(*c);
        rest.chars().take_while(is_token).collect()
    }
}

impl SmtpSink {
    /// A server on a free port.
    pub async fn start() -> Self {
        Self::on(0, SmtpBehaviour::default()).await
    }

    /// A server on this port.
    pub async fn on(port: u16, behaviour: SmtpBehaviour) -> Self {
        Self::with(port, behaviour, None).await
    }

    /// A server on a free port that accepts STARTTLS with this certificate.
    pub async fn with_starttls(certificate: &Pair) -> Self {
        let tls = Some(certificate.server());
        Self::with(0, SmtpBehaviour::default(), tls).await
    }

    async fn with(port: u16, behaviour: SmtpBehaviour, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let received = Arc::new(Mutex::new(Received::default()));
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(accept(listener, received.clone(), behaviour, tls)),
            received,
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything that was accepted so far.
    pub fn mails(&self) -> Vec<ReceivedMail> {
        self.received.lock().unwrap().mails.clone()
    }

    /// The commands in clear text of all connections so far.
    pub fn commands(&self) -> Vec<String> {
        self.received.lock().unwrap().commands.clone()
    }

    /// The commands that came by TLS so far.
    pub fn encrypted_commands(&self) -> Vec<String> {
        self.received.lock().unwrap().encrypted_commands.clone()
    }

    /// Waits until there are at least `count` mails, and returns all.
    pub async fn await_mails(&self, count: usize) -> Vec<ReceivedMail> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mails = self.mails();
            if mails.len() >= count {
                return mails;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} mails",
                mails.len()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the server, so that its port refuses connections.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    received: Arc<Mutex<Received>>,
    behaviour: SmtpBehaviour,
    tls: Option<TlsAcceptor>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (received, tls) = (received.clone(), tls.clone());
        connections.spawn(async move {
            // A client may end the connection at any time.
            let _ = serve(stream, &received, behaviour, tls).await;
        });
    }
}

async fn serve(
    stream: TcpStream,
    received: &Mutex<Received>,
    behaviour: SmtpBehaviour,
    tls: Option<TlsAcceptor>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 sink ESMTP\r\n").await?;
    let mode = tls.as_ref().map_or(Mode::Plain, |_| Mode::OffersTls);
    let is_upgraded = converse(&mut stream, received, behaviour, mode).await?;
    let Some(tls) = tls.filter(|_| is_upgraded) else {
        return Ok(());
    };
    let mut stream = BufReader::new(tls.accept(stream.into_inner()).await?);
    converse(&mut stream, received, behaviour, Mode::Encrypted)
        .await
        .map(drop)
}

/// How a connection is protected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    OffersTls,
    Encrypted,
}

/// Replies to commands until the client has quit, or, with true, until TLS begins.
async fn converse<S: AsyncBufRead + AsyncWrite + Unpin>(
    stream: &mut S,
    received: &Mutex<Received>,
    behaviour: SmtpBehaviour,
    mode: Mode,
) -> std::io::Result<bool> {
    let (mut from, mut to) = (String::new(), Vec::new());
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(false);
        }
        let command = line.trim_end().to_owned();
        {
            let mut received = received.lock().unwrap();
            match mode {
                Mode::Encrypted => received.encrypted_commands.push(command.clone()),
                Mode::Plain | Mode::OffersTls => received.commands.push(command.clone()),
            }
        }
        let name = command.split([' ', ':']).next().unwrap_or_default();
        let reply = match name.to_ascii_uppercase().as_str() {
            "EHLO" if behaviour.refuses_starttls || mode == Mode::OffersTls => {
                "250-sink\r\n250 STARTTLS".to_owned()
            }
            "EHLO" if mode == Mode::Encrypted => "250-sink\r\n250 AUTH PLAIN".to_owned(),
            "EHLO" => "250-sink\r\n250 8BITMIME".to_owned(),
            "STARTTLS" if mode == Mode::OffersTls => {
                stream.write_all(b"220 go on\r\n").await?;
                return Ok(true);
            }
            "AUTH" => "235 welcome".to_owned(),
            "STARTTLS" => "454 TLS is not available".to_owned(),
            "MAIL" => {
                from = bracketed(&command);
                to.clear();
                "250 ok".to_owned()
            }
            "RCPT" if behaviour.refuses_recipients => {
                format!("550 {} is unknown here", bracketed(&command))
            }
            "RCPT" => {
                to.push(bracketed(&command));
                "250 ok".to_owned()
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let text = read_data(stream).await?;
                let mail = ReceivedMail {
                    from: from.clone(),
                    to: to.clone(),
                    text,
                };
                received.lock().unwrap().mails.push(mail);
                "250 accepted".to_owned()
            }
            "RSET" | "NOOP" => "250 ok".to_owned(),
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(false);
            }
            _ => "502 unknown command".to_owned(),
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
}

/// The text between `<` and `>`.
fn bracketed(command: &str) -> String {
    let (_, rest) = command.split_once('<').unwrap_or_default();
    rest.split('>').next().unwrap_or_default().to_owned()
}

async fn read_data(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line == ".\r\n" {
            return Ok(text.replace("=\r\n", "").replace("=3D", "="));
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
