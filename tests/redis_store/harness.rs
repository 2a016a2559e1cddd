//! A redis-server of one's own, a feed that collects, and waiting for conditions.

use std::future::Future;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tailcast::relay::entry::{EntryId, RoomName};
use tailcast::relay::log::{
    Append, AppendError, Feed, Log, LogError, Next, Read, StreamState, Survey,
};
use tailcast::store::redis::{RedisLog, Settings};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// A redis-server on a unix socket, killed on drop.
pub(crate) struct Server {
    dir: TempDir,
    options: Vec<String>,
    child: Option<Child>,
}

impl Server {
    pub(crate) async fn start(options: &[&str]) -> Self {
        let mut server = Server {
            dir: tempfile::tempdir().unwrap(),
            options: options.iter().map(|option| option.to_string()).collect(),
            child: None,
        };
        server.run().await;
        server
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("r.sock")
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts the program (again).
    pub(crate) async fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", "0", "--save", "", "--dir"])
            .arg(self.dir.path())
            .arg("--unixsocket")
            .arg(self.socket())
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        until("redis-server answers", || async {
            match redis::Client::open(self.url())
                .unwrap()
                .get_multiplexed_async_connection()
                .await
            {
                Ok(mut connection) => redis::cmd("PING")
                    .query_async::<String>(&mut connection)
                    .await
                    .is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// One command, on a connection of its own.
    pub(crate) async fn command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = redis::Client::open(self.url())?
            .get_multiplexed_async_connection()
            .await?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            url: self.url(),
            ..Settings::default()
        }
    }

    pub(crate) fn log(&self) -> Arc<RedisLog> {
        RedisLog::start(self.settings()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Longer than any condition here needs, and shorter than a sweep: what only the sweep would find
/// was lost by the bells.
const UNTIL: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + UNTIL;
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

pub(crate) type Outcome = Result<EntryId, AppendError>;

/// Appends, and gives what will tell the outcome.
pub(crate) fn append(
    log: &dyn Log,
    name: &str,
    message: &str,
    key: Option<&str>,
    within: Duration,
) -> oneshot::Receiver<Outcome> {
    let (tell, told) = oneshot::channel();
    log.append(Append {
        room: room(name),
        fields: Box::new([(
            Bytes::from_static(b"message"),
            Bytes::copy_from_slice(message.as_bytes()),
        )]),
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        limits: Box::default(),
        lane: Default::default(),
        deadline: Instant::now() + within,
        done: Box::new(move |outcome| {
            let _ = tell.send(outcome);
        }),
    });
    told
}

/// Appends, and waits for the ID.
pub(crate) async fn store(log: &dyn Log, name: &str, message: &str) -> EntryId {
    let told = append(log, name, message, None, Duration::from_secs(10));
    told.await.unwrap().unwrap()
}

/// A feed that keeps everything it hears; its cursor is the last entry it got.
pub(crate) struct Collector {
    room: RoomName,
    pub(crate) heard: Mutex<Heard>,
}

#[derive(Default)]
pub(crate) struct Heard {
    cursor: Option<EntryId>,
    pub(crate) ids: Vec<EntryId>,
    pub(crate) messages: Vec<String>,
    pub(crate) states: Vec<Option<StreamState>>,
    /// How often the cursor's entry was found gone.
    pub(crate) gone: usize,
    pub(crate) errors: Vec<LogError>,
    /// A misuse of the trait.
    pub(crate) wrong: Option<String>,
}

impl Collector {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Collector {
            room: room(name),
            heard: Mutex::default(),
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.heard.lock().unwrap().ids.len()
    }

    pub(crate) fn surveyed(&self) -> bool {
        self.heard.lock().unwrap().cursor.is_some()
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        assert_eq!(heard.wrong, None);
        heard.messages.clone()
    }
}

impl Feed for Collector {
    fn room(&self) -> &RoomName {
        &self.room
    }

    fn next(&self) -> Next {
        match self.heard.lock().unwrap().cursor {
            None => Next::Survey { newest: 10 },
            Some(after) => Next::Read { after },
        }
    }

    fn on_read(&self, read: Read) {
        let mut heard = self.heard.lock().unwrap();
        if heard.cursor != Some(read.after) {
            heard.wrong = Some(format!("read after {}", read.after));
        }
        if read.cursor_present().is_none() != (read.after == EntryId::ZERO) {
            heard.wrong = Some("a witness where none can be, or none".to_owned());
        }
        // As a real feed would, but simpler: look again from scratch.
        if read.cursor_present() == Some(false) {
            heard.gone += 1;
            heard.cursor = None;
            return;
        }
        for entry in read.entries {
            heard.cursor = Some(entry.id);
            heard.ids.push(entry.id);
            let message = String::from_utf8_lossy(entry.message()).into_owned();
            heard.messages.push(message);
        }
    }

    fn on_survey(&self, survey: Survey) {
        let mut heard = self.heard.lock().unwrap();
        // Only an entry's own ID has a witness.
        let newest = survey.newest.last().map(|entry| entry.id);
        heard.cursor = Some(newest.unwrap_or(EntryId::ZERO));
        heard.states.push(survey.state);
    }

    fn on_error(&self, error: &LogError) {
        self.heard.lock().unwrap().errors.push(error.clone());
    }
}
