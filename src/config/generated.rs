//! Committed files that are generated from the code: tests compare them, and rewrite them with
//! `UPDATE_GENERATED=1`.

use std::path::PathBuf;

/// The path of a file of the repository.
pub(crate) fn repository_file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Fails unless the file at `path`, relative to the repository, holds exactly this text. With
/// `UPDATE_GENERATED=1` in the environment it writes the file instead.
pub(crate) fn assert_current(path: &str, text: &str) {
    let file = repository_file(path);
    if std::env::var_os("UPDATE_GENERATED").is_some_and(|value| value == "1") {
        std::fs::write(&file, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    if committed != text {
        let line = text
            .lines()
            .zip(committed.lines().chain(std::iter::repeat("")))
            .find(|(generated, committed)| generated != committed);
        panic!(
            "{path} is not what the code generates; UPDATE_GENERATED=1 rewrites it. First \
             difference (generated, committed): {line:#?}"
        );
    }
}
