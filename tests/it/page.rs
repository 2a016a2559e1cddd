//! The chat page in a real Chromium, driven by the scripts in `tests/clients/page`, against the real
//! program and a real Redis.

use serde_json::{Value, json};

use crate::harness::clients::Program;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// Runs a script to its end; `on` is called with each event that is no step.
fn run(script: &str, arguments: &[&str], mut on: impl FnMut(&Value, &mut Program)) {
    let mut program = Program::page(script, arguments);
    loop {
        let event = program.json();
        match event["event"].as_str().unwrap() {
            "step" => eprintln!("{script}: {}", event["name"]),
            "passed" => return,
            "failed" => panic!("{script}: {}", event["message"].as_str().unwrap()),
            _ => on(&event, &mut program),
        }
    }
}

/// Runs a script that needs nothing but a node.
fn run_at_a_node(script: &str) {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    run(script, &[&node.url("")], |event, _| panic!("{event}"));
}

#[test]
fn two_people_chat() {
    run_at_a_node("chat");
}

#[test]
fn scrolling_up_loads_history() {
    run_at_a_node("history");
}

#[test]
fn long_rooms_are_held_in_part() {
    run_at_a_node("window");
}

#[test]
fn what_holds_against_one_is_told() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let jwt = Node::start_with(&redis.url(), &["--auth", "jwt", "--jwt-secret", SECRET]);
    let urls = [node.url(""), jwt.url("")];
    let arguments = urls.each_ref().map(String::as_str);
    run("standing", &arguments, |event, _| panic!("{event}"));
}

#[test]
fn what_the_page_tells() {
    let mut redis = RedisServer::start();
    redis.cli(&["XADD", "old harbour", "1-0", "message", "long ago"]);
    let node = Node::start_with(&redis.url(), &["--homepage-rooms", "6"]);
    run("told", &[&node.url("")], |event, program| {
        match event["event"].as_str().unwrap() {
            "trim" => drop(redis.cli(&["XTRIM", "lobby", "MAXLEN", "100"])),
            "away" => redis.kill9(),
            "back" => redis.restart(),
            _ => panic!("{event}"),
        }
        program.say(&json!({"done": true}).to_string());
    });
}

#[test]
fn direct_messages_and_moderation() {
    run_at_a_node("people");
}

#[test]
fn everybody_can_use_it() {
    run_at_a_node("access");
}

#[test]
fn axe_finds_nothing_wrong() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let urls = [node.url(""), node.url("/status")];
    run("axe", &urls.each_ref().map(String::as_str), |event, _| {
        panic!("{event}")
    });
}

#[test]
fn the_keyboard_is_enough() {
    run_at_a_node("keyboard");
}

#[test]
fn roles_say_what_one_may() {
    let redis = RedisServer::start();
    let jwt = ["--auth", "jwt", "--jwt-secret", SECRET];
    let node = Node::start_with(&redis.url(), &jwt);
    let host = mint(&["--user", "hanna", "--name", "Hanna", "--room", "lobby=host"]);
    let member = mint(&["--user", "mo", "--room", "lobby=member"]);
    let viewer = mint(&["--user", "vi", "--room", "lobby=viewer"]);
    let cohost = mint(&["--user", "mo", "--room", "lobby=cohost"]);
    let long = "m".repeat(40);
    let moderator = mint(&["--user", &long, "--room", "lobby=moderator"]);
    let base = node.url("");
    let arguments = [&base, &host, &member, &viewer, &cohost, &moderator];
    run("roles", &arguments.map(String::as_str), |event, _| {
        panic!("{event}")
    });
}

#[test]
fn accounts_come_in_by_the_door() {
    let redis = RedisServer::start();
    let accounts = ["--accounts", "--account-host", "alice"];
    let node = Node::start_with(&redis.url(), &accounts);
    run("accounts", &[&node.url("")], |event, _| panic!("{event}"));
}

#[test]
fn news_is_told_once() {
    run_at_a_node("news");
}

#[test]
fn what_is_unread_is_marked() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let bare = Node::start_with(&redis.url(), &["--homepage-rooms", "0"]);
    let urls = [node.url(""), bare.url("")];
    run(
        "unread",
        &urls.each_ref().map(String::as_str),
        |event, _| panic!("{event}"),
    );
}

#[test]
fn what_is_deleted_meanwhile_is_gone() {
    run_at_a_node("away");
}

#[test]
fn what_is_written_offline_is_kept_and_sent_once() {
    run_at_a_node("outbox");
}

#[test]
fn a_page_that_is_refused_is_told_so() {
    run_at_a_node("origin");
}

#[test]
fn nothing_overtakes_what_came_too_fast() {
    let redis = RedisServer::start();
    let jwt = ["--auth", "jwt", "--jwt-secret", SECRET];
    let rates = ["--rate", "member=3/15s"];
    let node = Node::start_with(&redis.url(), &[&jwt[..], &rates].concat());
    let host = mint(&["--user", "hanna", "--room", "lobby=host"]);
    let member = mint(&["--user", "mo", "--room", "lobby=member"]);
    let base = node.url("");
    run("rates", &[&base, &host, &member], |event, _| {
        panic!("{event}")
    });
}

const SECRET: &str = "a secret of at least thirty-two bytes";

/// A token of the program's own making.
fn mint(arguments: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args(["token", "--jwt-secret", SECRET, "--ttl", "1h"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap();
    token.trim().to_owned()
}

#[test]
fn the_node_under_the_page_is_killed() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis.url());
    let other = Node::start(&redis.url());
    let (base, second) = (node.url(""), other.url(""));
    run("fault", &[&base, &second], |event, program| {
        match event["event"].as_str().unwrap() {
            "kill" => node.kill9(),
            "restart" => node.restart(),
            "delete" => {
                let text = event["text"].as_str().unwrap();
                let entries = redis.entries("lobby").into_iter();
                let mut meant = entries.filter(|(_, payload)| payload == text.as_bytes());
                let act = json!({"act": "delete", "id": meant.next().unwrap().0.to_string()});
                let kind = [("content-type", "application/json")];
                let path = "/rooms/lobby/moderation?user=mod";
                let answer = other.request("POST", path, &kind, act.to_string());
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            "trim" => {
                node.kill9();
                other.publish("lobby", "missed");
                other.publish("lobby", "after the gap");
                redis.cli(&["XTRIM", "lobby", "MAXLEN", "1"]);
                node.restart();
            }
            _ => panic!("{event}"),
        }
        program.say(&json!({"done": true}).to_string());
    });
}
