//! The import rules: who may know whom. A part that another one names is one that it can't be
//! read, tested or replaced without.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file.
const LINES_MAX: usize = 600;

/// What nobody leaves in.
const FORBIDDEN: [&str; 3] = ["todo!(", "dbg!(", "unimplemented!("];

/// Which of our modules each may import. `metrics` and `drain` are leaves.
const RULES: &[(&str, &[&str])] = &[
    ("metrics", &[]),
    ("drain", &[]),
    ("relay", &["relay"]),
    ("auth", &["auth", "relay"]),
    ("people", &["people", "auth", "relay"]),
    ("accounts", &["accounts", "auth", "relay"]),
    ("store", &["store", "accounts", "auth", "people", "relay"]),
    ("frontend/record", &["frontend", "relay"]),
    (
        "frontend",
        &[
            "frontend", "accounts", "people", "auth", "relay", "metrics", "drain",
        ],
    ),
    (
        "api",
        &[
            "api", "frontend", "accounts", "people", "auth", "relay", "metrics", "drain",
        ],
    ),
    (
        "ops",
        &["ops", "frontend", "people", "relay", "metrics", "drain"],
    ),
    ("web", &["web", "frontend"]),
    ("bench", &["bench", "relay", "frontend", "store"]),
];

/// The parts of `frontend` that know nothing of each other.
const FRONT_ENDS: [&str; 5] = ["ws", "sse", "socketio", "sockjs", "stomp"];

/// What each of those may import, beside itself.
const OF_FRONT_ENDS: [&str; 6] = ["frontend", "people", "auth", "relay", "metrics", "drain"];

/// The only ones that know the configuration.
const KNOW_CONFIG: [&str; 4] = ["config", "cli", "node", "main"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each source file: its module's path with slashes, and its text without tests.
fn modules() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    let is_test = |path: &PathBuf| path.ends_with("tests.rs");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().with_extension("");
        let text = fs::read_to_string(&path).unwrap();
        let tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
        (name.display().to_string(), text[..tests].to_owned())
    };
    files
        .into_iter()
        .filter(|path| !is_test(path))
        .map(read)
        .collect()
}

/// The parts of the crate that a text names, as `relay` or `frontend::ws`; comments name anybody.
fn imports(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').collect(),
            None => vec![rest],
        };
        for name in names {
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let path = name.trim_start();
            let path = path.split(|c| !is_path(c)).next().unwrap();
            let mut segments = path.split("::").filter(|segment| !segment.is_empty());
            let Some(first) = segments.next() else {
                continue;
            };
            let second = segments.next().filter(|_| first == "frontend");
            let second = second.filter(|second| FRONT_ENDS.contains(second));
            found.push(match second {
                Some(second) => format!("{first}::{second}"),
                None => first.to_owned(),
            });
        }
    }
    found
}

fn is_under(module: &str, part: &str) -> bool {
    module
        .strip_prefix(part)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn may_import(module: &str, import: &str) -> bool {
    let mut front_ends = FRONT_ENDS.iter();
    if let Some(own) = front_ends.find(|name| is_under(module, &format!("frontend/{name}"))) {
        return OF_FRONT_ENDS.contains(&import) || import == format!("frontend::{own}");
    }
    let rule = RULES.iter().find(|(part, _)| is_under(module, part));
    rule.is_none_or(|(_, allowed)| allowed.contains(&import))
}

#[test]
fn parts_know_only_whom_they_may() {
    let mut broken = Vec::new();
    for (module, text) in modules() {
        let knows_config = KNOW_CONFIG.iter().any(|part| is_under(&module, part));
        for import in imports(&text) {
            let allowed = may_import(&module, &import);
            if !allowed || (import == "config" && !knows_config) {
                broken.push(format!("{module} imports {import}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn files_are_short_and_finished() {
    let mut broken = Vec::new();
    for (module, text) in modules() {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            broken.push(format!("{module} has {lines} lines"));
        }
        for word in FORBIDDEN.iter().filter(|word| text.contains(**word)) {
            broken.push(format!("{module} has {word}"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn front_ends_are_kept_apart() {
    let check = |module: &str, import: &str, want: bool| {
        assert_eq!(may_import(module, import), want, "{module} {import}");
    };
    check("frontend/stomp/talk", "frontend::stomp", true);
    check("frontend/stomp/talk", "frontend::ws", false);
    check("frontend/stomp", "relay", true);
    check("frontend/ws", "store", false);
    check("frontend/carrier", "frontend::ws", false);
    check("relay/log", "people", false);
}

#[test]
fn imports_are_found() {
    let check = |text: &str, want: &[&str]| assert_eq!(imports(text), want, "{text}");
    check("use crate::relay::log::Log;", &["relay"]);
    check("use crate::frontend::ws::frame;", &["frontend::ws"]);
    check("use crate::{relay::log, store};", &["relay", "store"]);
    check("crate::metrics::count()", &["metrics"]);
    check("// crate::config says", &[]);
}
