//! The real program as a process of its own: on a port the system chose, killed when dropped.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;
use super::http::{self, Response};

/// What a node says in front of its address, once it's there.
const SERVES: &str = "tailcast serves on http://";

/// A running node.
pub(crate) struct Node {
    port: u16,
    arguments: Vec<String>,
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts one on that Redis and waits until it's ready.
    pub(crate) fn start(redis: &str) -> Self {
        Self::start_with(redis, &[])
    }

    /// The same with further arguments, such as `["--ping", "1s"]`.
    pub(crate) fn start_with(redis: &str, arguments: &[&str]) -> Self {
        let node = Self::start_unready(redis, arguments);
        node.wait_ready();
        node
    }

    /// Starts one on that Redis, which need not be well, and waits until it serves.
    pub(crate) fn start_unready(redis: &str, arguments: &[&str]) -> Self {
        Self::serving(&[&["--redis", redis], arguments].concat())
    }

    /// Starts one without Redis.
    pub(crate) fn in_memory(arguments: &[&str]) -> Self {
        let node = Self::serving(&[&["--memory"], arguments].concat());
        node.wait_ready();
        node
    }

    /// Starts one on that Redis that may have so many files open.
    pub(crate) fn start_with_files(redis: &str, files: u32) -> Self {
        let limit = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &limit, env!("CARGO_BIN_EXE_tailcast")]);
        let node = Self::served(Self::spawn_as(shell, 0, &["--redis", redis]));
        node.wait_ready();
        node
    }

    fn serving(arguments: &[&str]) -> Self {
        Self::served(Self::spawn(arguments))
    }

    fn served(mut node: Self) -> Self {
        let deadline = Instant::now() + PATIENCE;
        while node.said_port(SERVES).is_none() {
            if let Some(status) = node.child.try_wait().unwrap() {
                let stderr = node.stderr_to_end();
                panic!("the node ended with {status}: {stderr}");
            }
            assert!(Instant::now() < deadline, "no start: {}", node.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
        node.port = node.said_port(SERVES).unwrap();
        node
    }

    /// Starts the program with these arguments on any port, and waits for nothing, not even for it
    /// to say which port that is.
    pub(crate) fn spawn(arguments: &[&str]) -> Self {
        Self::spawn_at(0, arguments)
    }

    /// The port of the address that it wrote behind these words.
    pub(crate) fn said_port(&self, words: &str) -> Option<u16> {
        let stderr = self.stderr();
        let (_, rest) = stderr.split_once(words)?;
        let (address, _) = rest.split_once(['\n', '/'])?;
        let (_, port) = address.rsplit_once(':')?;
        Some(port.parse().expect("a port"))
    }

    fn spawn_at(port: u16, arguments: &[&str]) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_tailcast"));
        Self::spawn_as(program, port, arguments)
    }

    fn spawn_as(mut program: Command, port: u16, arguments: &[&str]) -> Self {
        let mut child = program
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stderr.take().unwrap();
        let stderr: Arc<Mutex<Vec<u8>>> = Arc::default();
        let copy = stderr.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let mut stderr = copy.lock().unwrap_or_else(PoisonError::into_inner);
                stderr.extend_from_slice(&buffer[..count]);
            }
        });
        Node {
            port,
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            child,
            stderr,
            reader: Some(reader),
        }
    }

    /// Waits until it says it's ready.
    pub(crate) fn wait_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = http::try_request(self.port, "GET", "/health/ready", &[], b"");
            match answer {
                Ok(answer) if answer.status == 200 => return,
                answer => assert!(
                    Instant::now() < deadline,
                    "never ready: {answer:?} {}",
                    self.stderr()
                ),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:port` and the path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// `ws://127.0.0.1:port` and the path.
    pub(crate) fn ws_url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&stderr).into_owned()
    }

    /// All it wrote, once it has ended.
    pub(crate) fn stderr_to_end(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.stderr()
    }

    /// One request.
    #[track_caller]
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response {
        http::try_request(self.port, method, path, headers, body.as_ref())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A GET.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], "")
    }

    /// Publishes through HTTP; the ID.
    #[track_caller]
    pub(crate) fn publish(&self, room: &str, message: impl AsRef<[u8]>) -> String {
        let answer = self.request("POST", &format!("/rooms/{room}"), &[], message);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// The value of a metric by the start of its line, labels included; none if there is no such line.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get("/metrics").text();
        let line = page.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port once it has ended, and waits until it's ready.
    pub(crate) fn restart(&mut self) {
        self.kill9();
        let arguments = self.arguments.clone();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            *self = Self::spawn_at(self.port, &arguments);
            while self.child.try_wait().unwrap().is_none() {
                if self.said_port(SERVES).is_some() {
                    return self.wait_ready();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(Instant::now() < deadline, "{}", self.stderr_to_end());
        }
    }

    /// Asks it to end.
    pub(crate) fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops it: connections stay, nothing is answered.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until it has ended.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "no end: {}", self.stderr());
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

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
    }
}
