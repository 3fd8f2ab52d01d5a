//! The codec against RFC 6455: lengths, masks, fragments, control frames, limits.

use super::*;

const LIMIT: usize = 100_000;

/// A frame as a client sends it.
fn frame(first: u8, data: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0xA5, 0x00, 0xFF];
    let mut out = vec![first];
    match data.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(data.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    out
}

fn decode(bytes: &[u8]) -> Result<Vec<Message>, Violation> {
    let mut decoder = Decoder::default();
    let mut input = bytes;
    let mut messages = Vec::new();
    while let Some(message) = decoder.next(&mut input, LIMIT)? {
        messages.push(message);
    }
    Ok(messages)
}

fn text(text: &str) -> Message {
    Message::Text(text.to_owned())
}

#[test]
fn the_masked_hello_of_the_rfc_is_decoded() {
    let bytes = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(decode(&bytes), Ok(vec![text("Hello")]));
}

#[test]
fn all_three_length_forms_are_decoded() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, LIMIT] {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        assert_eq!(
            decode(&frame(0x82, &data)),
            Ok(vec![Message::Binary(data)]),
            "{len}"
        );
    }
}

#[test]
fn the_messages_do_not_depend_on_how_the_stream_is_split() {
    let mut stream = frame(0x81, "4héllo 😀".as_bytes());
    stream.extend(frame(0x89, b"?"));
    stream.extend(frame(0x82, &[7; 300]));
    let whole = decode(&stream).unwrap();
    for step in 1..20 {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in stream.chunks(step) {
            let mut input = piece;
            while let Some(message) = decoder.next(&mut input, LIMIT).unwrap() {
                messages.push(message);
            }
            assert!(input.is_empty());
        }
        assert_eq!(messages, whole, "{step}");
    }
}

#[test]
fn fragments_are_joined_and_control_frames_may_come_between() {
    let mut stream = frame(0x01, "4h\u{e9}".as_bytes().split_at(3).0);
    stream.extend(frame(0x89, b"now"));
    stream.extend(frame(0x00, "4h\u{e9}".as_bytes().split_at(3).1));
    stream.extend(frame(0x80, b"llo"));
    let expected = vec![Message::Ping(Bytes::from_static(b"now")), text("4héllo")];
    assert_eq!(decode(&stream), Ok(expected));
}

#[test]
fn the_limit_applies_to_a_message_with_all_its_fragments() {
    let half = vec![0; LIMIT / 2 + 1];
    let mut stream = frame(0x02, &half);
    stream.extend(frame(0x80, &half));
    assert_eq!(decode(&stream), Err(TOO_BIG));
    // Refused by its header alone, for any announced length.
    for length in [LIMIT as u64 + 1, u64::MAX] {
        let mut header = vec![0x82, 0xFF];
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&[0; 4]);
        assert_eq!(decode(&header), Err(TOO_BIG));
    }
}

#[test]
fn an_announced_length_allocates_little_memory() {
    let mut decoder = Decoder::default();
    let mut header: &[u8] = &[0x82, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0];
    assert_eq!(decoder.next(&mut header, LIMIT), Ok(None));
    assert!(
        decoder
            .frame
            .is_some_and(|frame| frame.data.capacity() <= INITIAL_CAPACITY)
    );
}

#[test]
fn protocol_violations_are_refused() {
    let unmasked = [0x81, 0x00];
    assert_eq!(decode(&unmasked), Err(PROTOCOL_ERROR));
    for reserved in [0xC1, 0xA1, 0x91, 0x83, 0x87, 0x8B, 0x8F] {
        assert_eq!(
            decode(&frame(reserved, b"")),
            Err(PROTOCOL_ERROR),
            "{reserved:#x}"
        );
    }
    assert_eq!(
        decode(&frame(0x80, b"lonely continuation")),
        Err(PROTOCOL_ERROR)
    );
    let mut nested = frame(0x01, b"a");
    nested.extend(frame(0x81, b"b"));
    assert_eq!(decode(&nested), Err(PROTOCOL_ERROR));
    assert_eq!(
        decode(&frame(0x09, b"fragmented ping")),
        Err(PROTOCOL_ERROR)
    );
    assert_eq!(decode(&frame(0x89, &[0; 126])), Err(PROTOCOL_ERROR));
    assert_eq!(decode(&frame(0x81, &[b'4', 0xFF])), Err(INVALID_UTF8));
}

#[test]
fn close_frames_are_validated() {
    assert_eq!(decode(&frame(0x88, b"")), Ok(vec![Message::Close]));
    assert_eq!(decode(&frame(0x88, &[3, 232])), Ok(vec![Message::Close]));
    assert_eq!(decode(&frame(0x88, &[3])), Err(PROTOCOL_ERROR));
    assert_eq!(decode(&frame(0x88, &[0, 0])), Err(PROTOCOL_ERROR));
    assert_eq!(decode(&frame(0x88, &[3, 237])), Err(PROTOCOL_ERROR));
    assert_eq!(decode(&frame(0x88, &[3, 232, 0xFF])), Err(INVALID_UTF8));
}

#[test]
fn random_bytes_never_panic() {
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    for _ in 0..20_000 {
        let noise: Vec<u8> = (0..40)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed as u8
            })
            .collect();
        drop(decode(&noise));
    }
}
