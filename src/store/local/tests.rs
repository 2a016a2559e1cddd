//! With a real redis-server, each on a port and in a directory of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{LocalError, LocalRedis, find, is_answering};

/// How a test tells its other self where to start a Redis.
const HELD: &str = "TAILCAST_TEST_LOCAL_REDIS";

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A zombie has no program, so that this also works where nobody reaps orphans.
fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn connect(redis: &LocalRedis) -> redis::Connection {
    let client = redis::Client::open(redis.url()).unwrap();
    client.get_connection().unwrap()
}

fn setting(connection: &mut redis::Connection, name: &str) -> String {
    let mut command = redis::cmd("CONFIG");
    let (_, value): (String, String) = command.arg("GET").arg(name).query(connection).unwrap();
    value
}

#[test]
fn entries_survive() {
    let dir = tempfile::tempdir().unwrap();
    // A name that would have to be quoted, and a folder that has to be made.
    let data = dir.path().join("my \"data\" #1/redis");
    let redis = LocalRedis::start(free_port(), &data).unwrap();
    let mut connection = connect(&redis);
    let id: String = redis::cmd("XADD")
        .arg(&["lobby", "*", "message", "hello"])
        .query(&mut connection)
        .unwrap();
    assert_eq!(setting(&mut connection, "appendonly"), "yes");
    assert_eq!(setting(&mut connection, "maxmemory-policy"), "noeviction");
    assert_eq!(setting(&mut connection, "stream-node-max-bytes"), "1024");
    assert_eq!(setting(&mut connection, "tracking-table-max-keys"), "0");
    assert_eq!(setting(&mut connection, "save"), "");
    let pid = redis.pid();
    assert!(is_running(pid));
    redis.stop();
    assert!(!is_running(pid));

    let redis = LocalRedis::start(free_port(), &data).unwrap();
    let found: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(&["lobby", "-", "+"])
        .query(&mut connect(&redis))
        .unwrap();
    assert_eq!(found, [(id, vec!["message".into(), "hello".into()])]);
}

#[test]
fn one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let first = LocalRedis::start(port, dir.path()).unwrap();
    assert!(is_answering(addr(port)).unwrap());

    let error = LocalRedis::start(free_port(), dir.path()).unwrap_err();
    assert!(matches!(error, LocalError::Locked { .. }), "{error}");
    let other = tempfile::tempdir().unwrap();
    let error = LocalRedis::start(port, other.path()).unwrap_err();
    assert!(matches!(error, LocalError::AlreadyThere { .. }), "{error}");

    let pid = first.pid();
    drop(first);
    assert!(!is_running(pid));
    assert!(!is_answering(addr(port)).unwrap());
    LocalRedis::start(port, dir.path()).unwrap();
}

#[test]
fn a_password_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let redis = LocalRedis::start(free_port(), dir.path()).unwrap();
    let mut connection = connect(&redis);
    let () = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "secret"])
        .query(&mut connection)
        .unwrap();
    let error = is_answering(redis.addr).unwrap_err();
    assert!(matches!(error, LocalError::NeedsPassword { .. }), "{error}");
}

#[test]
fn what_is_not_redis_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        // Hangs up on the second one, and listens on.
        drop(listener.accept().unwrap());
        listener
    });
    let dir = tempfile::tempdir().unwrap();
    let error = LocalRedis::start(port, dir.path()).unwrap_err();
    assert!(matches!(error, LocalError::NotRedis { .. }), "{error}");
    let error = is_answering(addr(port)).unwrap_err();
    assert!(matches!(error, LocalError::NotRedis { .. }), "{error}");
    // Nobody accepts any more, but the backlog does.
    let _listener = server.join().unwrap();
    let error = is_answering(addr(port)).unwrap_err();
    assert!(matches!(error, LocalError::Silent { .. }), "{error}");
}

#[test]
fn an_early_end_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    LocalRedis::start(free_port(), dir.path()).unwrap().stop();
    let folder = dir.path().join("appendonlydir");
    for file in folder.read_dir().unwrap() {
        std::fs::write(file.unwrap().path(), "this is no append-only file").unwrap();
    }
    let error = LocalRedis::start(free_port(), dir.path()).unwrap_err();
    assert!(matches!(error, LocalError::Ended { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("the last lines of its log are:\n"), "{text}");
    assert!(text.to_lowercase().contains("manifest"), "{text}");
}

#[test]
fn a_data_dir_that_is_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = LocalRedis::start(free_port(), file.path()).unwrap_err();
    assert!(matches!(error, LocalError::DataDir { .. }), "{error}");
}

#[test]
fn the_program_is_looked_for() {
    assert!(find("redis-server", "/nowhere".as_ref()).is_none());
    assert!(find("sh", "/nowhere:/bin".as_ref()).is_some());
    assert!(find("passwd", "/etc".as_ref()).is_none(), "not executable");
    assert!(find("sh", "bin:.".as_ref()).is_none(), "relative");
    let text = LocalError::NotInstalled { addr: addr(6379) }.to_string();
    for part in ["apt install redis-server", "--redis redis://", "--memory"] {
        assert!(text.contains(part), "{text}");
    }
}

/// Not a test by itself: the other self of the next one, that gets killed.
#[test]
fn held_by_another_self() {
    let Some(held) = std::env::var_os(HELD) else {
        return;
    };
    let redis = LocalRedis::start(free_port(), Path::new(&held)).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\npid {}", redis.pid()).unwrap();
    out.flush().unwrap();
    // Until it's killed, or the one that started it is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn it_ends_when_its_parent_is_killed() {
    let path = std::env::var_os("PATH").unwrap();
    if find("setpriv", &path).is_none() {
        eprintln!("no setpriv here, so a killed tailcast leaves its Redis behind");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::local::tests::held_by_another_self"])
        .arg("--nocapture")
        .env(HELD, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let pid = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("pid ")?.parse().ok())
        .unwrap();
    assert!(is_running(pid));
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("the orphan ended", || !is_running(pid));
    // The directory is free again.
    LocalRedis::start(free_port(), dir.path()).unwrap();
}
