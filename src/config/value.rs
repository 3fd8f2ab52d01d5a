//! Values as text: the environment knows no other, and a secret of digits must not become a number.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de::Error};

#[derive(Deserialize)]
#[serde(untagged)]
enum Raw {
    Text(String),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
}

impl Raw {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Unsigned(number) => number.to_string(),
            Self::Signed(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Raw::deserialize(deserializer).map(Raw::into_text)
}

/// Empty is unset.
pub(super) fn optional<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(Some(text(deserializer)?).filter(|text| !text.is_empty()))
}

pub(super) fn number<'de, D: Deserializer<'de>, T: FromStr>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = text(deserializer)?;
    // Without the value: a secret may have come to stand at the wrong key.
    text.trim()
        .parse()
        .map_err(|_| D::Error::custom("not a whole number in range"))
}

/// Empty is unset.
pub(super) fn optional_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let Some(text) = optional(deserializer)? else {
        return Ok(None);
    };
    text.trim()
        .parse()
        .map(Some)
        .map_err(|_| D::Error::custom("not a whole number in range"))
}

/// A value as `hubbub config` prints it; empty for what isn't set.
pub(super) trait Show {
    fn show(&self) -> String;
}

macro_rules! show {
    ($($type:ty),*) => {
        $(impl Show for $type {
            fn show(&self) -> String {
                self.to_string()
            }
        })*
    };
}

show!(String, u16, u32, u64, usize);

impl Show for Option<String> {
    fn show(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

impl Show for Option<u64> {
    fn show(&self) -> String {
        self.map_or_else(String::new, |number| number.to_string())
    }
}
