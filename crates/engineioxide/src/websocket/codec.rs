//! The decoder for RFC 6455, section 5: masked frames in, whole messages out.

use bytes::Bytes;

/// A message or control frame from a client.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Text(String),
    Binary(Vec<u8>),
    /// Must be answered with a pong that carries the same data.
    Ping(Bytes),
    Pong,
    Close,
}

/// The client violated the protocol. The value is the code for the close frame.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) struct Violation(pub(super) u16);

const PROTOCOL_ERROR: Violation = Violation(1002);
const INVALID_UTF8: Violation = Violation(1007);
const TOO_BIG: Violation = Violation(1009);

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Capacity that is allocated for a frame before its bytes arrive, in bytes. It is bounded so that
/// a header that announces a large frame allocates little memory.
const INITIAL_CAPACITY: usize = 4096;

/// Assembles frames into messages. Between messages it uses no memory beyond its own size.
#[derive(Default)]
pub(super) struct Decoder {
    header: [u8; 14],
    have: u8,
    frame: Option<Frame>,
    /// A fragmented message whose last fragment has not arrived.
    partial: Option<Box<Partial>>,
}

struct Frame {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    data: Vec<u8>,
    length: usize,
}

struct Partial {
    opcode: u8,
    data: Vec<u8>,
}

impl Decoder {
    /// Consumes bytes from the front of `input`, up to the end of a message. Returns `None` if all
    /// of `input` is consumed and no message is complete. `limit` bounds the bytes of a message,
    /// summed over all its fragments.
    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        limit: usize,
    ) -> Result<Option<Message>, Violation> {
        loop {
            let frame = match &mut self.frame {
                Some(frame) => frame,
                None => match self.read_header(input, limit)? {
                    Some(frame) => self.frame.insert(frame),
                    None => return Ok(None),
                },
            };
            let missing = frame.length - frame.data.len();
            let (now, later) = input.split_at(missing.min(input.len()));
            *input = later;
            frame.unmask(now);
            if frame.data.len() < frame.length {
                return Ok(None);
            }
            if let Some(frame) = self.frame.take()
                && let Some(message) = self.finish(frame)?
            {
                return Ok(Some(message));
            }
        }
    }

    fn read_header(&mut self, input: &mut &[u8], limit: usize) -> Result<Option<Frame>, Violation> {
        loop {
            let have = usize::from(self.have);
            // Every frame from a client has a mask, so the first two bytes determine the length
            // of the header.
            let need = match have {
                0 | 1 => 2,
                _ => match self.header[1] & 0x7F {
                    126 => 8,
                    127 => 14,
                    _ => 6,
                },
            };
            if have == 2 {
                self.check_start()?;
            }
            if have == need {
                break;
            }
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(None);
            };
            self.header[have] = byte;
            self.have += 1;
            *input = rest;
        }
        let [first, second, extended @ ..] = self.header;
        let (length, mask) = match second & 0x7F {
            126 => (u64::from(u16::from_be_bytes([extended[0], extended[1]])), 2),
            127 => {
                let bytes: [u8; 8] = extended[..8].try_into().expect("a slice of eight");
                (u64::from_be_bytes(bytes), 8)
            }
            short => (u64::from(short), 0),
        };
        let before = match (first & 0x0F, &self.partial) {
            (CONTINUATION, Some(partial)) => partial.data.len(),
            _ => 0,
        };
        let length = usize::try_from(length).map_err(|_| TOO_BIG)?;
        if length > limit.saturating_sub(before) && first & 0x08 == 0 {
            return Err(TOO_BIG);
        }
        self.have = 0;
        Ok(Some(Frame {
            fin: first & 0x80 != 0,
            opcode: first & 0x0F,
            mask: extended[mask..mask + 4]
                .try_into()
                .expect("a slice of four"),
            data: Vec::with_capacity(length.min(input.len().max(INITIAL_CAPACITY))),
            length,
        }))
    }

    /// Refuses frames that the first two bytes already show to be invalid.
    fn check_start(&self) -> Result<(), Violation> {
        let [first, second, ..] = self.header;
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
        let reserved = first & 0x70 != 0;
        let masked = second & 0x80 != 0;
        let known = match opcode {
            CONTINUATION => self.partial.is_some(),
            TEXT | BINARY => self.partial.is_none(),
            // Control frames have at most 125 bytes and are not fragmented.
            CLOSE | PING | PONG => fin && second & 0x7F <= 125,
            _ => false,
        };
        if reserved || !masked || !known {
            Err(PROTOCOL_ERROR)
        } else {
            Ok(())
        }
    }

    fn finish(&mut self, frame: Frame) -> Result<Option<Message>, Violation> {
        let Frame {
            fin, opcode, data, ..
        } = frame;
        let (opcode, data) = match opcode {
            CLOSE => return close(&data).map(Some),
            PING => return Ok(Some(Message::Ping(data.into()))),
            PONG => return Ok(Some(Message::Pong)),
            CONTINUATION => {
                // `check_start` has checked that there is a partial message.
                let mut partial = self.partial.take().ok_or(PROTOCOL_ERROR)?;
                partial.data.extend_from_slice(&data);
                if !fin {
                    self.partial = Some(partial);
                    return Ok(None);
                }
                (partial.opcode, partial.data)
            }
            opcode if fin => (opcode, data),
            opcode => {
                self.partial = Some(Box::new(Partial { opcode, data }));
                return Ok(None);
            }
        };
        if opcode == TEXT {
            String::from_utf8(data)
                .map(|text| Some(Message::Text(text)))
                .map_err(|_| INVALID_UTF8)
        } else {
            Ok(Some(Message::Binary(data)))
        }
    }
}

impl Frame {
    fn unmask(&mut self, bytes: &[u8]) {
        // Continue the mask at the position where the last piece ended.
        let mut mask = self.mask;
        mask.rotate_left(self.data.len() % 4);
        let start = self.data.len();
        self.data.extend_from_slice(bytes);
        // The mask is repeated four times because a SIMD register has 16 bytes.
        let mask: [u8; 16] = std::array::from_fn(|at| mask[at % 4]);
        let mut chunks = self.data[start..].chunks_exact_mut(16);
        for chunk in &mut chunks {
            for (byte, mask) in chunk.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
        for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

/// A close frame is empty, or carries a code that may be sent and a reason in UTF-8.
fn close(data: &[u8]) -> Result<Message, Violation> {
    match data {
        [] => Ok(Message::Close),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let sendable = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            match std::str::from_utf8(reason) {
                _ if !sendable => Err(PROTOCOL_ERROR),
                Ok(_) => Ok(Message::Close),
                Err(_) => Err(INVALID_UTF8),
            }
        }
        _ => Err(PROTOCOL_ERROR),
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
