//! The archive behind the rooms' logs, as Redis knows it. All nodes of a deployment must use the same
//! one: a node with another archive, or without one, would number entries that the archive never gets.

use fred::bytes_utils::Str;
use fred::types::Value;
use fred::util::sha1_hash;

use super::StartError;
use super::keys::Keys;
use crate::backplane::RestoreSource;

/// The archive behind the logs of this node.
pub(super) struct Archive {
    /// The archive's id; empty without an archive.
    id: String,
    /// A short name of the id, which each room's numbering contains; empty without an archive.
    name: Str,
}

impl Archive {
    pub(super) fn of(source: Option<&dyn RestoreSource>) -> Self {
        let Some(source) = source else {
            return Self {
                id: String::new(),
                name: Str::from_static(""),
            };
        };
        let id = source.archive_id();
        Self {
            name: sha1_hash(&id)[..8].to_owned().into(),
            id,
        }
    }

    /// The archive's id; empty without an archive.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The name as an argument of a script.
    pub(super) fn name(&self) -> Value {
        Value::String(self.name.clone())
    }

    pub(super) fn exists(&self) -> bool {
        !self.id.is_empty()
    }

    /// The reason not to use data whose logs have the archive with the id `found` behind them.
    pub(super) fn conflict(&self, found: &str, keys: &Keys) -> StartError {
        let own = if self.exists() {
            format!("archives them in database {}", self.id)
        } else {
            "has no archive".to_owned()
        };
        StartError::Archive {
            found: found.to_owned(),
            own,
            key: keys.archive(),
        }
    }
}
