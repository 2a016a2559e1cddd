//! The client in `tests/clients/client/cases.mjs`: each case is a script of its own, at a real node.

use crate::harness::clients::Program;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

const SECRET: &str = "a secret of at least thirty-two bytes";

/// Runs a script to its end.
fn run(script: &str, arguments: &[&str]) {
    let program = Program::node(script, arguments);
    loop {
        let event = program.json();
        match event["event"].as_str().unwrap() {
            "passed" => return,
            "failed" => panic!("{arguments:?}: {}", event["message"].as_str().unwrap()),
            "step" => eprintln!("{script}: {}", event["name"]),
            _ => panic!("{event}"),
        }
    }
}

/// Runs a case at a node that believes anybody.
fn case(name: &str) {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    run("client/cases.mjs", &[name, &node.url("")]);
}

/// Runs a case at a node that wants tokens, with one of ann's.
fn case_with_token(name: &str) {
    let redis = RedisServer::start();
    let node = Node::start_with(&redis.url(), &["--auth", "jwt", "--jwt-secret", SECRET]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args(["token", "--jwt-secret", SECRET, "--ttl", "1h"])
        .args(["--user", "ann", "--room", "lobby=member"])
        .args(["--room", "@*=member"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap();
    run("client/cases.mjs", &[name, &node.url(""), token.trim()]);
}

#[test]
fn a_token_function_that_fails_is_asked_again() {
    case_with_token("token");
}

#[test]
fn each_join_is_a_holder_of_its_own() {
    case("holders");
}

#[test]
fn the_inbox_can_be_joined_by_name_as_well() {
    case_with_token("inbox");
}

#[test]
fn three_hundred_rooms() {
    case("rooms");
}

#[test]
fn rooms_named_by_dots() {
    case("dots");
}

#[test]
fn a_publish_waits_for_a_connection_and_its_time_runs_from_the_first_sending() {
    case("offline");
}

#[test]
fn what_does_not_exist_is_refused_with_what_there_is() {
    case("words");
}
