//! WebSocket frames as a client needs them: masked by nothing, taken apart in place.

/// The frame holds text.
pub(super) const TEXT: u8 = 1;
/// The server closes.
pub(super) const CLOSE: u8 = 8;
/// The server asks whether anyone is there.
pub(super) const PING: u8 = 9;
/// The answer to it.
pub(super) const PONG: u8 = 10;

/// One frame of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
    /// Bytes with the head.
    pub(super) len: usize,
}

/// Appends one whole frame of a client. Its mask is all zeros, which leaves the bytes as they are: to mask them would
/// cost the generator, and hide nothing from anyone.
pub(super) fn encode(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
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

/// The first frame of `bytes`, or `None` while part of it is still to come.
///
/// # Errors
/// When it is none that this generator reads: masked, in pieces, compressed, or longer than memory.
pub(super) fn take(bytes: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 {
        return Err("a frame in pieces, or with an extension");
    }
    if second & 0x80 != 0 {
        return Err("a masked frame");
    }
    let (head, len) = match second {
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
    let len = usize::try_from(len)
        .ok()
        .and_then(|len| len.checked_add(head))
        .ok_or("a frame without end")?;
    Ok(bytes.get(head..len).map(|payload| Frame {
        opcode: first & 0x0f,
        payload,
        len,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as a server would say it.
    fn served(payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        encode(TEXT, payload, &mut masked);
        let head = masked.len() - payload.len() - 4;
        [&[masked[0], masked[1] & 0x7f], &masked[2..head], payload].concat()
    }

    #[test]
    fn frames_of_every_length_are_read_back_whole_or_not_at_all() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'a'; len];
            let bytes = [served(&payload), vec![0x81]].concat();
            let whole = bytes.len() - 1;
            assert_eq!(
                take(&bytes),
                Ok(Some(Frame {
                    opcode: TEXT,
                    payload: &payload,
                    len: whole
                }))
            );
            assert_eq!(take(&bytes[..whole - 1]), Ok(None));
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        assert!(take(&[0x01, 0x00]).is_err(), "in pieces");
        assert!(take(&[0xc1, 0x00]).is_err(), "compressed");
        assert!(take(&[0x81, 0x80, 0, 0, 0, 0]).is_err(), "masked");
        assert!(
            take(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]).is_err(),
            "without end"
        );
    }
}
