//! The table of rooms in ARCHITECTURE.md, enforced: which part of the code may use which.

// A test that can't go on should stop, and say where.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Part, and the parts it may use beside itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("telemetry", &[]),
    ("auth", &["domain"]),
    ("server", &["domain", "telemetry"]),
    ("backplane", &["domain"]),
    ("delivery", &["domain", "backplane", "telemetry"]),
    (
        "features",
        &["domain", "backplane", "delivery", "telemetry"],
    ),
    (
        "gateway",
        &[
            "domain",
            "features",
            "delivery",
            "auth",
            "server",
            "telemetry",
        ],
    ),
    (
        "config",
        &[
            "domain",
            "backplane",
            "gateway",
            "auth",
            "server",
            "telemetry",
        ],
    ),
    ("cli", &["app", "config", "telemetry", "auth"]),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The part that a file belongs to, and its code without tests and comments.
fn parts() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 40, "the sources were not found");
    let part = |path: PathBuf| {
        let within = path.strip_prefix(&root).unwrap();
        let part = within
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let code = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        (part, path, code)
    };
    let is_test = |path: &PathBuf| {
        path.file_stem()
            .is_some_and(|stem| stem == "tests" || stem == "fuzz")
    };
    files
        .into_iter()
        .filter(|path| !is_test(path))
        .map(part)
        .collect()
}

#[test]
fn no_part_uses_what_it_may_not() {
    let table: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut faults = Vec::new();
    for (part, path, code) in parts() {
        let Some(allowed) = table.get(part.as_str()) else {
            assert!(
                ["lib", "main", "app"].contains(&part.as_str()),
                "{part} is not in the table"
            );
            continue;
        };
        for used in code.split("crate::").skip(1) {
            let used: String = used
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if used != part && !allowed.contains(&used.as_str()) {
                faults.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_domain_does_nothing_but_think() {
    for (part, path, code) in parts() {
        for word in ["tokio", "async ", "serde"] {
            assert!(
                part != "domain" || !code.contains(word),
                "{} holds {word}",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "tests", "crates"] {
        sources(&root.join(directory), &mut files);
    }
    for path in files
        .iter()
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
    {
        assert!(
            std::fs::read_to_string(path).unwrap().starts_with("//!"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn there_is_one_crypto_provider() {
    let lock =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"ring\""));
    // Beside ring, rustls would not know which to take, and panic where none is named.
    assert!(
        !lock.contains("name = \"aws-lc-rs\""),
        "a dependency brings a second one"
    );
}
