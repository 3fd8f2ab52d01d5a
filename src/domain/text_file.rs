//! The encodings of text files that operators write.

/// The text of a file in UTF-8 and without a byte order mark, which no parser of PEM or JSON
/// accepts. Windows editors begin a file with one, and PowerShell writes UTF-16. Bytes without a
/// byte order mark are returned as they are.
#[must_use]
pub fn without_bom(mut bytes: Vec<u8>) -> Vec<u8> {
    match bytes.as_slice() {
        [0xef, 0xbb, 0xbf, ..] => {
            bytes.drain(..3);
            bytes
        }
        [0xff, 0xfe, text @ ..] => from_utf16(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => from_utf16(text, u16::from_be_bytes),
        _ => bytes,
    }
}

fn from_utf16(text: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Vec<u8> {
    let (pairs, _) = text.as_chunks::<2>();
    let units = pairs.iter().map(|pair| unit(*pair));
    let characters = char::decode_utf16(units);
    let text: String = characters
        .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_marks_are_removed_in_every_encoding() {
        let encoded = |mark: &[u8], unit: fn(u16) -> [u8; 2]| {
            let text = "-----é".encode_utf16().flat_map(unit);
            mark.iter().copied().chain(text).collect::<Vec<u8>>()
        };
        for bytes in [
            "-----é".as_bytes().to_vec(),
            "\u{feff}-----é".as_bytes().to_vec(),
            encoded(&[0xff, 0xfe], u16::to_le_bytes),
            encoded(&[0xfe, 0xff], u16::to_be_bytes),
        ] {
            assert_eq!(without_bom(bytes), "-----é".as_bytes());
        }
        assert_eq!(without_bom(vec![0xff, 0, 0xfe]), [0xff, 0, 0xfe]);
        assert_eq!(without_bom(Vec::new()), [0; 0]);
    }
}
