//! The package of `clients/js` as its users' tools see it: its types, and what npm would publish.

use std::path::PathBuf;
use std::process::Command;

/// Runs a program of `tests/clients/node_modules` there; it must find nothing wrong.
fn check(program: &str, arguments: &[&str]) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let output = Command::new("node")
        .current_dir(&dir)
        .arg(dir.join("node_modules").join(program))
        .args(arguments)
        // To pack a folder needs no registry.
        .env("npm_config_offline", "true")
        .output()
        .unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    assert!(output.status.success(), "{program}\n{stdout}\n{stderr}");
}

#[test]
fn types_take_what_is_right_and_refuse_what_is_wrong() {
    check("typescript/bin/tsc", &["-p", "client/tsconfig.json"]);
}

#[test]
fn types_are_found_however_the_package_is_imported() {
    let arguments = ["--pack", "../../clients/js", "--profile", "esm-only"];
    check("@arethetypeswrong/cli/dist/index.js", &arguments);
}

#[test]
fn the_package_is_as_npm_wants_it() {
    check("publint/src/cli.js", &["--strict", "../../clients/js"]);
}
