//! The settings of the store.

use std::path::PathBuf;

use super::sql::DatabaseUrl;

/// How to use the database.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// Where it is.
    pub url: DatabaseUrl,
    /// The directory of the database file, made at the start when it is missing. `None` when the
    /// file's path was configured: then its directory must exist.
    pub data_dir: Option<PathBuf>,
    /// The connections of this node's pool. The writer of the archive has one more.
    pub pool: u32,
    /// Whether a node applies pending migrations when it starts.
    pub migrates: bool,
}

impl DatabaseSettings {
    /// The default number of connections of a node's pool.
    pub const DEFAULT_POOL: u32 = 8;

    /// The default settings of a database.
    #[must_use]
    pub fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            data_dir: None,
            pool: Self::DEFAULT_POOL,
            migrates: true,
        }
    }
}

impl From<&DatabaseSettings> for super::sql::Settings {
    fn from(settings: &DatabaseSettings) -> Self {
        Self {
            connections: usize::try_from(settings.pool).unwrap_or(usize::MAX),
            ..Self::new(settings.url.clone())
        }
    }
}
