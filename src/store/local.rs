//! A Redis of one's own, for the first run on a machine that has none running: tailcast starts
//! the `redis-server` (or `valkey-server`) it finds in PATH, loopback only and with an append-only
//! file, and ends it with itself. Nothing here is needed where Redis is somebody else's care.

mod probe;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use self::probe::Found;

/// Programs that serve, the first one found is taken.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// What Redis is waited for while it makes no progress, at start and at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a lock may stay held by what a killed tailcast left: its Redis gets SIGTERM the moment
/// its parent dies, and needs a moment to write out what it has.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two looks at something that has no event to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How much of Redis's log an error shows.
const LOG_LINES: usize = 6;

/// Why there is no Redis of our own.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No program to start.
    #[error(
        "nothing answers on {addr}, and redis-server is not installed; install it \
         (Debian and Ubuntu: sudo apt install redis-server), or name another Redis \
         (--redis redis://host:6379), or run this one node without Redis (--memory; nothing is \
         kept when it ends)"
    )]
    NotInstalled {
        /// Where it would have listened.
        addr: SocketAddr,
    },
    /// Another Redis is there already.
    #[error("a Redis answers on {addr} already; use it with --redis redis://{addr}")]
    AlreadyThere {
        /// Where it listens.
        addr: SocketAddr,
    },
    /// Another Redis is there already, and it isn't open to all.
    #[error("the Redis on {addr} wants a password; give it with --redis redis://:PASSWORD@{addr}")]
    NeedsPassword {
        /// Where it listens.
        addr: SocketAddr,
    },
    /// The port is taken by another kind of program.
    #[error(
        "what listens on {addr} is not Redis; end it, or name the Redis to use \
         (--redis redis://host:port)"
    )]
    NotRedis {
        /// Where it listens.
        addr: SocketAddr,
    },
    /// The port is taken, and nothing is said there.
    #[error(
        "what listens on {addr} accepts connections but does not answer PING; if it is a Redis \
         it hangs, else name the Redis to use (--redis redis://host:port)"
    )]
    Silent {
        /// Where it listens.
        addr: SocketAddr,
    },
    /// Two on one directory would ruin each other's file.
    #[error(
        "another tailcast keeps its Redis in {}; let both use one (--redis), or give this one \
         another --data-dir", dir.display()
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory can't be made or written.
    #[error("cannot use the data directory {}: {source}; choose another with --data-dir", dir.display())]
    DataDir {
        /// The data directory.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program is there, but can't be run.
    #[error("cannot run {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended before it served.
    #[error("{} ended at once ({status}){log}", program.display())]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log, after a line break; or nothing.
        log: String,
    },
    /// It runs, and never came to serve.
    #[error("{} runs, but did not answer for {} s{log}", program.display(), PATIENCE.as_secs())]
    NotReady {
        /// The program.
        program: PathBuf,
        /// The last lines of its log, after a line break; or nothing.
        log: String,
    },
}

/// Whether a Redis answers here (one that is loading does). False is: nobody listens, so one can
/// be started. That something else listens, or a Redis that wants a password, is an error.
pub fn is_answering(addr: SocketAddr) -> Result<bool, LocalError> {
    match probe::probe(addr) {
        Found::Nothing => Ok(false),
        Found::Redis | Found::Loading => Ok(true),
        Found::NeedsPassword => Err(LocalError::NeedsPassword { addr }),
        Found::Silent => Err(LocalError::Silent { addr }),
        Found::Other => Err(LocalError::NotRedis { addr }),
    }
}

/// A Redis that ends when this is dropped, and where `setpriv` exists (all of Linux) also when
/// this process is killed.
#[derive(Debug)]
pub struct LocalRedis {
    child: Child,
    addr: SocketAddr,
    /// Kept for its lock. The child holds it as well, as its stdout: so a directory stays locked
    /// until its Redis is gone, whoever of the two ends first.
    _lock: File,
}

impl LocalRedis {
    /// Starts one on this port of 127.0.0.1 with its data in this directory, and waits until it
    /// serves.
    ///
    /// It blocks. Call it on the main thread: the kernel ends the child when the *thread* that
    /// started it ends.
    pub fn start(port: u16, data_dir: &Path) -> Result<LocalRedis, LocalError> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if is_answering(addr)? {
            return Err(LocalError::AlreadyThere { addr });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = (PROGRAMS.iter().find_map(|name| find(name, &path)))
            .ok_or(LocalError::NotInstalled { addr })?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(|source| unusable(data_dir, source))?;
        let lock = lock(data_dir)?;
        let log = Log::open(data_dir).map_err(|source| unusable(data_dir, source))?;

        let mut command = ends_with_us(&program);
        command.arg("-").current_dir(data_dir).stdin(Stdio::piped());
        let handles = [lock.try_clone(), log.file.try_clone()];
        let [stdout, stderr] = handles.map(|file| file.map(Stdio::from));
        command.stdout(stdout.map_err(|source| unusable(data_dir, source))?);
        command.stderr(stderr.map_err(|source| unusable(data_dir, source))?);
        let child = command.spawn().map_err(|source| LocalError::Spawn {
            program: program.clone(),
            source,
        })?;
        // From here on the child is ended on every way out.
        let mut redis = LocalRedis {
            child,
            addr,
            _lock: lock,
        };
        if let Some(mut stdin) = redis.child.stdin.take() {
            // If it ended already, its exit says more than this broken pipe.
            let _ = stdin.write_all(settings(port).as_bytes());
        }
        redis.wait_until_ready(&program, log)?;
        Ok(redis)
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, with all it has on the disk. Blocks for as long as that takes; after 10 s it's
    /// killed.
    pub fn stop(self) {
        drop(self);
    }

    fn wait_until_ready(&mut self, program: &Path, mut log: Log) -> Result<(), LocalError> {
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            // An error here is that it was reaped already, which only this type does.
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(LocalError::Ended {
                    program: program.to_owned(),
                    status,
                    log: log.tail(),
                });
            }
            match probe::probe(self.addr) {
                Found::Redis => match probe::process_id(self.addr) {
                    Some(pid) if pid == self.child.id() => return Ok(()),
                    // Somebody took the port in between; our own will say so and end.
                    _ => {}
                },
                // The more there is to read, the longer it takes.
                Found::Loading => deadline = Instant::now() + PATIENCE,
                _ => {}
            }
            if Instant::now() >= deadline {
                return Err(LocalError::NotReady {
                    program: program.to_owned(),
                    log: log.tail(),
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for LocalRedis {
    fn drop(&mut self) {
        // It isn't reaped before try_wait says so, hence its ID can't be another's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                tracing::warn!(
                    pid = self.child.id(),
                    "redis did not end on SIGTERM, killing it"
                );
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// What Redis is told, through its standard input. The directory is the one it starts in, so that
/// no path has to be quoted.
fn settings(port: u16) -> String {
    format!(
        "bind 127.0.0.1 -::1\n\
         protected-mode yes\n\
         port {port}\n\
         daemonize no\n\
         dir ./\n\
         logfile {LOG_NAME}\n\
         appendonly yes\n\
         appendfsync everysec\n\
         save \"\"\n\
         maxmemory-policy noeviction\n\
         # A room with one entry takes 1.3 KB instead of 4.3 KB.\n\
         stream-node-max-bytes 1024\n\
         lazyfree-lazy-expire yes\n\
         # Each room is a tracked key; beyond a limit Redis would ring for rooms at random.\n\
         tracking-table-max-keys 0\n"
    )
}

/// A command that the kernel ends with SIGTERM when the thread that starts it ends, where `setpriv`
/// exists; so start it on the main thread. Ctrl-C, which goes to the whole foreground group, does
/// not reach it: only we may say when it ends.
pub fn ends_with_us(program: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = match find("setpriv", &path) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.process_group(0);
    command
}

/// The program's path, if it's in one of these folders and may be run.
fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        // A relative folder in PATH would mean another one to the child.
        .filter(|program| program.is_absolute())
        .find(|program| {
            program
                .metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

fn unusable(dir: &Path, source: std::io::Error) -> LocalError {
    LocalError::DataDir {
        dir: dir.to_owned(),
        source,
    }
}

/// Takes the directory for this process and its Redis.
fn lock(dir: &Path) -> Result<File, LocalError> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.join("tailcast.lock"))
        .map_err(|source| unusable(dir, source))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOOK_EVERY);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(LocalError::Locked {
                    dir: dir.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(dir, source)),
        }
    }
}

/// Name of Redis's log in the data directory.
const LOG_NAME: &str = "redis.log";

/// Redis's log, from where this run began.
struct Log {
    file: File,
    begin: u64,
}

impl Log {
    fn open(dir: &Path) -> std::io::Result<Log> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(dir.join(LOG_NAME))?;
        let begin = file.metadata()?.len();
        Ok(Log { file, begin })
    }

    /// The last lines, to be shown below an error; empty if there are none.
    fn tail(&mut self) -> String {
        let mut bytes = Vec::new();
        if self.file.seek(SeekFrom::Start(self.begin)).is_ok() {
            // What could be read is shown, and that it could not be read helps nobody here.
            let _ = (&mut self.file).take(1 << 20).read_to_end(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = (text.lines().map(str::trim_end))
            .filter(|line| !line.is_empty())
            .collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        if last.is_empty() {
            return String::new();
        }
        let shown: String = last.iter().map(|line| format!("\n  {line}")).collect();
        format!("; the last lines of its log are:{shown}")
    }
}
