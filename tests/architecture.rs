//! The structural rules of ARCHITECTURE.md, as tests.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each part, and the parts it may use beside itself. `app`, `lib` and `main` may use all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("telemetry", &[]),
    ("auth", &["domain"]),
    ("server", &["domain", "telemetry"]),
    ("backplane", &["domain"]),
    ("store", &["domain"]),
    ("archive", &["domain", "backplane", "store", "telemetry"]),
    ("outbox", &["domain", "backplane", "store", "telemetry"]),
    ("mail", &["domain"]),
    ("delivery", &["domain", "backplane", "telemetry"]),
    (
        "features",
        &[
            "domain",
            "backplane",
            "store",
            "outbox",
            "mail",
            "delivery",
            "auth",
            "telemetry",
        ],
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
            "store",
            "archive",
            "mail",
            "features",
            "gateway",
            "auth",
            "server",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "domain",
            "app",
            "config",
            "store",
            "archive",
            "telemetry",
            "auth",
        ],
    ),
];

/// Parts without restrictions on what they use.
const UNRESTRICTED: &[&str] = &["app", "lib", "main"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_below(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path
                .file_name()
                .is_some_and(|name| name != "target" && name != "node_modules")
            {
                files_below(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// A file of `src/`, without its tests and comments.
struct Source {
    part: String,
    path: PathBuf,
    code: String,
}

impl Source {
    /// The path within the repository, with `/`.
    fn name(&self) -> String {
        self.path
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }
}

/// Every file of `src/` except those that hold only tests.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    files_below(&src, "rs", &mut paths);
    assert!(paths.len() > 40, "the sources were not found");
    let mut sources = Vec::new();
    for path in paths {
        let within = path.strip_prefix(&src).unwrap();
        let is_test = within.components().any(|part| {
            let name = part.as_os_str().to_str().unwrap();
            matches!(name.trim_end_matches(".rs"), "tests" | "fuzz")
        });
        if is_test {
            continue;
        }
        let first = within
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let before_tests = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let lines: Vec<&str> = before_tests
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        sources.push(Source {
            part: first.trim_end_matches(".rs").to_owned(),
            code: lines.join("\n"),
            path,
        });
    }
    sources
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[test]
fn parts_use_only_the_parts_that_the_table_allows() {
    let table: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut faults = Vec::new();
    for source in sources() {
        let Some(allowed) = table.get(source.part.as_str()) else {
            assert!(
                UNRESTRICTED.contains(&source.part.as_str()),
                "{} is not in the table",
                source.part
            );
            continue;
        };
        for rest in source.code.split("crate::").skip(1) {
            let used = words(rest).next().unwrap_or_default();
            if used != source.part && !allowed.contains(&used) {
                faults.push(format!("{} uses {used}", source.name()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_table_in_the_document_is_the_table_of_this_test() {
    let document = read("ARCHITECTURE.md");
    let section = document
        .split("## Dependencies between the parts")
        .nth(1)
        .unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut documented = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let part = cells[0].trim_matches('`').to_owned();
        let used: BTreeSet<&str> = words(cells[2]).filter(|word| !word.is_empty()).collect();
        documented.insert(part, used);
    }
    let mut expected = BTreeMap::new();
    for (part, used) in MAY_USE {
        expected.insert(
            (*part).to_owned(),
            used.iter().copied().collect::<BTreeSet<_>>(),
        );
    }
    expected.insert("app".to_owned(), BTreeSet::from(["all"]));
    assert_eq!(documented, expected);
}

#[test]
fn there_is_no_sql_outside_the_store() {
    let statements = [
        "SELECT ",
        "INSERT ",
        "UPDATE ",
        "DELETE FROM",
        "CREATE TABLE",
        "ALTER TABLE",
    ];
    let mut is_found = false;
    for source in sources() {
        let has_sql = statements.iter().any(|words| source.code.contains(words))
            || words(&source.code).any(|word| word == "sqlx");
        is_found |= has_sql;
        assert!(
            !has_sql || source.part == "store",
            "{} has SQL",
            source.name()
        );
    }
    assert!(is_found, "the statements of the store were not found");
}

#[test]
fn the_domain_has_no_io_and_no_async_and_no_serialisation() {
    for source in sources().iter().filter(|source| source.part == "domain") {
        for word in ["tokio", "async", "serde", "serde_json"] {
            let is_used = words(&source.code).any(|found| found == word);
            assert!(!is_used, "{} uses {word}", source.name());
        }
    }
}

#[test]
fn wire_shapes_stay_in_the_gateway() {
    for source in sources() {
        if matches!(source.part.as_str(), "delivery" | "features") {
            let knows_json = words(&source.code).any(|word| word.starts_with("serde"));
            assert!(!knows_json, "{} knows JSON", source.name());
        }
    }
}

#[test]
fn anyhow_is_used_only_where_errors_end_on_a_terminal() {
    for source in sources() {
        let is_allowed = matches!(source.part.as_str(), "main" | "app" | "cli");
        let uses_anyhow = words(&source.code).any(|word| word == "anyhow");
        assert!(is_allowed || !uses_anyhow, "{} uses anyhow", source.name());
    }
    let engine = read("crates/engineioxide/Cargo.toml");
    assert!(
        !engine.contains("anyhow"),
        "crates/engineioxide depends on anyhow"
    );
}

#[test]
fn only_the_policy_makes_permits() {
    for source in sources() {
        let makes_one = source.code.contains("Permit {");
        assert!(
            !makes_one || source.name() == "src/domain/policy.rs",
            "{}",
            source.name()
        );
    }
}

#[test]
fn room_names_are_compared_only_where_kinds_are_decided() {
    for source in sources() {
        let names_it = source.code.contains("\"broadcast\"");
        assert!(
            !names_it || source.name() == "src/domain/room.rs",
            "{}",
            source.name()
        );
    }
    let mut scripts = Vec::new();
    files_below(&root().join("src/backplane/redis/lua"), "lua", &mut scripts);
    assert!(!scripts.is_empty(), "the scripts were not found");
    for script in scripts {
        // "broadcast" in base64url.
        let names_it = std::fs::read_to_string(&script)
            .unwrap()
            .contains("YnJvYWRjYXN0");
        assert!(!names_it, "{} compares a room's name", script.display());
    }
}

#[test]
fn no_lock_guard_is_returned_to_another_file() {
    for source in sources() {
        for line in source
            .code
            .lines()
            .filter(|line| line.trim_start().starts_with("pub"))
        {
            assert!(!line.contains("Guard"), "{}: {line}", source.name());
        }
    }
}

#[test]
fn socketioxide_is_not_used_to_emit_or_for_rooms() {
    for source in sources()
        .iter()
        .filter(|source| source.name().starts_with("src/gateway/socketio"))
    {
        for call in [
            ".emit(",
            ".emit_with_ack(",
            ".broadcast()",
            ".within(",
            "socket.join(",
            "socket.leave(",
        ] {
            assert!(
                !source.code.contains(call),
                "{} calls {call}",
                source.name()
            );
        }
    }
}

#[test]
fn every_file_begins_with_its_purpose() {
    let mut files = Vec::new();
    for directory in ["src", "tests", "crates", "benches"] {
        files_below(&root().join(directory), "rs", &mut files);
    }
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} has no module documentation",
            path.display()
        );
    }
}

#[test]
fn every_path_in_the_architecture_document_exists() {
    let document = read("ARCHITECTURE.md");
    let mut missing = Vec::new();
    let quoted = document
        .split("```")
        .step_by(2)
        .flat_map(|text| text.split('`').skip(1).step_by(2));
    for name in quoted {
        let is_path = name.ends_with(".rs") || name.ends_with(".lua") || name.ends_with('/');
        if !is_path || name.contains('*') || name.contains('<') {
            continue;
        }
        let exists = [
            "",
            "src/",
            "src/backplane/",
            "src/backplane/redis/lua/",
            "src/delivery/",
            "src/gateway/",
            "src/gateway/http/routes/",
            "src/gateway/websocket/",
            "crates/engineioxide/src/",
        ]
        .iter()
        .any(|base| root().join(base).join(name).exists());
        if !exists && !is_file_anywhere(name) {
            missing.push(name.to_owned());
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Whether a bare file name such as `outlet.rs`, which stands for several files, exists in `src/`.
fn is_file_anywhere(name: &str) -> bool {
    let mut files = Vec::new();
    for extension in ["rs", "lua"] {
        files_below(&root().join("src"), extension, &mut files);
    }
    !name.contains('/')
        && files
            .iter()
            .any(|path| path.file_name().is_some_and(|found| found == name))
}

#[test]
fn every_rule_in_the_architecture_document_names_the_test_that_holds_it() {
    let document = read("ARCHITECTURE.md");
    let section = document
        .split("## Rules that must stay true")
        .nth(1)
        .unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut code = read("Cargo.toml");
    for directory in ["src", "tests", "crates"] {
        let mut files = Vec::new();
        files_below(&root().join(directory), "rs", &mut files);
        for path in files {
            code.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    let rules: Vec<&str> = section.split("\n- ").skip(1).collect();
    assert!(rules.len() > 30, "the rules were not found");
    for rule in rules {
        let rule = rule.split("\n\n").next().unwrap();
        let rule = rule.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some((_, holders)) = rule.rsplit_once("Held by ") else {
            panic!("no test holds: {rule}");
        };
        for name in holders.split('`').skip(1).step_by(2) {
            let is_test = code.contains(&format!("fn {name}("));
            let is_lint = code.contains(&format!("{name} = \""));
            let is_scenario = code.contains(&format!("\"{name}\""));
            assert!(
                is_test || is_lint || is_scenario || root().join(name).exists(),
                "there is no test, lint or scenario {name}, which should hold: {rule}"
            );
        }
    }
}

#[test]
fn there_is_one_crypto_provider() {
    let lock = read("Cargo.lock");
    assert!(lock.contains("name = \"ring\""));
    // With a second provider rustls would not know which to use, and panic where none is named.
    assert!(
        !lock.contains("name = \"aws-lc-rs\""),
        "a dependency brings a second one"
    );
}
