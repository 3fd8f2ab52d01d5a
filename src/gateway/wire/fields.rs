//! The fields of a request's JSON object, taken one by one, so that every refusal names the field.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::text::{depth, has_boundless_number, has_lone_surrogate};
use crate::domain::{Code, Limits, Refusal};

/// A name, borrowed if there are no escapes in it.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A JSON object whose values are not yet parsed. A field that is `null` is as if left out; unknown ones are ignored; of two
/// with one name the last counts. Few fields are ever asked for, so a list is quicker than a map.
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(4);
                while let Some((Name(name), value)) =
                    map.next_entry::<Name<'de>, &'de RawValue>()?
                {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

fn wrong(field: &str, what: &str) -> Refusal {
    Refusal::bad_request(format!("{field} must be {what}"))
}

impl<'a> Fields<'a> {
    /// Takes the object apart; `what` is how the refusal calls it.
    ///
    /// # Errors
    /// `bad_request` when it isn't an object, or holds text that is none (a lone surrogate); `too_large` above `max` bytes.
    pub fn parse(json: &'a str, max: usize, what: &'static str) -> Result<Self, Refusal> {
        Self::check(json, max, what)?;
        Self::around(json, what)
    }

    /// Looks at what parsing doesn't see.
    ///
    /// # Errors
    /// `bad_request` for a lone surrogate; `too_large` above `max` bytes.
    pub(super) fn check(json: &str, max: usize, what: &'static str) -> Result<(), Refusal> {
        if json.len() > max {
            return Err(Refusal::new(
                Code::TooLarge,
                format!("the {what} must be at most {max} bytes"),
            ));
        }
        if has_lone_surrogate(json) {
            return Err(Refusal::bad_request(format!(
                "the {what} holds a lone surrogate"
            )));
        }
        Ok(())
    }

    /// Takes the object apart without a look at its values: for what is around a payload that is checked by itself.
    ///
    /// # Errors
    /// `bad_request` when it isn't an object.
    pub(super) fn around(json: &'a str, what: &'static str) -> Result<Self, Refusal> {
        serde_json::from_str(json).map_err(|_| wrong(&format!("the {what}"), "a JSON object"))
    }

    /// The value as it stands there.
    pub(super) fn take(&self, field: &str) -> Option<&'a RawValue> {
        let last = self.0.iter().rfind(|(name, _)| name == field);
        last.map(|(_, value)| *value)
            .filter(|value| value.get() != "null")
    }

    /// Text, if it is there.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn text(&self, field: &'static str) -> Result<Option<String>, Refusal> {
        Ok(self.borrowed(field)?.map(Cow::into_owned))
    }

    /// As [`Fields::text`], but a copy is made only where there are escapes in it.
    fn borrowed(&self, field: &'static str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(json) = self.take(field).map(RawValue::get) else {
            return Ok(None);
        };
        // The value is well-formed: between its quotes, and without escapes, it is what it stands for.
        let bare = json
            .strip_prefix('"')
            .and_then(|json| json.strip_suffix('"'));
        match bare.filter(|text| memchr::memchr(b'\\', text.as_bytes()).is_none()) {
            Some(text) => Ok(Some(Cow::Borrowed(text))),
            None => serde_json::from_str(json)
                .map(Some)
                .map_err(|_| wrong(field, "a string")),
        }
    }

    /// Text parsed by one of the domain's ids, if it is there.
    ///
    /// # Errors
    /// `bad_request`, and what `parse` says.
    pub fn id<T>(
        &self,
        field: &'static str,
        parse: impl Fn(&'static str, &str) -> Result<T, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        self.borrowed(field)?
            .map(|text| parse(field, &text))
            .transpose()
    }

    /// As [`Fields::id`], but it has to be there.
    ///
    /// # Errors
    /// `bad_request`, and what `parse` says.
    pub fn required<T>(
        &self,
        field: &'static str,
        parse: impl Fn(&'static str, &str) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.id(field, parse)?
            .ok_or_else(|| Refusal::bad_request(format!("{field} is missing")))
    }

    /// A whole number within bounds, if it is there. `5.0` is one, as some languages know no other.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn number(&self, field: &'static str, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
        /// Above it a double doesn't know every whole number.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        let whole = value.get().parse::<u64>().ok().or_else(|| {
            let double: f64 = serde_json::from_str(value.get()).ok()?;
            // In these bounds and without a fraction the conversion is exact.
            (double.fract() == 0.0 && (0.0..=EXACT).contains(&double)).then_some(double as u64)
        });
        whole
            .filter(|number| (min..=max).contains(number))
            .map(Some)
            .ok_or_else(|| wrong(field, &format!("a whole number from {min} to {max}")))
    }

    /// True or false, if it is there.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn flag(&self, field: &'static str) -> Result<Option<bool>, Refusal> {
        let parse = |value: &RawValue| {
            serde_json::from_str(value.get()).map_err(|_| wrong(field, "true or false"))
        };
        self.take(field).map(parse).transpose()
    }

    /// A list of texts; empty when it isn't there.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn texts(&self, field: &'static str) -> Result<Vec<String>, Refusal> {
        let parse = |value: &RawValue| {
            serde_json::from_str(value.get()).map_err(|_| wrong(field, "a list of strings"))
        };
        Ok(self.take(field).map(parse).transpose()?.unwrap_or_default())
    }

    /// Any JSON, byte for byte, if it is there.
    ///
    /// # Errors
    /// `too_large` when nested too deeply; `bad_request` for a number that many parsers would refuse.
    pub fn json(&self, field: &'static str) -> Result<Option<Box<str>>, Refusal> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        if depth(value.get()) > Limits::PAYLOAD_DEPTH {
            let text = format!(
                "{field} must be nested at most {} levels deep",
                Limits::PAYLOAD_DEPTH
            );
            return Err(Refusal::new(Code::TooLarge, text));
        }
        if has_boundless_number(value.get()) {
            return Err(Refusal::bad_request(format!(
                "{field} holds a number out of range"
            )));
        }
        Ok(Some(value.get().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RoomId;

    fn fields(json: &str) -> Fields<'_> {
        Fields::parse(json, 1000, "payload").unwrap()
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for json in ["1", "[]", "\"a\"", "null", "", "{", &"[".repeat(900)] {
            assert_eq!(
                Fields::parse(json, 1000, "payload").err().unwrap().code,
                Code::BadRequest,
                "{json}"
            );
        }
        assert_eq!(
            Fields::parse("{\"a\":1}", 3, "payload").err().unwrap().code,
            Code::TooLarge
        );
        assert_eq!(
            Fields::parse(r#"{"x":{"y":"\udead"}}"#, 100, "payload")
                .err()
                .unwrap()
                .code,
            Code::BadRequest
        );
    }

    #[test]
    fn a_refusal_names_the_field() {
        let fields = fields(
            r#"{"room_id":5,"limit":-1,"far":1e300,"half":1.5,"flag":"yes","list":[1],"none":null,"whole":7.0}"#,
        );
        assert!(fields.text("room_id").unwrap_err().text.contains("room_id"));
        for field in ["limit", "far", "half", "flag"] {
            assert!(
                fields
                    .number(field, 0, 200)
                    .unwrap_err()
                    .text
                    .contains(field)
            );
        }
        assert_eq!(fields.number("whole", 0, 200).unwrap(), Some(7));
        assert_eq!(fields.number("none", 0, 200).unwrap(), None);
        assert!(fields.flag("flag").is_err() && fields.texts("list").is_err());
        assert!(
            fields
                .required("missing", RoomId::parse)
                .unwrap_err()
                .text
                .contains("missing")
        );
    }

    #[test]
    fn of_two_fields_with_one_name_the_last_counts_however_it_is_written() {
        let fields = fields(r#"{"room_id":"a","limit":1,"room_\u0069d":"b","limit":null}"#);
        assert_eq!(fields.text("room_id").unwrap().as_deref(), Some("b"));
        assert_eq!(fields.number("limit", 0, 200).unwrap(), None);
    }

    #[test]
    fn a_payload_may_be_thirty_two_levels_deep() {
        let nested =
            |levels: usize| format!("{{\"p\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(fields(&nested(32)).json("p").is_ok());
        assert_eq!(
            fields(&nested(33)).json("p").unwrap_err().code,
            Code::TooLarge
        );
        assert_eq!(
            fields(r#"{"p":[1e999]}"#).json("p").unwrap_err().code,
            Code::BadRequest
        );
    }
}
