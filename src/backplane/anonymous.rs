//! Records without the name of a deleted user.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::change_record;
use crate::domain::{DELETED_USERNAME, UserId};

/// A record that can't be read, and may have the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl From<serde_json::Error> for Unreadable {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// The record with the name of deleted users in place of this user's. `None` if it needs no change. The
/// rest of a message stays byte for byte.
///
/// # Errors
/// [`Unreadable`].
pub fn anonymise(record: &[u8], user: &UserId) -> Result<Option<Bytes>, Unreadable> {
    match change_record::Parts::of(record) {
        Some(parts) => anonymous_change(&parts, user),
        None => anonymous_message(record, user),
    }
}

fn anonymous_message(record: &[u8], user: &UserId) -> Result<Option<Bytes>, Unreadable> {
    #[derive(Deserialize)]
    struct Sender<'a> {
        user_id: Option<String>,
        #[serde(borrow)]
        username: Option<&'a RawValue>,
    }
    let record = std::str::from_utf8(record).map_err(|_| Unreadable)?;
    let sender: Sender<'_> = serde_json::from_str(record)?;
    let name = serde_json::to_string(DELETED_USERNAME)?;
    let Some(former) = sender.username.map(RawValue::get) else {
        return Ok(None);
    };
    if sender.user_id.as_deref() != Some(user.as_str()) || former == name {
        return Ok(None);
    }
    // The raw value is a part of the record.
    let start = former.as_ptr() as usize - record.as_ptr() as usize;
    let (before, rest) = record.split_at_checked(start).ok_or(Unreadable)?;
    let after = rest.get(former.len()..).ok_or(Unreadable)?;
    Ok(Some([before, &name, after].concat().into()))
}

fn anonymous_change(
    parts: &change_record::Parts<'_>,
    user: &UserId,
) -> Result<Option<Bytes>, Unreadable> {
    // Most changes are of others.
    if !parts.fields.contains(user.as_str()) {
        return Ok(None);
    }
    let mut fields: Value = serde_json::from_str(&format!("{{{}", parts.fields))?;
    if !rename(&mut fields, user) {
        return Ok(None);
    }
    let fields = fields.to_string();
    let rest = fields.strip_prefix('{').ok_or(Unreadable)?;
    let (event, id) = (parts.event, parts.id);
    let record = format!("{{\"event\":\"{event}\",\"entry_id\":\"{id}\",{rest}");
    Ok(Some(record.into()))
}

/// Renames the user in every object that names it. Returns whether there was one.
fn rename(value: &mut Value, user: &UserId) -> bool {
    match value {
        Value::Array(items) => {
            let mut found = false;
            for item in items {
                found |= rename(item, user);
            }
            found
        }
        Value::Object(fields) => {
            let mut found = false;
            let is_of_user = fields.get("user_id").and_then(Value::as_str) == Some(user.as_str());
            if is_of_user
                && let Some(name) = fields.get_mut("username")
                && name != DELETED_USERNAME
            {
                *name = DELETED_USERNAME.into();
                found = true;
            }
            for item in fields.values_mut() {
                found |= rename(item, user);
            }
            found
        }
        _ => false,
    }
}

/// Whether two records differ at most in names that the first one has not any more.
#[must_use]
pub fn is_same_without_names(anonymous: &[u8], record: &[u8]) -> bool {
    let has_lost_names =
        std::str::from_utf8(anonymous).is_ok_and(|text| text.contains(DELETED_USERNAME));
    if !has_lost_names {
        return false;
    }
    let parse = |record| serde_json::from_slice::<Value>(record);
    let (Ok(mut anonymous), Ok(mut record)) = (parse(anonymous), parse(record)) else {
        return false;
    };
    hide_names(&mut anonymous, &mut record);
    anonymous == record
}

fn hide_names(anonymous: &mut Value, record: &mut Value) {
    match (anonymous, record) {
        (Value::Array(one), Value::Array(other)) => {
            for (one, other) in one.iter_mut().zip(other) {
                hide_names(one, other);
            }
        }
        (Value::Object(one), Value::Object(other)) => {
            if one.get("username") == Some(&DELETED_USERNAME.into()) {
                one.remove("username");
                other.remove("username");
            }
            for (key, one) in one.iter_mut() {
                if let Some(other) = other.get_mut(key) {
                    hide_names(one, other);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = r#"{"id":"1","room_id":"r","user_id":"ann","username":"A \"n\" n","content":"ann","type":"text","payload":{"b":1.0, "a":{"username":"ann"}}}"#;

    #[test]
    fn a_message_loses_the_name_and_nothing_else() {
        let ann = UserId::trusted("ann");
        let record = anonymise(MESSAGE.as_bytes(), &ann).unwrap().unwrap();
        let expected = MESSAGE.replace(r#""A \"n\" n""#, r#""deleted user""#);
        assert_eq!(record, expected);
        assert_eq!(anonymise(&record, &ann), Ok(None));
        assert_eq!(
            anonymise(MESSAGE.as_bytes(), &UserId::trusted("bob")),
            Ok(None)
        );
        assert_eq!(anonymise(b"not JSON", &ann), Err(Unreadable));
        assert!(is_same_without_names(&record, MESSAGE.as_bytes()));
        let other = MESSAGE.replace("1.0", "2.0");
        assert!(!is_same_without_names(&record, other.as_bytes()));
        assert!(!is_same_without_names(other.as_bytes(), MESSAGE.as_bytes()));
        assert!(!is_same_without_names(MESSAGE.as_bytes(), &record));
    }

    #[test]
    fn a_change_loses_the_name_wherever_it_is() {
        let id = uuid::Uuid::from_u128(7);
        let change = format!(
            r#"{{"event":"member_added","entry_id":"{id}","room_id":"r","chat":{{"by":[{{"user_id":"ann","username":"Ann"}}]}},"user_id":"bob","username":"Bob"}}"#
        );
        let record = anonymise(change.as_bytes(), &UserId::trusted("ann"))
            .unwrap()
            .unwrap();
        let parts = change_record::Parts::of(&record).unwrap();
        assert_eq!((parts.event, parts.id), ("member_added", id));
        let text = std::str::from_utf8(&record).unwrap();
        assert!(!text.contains("Ann") && text.contains("Bob"), "{text}");
        assert!(is_same_without_names(&record, change.as_bytes()));
        assert_eq!(
            anonymise(change.as_bytes(), &UserId::trusted("eve")),
            Ok(None)
        );
    }
}
