//! The published clients of every protocol, in one process: starting one takes longer than many a
//! fault. What they see is recorded as that of all other clients.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::fleet::{Client, Kind};

/// What `tests/clients/faults/guests.mjs` has.
pub(super) const KINDS: [&str; 7] = [
    "socket.io websocket",
    "socket.io polling",
    "socket.io upgrade",
    "stomp",
    "stomp sockjs websocket",
    "stomp sockjs xhr-streaming",
    "js",
];

/// A running process with one client of each kind; killed when dropped.
pub(super) struct Guests {
    child: Child,
    stdin: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
}

fn line(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    ports.join(",")
}

impl Guests {
    /// Starts them, on the way into a room; and their records.
    pub(super) fn start(room: &str, ports: &[u16]) -> (Self, Vec<Arc<Client>>) {
        let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
        let mut child = Command::new("node")
            .current_dir(clients)
            .args(["faults/guests.mjs", room, &line(ports)])
            .args(KINDS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let clients = KINDS.map(|kind| Client::new(kind.to_owned(), Kind::Guest));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let told = clients.clone();
        let reader = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let (event, rest) = line.split_once('\t').unwrap();
                let (number, rest) = rest.split_once('\t').unwrap();
                told[number.parse::<usize>().unwrap()].hear(event, rest);
            }
        });
        let guests = Guests {
            stdin: child.stdin.take(),
            child,
            reader: Some(reader),
        };
        (guests, clients.to_vec())
    }

    /// The nodes are others.
    pub(super) fn know(&mut self, ports: &[u16]) {
        let mut stdin = self.stdin.as_ref().unwrap();
        writeln!(stdin, "{}", line(ports)).unwrap();
    }

    /// Stops them: they read nothing, and say nothing.
    pub(super) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub(super) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends them; all they saw is recorded then.
    pub(super) fn end(&mut self) {
        self.stdin = None;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the guests ended with {status}");
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
