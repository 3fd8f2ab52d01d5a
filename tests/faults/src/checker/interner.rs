//! Interned strings: small numbers for the strings of a history, so that comparing and hashing
//! positions and epochs is cheap.

use std::collections::HashMap;

/// The number of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Symbol(u32);

#[derive(Default)]
pub(super) struct Interner<'a> {
    symbols: HashMap<&'a str, Symbol>,
    texts: Vec<&'a str>,
}

impl<'a> Interner<'a> {
    pub fn intern(&mut self, text: &'a str) -> Symbol {
        *self.symbols.entry(text).or_insert_with(|| {
            self.texts.push(text);
            let number = u32::try_from(self.texts.len() - 1);
            Symbol(number.expect("a history has fewer than 2^32 strings"))
        })
    }

    pub fn text(&self, symbol: Symbol) -> &'a str {
        self.texts[symbol.0 as usize]
    }
}
