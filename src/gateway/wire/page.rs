//! Lists of the REST API.

use serde::Serialize;

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
