//! Lists of the REST API.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::domain::Refusal;

/// A page of a list.
#[derive(Serialize)]
pub(crate) struct Page<T> {
    items: Vec<T>,
    /// Whether the list continues.
    has_more: bool,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list that is always complete.
    pub fn complete(items: Vec<T>) -> Self {
        Self::new(items, None)
    }

    /// A page; the next one begins at the cursor.
    pub fn new(items: Vec<T>, next_cursor: Option<String>) -> Self {
        Self {
            items,
            has_more: next_cursor.is_some(),
            next_cursor,
        }
    }
}

/// A position in a list as an opaque cursor.
pub(crate) fn encode_cursor(position: &str) -> String {
    URL_SAFE_NO_PAD.encode(position)
}

/// The position of a cursor.
///
/// # Errors
/// `bad_request`.
pub(crate) fn decode_cursor(cursor: &str) -> Result<String, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let position = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let position = position.filter(|position| !position.contains('\0'));
    position.ok_or_else(|| Refusal::bad_request("cursor must be a next_cursor of the same list"))
}
