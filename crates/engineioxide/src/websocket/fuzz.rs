//! Random WebSocket frames: the messages must not depend on how the bytes are split, and none may
//! exceed the limit.

use hubbub_fuzz::{Random, Target};

use super::codec::{Decoder, Message, Violation};

const LIMIT: usize = 4096;

/// A masked frame from a client.
fn frame(first: u8, data: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut bytes = vec![first];
    match (u8::try_from(data.len()), u16::try_from(data.len())) {
        (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
        (_, Ok(medium)) => {
            bytes.push(0x80 | 126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((data.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(
        data.iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// All messages of the pieces, and the violation that ended them, if there was one.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Message>, Option<Violation>) {
    let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece, LIMIT) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(violation) => return (messages, Some(violation)),
            }
        }
        assert!(piece.is_empty(), "the decoder left bytes without an error");
    }
    (messages, None)
}

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(data) => data.len(),
        Message::Ping(data) => data.len(),
        Message::Pong | Message::Close => 0,
    }
}

#[test]
fn fuzz_websocket() {
    let seeds = [
        frame(0x81, b"4hello"),
        frame(0x82, &[0; 300]),
        [
            frame(0x01, b"4he"),
            frame(0x89, b"ping"),
            frame(0x80, b"llo"),
        ]
        .concat(),
        [frame(0x02, &[1]), frame(0x00, &[2]), frame(0x80, &[3])].concat(),
        [frame(0x8a, b""), frame(0x88, &[3, 232])].concat(),
        frame(0x81, &[b'x'; LIMIT]),
        vec![
            0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4,
        ],
    ];
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    let words = &[
        "\u{1}\u{2}\u{3}\u{4}",
        "~",
        "\u{7f}",
        "\u{0}\u{0}\u{0}\u{0}",
    ];
    Target {
        name: "websocket",
        seeds: &seeds,
        words,
        longest: 8192,
    }
    .run(|bytes| {
        let whole = read(std::iter::once(bytes));
        assert_eq!(read(bytes.chunks(1)), whole, "split into single bytes");
        let mut chance = Random::new(bytes.len() as u64);
        let pieces = bytes.chunk_by(|_, _| chance.below(8) > 0);
        assert_eq!(read(pieces), whole, "split at random");
        let (messages, end) = whole;
        assert!(messages.iter().all(|message| length(message) <= LIMIT));
        if let Some(Violation(code)) = end {
            assert!([1002, 1007, 1009].contains(&code), "{code}");
        }
        let kinds: Vec<_> = messages
            .iter()
            .take(4)
            .map(std::mem::discriminant)
            .collect();
        (kinds, end.map(|Violation(code)| code))
    });
}
