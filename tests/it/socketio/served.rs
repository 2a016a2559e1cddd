//! The published client, which a node serves where tutorials load it from.

use std::fs;
use std::path::Path;

use crate::harness::clients::Program;

#[test]
fn the_copies_are_those_of_the_package() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = root.join("tests/clients/node_modules/socket.io-client");
    for (copy, original) in [
        ("socket.io.min.js", "dist/socket.io.min.js"),
        ("socket.io.esm.min.js", "dist/socket.io.esm.min.js"),
        ("LICENSE", "LICENSE"),
    ] {
        let copied = fs::read(root.join("vendor/socket.io-client").join(copy)).unwrap();
        assert!(
            copied == fs::read(package.join(original)).unwrap(),
            "{copy}"
        );
    }
}

#[test]
fn a_tutorials_page_loads_it_from_the_node() {
    let (_redis, [node]) = super::start(&[]);
    let page = Program::node("page/tutorial.mjs", &[&node.url("")]);
    loop {
        let event = page.json();
        match event["event"].as_str().unwrap() {
            "step" | "alive" => eprintln!("{event}"),
            "passed" => return,
            _ => panic!("{event}"),
        }
    }
}

#[test]
fn its_files_have_tags_and_others_are_not_there() {
    let (_redis, [node]) = super::start(&[]);
    let file = node.get("/socket.io/socket.io.js");
    assert_eq!(file.status, 200);
    let header = |name: &str| file.header(name).unwrap_or_default().to_owned();
    assert!(
        header("content-type").starts_with("text/javascript"),
        "{file:?}"
    );
    let tag = header("etag");
    let again = node.request(
        "GET",
        "/socket.io/socket.io.js",
        &[("if-none-match", &tag)],
        "",
    );
    assert_eq!(again.status, 304);
    assert_eq!(node.get("/socket.io/socket.io.min.js.map").status, 404);
}
