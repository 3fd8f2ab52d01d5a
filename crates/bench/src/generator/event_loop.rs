//! Polls the connections, reads and writes their bytes, and splits them into frames.

use std::io;
use std::time::Duration;

use anyhow::Context;
use memchr::memmem;
use mio::Events;
use mio::event::Event;

use super::{LoadGenerator, Phase};
use crate::client::ClientState;
use crate::frame;

/// Sleep after a poll that returned events, before the next poll. All bytes that arrive during the
/// sleep are read together afterwards, so they are read up to this much later.
///
/// Without it, a server on this machine would wake the generator for each frame, by an interrupt
/// between cores that the *server* pays for, and that is expensive in a virtual machine. A server
/// with remote clients has no such cost.
const COALESCE_DELAY: Duration = Duration::from_micros(200);

impl LoadGenerator {
    /// Waits for events, at most `timeout`, and processes them. When all clients are connected and
    /// the last poll returned events, it sleeps [`COALESCE_DELAY`] first.
    ///
    /// # Errors
    /// If the poll fails.
    pub(crate) fn poll_once(&mut self, timeout: Option<Duration>) -> anyhow::Result<()> {
        if self.had_events && self.phase == Phase::Connected {
            std::thread::sleep(COALESCE_DELAY);
        }
        // Taken out of `self` while its events are processed. An `Events` without capacity does not
        // allocate.
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(error).context("poll");
            }
            _ => {}
        }
        self.had_events = !events.is_empty();
        for event in &events {
            let client = event.token().0;
            if let Err(reason) = self.process_event(client, event) {
                self.connection_lost(client, &reason);
            }
        }
        self.events = events;
        Ok(())
    }

    /// # Errors
    /// This and the following functions return the reason to close the connection.
    fn process_event(&mut self, client: usize, event: &Event) -> Result<(), String> {
        if event.is_writable() {
            self.process_writable(client)?;
        }
        if event.is_readable() {
            self.process_readable(client, event.is_read_closed())?;
        }
        Ok(())
    }

    fn process_writable(&mut self, index: usize) -> Result<(), String> {
        let client = &mut self.clients[index];
        if client.state != ClientState::Dialing {
            return client.flush().map_err(|error| error.to_string());
        }
        if let Some(error) = client.take_error() {
            return Err(error.to_string());
        }
        client.state = ClientState::Upgrading;
        let request = &self.settings.targets[client.target].upgrade_request;
        client.write(request).map_err(|error| error.to_string())
    }

    /// Reads and processes all available bytes. With `is_read_closed` the end of the stream follows
    /// on them, and no further event will report it.
    fn process_readable(&mut self, client: usize, is_read_closed: bool) -> Result<(), String> {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let result = self.read_available(client, &mut buffer, is_read_closed);
        self.read_buffer = buffer;
        result
    }

    fn read_available(
        &mut self,
        client: usize,
        buffer: &mut [u8],
        is_read_closed: bool,
    ) -> Result<(), String> {
        loop {
            let filled = match self.clients[client].read(buffer) {
                Ok(Some(filled)) => filled,
                Ok(None) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            let processed = self.process_bytes(client, &buffer[..filled])?;
            if processed == 0 && filled == buffer.len() {
                return Err(format!(
                    "the server sent a frame above {} bytes",
                    buffer.len()
                ));
            }
            self.clients[client].keep(&buffer[processed..filled]);
            // A read that does not fill the buffer has taken all available bytes. Only the end of
            // the stream needs another read.
            if filled < buffer.len() && !is_read_closed {
                return Ok(());
            }
        }
    }

    /// Processes the response to the upgrade, and whole frames. Returns the number of bytes that
    /// were processed.
    fn process_bytes(&mut self, client: usize, bytes: &[u8]) -> Result<usize, String> {
        let now_us = self.now_us();
        let mut processed = 0;
        if self.clients[client].state == ClientState::Upgrading {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                return Ok(0);
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let response = String::from_utf8_lossy(&bytes[..end]);
                let body = &bytes[end + 4..];
                if body.len() < content_length(&response) {
                    return Ok(0);
                }
                self.record_limit(body);
                return Err(response.lines().next().unwrap_or_default().to_owned());
            }
            self.clients[client].state = ClientState::Opening;
            processed = end + 4;
        }
        while let Some(frame) = frame::decode(&bytes[processed..])? {
            processed += frame.len;
            match frame.opcode {
                frame::TEXT => self.process_packet(client, frame.payload, now_us)?,
                frame::PING => self.send_frame(client, frame::PONG, frame.payload)?,
                frame::CLOSE => return Err("the server closed the connection".into()),
                _ => {}
            }
        }
        Ok(processed)
    }

    /// Sends one frame to the server.
    pub(super) fn send_frame(
        &mut self,
        client: usize,
        opcode: u8,
        payload: &[u8],
    ) -> Result<(), String> {
        self.frame.clear();
        frame::encode(opcode, payload, &mut self.frame);
        self.clients[client]
            .write(&self.frame)
            .map_err(|error| error.to_string())
    }
}

/// The length of the body that follows the head of a response; 0 if the head does not state it.
fn content_length(head: &str) -> usize {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length
        .and_then(|(_, length)| length.trim().parse().ok())
        .unwrap_or_default()
}
