//! Cursors: positions in lists, which clients pass back as they received them.
//!
//! A cursor is the base64url of a JSON array: the version, the list's name, and the position. It is no
//! secret and gives no right: a list selects its items by the caller and then by the position.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::Refusal;

/// Raised when the meaning of positions changes: older cursors are refused then.
const VERSION: u8 = 1;
/// The longest cursor that is decoded, in bytes.
const MAX_BYTES: usize = 1024;
/// The number of items on a page, by default.
const DEFAULT_LIMIT: u64 = 50;
/// The largest number of items on a page.
pub(crate) const MAX_LIMIT: u64 = 200;

/// The parameters `limit` and `cursor` of a list.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PageQuery {
    limit: Option<u64>,
    cursor: Option<String>,
}

impl PageQuery {
    /// The number of items on the page.
    ///
    /// # Errors
    /// `bad_request` if it is not from 1 to 200.
    pub fn limit(&self) -> Result<usize, Refusal> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let text = format!("limit must be a whole number from 1 to {MAX_LIMIT}");
            return Err(Refusal::bad_request(text).field("limit"));
        }
        Ok(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// The position in this list after which the page begins; `None`: at the list's beginning.
    ///
    /// # Errors
    /// `bad_request` for a cursor of another list or version.
    pub fn position<P: DeserializeOwned>(&self, list: &str) -> Result<Option<P>, Refusal> {
        match self.cursor.as_deref() {
            None | Some("") => Ok(None),
            Some(cursor) => decode_cursor(list, cursor).map(Some),
        }
    }
}

/// The cursor of a position in this list.
///
/// # Panics
/// If the position has no JSON.
pub(crate) fn encode_cursor<P: Serialize>(list: &str, position: &P) -> String {
    let json = serde_json::to_vec(&(VERSION, list, position)).expect("a position has a JSON");
    URL_SAFE_NO_PAD.encode(json)
}

/// The position that a cursor of this list stands for.
///
/// # Errors
/// `bad_request` for a cursor of another list or version.
pub(crate) fn decode_cursor<P: DeserializeOwned>(list: &str, cursor: &str) -> Result<P, Refusal> {
    let refuse = || Refusal::bad_request("cursor is not one of this list").field("cursor");
    if cursor.len() > MAX_BYTES {
        return Err(refuse());
    }
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refuse())?;
    let decoded: Result<(u8, String, P), _> = serde_json::from_slice(&json);
    match decoded {
        Ok((VERSION, name, position)) if name == list => Ok(position),
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Code;

    fn query(limit: Option<u64>, cursor: Option<&str>) -> PageQuery {
        PageQuery {
            limit,
            cursor: cursor.map(str::to_owned),
        }
    }

    #[test]
    fn a_cursor_is_decoded_for_its_own_list_only() {
        let position = ("ann".to_owned(), 7_u64);
        let cursor = encode_cursor("users", &position);
        assert!(
            cursor
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        let decoded = query(None, Some(&cursor)).position::<(String, u64)>("users");
        assert_eq!(decoded.unwrap(), Some(position));
        for absent in [None, Some("")] {
            let decoded = query(None, absent).position::<(String, u64)>("users");
            assert_eq!(decoded.unwrap(), None);
        }
        let of_json = |json: &str| URL_SAFE_NO_PAD.encode(json);
        for foreign in [
            encode_cursor("chats", &("ann", 7)),
            encode_cursor("users", &7),
            of_json(r#"[2,"users",["ann",7]]"#),
            of_json(r#"["ann",7]"#),
            of_json("x"),
            "!".to_owned(),
            format!("{cursor}="),
            "7".to_owned(),
            of_json(&format!(r#"[1,"users",["{}",7]]"#, "a".repeat(1024))),
        ] {
            let refusal = query(None, Some(&foreign))
                .position::<(String, u64)>("users")
                .unwrap_err();
            assert_eq!(refusal.code, Code::BadRequest, "{foreign}");
            assert_eq!(refusal.field.as_deref(), Some("cursor"));
        }
    }

    #[test]
    fn a_page_has_1_to_200_items_and_50_by_default() {
        for (limit, expected) in [(None, 50), (Some(1), 1), (Some(200), 200)] {
            assert_eq!(query(limit, None).limit().unwrap(), expected);
        }
        for limit in [0, 201, u64::MAX] {
            let refusal = query(Some(limit), None).limit().unwrap_err();
            assert_eq!(refusal.code, Code::BadRequest, "{limit}");
            assert_eq!(refusal.field.as_deref(), Some("limit"));
        }
    }
}
