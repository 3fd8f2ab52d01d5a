//! Small numbers for the strings of a history, so that places and epochs are compared and hashed cheaply.

use std::collections::HashMap;

/// A string of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name(u32);

#[derive(Default)]
pub(super) struct Names<'a> {
    numbers: HashMap<&'a str, Name>,
    texts: Vec<&'a str>,
}

impl<'a> Names<'a> {
    pub fn name(&mut self, text: &'a str) -> Name {
        *self.numbers.entry(text).or_insert_with(|| {
            self.texts.push(text);
            Name(
                u32::try_from(self.texts.len() - 1).expect("a history has fewer than 2^32 strings"),
            )
        })
    }

    pub fn text(&self, name: Name) -> &'a str {
        self.texts[name.0 as usize]
    }
}
