//! Settings of a service: its path, heartbeat and limits of input.

use std::borrow::Cow;
use std::time::Duration;

use engineioxide_core::TransportType;

/// The largest POST body, in largest packets. Clients that do not know `maxPayload` (Socket.IO
/// before 4.5, Java) write everything that was emitted at once into one body.
const BODY_PACKETS: usize = 4;

/// The configuration of a service. Limits of *output* are in [`Limits`](crate::control::Limits),
/// because they come with the request.
#[derive(Debug, Clone)]
pub struct EngineIoConfig {
    /// The path that is served, with or without a trailing slash. Default `/engine.io`.
    pub req_path: Cow<'static, str>,
    /// Engine.IO 4: the time between a pong and the next ping. Default 25 s.
    pub ping_interval: Duration,
    /// Engine.IO 4: how long the server waits for a pong. Engine.IO 3: how much longer than
    /// `ping_interval` the client may be silent. Default 20 s.
    pub ping_timeout: Duration,
    /// How long an upgrade may take, from the WebSocket's handshake on. Default 10 s.
    pub upgrade_timeout: Duration,
    /// Ignored: an outbox is bounded by bytes and frames, see
    /// [`Limits`](crate::control::Limits). Default 128.
    pub max_buffer_size: usize,
    /// The largest packet and the largest WebSocket message that are accepted, in bytes. A POST's
    /// body, which holds many packets, may be four times as large. Default 100,000.
    pub max_payload: u64,
    /// Ignored: an idle connection has no read buffer.
    pub ws_read_buffer_size: usize,
    /// Ignored: `max_payload` bounds a WebSocket message.
    pub ws_max_message_size: Option<usize>,
    /// Ignored: `max_payload` bounds a WebSocket message and thereby its frames.
    pub ws_max_frame_size: Option<usize>,
    /// A bit set of [`TransportType`]s. Default: both.
    pub transports: u8,
}

impl Default for EngineIoConfig {
    fn default() -> Self {
        Self {
            req_path: Cow::Borrowed("/engine.io"),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            max_buffer_size: 128,
            max_payload: 100_000,
            ws_read_buffer_size: 4096,
            ws_max_message_size: None,
            ws_max_frame_size: None,
            transports: TransportType::Polling as u8 | TransportType::Websocket as u8,
        }
    }
}

impl EngineIoConfig {
    /// A builder that starts from the defaults.
    pub fn builder() -> EngineIoConfigBuilder {
        EngineIoConfigBuilder::new()
    }

    /// Whether `transport` may be used.
    pub fn allowed_transport(&self, transport: TransportType) -> bool {
        self.transports & transport as u8 != 0
    }

    /// Whether this service serves `path`. It does with and without a trailing slash, because old
    /// clients send either.
    pub(crate) fn serves(&self, path: &str) -> bool {
        let trimmed = |p: &'_ str| -> usize { p.strip_suffix('/').unwrap_or(p).len() };
        path[..trimmed(path)] == self.req_path[..trimmed(&self.req_path)]
    }

    /// `max_payload` as a length in memory.
    pub(crate) fn payload_limit(&self) -> usize {
        usize::try_from(self.max_payload).unwrap_or(usize::MAX)
    }

    /// The largest body of a POST, in bytes.
    pub(crate) fn body_limit(&self) -> usize {
        self.payload_limit().saturating_mul(BODY_PACKETS)
    }
}

/// Builds an [`EngineIoConfig`].
#[derive(Debug, Clone, Default)]
pub struct EngineIoConfigBuilder {
    config: EngineIoConfig,
}

impl EngineIoConfigBuilder {
    /// Starts from the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// See [`EngineIoConfig::req_path`].
    pub fn req_path(mut self, req_path: impl Into<Cow<'static, str>>) -> Self {
        self.config.req_path = req_path.into();
        self
    }

    /// See [`EngineIoConfig::ping_interval`].
    pub fn ping_interval(mut self, ping_interval: Duration) -> Self {
        self.config.ping_interval = ping_interval;
        self
    }

    /// See [`EngineIoConfig::ping_timeout`].
    pub fn ping_timeout(mut self, ping_timeout: Duration) -> Self {
        self.config.ping_timeout = ping_timeout;
        self
    }

    /// See [`EngineIoConfig::upgrade_timeout`].
    pub fn upgrade_timeout(mut self, upgrade_timeout: Duration) -> Self {
        self.config.upgrade_timeout = upgrade_timeout;
        self
    }

    /// Ignored, see [`EngineIoConfig::max_buffer_size`].
    pub fn max_buffer_size(mut self, max_buffer_size: usize) -> Self {
        self.config.max_buffer_size = max_buffer_size;
        self
    }

    /// See [`EngineIoConfig::max_payload`].
    pub fn max_payload(mut self, max_payload: u64) -> Self {
        self.config.max_payload = max_payload;
        self
    }

    /// Ignored, see [`EngineIoConfig::ws_read_buffer_size`].
    pub fn ws_read_buffer_size(mut self, ws_read_buffer_size: usize) -> Self {
        self.config.ws_read_buffer_size = ws_read_buffer_size;
        self
    }

    /// Ignored, see [`EngineIoConfig::ws_max_message_size`].
    pub fn ws_max_message_size(mut self, ws_max_message_size: usize) -> Self {
        self.config.ws_max_message_size = Some(ws_max_message_size);
        self
    }

    /// Ignored, see [`EngineIoConfig::ws_max_frame_size`].
    pub fn ws_max_frame_size(mut self, ws_max_frame_size: usize) -> Self {
        self.config.ws_max_frame_size = Some(ws_max_frame_size);
        self
    }

    /// See [`EngineIoConfig::transports`].
    pub fn transports<const N: usize>(mut self, transports: [TransportType; N]) -> Self {
        self.config.transports = transports.into_iter().fold(0, |set, t| set | t as u8);
        self
    }

    /// Returns the configuration.
    pub fn build(self) -> EngineIoConfig {
        self.config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_served_with_and_without_a_trailing_slash() {
        for own in ["/socket.io", "/socket.io/"] {
            let config = EngineIoConfig::builder().req_path(own).build();
            assert!(config.serves("/socket.io"));
            assert!(config.serves("/socket.io/"));
            assert!(!config.serves("/socket.io/x"));
            assert!(!config.serves("/socket.iox"));
            assert!(!config.serves("/"));
        }
    }

    #[test]
    fn transports_are_a_set() {
        let config = EngineIoConfig::builder()
            .transports([TransportType::Websocket])
            .build();
        assert!(config.allowed_transport(TransportType::Websocket));
        assert!(!config.allowed_transport(TransportType::Polling));
    }
}
