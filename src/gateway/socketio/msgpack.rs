//! Packets of clients with the package socket.io-msgpack-parser, which is not supported: recognises
//! their CONNECT, and refuses it in a form that they understand.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::Code;

/// The shortest time between two warnings.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// The longest namespace that is answered, in bytes.
const MAX_NAMESPACE_BYTES: usize = 255;

const CONNECT: u8 = 0;
const DISCONNECT: u8 = 1;
const CONNECT_ERROR: u8 = 4;

/// The text for the client's developer, of at most 255 bytes.
const REFUSAL: &str = "bad_request: this server does not support the msgpack parser: remove the \
                       option `parser` of the client";

/// Logs that such a client was refused, at most once per [`WARN_INTERVAL`]: anyone can send any
/// number of these packets.
pub(super) fn warn() {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock();
    if last.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
        *last = Some(Instant::now());
        tracing::warn!(
            "a client with socket.io-msgpack-parser was refused: this parser is not supported, so \
             the option `parser` of the client must be removed"
        );
    }
}

/// The namespace of a CONNECT in msgpack; `None` for everything else.
pub(super) fn namespace_of_connect(packet: &[u8]) -> Option<&str> {
    let mut reader = Reader(packet);
    let (mut kind, mut namespace) = (None, None);
    for _ in 0..reader.map_len()? {
        match reader.text()? {
            "type" => kind = Some(reader.byte()?),
            "nsp" => namespace = Some(reader.text()?),
            _ => reader.skip()?,
        }
    }
    let namespace = namespace?;
    let is_connect = kind == Some(CONNECT)
        && reader.0.is_empty()
        && namespace.starts_with('/')
        && namespace.len() <= MAX_NAMESPACE_BYTES;
    is_connect.then_some(namespace)
}

/// The refusal of the CONNECT: clients report it as `connect_error`.
pub(super) fn connect_error(namespace: &str) -> Vec<u8> {
    let mut packet = begin(3, CONNECT_ERROR, namespace);
    put_text(&mut packet, "data");
    packet.push(FIX_MAP | 2);
    put_text(&mut packet, "message");
    put_text(&mut packet, REFUSAL);
    put_text(&mut packet, "data");
    packet.push(FIX_MAP | 1);
    put_text(&mut packet, "code");
    put_text(&mut packet, Code::BadRequest.as_str());
    packet
}

/// A DISCONNECT. After it no version of the client reconnects when the transport is closed.
pub(super) fn disconnect(namespace: &str) -> Vec<u8> {
    begin(2, DISCONNECT, namespace)
}

const FIX_MAP: u8 = 0x80;
const STR_8: u8 = 0xd9;

/// The first two fields of a packet with that many fields.
fn begin(fields: u8, kind: u8, namespace: &str) -> Vec<u8> {
    let mut packet = vec![FIX_MAP | fields];
    put_text(&mut packet, "type");
    packet.push(kind);
    put_text(&mut packet, "nsp");
    put_text(&mut packet, namespace);
    packet
}

fn put_text(packet: &mut Vec<u8>, text: &str) {
    let len = u8::try_from(text.len()).expect("constants and accepted namespaces are short");
    packet.extend([STR_8, len]);
    packet.extend(text.as_bytes());
}

/// Reads msgpack values from the front of a packet. Each method returns `None` for another type and
/// at the end of the packet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A big-endian number of that many bytes.
    fn number(&mut self, len: usize) -> Option<usize> {
        let bytes = self.bytes(len)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, &byte| number << 8 | usize::from(byte)),
        )
    }

    fn map_len(&mut self) -> Option<usize> {
        match self.byte()? {
            short @ 0x80..=0x8f => Some(usize::from(short & 0x0f)),
            0xde => self.number(2),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = match self.byte()? {
            short @ 0xa0..=0xbf => usize::from(short & 0x1f),
            STR_8 => self.number(1)?,
            0xda => self.number(2)?,
            _ => return None,
        };
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    /// Skips one value of any type, without recursion. Each turn takes at least one byte.
    fn skip(&mut self) -> Option<()> {
        let mut values = 1_usize;
        while values > 0 {
            values -= 1;
            let (len, nested) = match self.byte()? {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
                map @ 0x80..=0x8f => (0, 2 * usize::from(map & 0x0f)),
                array @ 0x90..=0x9f => (0, usize::from(array & 0x0f)),
                text @ 0xa0..=0xbf => (usize::from(text & 0x1f), 0),
                0xc4 | 0xd9 => (self.number(1)?, 0),
                0xc5 | 0xda => (self.number(2)?, 0),
                0xc6 | 0xdb => (self.number(4)?, 0),
                0xc7 => (self.number(1)? + 1, 0),
                0xc8 => (self.number(2)? + 1, 0),
                0xc9 => (self.number(4)?.checked_add(1)?, 0),
                0xcc | 0xd0 => (1, 0),
                0xcd | 0xd1 | 0xd4 => (2, 0),
                0xd5 => (3, 0),
                0xca | 0xce | 0xd2 => (4, 0),
                0xd6 => (5, 0),
                0xcb | 0xcf | 0xd3 => (8, 0),
                0xd7 => (9, 0),
                0xd8 => (17, 0),
                0xdc => (0, self.number(2)?),
                0xdd => (0, self.number(4)?),
                0xde => (0, self.number(2)?.checked_mul(2)?),
                0xdf => (0, self.number(4)?.checked_mul(2)?),
                0xc1 => return None,
            };
            self.bytes(len)?;
            values = values.checked_add(nested)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that the package sends for `io({ auth: { token: "x", list: [1, 2.5, null] } })`,
    /// and without `auth`.
    const CONNECTS: [&[u8]; 2] = [
        b"\x83\xa4type\x00\xa4data\x82\xa5token\xa1x\xa4list\x93\x01\xcb\x40\x04\0\0\0\0\0\0\xc0\xa3nsp\xa1/",
        b"\x83\xa4type\x00\xa4data\xd4\x00\x00\xa3nsp\xa6/admin",
    ];

    #[test]
    fn the_connect_of_the_package_is_recognised() {
        let namespaces = CONNECTS.map(namespace_of_connect);
        assert_eq!(namespaces, [Some("/"), Some("/admin")]);
        for connect in CONNECTS {
            for len in 0..connect.len() {
                assert_eq!(namespace_of_connect(&connect[..len]), None, "{len} bytes");
            }
        }
    }

    #[test]
    fn other_binary_messages_are_not_recognised() {
        for other in [
            &b"\x82\xa4type\x02\xa3nsp\xa1/"[..],
            b"\x81\xa4type\x00",
            b"\x82\xa4type\x00\xa3nsp\xa1x",
            b"\x82\xa4type\x00\xa3nsp\xa1/!",
            b"\x80",
            b"\xdf\xff\xff\xff\xff",
            b"\x83\xa4type\x00\xa4data\xdf\xff\xff\xff\xff\xa3nsp\xa1/",
            b"\x83\xa4type\x00\xa4data\xc9\xff\xff\xff\xff\x00\xa3nsp\xa1/",
            b"{\"type\":0,\"nsp\":\"/\"}",
            b"\x89PNG\r\n\x1a\n",
        ] {
            assert_eq!(namespace_of_connect(other), None, "{other:x?}");
        }
        let mut deep = b"\x83\xa4type\x00\xa3nsp\xa1/\xa4data".to_vec();
        deep.extend(std::iter::repeat_n(0x91, 1 << 20));
        assert_eq!(namespace_of_connect(&deep), None);
        deep.push(0xc0);
        assert_eq!(namespace_of_connect(&deep), Some("/"));
    }

    #[test]
    fn refusals_are_encoded_as_the_package_decodes_them() {
        assert_eq!(
            disconnect("/a"),
            b"\x82\xd9\x04type\x01\xd9\x03nsp\xd9\x02/a"
        );
        let error = connect_error("/");
        let start = b"\x83\xd9\x04type\x04\xd9\x03nsp\xd9\x01/\xd9\x04data\x82\xd9\x07message\xd9";
        assert!(error.starts_with(start), "{error:x?}");
        assert!(Reader(&error).skip().is_some());
        assert!(connect_error(&"/".repeat(MAX_NAMESPACE_BYTES)).len() > MAX_NAMESPACE_BYTES);
    }
}
