//! Keys of backend services.

use subtle::ConstantTimeEq;

/// The keys that are accepted.
#[derive(Default)]
pub struct ApiKeys(Vec<String>);

impl ApiKeys {
    /// Those keys.
    #[must_use]
    pub fn new(keys: Vec<String>) -> Self {
        Self(keys)
    }

    /// Whether `key` is one of them. All are compared, each in constant time, so that the time taken tells nothing of them.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        let found = |hit: bool, known: &String| hit | bool::from(known.as_bytes().ct_eq(key.as_bytes()));
        self.0.iter().fold(false, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_keys_are_known() {
        let keys = ApiKeys::new(vec!["first-key".into(), "second-key".into()]);
        assert!(keys.contains("first-key") && keys.contains("second-key"));
        assert!(!keys.contains("first") && !keys.contains("") && !keys.contains("first-key "));
        assert!(!ApiKeys::default().contains(""));
    }
}
