//! Decimal numbers in packets, read and written without parsing the JSON around them.

use memchr::memmem::Finder;

/// The number that the digits form, or `None` if another character is among them. No digits are 0;
/// a number above `u64::MAX` wraps around.
pub(crate) fn parse_digits(text: &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
    }
    Some(number)
}

/// The number directly after the first occurrence of a key.
pub(crate) fn number_after(key: &Finder<'_>, packet: &[u8]) -> Option<u64> {
    let at = key.find(packet)? + key.needle().len();
    leading_number(&packet[at..])
}

/// The number at the beginning of `text`, or `None` if it does not begin with a digit.
fn leading_number(text: &[u8]) -> Option<u64> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    parse_digits(&text[..len])
}

/// Fills `out` with the number's last digits, with leading zeros.
pub(crate) fn write_digits(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}
