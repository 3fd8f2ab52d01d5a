//! The fields of a request's JSON object, read one by one, so that every refusal names the field.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::text::{depth, has_lone_surrogate, has_number_out_of_range};
use crate::domain::{Code, Limits, Refusal};

/// A JSON string, borrowed from the input unless it contains escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A JSON object with values that are not parsed yet.
///
/// A field that is `null` counts as absent, unknown fields are ignored, and the last of several
/// fields with the same name counts. A request reads only a few fields, so a list is faster than a
/// map.
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

fn must_be(field: &'static str, expected: &str) -> Refusal {
    Refusal::bad_request(format!("{field} must be {expected}")).field(field)
}

impl<'a> Fields<'a> {
    /// Splits an object into its fields. `subject` is the name of the object in refusals.
    ///
    /// # Errors
    /// `bad_request` if the JSON is not an object or contains a lone surrogate; `too_large` above
    /// `max` bytes.
    pub fn parse(json: &'a str, max: usize, subject: &'static str) -> Result<Self, Refusal> {
        Self::check(json, max, subject)?;
        Self::parse_unchecked(json, subject)
    }

    /// Checks the properties that parsing does not check.
    ///
    /// # Errors
    /// `bad_request` for a lone surrogate; `too_large` above `max` bytes.
    pub(super) fn check(json: &str, max: usize, subject: &'static str) -> Result<(), Refusal> {
        if json.len() > max {
            let text = format!("the {subject} must be at most {max} bytes");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        if has_lone_surrogate(json) {
            let text = format!("the {subject} holds a lone surrogate");
            return Err(Refusal::bad_request(text));
        }
        Ok(())
    }

    /// Splits an object into its fields without [`Fields::check`]: for the object around a payload
    /// that is checked on its own.
    ///
    /// # Errors
    /// `bad_request` if the JSON is not an object.
    pub(super) fn parse_unchecked(json: &'a str, subject: &'static str) -> Result<Self, Refusal> {
        let text = || format!("the {subject} must be a JSON object");
        serde_json::from_str(json).map_err(|_| Refusal::bad_request(text()))
    }

    /// The unparsed value of a field.
    pub(super) fn raw(&self, field: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().rfind(|(name, _)| name == field)?;
        if value.get() == "null" {
            return None;
        }
        Some(value)
    }

    /// Whether the field is there, and is `null`.
    pub(super) fn is_null(&self, field: &str) -> bool {
        let found = self.0.iter().rfind(|(name, _)| name == field);
        found.is_some_and(|(_, value)| value.get() == "null")
    }

    /// A string, if present.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn text(&self, field: &'static str) -> Result<Option<String>, Refusal> {
        Ok(self.borrowed_text(field)?.map(Cow::into_owned))
    }

    /// Like [`Fields::text`], but copies the string only if it contains escapes.
    fn borrowed_text(&self, field: &'static str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(json) = self.raw(field).map(RawValue::get) else {
            return Ok(None);
        };
        // The value is well-formed JSON: without a backslash, the text between its quotes is the
        // string itself.
        let quoted = json
            .strip_prefix('"')
            .and_then(|json| json.strip_suffix('"'));
        if let Some(text) = quoted
            && memchr::memchr(b'\\', text.as_bytes()).is_none()
        {
            return Ok(Some(Cow::Borrowed(text)));
        }
        match serde_json::from_str(json) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(must_be(field, "a string")),
        }
    }

    /// The members of an object of objects, if present. A member that is `null` is an empty object.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn objects(&self, field: &'static str) -> Result<Vec<(Cow<'a, str>, Self)>, Refusal> {
        let Some(json) = self.raw(field) else {
            return Ok(Vec::new());
        };
        let must_be = || must_be(field, "an object of objects");
        let Fields(members) = serde_json::from_str(json.get()).map_err(|_| must_be())?;
        let parse = |(name, value): (Cow<'a, str>, &'a RawValue)| {
            let fields = match value.get() {
                "null" => Fields(Vec::new()),
                json => serde_json::from_str(json).map_err(|_| must_be())?,
            };
            Ok((name, fields))
        };
        members.into_iter().map(parse).collect()
    }

    /// A string parsed as one of the domain's identifiers, if present.
    ///
    /// # Errors
    /// `bad_request`, and the errors of `parse`.
    pub fn id<T>(
        &self,
        field: &'static str,
        parse: impl Fn(&'static str, &str) -> Result<T, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        match self.borrowed_text(field)? {
            Some(text) => parse(field, &text).map(Some),
            None => Ok(None),
        }
    }

    /// Like [`Fields::id`], for a field that must be present.
    ///
    /// # Errors
    /// `bad_request`, and the errors of `parse`.
    pub fn required<T>(
        &self,
        field: &'static str,
        parse: impl Fn(&'static str, &str) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.id(field, parse)?
            .ok_or_else(|| Refusal::bad_request(format!("{field} is missing")).field(field))
    }

    /// A whole number from `min` to `max`, if present. `5.0` is accepted as 5, because some
    /// languages have only floating-point numbers.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn number(&self, field: &'static str, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.raw(field) else {
            return Ok(None);
        };
        match whole_number(value.get()) {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(must_be(
                field,
                &format!("a whole number from {min} to {max}"),
            )),
        }
    }

    /// A boolean, if present.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn flag(&self, field: &'static str) -> Result<Option<bool>, Refusal> {
        match self.raw(field) {
            None => Ok(None),
            Some(value) => serde_json::from_str(value.get())
                .map(Some)
                .map_err(|_| must_be(field, "true or false")),
        }
    }

    /// A list of strings; empty if the field is absent.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn texts(&self, field: &'static str) -> Result<Vec<String>, Refusal> {
        match self.raw(field) {
            None => Ok(Vec::new()),
            Some(value) => {
                serde_json::from_str(value.get()).map_err(|_| must_be(field, "a list of strings"))
            }
        }
    }

    /// Any JSON value, byte for byte, if present.
    ///
    /// # Errors
    /// `too_large` if nested too deeply; `bad_request` for a number out of the range of a double,
    /// because many parsers would refuse the whole event.
    pub fn json(&self, field: &'static str) -> Result<Option<Box<str>>, Refusal> {
        let Some(value) = self.raw(field) else {
            return Ok(None);
        };
        if depth(value.get()) > Limits::PAYLOAD_DEPTH {
            let text = format!(
                "{field} must be nested at most {} levels deep",
                Limits::PAYLOAD_DEPTH
            );
            return Err(Refusal::new(Code::TooLarge, text).field(field));
        }
        if has_number_out_of_range(value.get()) {
            let text = format!("{field} holds a number out of range");
            return Err(Refusal::bad_request(text).field(field));
        }
        Ok(Some(value.get().into()))
    }
}

/// The number as a whole one, also if it is written with a fraction of 0 or an exponent.
fn whole_number(json: &str) -> Option<u64> {
    /// 2^53: above it, a double does not represent every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Ok(number) = json.parse() {
        return Some(number);
    }
    let double: f64 = serde_json::from_str(json).ok()?;
    if double.fract() != 0.0 || !(0.0..=EXACT).contains(&double) {
        return None;
    }
    // Within these bounds and without a fraction, the conversion is exact.
    Some(double as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RoomId;

    fn fields(json: &str) -> Fields<'_> {
        Fields::parse(json, 1000, "payload").unwrap()
    }

    #[test]
    fn json_that_is_not_an_object_is_refused() {
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
    fn the_last_of_two_fields_with_the_same_name_counts_even_if_escaped() {
        let fields = fields(r#"{"room_id":"a","limit":1,"room_\u0069d":"b","limit":null}"#);
        assert_eq!(fields.text("room_id").unwrap().as_deref(), Some("b"));
        assert_eq!(fields.number("limit", 0, 200).unwrap(), None);
    }

    #[test]
    fn json_deeper_than_32_levels_or_with_numbers_out_of_range_is_refused() {
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
