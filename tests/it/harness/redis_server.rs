//! A real redis-server of the test's own: on a port the system chose, in a directory that goes
//! with it, killed when dropped.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use tailcast::relay::entry::EntryId;
use tempfile::TempDir;

use super::PATIENCE;

/// A running redis-server with an append-only file.
pub(crate) struct RedisServer {
    dir: TempDir,
    arguments: Vec<String>,
    port: u16,
    /// `None` while it's killed.
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments, such as `["--maxmemory", "5mb"]`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let mut server = RedisServer {
            dir: tempfile::tempdir().unwrap(),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            port: 0,
            child: None,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Between here and its start somebody else may get the port; then another one will do.
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            server.port = listener.local_addr().unwrap().port();
            drop(listener);
            if server.try_start(deadline) {
                return server;
            }
        }
    }

    /// `redis://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port; a restart keeps it.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Its directory, where the append-only file is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is killed").id()
    }

    /// Ends it as a crash does. What it had answered is in its append-only file.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it unless that is done already, starts it on the same port and data, and waits until
    /// it has loaded them.
    pub(crate) fn restart(&mut self) {
        self.kill9();
        let deadline = Instant::now() + PATIENCE;
        // A client's attempt to connect may have the port itself for a moment.
        while !self.try_start(deadline) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it: connections stay, nothing is answered.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// What `redis-cli` prints, without the last line break.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("redis-cli is installed");
        assert!(
            output.status.success(),
            "redis-cli {arguments:?}: {output:?}"
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// A stream's entries, for the checker: XRANGE without anything of ours in between. The
    /// payload is the field `message`, else the first value.
    pub(crate) fn entries(&self, key: &str) -> Vec<(EntryId, Bytes)> {
        type Fields = Vec<Vec<u8>>;
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let reply: Vec<(String, Fields)> = redis::cmd("XRANGE")
            .arg(key)
            .arg("-")
            .arg("+")
            .query(&mut connection)
            .unwrap();
        let payload = |fields: Fields| {
            let message = fields.chunks(2).find(|pair| pair[0] == b"message");
            Bytes::from(message.unwrap_or(&fields[..2])[1].clone())
        };
        reply
            .into_iter()
            .map(|(id, fields)| (id.parse().unwrap(), payload(fields)))
            .collect()
    }

    /// Starts it on its port. False if it ended at once, as it does where the port is taken.
    fn try_start(&mut self, deadline: Instant) -> bool {
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "yes", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("redis-server is installed");
        // Kept from here on, so that a panic below ends it too.
        let child = self.child.insert(child);
        loop {
            if child.try_wait().unwrap().is_some() {
                self.child = None;
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
                assert!(
                    Instant::now() < deadline,
                    "redis-server does not start: {log}"
                );
                return false;
            }
            // Someone else's server may answer there, hence the process ID.
            let id = format!("process_id:{}\r\n", child.id());
            if ask(self.port, "INFO server").is_some_and(|info| info.contains(&id))
                && ask(self.port, "PING").is_some_and(|pong| pong.starts_with("+PONG"))
            {
                return true;
            }
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// One command on a connection of its own.
fn ask(port: u16, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream
        .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
        .ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    Some(reply)
}

#[test]
fn survives_what_the_tests_do_to_it() {
    let mut server = RedisServer::start();
    let id = server.cli(&["XADD", "room", "*", "a", "1", "message", "hello"]);
    let entries = server.entries("room");
    assert_eq!(entries, [(id.parse().unwrap(), Bytes::from("hello"))]);
    let before = server.pid();
    server.kill9();
    server.restart();
    assert_ne!(server.pid(), before);
    assert_eq!(server.entries("room"), entries);
    server.stop();
    server.cont();
    server.restart();
    assert_eq!(server.cli(&["XLEN", "room"]), "1");
    assert!(server.socket().exists() && server.dir().exists());
}
