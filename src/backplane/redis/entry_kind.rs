//! The letters that stand for the kinds of log entries in Redis.
//!
//! A kind costs no space: its letter is the name of the stream field that holds the record (in lower
//! case), and the first byte of the bus frame (in upper case).
//!
//! A letter must never be reused for another kind. These letters are not available: `e` and `t`
//! (other fields of a stream entry), `r` (the field of a message in releases before kinds existed),
//! and `d`, `s` and `t` (frames that aren't entries). `c` is the field of a pointer, whose frames begin with
//! `P`, because `C` is another frame. A letter that this release doesn't know
//! is [`EntryKind::Unknown`].

use crate::backplane::EntryKind;

/// The kind of a stream entry whose record lies in the field of this name.
pub(super) fn of_stream_field(name: &[u8]) -> EntryKind {
    match name {
        b"m" | b"r" => EntryKind::Message,
        b"a" => EntryKind::Change,
        b"c" => EntryKind::Pointer,
        _ => EntryKind::Unknown,
    }
}

/// The kind of the entry in a frame that begins with this letter; `None` if such a frame isn't an
/// entry.
///
/// New frames that aren't entries must not begin with an upper-case letter: nodes of this release
/// would take them for entries of an unknown kind.
pub(super) fn of_frame(letter: u8) -> Option<EntryKind> {
    match letter {
        b'M' => Some(EntryKind::Message),
        b'A' => Some(EntryKind::Change),
        b'P' => Some(EntryKind::Pointer),
        b'C' | b'D' | b'S' | b'T' => None,
        letter if letter.is_ascii_uppercase() => Some(EntryKind::Unknown),
        _ => None,
    }
}

/// The kind of an entry with a key, in an append. Nothing for a message, which is the most frequent.
pub(super) fn in_append(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Change => "A",
        EntryKind::Pointer => "P",
        EntryKind::Message | EntryKind::Amended | EntryKind::Unknown => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_later_releases_are_entries_of_an_unknown_kind() {
        assert_eq!(of_stream_field(b"m"), EntryKind::Message);
        assert_eq!(of_stream_field(b"r"), EntryKind::Message, "before kinds");
        assert_eq!(of_stream_field(b"a"), EntryKind::Change);
        assert_eq!(of_frame(b'A'), Some(EntryKind::Change));
        for name in [&b"x"[..], b"", b"mm", b"\xff"] {
            assert_eq!(of_stream_field(name), EntryKind::Unknown);
        }
        assert_eq!(of_frame(b'M'), Some(EntryKind::Message));
        assert_eq!(of_frame(b'X'), Some(EntryKind::Unknown));
        for letter in *b"CDSTm\n\xff" {
            assert_eq!(of_frame(letter), None);
        }
    }
}
