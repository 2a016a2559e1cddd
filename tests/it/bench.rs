//! `tailcast bench` with several protocols: the table's rows, nothing lost, and nothing left
//! behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use crate::harness::until;

/// Few sockets and a second: what is measured here means nothing, but that it's all there does.
const SMALL: [&str; 6] = ["--sockets", "12", "--warm-up", "0.2", "--parallel", "12"];

/// The program, with PATH to find redis-server, and what it puts into the temporary folder here.
fn bench(arguments: &[&str], folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailcast"));
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("TMPDIR", folder.path())
        // Not for the nodes that it starts.
        .env("TAILCAST_MAX_SOCKETS", "1")
        .arg("bench")
        .args(SMALL)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [arguments, &["--duration", "1"]].concat();
    let Output {
        status,
        stdout,
        stderr,
    } = bench(&arguments, &folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(status.success(), "{status}: {stderr}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "left over");
    (stdout, stderr)
}

/// Cells of the lines of a Markdown table, without the one below the head.
fn cells(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().filter(|line| line.starts_with('|'));
    let cells = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    let mut cells: Vec<Vec<&str>> = cells.collect();
    cells.remove(1);
    cells
}

#[test]
fn every_protocol_has_a_row() {
    let (out, _) = run(&["--proto", "all", "--json"]);
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&out["beside"], &out["fresh_nodes"]),
        (&"raw".into(), &true.into())
    );
    let rows = out["protocols"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["proto"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["raw", "json", "sse", "socketio", "stomp", "sockjs"]);
    for row in rows {
        for figure in ["bytes_per_idle_socket", "cpu_us_per_delivery", "p99_ms"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure}: {row}");
        }
        for loss in ["lost", "duplicates", "reordered", "disconnected"] {
            assert_eq!(row["losses"][loss], 0, "{row}");
        }
        let runs = row["runs"].as_array().unwrap();
        let modes: Vec<&str> = runs
            .iter()
            .map(|run| run["mode"].as_str().unwrap())
            .collect();
        assert_eq!(modes, ["idle", "rate"]);
        // Each entry reached each socket.
        assert_eq!(runs[0]["deliveries"], 60, "{row}");
        assert!(runs[1]["deliveries"].as_u64().unwrap() >= 12, "{row}");
    }
}

#[test]
fn a_table_beside_raw() {
    let redis = RedisServer::start();
    let (out, told) = run(&["--proto", "raw,sse", "--redis", &redis.url()]);
    assert!(told.contains("raw: memory"), "{told}");
    let table = cells(&out);
    assert_eq!(table.len(), 3, "{out}");
    let head = [
        "protocol",
        "memory per idle socket",
        "beside raw",
        "CPU per delivery",
        "beside raw",
        "p99",
        "beside raw",
        "lost, doubled, reordered, cut",
    ];
    assert_eq!(table[0], head);
    for (row, name) in table[1..].iter().zip(["raw", "sse"]) {
        assert_eq!((row[0], row[7]), (name, "0, 0, 0, 0"), "{out}");
        assert!(row[1].ends_with(" KB") && row[3].ends_with(" µs"), "{out}");
    }
    assert_eq!(
        (table[1][2], table[1][4], table[1][6]),
        ("1.00", "1.00", "1.00")
    );
    let stats = redis.cli(&["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_xadd"), "{stats}");
    assert_eq!(redis.cli(&["EXISTS", "bench-0"]), "0");
}

#[test]
fn only_rooms_that_were_there_before_stay() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    redis.cli(&["XADD", "bench-1", "*", "message", "mine"]);
    let arguments = [
        "--rooms",
        "3",
        "--url",
        &node.ws_url(""),
        "--redis",
        &redis.url(),
    ];
    let (out, told) = run(&arguments);
    assert!(out.contains("12 sockets in 3 room(s)"), "{out}");
    assert!(told.contains("measuring: for 1.2 s"), "{told}");
    let exists = |room: &str| redis.cli(&["EXISTS", room]);
    assert_eq!(
        ["bench-0", "bench-1", "bench-2"].map(exists),
        ["0", "1", "0"]
    );
}

#[test]
fn one_server_for_all() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let (url, pid) = (node.ws_url(""), node.pid().to_string());
    let arguments = [
        "--proto",
        "raw,json",
        "--saturate",
        "--url",
        &url,
        "--redis",
    ];
    let (out, _) = run(&[&arguments[..], &[&redis.url(), "--pid", &pid]].concat());
    let table = cells(&out);
    assert!(out.contains("all on one server"), "{out}");
    assert_eq!(
        (table[0][1], table[0][7]),
        ("memory per idle socket", "saturated, deliveries/s")
    );
    // What the first one freed would be taken for thrift of the second.
    assert_eq!((table[1][2], table[2][1], table[2][2]), ("1.00", "-", "-"));
    assert_eq!((table[1][9], table[2][9]), ("0, 0, 0, 0", "0, 0, 0, 0"));
}

/// The processes that this one started.
fn children(of: &Child) -> Vec<i32> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        let (before, after) = stat.rsplit_once(')').unwrap();
        if after.split_whitespace().nth(1) == Some(&of.id().to_string()) {
            found.push(before.split(' ').next().unwrap().parse().unwrap());
        }
    }
    found
}

#[tokio::test]
async fn nothing_is_left_when_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = bench(&["--proto", "raw,json", "--duration", "60"], &folder)
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stderr.take().unwrap());
    let mut told = told.lines().map_while(Result::ok);
    assert!(told.any(|line| line == "raw: load"));
    until("a Redis and a node run", || children(&child).len() == 2).await;
    let started = children(&child);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(told.last().as_deref(), Some("tailcast: stopped"));
    for process in started {
        assert!(
            !fs::exists(format!("/proc/{process}")).unwrap(),
            "{process}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "left over");
}
