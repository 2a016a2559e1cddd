//! A co-host room: a show with a host, a co-host, a moderator, a member and a viewer, each a real
//! WebSocket client with a token of their own, played from beginning to end.
//!
//! `cargo run --example cohost` starts a node in this process and prints what everybody says and sees;
//! with `-- --redis redis://127.0.0.1:6379` there are two nodes over that Redis, and every other client
//! is on the second. What to copy: [`Stage::new`] puts a node together as `tailcast --auth jwt` does,
//! [`Stage::enter`] is what a client does to come in, and [`play`] has every frame they send.

use std::collections::{BTreeSet, VecDeque};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tailcast::auth::mint::{NewToken, SigningKey};
use tailcast::auth::{self, Auth, KeySource, Mode, Secret, UserName};
use tailcast::drain::{Stop, StopTrigger};
use tailcast::frontend::{self, FrontendState};
use tailcast::people::board::Board;
use tailcast::people::{self, People};
use tailcast::relay::entry::RoomName;
use tailcast::relay::hub::{self, Relay};
use tailcast::relay::log::Log;
use tailcast::server::{self, Ended, Server};
use tailcast::store::memory::{self, MemoryLog};
use tailcast::store::redis::{self as redis_store, RedisLog};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The room of the show.
const ROOM: &str = "live-42";

/// What the login service and the nodes know, and nobody else.
const SECRET: &str = "a secret of at least 32 bytes, from a file";

/// What the shop's back end has.
const API_KEY: &str = "the shop's own key";

#[derive(Parser)]
struct Args {
    /// Two nodes over this Redis, instead of one without any
    #[arg(long)]
    redis: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    play(args.redis.as_deref(), &mut std::io::stdout()).await
}

/// The show. Whatever is not as it should be is an error.
pub(crate) async fn play(redis: Option<&str>, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut stage = Stage::new(redis, out).await?;

    stage.scene("They come in, each with a token from the login service")?;
    let mut alice = stage.enter("alice", "host", "presence=1").await?;
    let mut bob = stage.enter("bob", "cohost", "").await?;
    let mut carol = stage.enter("carol", "moderator", "").await?;
    let mut dave = stage.enter("dave", "member", "").await?;
    let mut erin = stage.enter("erin", "viewer", "presence=1").await?;
    let here = erin.sees_people(5).await?;
    stage.says(&erin, format!("sees who is here: {here}"))?;
    alice.sees_people(5).await?;

    stage.scene("Who may speak")?;
    stage.publishes(&mut alice, "welcome!").await?;
    stage.publishes(&mut bob, "and good evening").await?;
    for guest in [&mut dave, &mut erin] {
        stage.sees(guest, "welcome!", "alice").await?;
        stage.sees(guest, "and good evening", "bob").await?;
    }
    stage.is_refused(&mut erin, "may I?").await?;
    let typing = json!({"type": "publish", "message": "typing", "ephemeral": true});
    bob.send(typing).await?;
    alice.next("ephemeral").await?;
    stage.says(&alice, "sees that bob is typing, which is stored nowhere")?;

    stage.scene("Slow mode")?;
    stage
        .moderates(&mut carol, json!({"act": "slow", "seconds": 30}))
        .await?;
    let room = dave.next("room").await?;
    stage.says(&dave, format!("sees slow mode: {} s", room["slow"]))?;
    stage.publishes(&mut dave, "first question").await?;
    stage.is_refused(&mut dave, "second question").await?;
    stage.publishes(&mut alice, "one at a time").await?;
    stage
        .moderates(&mut carol, json!({"act": "slow", "seconds": 0}))
        .await?;
    dave.next("room").await?;
    stage.publishes(&mut dave, "second question").await?;

    stage.scene("Reactions")?;
    let heart = json!({"type": "react", "reaction": "heart"});
    for guest in [&mut erin, &mut dave, &mut bob] {
        guest.send(heart.clone()).await?;
    }
    let hearts = |frame: &Value| frame["type"] == "reactions" && frame["totals"]["heart"] == 3;
    alice.next_that(hearts).await?;
    stage.says(&alice, "sees 3 hearts")?;

    stage.scene("Moderation")?;
    let rude = stage.publishes(&mut dave, "something rude").await?;
    stage
        .moderates(&mut carol, json!({"act": "delete", "id": rude}))
        .await?;
    let deleted = erin.next("deleted").await?;
    ensure!(
        deleted["ids"][0] == rude,
        "another one was deleted: {deleted}"
    );
    stage.says(&erin, "sees that it's gone")?;
    let act = json!({"act": "timeout", "user": "dave", "seconds": 60, "reason": "be nice"});
    stage.moderates(&mut carol, act).await?;
    let told = dave.next("moderated").await?;
    stage.says(
        &dave,
        format!("is told: {}, {}", told["act"], told["reason"]),
    )?;
    stage.is_refused(&mut dave, "sorry").await?;

    stage.scene("Pinned and announced, also for those who come later")?;
    stage
        .moderates(
            &mut alice,
            json!({"act": "pin", "message": "questions at 9"}),
        )
        .await?;
    stage
        .moderates(
            &mut bob,
            json!({"act": "announce", "message": "part two follows"}),
        )
        .await?;
    let mut frank = stage.enter("frank", "viewer", "from=start").await?;
    let room = frank.next("room").await?;
    let (pin, announced) = (&room["pin"]["message"], &room["announcement"]["message"]);
    stage.says(&frank, format!("sees the pin {pin}"))?;
    stage.says(&frank, format!("sees the announcement {announced}"))?;
    let mut replayed = Vec::new();
    while replayed.len() < 5 {
        let entry = frank.next("entry").await?;
        replayed.push(entry["fields"]["message"].to_string());
    }
    stage.says(
        &frank,
        format!("sees what was said: {}", replayed.join(", ")),
    )?;
    ensure!(!replayed.iter().any(|text| text.contains("rude")));

    stage.scene("One person, every device")?;
    let mut phone = stage.enter("dave", "member's phone", "").await?;
    let status = stage
        .back_end("/users/dave", "your order is on its way")
        .await?;
    stage.note("shop", "back end", format!("posts to dave: HTTP {status}"))?;
    for device in [&mut dave, &mut phone] {
        let is_for_dave = |frame: &Value| frame["type"] == "entry" && frame["room"] == "@dave";
        let entry = device.next_that(is_for_dave).await?;
        stage.says(device, format!("sees {}", entry["fields"]["message"]))?;
    }

    stage.scene("A ban")?;
    let act = json!({"act": "ban", "user": "dave", "seconds": 3600});
    stage.moderates(&mut carol, act).await?;
    for device in [&mut dave, &mut phone] {
        let (code, reason) = device.closed().await?;
        stage.says(device, format!("is put out: {code} {reason}"))?;
    }
    let left = |frame: &Value| {
        let mut users = frame["leave"].as_array().into_iter().flatten();
        users.any(|user| user["user"] == "dave")
    };
    let presence = erin.next_that(left).await?;
    stage.says(
        &erin,
        format!("sees dave leave; {} stay", presence["count"]),
    )?;
    let mut again = stage.connect("dave", "member", "").await?;
    let (code, reason) = again.closed().await?;
    stage.says(
        &again,
        format!("comes back, and is put out: {code} {reason}"),
    )?;
    let mut mallory = stage
        .connect_as("mallory", "no token", "format=raw", None)
        .await?;
    let (code, reason) = mallory.closed().await?;
    stage.says(&mallory, format!("is put out: {code} {reason}"))?;

    stage.scene("The end")?;
    stage.stop();
    let (code, _) = alice.closed().await?;
    let bye = alice.waiting.iter().any(|frame| frame["type"] == "bye");
    ensure!(bye, "no bye before the end");
    stage.says(&alice, format!("is told `bye`, and closed with {code}"))?;
    drop((alice, bob, carol, erin, frank, again));
    stage.ended().await?;
    match redis {
        Some(url) => clear(url).await,
        None => Ok(()),
    }
}

/// Stands before the show's keys in Redis, so that it's a show of its own each time.
fn key_prefix() -> String {
    format!("cohost-{}:", std::process::id())
}

/// Removes what the show has left in Redis.
async fn clear(url: &str) -> Result<()> {
    let mut redis = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    let mut cursor: u64 = 0;
    loop {
        let mut scan = redis::cmd("SCAN");
        let pattern = format!("*{}*", key_prefix());
        scan.arg(cursor).arg("MATCH").arg(pattern);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut redis).await?;
        if !keys.is_empty() {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(keys).exec_async(&mut redis).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// The nodes, and the transcript.
struct Stage<'a> {
    nodes: Vec<Node>,
    key: SigningKey,
    /// How many came in.
    guests: usize,
    out: &'a mut (dyn Write + Send),
}

/// A node in this process.
struct Node {
    address: SocketAddr,
    stop: StopTrigger,
    people: Arc<People>,
    server: JoinHandle<Ended>,
}

impl Node {
    /// What `tailcast --auth jwt --jwt-secret … --api-key shop=… --rate member=20/30s` is made of.
    async fn start(log: Arc<dyn Log>, board: Arc<dyn Board>) -> Result<Node> {
        let auth = Auth::new(auth::Settings {
            mode: Mode::Jwt,
            key: Some(KeySource::Secret(Secret::new(SECRET.as_bytes()))),
            api_keys: vec![("shop".to_owned(), Secret::new(API_KEY.as_bytes()))],
            ..auth::Settings::default()
        })?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let relay = Relay::new(log, hub::Settings::default());
        let settings = people::Settings {
            rates: "member=20/30s,moderator=100/30s".parse()?,
            address: address.to_string(),
            ..people::Settings::default()
        };
        let people = People::start(relay, board, settings);
        let settings = frontend::Settings::new(RoomName::parse(ROOM)?);
        let state = FrontendState::new(people.clone(), auth, settings);
        let settings = server::Settings {
            max_sockets: 100,
            handshake_timeout: PATIENCE,
            drain_timeout: Duration::from_secs(2),
            ..server::Settings::default()
        };
        let (stop, stopped) = Stop::by_hand();
        let server = Server::new(settings, state, vec![listener]);
        Ok(Node {
            address,
            stop,
            people,
            server: tokio::spawn(server.run(stopped)),
        })
    }
}

impl<'a> Stage<'a> {
    async fn new(redis: Option<&str>, out: &'a mut (dyn Write + Send)) -> Result<Self> {
        let mut nodes = Vec::new();
        match redis {
            None => {
                let memory = Arc::new(MemoryLog::new(memory::Settings::default()));
                nodes.push(Node::start(memory.clone(), memory).await?);
            }
            Some(url) => {
                for _ in 0..2 {
                    let redis = RedisLog::start(redis_store::Settings {
                        url: url.to_owned(),
                        key_prefix: key_prefix(),
                        ..redis_store::Settings::default()
                    })?;
                    let answers = async {
                        while redis.health().is_err() {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    };
                    let answers = timeout(PATIENCE, answers).await;
                    answers.with_context(|| format!("no Redis answers at {url}"))?;
                    nodes.push(Node::start(redis.clone(), redis).await?);
                }
            }
        }
        let mut stage = Stage {
            nodes,
            key: SigningKey::from_secret(&Secret::new(SECRET.as_bytes()))?,
            guests: 0,
            out,
        };
        for index in 0..stage.nodes.len() {
            let address = stage.nodes[index].address;
            stage.note("node", "", format!("listens on {address}"))?;
        }
        Ok(stage)
    }

    /// A token as a login service makes it, or `tailcast token --user alice --room live-42=host`.
    fn token(&self, user: &str, role: &str) -> Result<String> {
        let token = NewToken {
            user: Some(UserName::parse(user)?),
            rooms: format!("{ROOM}={role}").parse()?,
            ..NewToken::default()
        };
        Ok(token.sign(&self.key, SystemTime::now(), Duration::from_secs(3600))?)
    }

    /// Comes in, and waits for the word that says so.
    async fn enter(
        &mut self,
        user: &'static str,
        role: &'static str,
        query: &str,
    ) -> Result<Guest> {
        let mut guest = self.connect(user, role, query).await?;
        // A known user is in two rooms: the one of the URL, and their own.
        for room in [ROOM.to_owned(), format!("@{user}")] {
            let is_in = |frame: &Value| frame["type"] == "joined" && frame["room"] == *room;
            guest.next_that(is_in).await?;
        }
        self.says(&guest, "is in")?;
        Ok(guest)
    }

    /// Opens a socket with a token in a cookie, as a browser has it that logged in.
    async fn connect(
        &mut self,
        user: &'static str,
        role: &'static str,
        query: &str,
    ) -> Result<Guest> {
        let granted = role.split('\'').next().unwrap_or(role);
        let token = self.token(user, granted)?;
        let query = format!("format=json&{query}");
        self.connect_as(user, role, &query, Some(&token)).await
    }

    async fn connect_as(
        &mut self,
        user: &'static str,
        role: &'static str,
        query: &str,
        token: Option<&str>,
    ) -> Result<Guest> {
        let address = self.nodes[self.guests % self.nodes.len()].address;
        self.guests += 1;
        let url = format!("ws://{address}/rooms/{ROOM}?{query}");
        let mut request = url.into_client_request()?;
        if let Some(token) = token {
            let cookie = format!("token={token}").parse()?;
            request.headers_mut().insert("cookie", cookie);
        }
        let (socket, _) = timeout(PATIENCE, connect_async(request)).await??;
        Ok(Guest {
            user,
            role,
            socket,
            waiting: VecDeque::new(),
        })
    }

    /// What a back end does to reach a user, as `curl` would.
    async fn back_end(&self, path: &str, body: &'static str) -> Result<u16> {
        let url = format!("http://{}{path}", self.nodes[0].address);
        let post = move || ureq::post(url).header("X-API-Key", API_KEY).send(body);
        Ok(tokio::task::spawn_blocking(post).await??.status().as_u16())
    }

    /// Publishes, and waits for the ID.
    async fn publishes(&mut self, guest: &mut Guest, message: &str) -> Result<String> {
        guest
            .send(json!({"type": "publish", "message": message}))
            .await?;
        let answer = guest.answer("ack").await?;
        if answer["type"] == "error" {
            bail!("{} can't publish: {answer}", guest.user);
        }
        self.says(guest, format!("publishes \"{message}\""))?;
        let id = answer["id"].as_str().context("an ack has the ID")?;
        Ok(id.to_owned())
    }

    /// Publishes in vain.
    async fn is_refused(&mut self, guest: &mut Guest, message: &str) -> Result<()> {
        guest
            .send(json!({"type": "publish", "message": message}))
            .await?;
        let answer = guest.answer("ack").await?;
        let why = answer["message"].as_str();
        let why = why.with_context(|| format!("it was not refused: {answer}"))?;
        self.says(
            guest,
            format!("publishes \"{message}\" and is refused: {why}"),
        )
    }

    /// Gets an entry of somebody's, as everybody in the room does.
    async fn sees(&mut self, guest: &mut Guest, message: &str, by: &str) -> Result<()> {
        let is_meant = |frame: &Value| {
            let fields = &frame["fields"];
            frame["type"] == "entry" && fields["message"] == message && fields["user"] == by
        };
        guest.next_that(is_meant).await?;
        self.says(guest, format!("sees \"{message}\" by {by}"))
    }

    /// Does something to the room.
    async fn moderates(&mut self, guest: &mut Guest, mut act: Value) -> Result<()> {
        let said = act.to_string();
        act["type"] = "moderate".into();
        guest.send(act).await?;
        let answer = guest.answer("done").await?;
        ensure!(answer["type"] == "done", "{} may not: {answer}", guest.user);
        self.says(guest, format!("moderates: {said}"))
    }

    fn scene(&mut self, title: &str) -> Result<()> {
        Ok(writeln!(self.out, "\n{title}")?)
    }

    fn says(&mut self, guest: &Guest, text: impl AsRef<str>) -> Result<()> {
        self.note(guest.user, guest.role, text)
    }

    fn note(&mut self, who: &str, role: &str, text: impl AsRef<str>) -> Result<()> {
        Ok(writeln!(self.out, "  {who:8}{role:16}{}", text.as_ref())?)
    }

    /// Drains the nodes. Their clients are told.
    fn stop(&self) {
        self.nodes.iter().for_each(|node| node.stop.stop());
    }

    async fn ended(self) -> Result<()> {
        for node in self.nodes {
            let ended = timeout(PATIENCE, node.server).await??;
            ensure!(ended == Ended::Drained, "a client did not go: {ended:?}");
            node.people.retire().await;
        }
        Ok(())
    }
}

/// A client, and the frames that it got and nobody asked for yet.
struct Guest {
    user: &'static str,
    role: &'static str,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    waiting: VecDeque<Value>,
}

impl Guest {
    async fn send(&mut self, frame: Value) -> Result<()> {
        let sending = self.socket.send(Message::text(frame.to_string()));
        Ok(timeout(PATIENCE, sending).await??)
    }

    /// The next frame of this type.
    async fn next(&mut self, kind: &str) -> Result<Value> {
        let next = self.next_that(|frame| frame["type"] == kind).await;
        next.with_context(|| format!("waiting for `{kind}`"))
    }

    /// The next answer to something asked, or the error in its place.
    async fn answer(&mut self, kind: &str) -> Result<Value> {
        self.next_that(|frame| frame["type"] == kind || frame["type"] == "error")
            .await
    }

    /// The next frame that is meant; others wait for their turn.
    async fn next_that(&mut self, is_meant: impl Fn(&Value) -> bool) -> Result<Value> {
        if let Some(index) = self.waiting.iter().position(&is_meant)
            && let Some(frame) = self.waiting.remove(index)
        {
            return Ok(frame);
        }
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await;
            let message = message.with_context(|| format!("{} waits in vain", self.user))?;
            match message {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text)?;
                    if is_meant(&frame) {
                        return Ok(frame);
                    }
                    self.waiting.push_back(frame);
                }
                Some(Ok(Message::Close(close))) => bail!("{} is closed: {close:?}", self.user),
                // Pings are answered by the library.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => bail!("{} is cut off", self.user),
            }
        }
    }

    /// Waits until so many are here, and names them. The first frame of presence has everybody, those
    /// after it who came and who went.
    async fn sees_people(&mut self, count: usize) -> Result<String> {
        let mut here = BTreeSet::new();
        while here.len() != count {
            let told = self.next("presence").await?;
            let users = |kind: &str| {
                let users = told[kind].as_array().into_iter().flatten();
                let users = users.filter_map(|user| user["user"].as_str());
                users.map(str::to_owned).collect::<Vec<_>>()
            };
            here.extend(users("join"));
            for user in users("leave") {
                here.remove(&user);
            }
        }
        Ok(here.into_iter().collect::<Vec<_>>().join(", "))
    }

    /// Waits for the end: the close code, and the reason.
    async fn closed(&mut self) -> Result<(u16, String)> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await? {
                Some(Ok(Message::Close(Some(close)))) => {
                    return Ok((close.code.into(), close.reason.to_string()));
                }
                Some(Ok(Message::Text(text))) => {
                    self.waiting.push_back(serde_json::from_str(&text)?);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => bail!("{} is cut off without a word", self.user),
            }
        }
    }
}
