//! The summary of a command: text for a reader, or JSON for a program.

use serde_json::{Map, Value};

use super::Output;

/// Values by their names, in order.
#[derive(Default)]
pub(super) struct Summary(Vec<(&'static str, Value)>);

impl Summary {
    pub fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }

    /// The seconds since then, to three digits.
    pub fn add_seconds(&mut self, began: std::time::Instant) {
        let millis = began.elapsed().as_millis();
        self.add("seconds", millis as f64 / 1000.0);
    }

    pub fn print(self, output: Output) {
        print!("{}", self.render(output));
    }

    fn render(self, output: Output) -> String {
        if output.json {
            let pairs = self.0.into_iter();
            let object: Map<String, Value> = pairs
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            return format!("{}\n", Value::Object(object));
        }
        let line = |(name, value): (&str, Value)| {
            let name = name.replace('_', " ");
            match value {
                Value::String(text) => format!("{name}: {text}\n"),
                Value::Array(items) => items
                    .iter()
                    .map(|item| format!("{}\n", text(item)))
                    .collect(),
                other => format!("{name}: {other}\n"),
            }
        };
        self.0.into_iter().map(line).collect()
    }
}

/// A finding as a line: the room, and its text.
fn text(item: &Value) -> String {
    let (room, detail) = (&item["room"], &item["detail"]);
    match (room.as_str(), detail.as_str()) {
        (Some(room), Some(detail)) => format!("room {room}: {detail}"),
        (None, Some(detail)) => detail.to_owned(),
        _ => item.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_text_for_readers_and_json_for_programs() {
        let summary = || {
            let mut summary = Summary::default();
            summary.add("messages", 7);
            summary.add("is_dry", true);
            let finding = serde_json::json!({"room": "lobby", "detail": "message 3 is missing"});
            summary.add("findings", vec![finding]);
            summary
        };
        assert_eq!(
            summary().render(Output { json: false }),
            "messages: 7\nis dry: true\nroom lobby: message 3 is missing\n"
        );
        let json = summary().render(Output { json: true });
        let parsed: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["messages"], 7);
        assert_eq!(parsed["findings"][0]["room"], "lobby");
    }
}
