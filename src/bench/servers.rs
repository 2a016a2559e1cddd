//! What is started to be measured: a node, and a Redis for it. Both end when they are dropped, and
//! where `setpriv` exists also when this process is killed.

use std::fs::{DirBuilder, remove_dir_all};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::store::local::{LocalRedis, ends_with_us};

/// How long a node may take to serve, on a machine that is busy with others.
const START: Duration = Duration::from_secs(30);

/// How long a node may take to drain; its sockets are gone by then, unless the run was cut short.
const END: Duration = Duration::from_secs(2);

/// Pause between two looks at a node that ends.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// So often another port is tried, as somebody else may take one that was free a moment ago.
const PORT_TRIES: usize = 5;

/// What a node says once it serves, before its address.
const SERVES: &str = "tailcast serves on http://";

/// A node that was started to be measured.
pub(super) struct Node {
    child: Child,
    address: String,
}

impl Node {
    /// Starts one with the default settings on this Redis, and waits until it serves. Call it on
    /// the main thread, as the node ends with the thread that started it.
    pub(super) async fn start(program: &Path, redis: &str) -> Result<Self> {
        let mut command = ends_with_us(program);
        // What the machine's owner set for other nodes is not to be measured.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"TAILCAST_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn"])
            .args(["--redis", redis])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        // From here on the child is ended on every way out.
        let mut node = Node {
            child,
            address: String::new(),
        };
        let stderr = node.child.stderr.take().context("the node has no stderr")?;
        let (told, address) = oneshot::channel();
        std::thread::Builder::new()
            .name("node-stderr".to_owned())
            .spawn(move || listen(stderr, told))?;
        node.address = match timeout(START, address).await {
            Ok(Ok(Ok(address))) => address,
            Ok(Ok(Err(said))) => return Err(anyhow!("the node ended: {said}")),
            Ok(Err(_)) => return Err(anyhow!("the node ended without a word")),
            Err(_) => return Err(anyhow!("the node did not serve for {} s", START.as_secs())),
        };
        Ok(node)
    }

    /// Where it serves, as ws://host:port.
    pub(super) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It isn't reaped before try_wait says so, hence its ID can't be another's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        let deadline = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Reads what a node says to its end, so that it's never held up: first where it serves, or if it
/// ends before, all it said; and then what it warns of, which is passed on.
fn listen(stderr: ChildStderr, told: oneshot::Sender<Result<String, String>>) {
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let mut said = Vec::new();
    for line in lines.by_ref() {
        if let Some(address) = line.strip_prefix(SERVES) {
            // Nobody waits any more if the run was cut short.
            let _ = told.send(Ok(address.to_owned()));
            // Two lines follow for those who started it by hand.
            for line in lines.skip_while(|line| line.starts_with("  ")) {
                eprintln!("node: {line}");
            }
            return;
        }
        said.push(line);
    }
    let _ = told.send(Err(said.join("\n")));
}

/// A Redis of a bench's own, with its data in a folder that goes with it.
pub(super) struct Redis {
    // Dropped in this order.
    server: LocalRedis,
    _folder: Folder,
}

impl Redis {
    /// Starts one. Call it on the main thread; it blocks.
    pub(super) fn start() -> Result<Self> {
        let folder = Folder::create()?;
        let mut tries = 1;
        loop {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port();
            match LocalRedis::start(port, &folder.0) {
                Ok(server) => {
                    return Ok(Redis {
                        server,
                        _folder: folder,
                    });
                }
                Err(_) if tries < PORT_TRIES => tries += 1,
                Err(error) => {
                    return Err(error)
                        .context("no Redis to measure with; name one with --redis, or start one");
                }
            }
        }
    }

    /// Where it serves.
    pub(super) fn url(&self) -> String {
        self.server.url()
    }
}

/// A folder for this process alone.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        let name = format!(
            "tailcast-bench-{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is a few megabytes in a folder that the system clears.
        let _ = remove_dir_all(&self.0);
    }
}
