//! WebSocket frames of a client: encoded with a mask of zeros, decoded in place.

/// Opcode of a text frame.
pub(crate) const TEXT: u8 = 1;
/// Opcode of a close frame.
pub(crate) const CLOSE: u8 = 8;
/// Opcode of a ping; the receiver must reply with a pong.
pub(crate) const PING: u8 = 9;
/// Opcode of the reply to a ping, with the same payload.
pub(crate) const PONG: u8 = 10;

/// One frame of a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
    /// Bytes of the whole frame, header included.
    pub(crate) len: usize,
}

/// Appends one whole frame of a client. Its mask is all zeros, which leaves the payload unchanged:
/// any other mask would cost CPU time of the generator, and has no use here.
pub(crate) fn encode(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    if let Ok(len) = u8::try_from(payload.len())
        && len < 126
    {
        out.push(0x80 | len);
    } else if let Ok(len) = u16::try_from(payload.len()) {
        out.push(0x80 | 126);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(0x80 | 127);
        out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Decodes the first frame of `bytes`. Returns `None` if it is not complete.
///
/// # Errors
/// If the frame is fragmented, compressed, masked, or longer than the address space: the generator
/// does not read such frames.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 {
        return Err("the server sent a fragmented frame, or one with an extension");
    }
    if second & 0x80 != 0 {
        return Err("the server sent a masked frame");
    }
    let (header_len, payload_len) = match second {
        126 => match rest.first_chunk::<2>() {
            Some(len) => (4, u64::from(u16::from_be_bytes(*len))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(len) => (10, u64::from_be_bytes(*len)),
            None => return Ok(None),
        },
        len => (2, u64::from(*len)),
    };
    let len = usize::try_from(payload_len)
        .ok()
        .and_then(|payload_len| payload_len.checked_add(header_len))
        .ok_or("the server sent a frame longer than the address space")?;
    Ok(bytes.get(header_len..len).map(|payload| Frame {
        opcode: first & 0x0f,
        payload,
        len,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frame as a server sends it: without a mask.
    fn server_frame(payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        encode(TEXT, payload, &mut masked);
        let header = masked.len() - payload.len() - 4;
        [&[masked[0], masked[1] & 0x7f], &masked[2..header], payload].concat()
    }

    #[test]
    fn only_complete_frames_of_every_length_are_decoded() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'a'; len];
            let bytes = [server_frame(&payload), vec![0x81]].concat();
            let whole = bytes.len() - 1;
            assert_eq!(
                decode(&bytes),
                Ok(Some(Frame {
                    opcode: TEXT,
                    payload: &payload,
                    len: whole
                }))
            );
            assert_eq!(decode(&bytes[..whole - 1]), Ok(None));
        }
    }

    #[test]
    fn unsupported_frames_are_errors() {
        assert!(decode(&[0x01, 0x00]).is_err(), "fragmented");
        assert!(decode(&[0xc1, 0x00]).is_err(), "compressed");
        assert!(decode(&[0x81, 0x80, 0, 0, 0, 0]).is_err(), "masked");
        assert!(
            decode(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]).is_err(),
            "longer than the address space"
        );
    }
}
