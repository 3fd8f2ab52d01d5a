//! Keeps every room's log in the store; log and archive read as one.

mod settings;

pub use settings::ArchiveSettings;
