//! Statements are written once, with `?` for values and a few tokens where the databases differ.
//! This file makes each database's text of them, once.
//!
//! | token | SQLite | PostgreSQL | MySQL and MariaDB |
//! | --- | --- | --- | --- |
//! | `?` | `?` | `$1`, `$2`, … | `?` |
//! | `{bigint}`, in casts | `INTEGER` | `BIGINT` | `SIGNED` |
//! | `{now}` | milliseconds since 1970, by the database's clock | the same | the same |
//! | `{for_update}` | – | `FOR UPDATE` | `FOR UPDATE` |
//! | `{for_update_of_free}` | – | `FOR UPDATE SKIP LOCKED` | `FOR UPDATE SKIP LOCKED` |
//! | `{if_absent:column}` | `ON CONFLICT DO NOTHING` | `ON CONFLICT DO NOTHING` | `ON DUPLICATE KEY UPDATE column = column` |
//! | `{list}` | as many `?` as values | the same | the same |
//! | `{rows:n}`, `{rows:?, …}` | as many `(?, …)` of n values as rows | the same | the same |
//!
//! Lists and rows come in few lengths ([`pad`]): each length is a text of its own, which the database
//! prepares and a connection caches.

use std::sync::LazyLock;

use ahash::AHashMap;
use parking_lot::RwLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
    MySql,
}

/// Texts of statements, by dialect, template and length of lists.
type Texts = AHashMap<(Dialect, &'static str, usize), &'static str>;

/// The texts made so far. They are few: templates are constants, and lengths are those of [`LENGTHS`].
static TEXTS: LazyLock<RwLock<Texts>> = LazyLock::new(RwLock::default);

impl Dialect {
    /// The text of a statement without lists.
    pub(crate) fn text(self, template: &'static str) -> &'static str {
        self.text_of(template, 0)
    }

    /// The text of a statement whose lists have this many elements, one of the [`LENGTHS`].
    pub(crate) fn text_of(self, template: &'static str, elements: usize) -> &'static str {
        let key = (self, template, elements);
        if let Some(text) = TEXTS.read().get(&key) {
            return text;
        }
        let made = self.expand(template, elements);
        TEXTS.write().entry(key).or_insert_with(|| made.leak())
    }

    /// The text of a statement with one list of these elements, and the padded list.
    pub(crate) fn with_list<T: Clone>(
        self,
        template: &'static str,
        elements: impl IntoIterator<Item = T>,
    ) -> (&'static str, Vec<T>) {
        let mut list: Vec<T> = elements.into_iter().collect();
        pad(&mut list);
        (self.text_of(template, list.len()), list)
    }

    fn expand(self, template: &str, elements: usize) -> String {
        let mut text = String::with_capacity(template.len() + 4 * elements);
        let mut rest = template;
        while let Some((before, token_and_rest)) = rest.split_once('{') {
            text.push_str(before);
            let (token, after) = token_and_rest.split_once('}').expect("a token ends with }");
            text.push_str(&self.token(token, elements));
            rest = after;
        }
        text.push_str(rest);
        match self {
            Self::Postgres => numbered(&text),
            Self::Sqlite | Self::MySql => text,
        }
    }

    fn token(self, token: &str, elements: usize) -> String {
        let text = match (token, self) {
            ("bigint", Self::Sqlite) => "INTEGER",
            ("bigint", Self::Postgres) => "BIGINT",
            ("bigint", Self::MySql) => "SIGNED",
            ("now", Self::Sqlite) => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            ("now", Self::Postgres) => {
                "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
            }
            ("now", Self::MySql) => "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
            ("for_update" | "for_update_of_free", Self::Sqlite) => "",
            ("for_update", Self::Postgres | Self::MySql) => "FOR UPDATE",
            ("for_update_of_free", Self::Postgres | Self::MySql) => "FOR UPDATE SKIP LOCKED",
            ("list", _) => return vec!["?"; elements].join(", "),
            _ => {
                return match (token.split_once(':'), self) {
                    (Some(("if_absent", column)), Self::MySql) => {
                        format!("ON DUPLICATE KEY UPDATE {column} = {column}")
                    }
                    (Some(("if_absent", _)), _) => "ON CONFLICT DO NOTHING".to_owned(),
                    (Some(("rows", columns)), _) => {
                        let marks = match columns.parse() {
                            Ok(columns) => vec!["?"; columns].join(", "),
                            Err(_) => columns.to_owned(),
                        };
                        vec![format!("({marks})"); elements].join(", ")
                    }
                    _ => panic!("{{{token}}} is not a token"),
                };
            }
        };
        text.to_owned()
    }
}

/// Replaces each `?` outside of quotes by `$1`, `$2`, ….
fn numbered(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut count = 0;
    let mut is_quoted = false;
    for c in text.chars() {
        match c {
            '\'' => is_quoted = !is_quoted,
            '?' if !is_quoted => {
                count += 1;
                out.push('$');
                out.push_str(&count.to_string());
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

/// The most elements of a list.
pub(crate) const MAX_LIST: usize = 500;

/// The lengths of lists and rows.
const LENGTHS: [usize; 18] = [
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, MAX_LIST,
];

/// Pads a list to one of the [`LENGTHS`] with copies of its first element. Panics if the list is empty
/// or has more than 500 elements.
pub(crate) fn pad<T: Clone>(list: &mut Vec<T>) {
    pad_with(list, T::clone);
}

/// Pads a list to one of the [`LENGTHS`] with elements that are made from its first one. Panics if the
/// list is empty or has more than 500 elements.
pub(crate) fn pad_with<T>(list: &mut Vec<T>, padding: impl Fn(&T) -> T) {
    let missing = padded_length(list.len()) - list.len();
    for _ in 0..missing {
        list.push(padding(&list[0]));
    }
}

/// Divides so many rows into parts with [`LENGTHS`] of at most 128, in their order: for rows that must
/// not be repeated.
pub(crate) fn exact_parts(mut rows: usize) -> Vec<usize> {
    let mut parts = Vec::new();
    while rows > 0 {
        let at = LENGTHS.partition_point(|length| *length <= rows.min(128));
        let part = LENGTHS[at - 1];
        parts.push(part);
        rows -= part;
    }
    parts
}

/// The shortest of the [`LENGTHS`] for this many elements.
fn padded_length(elements: usize) -> usize {
    let at = LENGTHS.partition_point(|length| *length < elements);
    let longest = LENGTHS.get(at).copied();
    longest.expect("a list has at most 500 elements")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_for_postgres_only_and_not_in_quotes() {
        let template = "SELECT '?' WHERE a = ? AND b = ?";
        assert_eq!(
            Dialect::Postgres.text(template),
            "SELECT '?' WHERE a = $1 AND b = $2"
        );
        assert_eq!(Dialect::Sqlite.text(template), template);
        assert_eq!(Dialect::MySql.text(template), template);
    }

    #[test]
    fn tokens_become_the_words_of_each_database() {
        let template = "INSERT INTO t VALUES {rows:2} {if_absent:k}";
        assert_eq!(
            Dialect::Postgres.text_of(template, 2),
            "INSERT INTO t VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING"
        );
        assert_eq!(
            Dialect::MySql.text_of(template, 1),
            "INSERT INTO t VALUES (?, ?) ON DUPLICATE KEY UPDATE k = k"
        );
        assert_eq!(
            Dialect::Sqlite.text_of("SELECT CAST(a AS {bigint}) FROM t WHERE b IN ({list})", 3),
            "SELECT CAST(a AS INTEGER) FROM t WHERE b IN (?, ?, ?)"
        );
    }

    #[test]
    fn lists_have_few_lengths() {
        assert_eq!(padded_length(1), 1);
        assert_eq!(padded_length(5), 6);
        assert_eq!(padded_length(500), 500);
        for elements in 4..=500 {
            let length = padded_length(elements);
            assert!(
                length >= elements && length * 2 <= elements * 3,
                "{elements}"
            );
        }
    }

    #[test]
    fn rows_that_must_not_be_repeated_are_divided() {
        for (rows, parts) in [
            (0, vec![]),
            (1, vec![1]),
            (5, vec![4, 1]),
            (301, vec![128, 128, 32, 12, 1]),
        ] {
            assert_eq!(exact_parts(rows), parts);
        }
    }

    #[test]
    fn a_list_is_padded_with_its_first_element() {
        let mut list = vec![7, 1, 2, 3, 4];
        pad(&mut list);
        assert_eq!(list, [7, 1, 2, 3, 4, 7]);
        pad_with(&mut list, |first| first + 1);
        assert_eq!(list.len(), 6);
        list.push(5);
        pad_with(&mut list, |first| first + 1);
        assert_eq!(list, [7, 1, 2, 3, 4, 7, 5, 8]);
        let (text, list) = Dialect::Sqlite.with_list("({list})", [1, 2, 3, 4, 5]);
        assert_eq!((text, list.len()), ("(?, ?, ?, ?, ?, ?)", 6));
    }
}
