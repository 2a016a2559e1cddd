//! Accounts: the vault over both stores, and registering and logging in on real nodes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tailcast::accounts::{Account, Vault};
use tailcast::auth::UserName;
use tailcast::store::memory::{self, MemoryLog};
use tailcast::store::redis::{self, RedisLog};

use crate::harness::clients::{Sse, Ws};
use crate::harness::http::Response;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

const PASSWORD: &str = "correct horse battery";

#[tokio::test]
async fn vault_in_memory() {
    let log = Arc::new(MemoryLog::new(memory::Settings::default()));
    vaults(log.clone(), log).await;
}

#[tokio::test]
async fn vault_in_redis() {
    let server = RedisServer::start();
    let settings = redis::Settings {
        url: server.url(),
        ..redis::Settings::default()
    };
    let make = || RedisLog::start(settings.clone()).unwrap();
    vaults(make(), make()).await;
    let keys = server.cli(&["--scan", "--pattern", "tailcast:*account*"]);
    let mut keys: Vec<&str> = keys.lines().collect();
    keys.sort_unstable();
    let want = ["Ann", "all", "ann"].map(|user| format!("tailcast:{{}}account:{user}"));
    assert_eq!(keys, want);
}

/// What every vault does alike; two nodes' views of one.
async fn vaults<V: Vault>(one: Arc<V>, two: Arc<V>) {
    let user = |name: &str| UserName::parse(name).unwrap();
    let account = |hash: &str, name: Option<&str>| Account {
        hash: hash.to_owned(),
        name: name.map(str::to_owned),
        created: 1_700_000_000_000,
    };
    assert_eq!(one.find(&user("ann")).await, Ok(None));
    let ann = account("$hash", Some("Änn \"A\""));
    assert_eq!(one.create(&user("ann"), ann.clone()).await, Ok(true));
    assert_eq!(two.find(&user("ann")).await, Ok(Some(ann.clone())));
    // The same again is an answer that was lost; another one is somebody else.
    assert_eq!(one.create(&user("ann"), ann.clone()).await, Ok(true));
    let other = account("$other", None);
    assert_eq!(two.create(&user("ann"), other.clone()).await, Ok(false));
    assert_eq!(one.find(&user("ann")).await, Ok(Some(ann)));
    assert_eq!(two.create(&user("Ann"), other.clone()).await, Ok(true));
    assert_eq!(one.find(&user("Ann")).await, Ok(Some(other)));
    // Of all at once, one.
    let all = (0..20).map(|number| {
        let vault = if number % 2 == 0 { &one } else { &two };
        vault.create(&user("all"), account(&format!("${number}"), None))
    });
    let all = futures_util::future::join_all(all).await;
    let won = all.iter().filter(|outcome| **outcome == Ok(true)).count();
    assert_eq!((won, all.iter().all(Result::is_ok)), (1, true));
}

/// A request with a JSON body.
#[track_caller]
pub(crate) fn post(node: &Node, path: &str, cookie: Option<&str>, body: &Value) -> Response {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(cookie.map(|cookie| ("cookie", cookie)));
    node.request("POST", path, &headers, body.to_string())
}

/// Registers; the cookie as a browser sends it back.
#[track_caller]
pub(crate) fn register(node: &Node, user: &str) -> String {
    let body = json!({"user": user, "password": PASSWORD});
    let answer = post(node, "/register", None, &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    cookie(&answer)
}

/// Logs in; the cookie.
#[track_caller]
pub(crate) fn login(node: &Node, user: &str) -> String {
    let body = json!({"user": user, "password": PASSWORD});
    let answer = post(node, "/login", None, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    cookie(&answer)
}

/// The cookie of an answer, without its attributes.
#[track_caller]
fn cookie(answer: &Response) -> String {
    let set = answer.header("set-cookie").unwrap();
    set.split(';').next().unwrap().to_owned()
}

/// Two nodes with accounts and nothing else.
pub(crate) fn start(arguments: &[&str]) -> (RedisServer, Node, Node) {
    let redis = RedisServer::start();
    let arguments = [&["--accounts"], arguments].concat();
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| Node::start_with(&redis.url(), &arguments));
        let other = Node::start_with(&redis.url(), &arguments);
        (one.join().unwrap(), other)
    });
    (redis, one, other)
}

#[tokio::test]
async fn register_and_log_in() {
    let (redis, one, other) = start(&["--log", "trace"]);
    let body = json!({"user": "ann", "password": PASSWORD, "name": "Ann A."});
    let answer = post(&one, "/register", None, &body);
    assert_eq!(answer.status, 201);
    let week = 7 * 24 * 3600;
    let want = json!({"user": "ann", "name": "Ann A.", "expires_in": week});
    assert_eq!(answer.json(), want);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    // On the other node, which has the same secret by itself.
    let answer = post(
        &other,
        "/login",
        None,
        &json!({"user":"ann","password":PASSWORD}),
    );
    assert_eq!((answer.status, answer.json()), (200, want));
    let set = answer.header("set-cookie").unwrap().to_owned();
    let (token, attributes) = set.split_once("; ").unwrap();
    let attributes_want = format!("HttpOnly; SameSite=Lax; Path=/; Max-Age={week}");
    assert_eq!(attributes, attributes_want);
    assert!(token.starts_with("token=ey"), "{token}");
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-forwarded-proto", "https"),
    ];
    let body = format!("user=ann&password={}", PASSWORD.replace(' ', "+"));
    let over_tls = one.request("POST", "/login", &form, body);
    let set = over_tls.header("set-cookie").unwrap();
    assert!(set.ends_with("; Secure"), "{set}");

    // Who they are, and what they may, by the cookie alone, in every protocol.
    let me = |node: &Node, query: &str, cookie: &str| -> Value {
        let answer = node.request("GET", &format!("/me{query}"), &[("cookie", cookie)], "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let want = json!({
        "user": "ann", "name": "Ann A.", "auth": "jwt", "accounts": true,
        "default_room": "mystream", "role": "member",
        "rights": ["subscribe", "publish", "history", "presence"],
    });
    assert_eq!(me(&one, "?room=lobby", token), want);
    assert_eq!(
        me(&other, "?room=@bob", token)["rights"],
        json!(["publish"])
    );
    let said = post(&one, "/rooms/lobby", Some(token), &json!({"message": "hi"}));
    assert_eq!(said.status, 201, "{said:?}");
    let path = "/rooms/lobby?format=json&from=start";
    let mut socket = Ws::try_open(&other, path, &[("cookie", token)])
        .await
        .unwrap();
    let entry = socket.frame_of("entry").await;
    assert_eq!(entry["fields"], json!({"message": "hi", "user": "ann"}));
    let answer = socket.ask(json!({"type":"publish","message":"back"})).await;
    assert_eq!(answer["type"], "ack", "{answer}");
    let mut stream = Sse::open(&one, "/rooms/lobby?from=start", &[("cookie", token)]);
    assert!(stream.event().data.unwrap().contains("\"user\":\"ann\""));

    // Nobody in particular may read, and no more.
    let nobody = one.get("/me?room=lobby").json();
    assert_eq!(
        (&nobody["user"], &nobody["role"]),
        (&Value::Null, &json!("viewer"))
    );
    assert_eq!(
        one.get("/rooms/lobby").json()["entries"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let refused = one.request("POST", "/rooms/lobby", &[], "anonymous");
    assert_eq!((refused.status, &*refused.error_code()), (403, "forbidden"));

    // Only the hash is kept, and nothing is said of the rest.
    let hash = redis.cli(&["HGET", "tailcast:{}account:ann", "password"]);
    assert!(
        hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{hash}"
    );
    assert_eq!(
        redis.cli(&["HGET", "tailcast:{}account:ann", "name"]),
        "Ann A."
    );
    let jwt = token.strip_prefix("token=").unwrap();
    let secret = redis.cli(&["GET", "tailcast:{}secret"]);
    assert_eq!(secret.len(), 64);
    for node in [&one, &other] {
        let log = node.stderr();
        assert!(log.contains("TRACE"), "it logs everything");
        for hidden in [PASSWORD, "correct+horse", jwt, &hash, &secret] {
            assert!(!log.contains(hidden), "{hidden} is in the log");
        }
    }

    let bye = post(&one, "/logout", Some(token), &Value::Null);
    assert_eq!(bye.status, 204);
    let set = bye.header("set-cookie").unwrap();
    assert_eq!(set, "token=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0");
}

#[tokio::test]
async fn who_is_refused() {
    let (_redis, one, other) = start(&[]);
    register(&one, "ann");
    let check = |node: &Node, path: &str, body: Value, status: u16, code: &str| {
        let answer = post(node, path, None, &body);
        let got = (answer.status, answer.error_code());
        assert_eq!(got, (status, code.to_owned()), "{path} {body}");
        assert_eq!(answer.header("set-cookie"), None);
        assert!(!answer.text().contains("correct horse"), "{answer:?}");
    };
    let body = |user: &str, password: &str| json!({"user": user, "password": password});
    let wrong = "correct horse batterx";
    check(&one, "/login", body("ann", wrong), 401, "wrong_password");
    check(
        &other,
        "/login",
        body("nobody", PASSWORD),
        401,
        "wrong_password",
    );
    check(&one, "/login", body("ann", "short"), 401, "wrong_password");
    check(
        &one,
        "/register",
        body("bob", "1234567"),
        400,
        "bad_password",
    );
    let long = "x".repeat(257);
    check(&one, "/register", body("bob", &long), 400, "bad_password");
    check(&one, "/register", body("", PASSWORD), 400, "bad_user");
    check(&one, "/register", body("a\nb", PASSWORD), 400, "bad_user");
    check(&one, "/register", body("ann ", PASSWORD), 400, "bad_user");
    check(&one, "/register", body("@ann", PASSWORD), 400, "bad_user");
    let name = json!({"user": "bob", "password": PASSWORD, "name": "B\u{7}"});
    check(&one, "/register", name, 400, "bad_name");
    check(&one, "/register", json!({"user": "bob"}), 400, "bad_json");
    check(
        &other,
        "/register",
        body("ann", "another password"),
        409,
        "user_taken",
    );
    login(&other, "ann");

    // A stranger's page, whatever it sends.
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for path in ["/login", "/register", "/logout"] {
            let headers = [
                (name, value),
                ("content-type", "application/x-www-form-urlencoded"),
            ];
            let body = format!("user=ann&password={}", PASSWORD.replace(' ', "+"));
            let answer = one.request("POST", path, &headers, body);
            let got = (answer.status, answer.error_code());
            assert_eq!(got, (403, "origin_not_allowed".to_owned()), "{path} {name}");
        }
    }
    // A form says what is wrong of a form, and nothing of what is in it.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (body, want) in [
        ("password=correct+horse", "has no user"),
        ("user=bob", "has no password"),
        ("", "has no user"),
        ("user=bob&password=correct horse", "can't be read"),
        ("user=bob&password=correct%ffhorse", "can't be read"),
    ] {
        let answer = one.request("POST", "/register", &form, body);
        let got = (answer.status, answer.error_code());
        assert_eq!(got, (400, "bad_request".to_owned()), "{body}");
        let text = answer.text();
        assert!(text.contains(want) && !text.contains("horse"), "{text}");
    }
    let plain = [("content-type", "text/plain")];
    let answer = one.request("POST", "/login", &plain, body("ann", PASSWORD).to_string());
    assert_eq!(answer.status, 415);

    // Guessing ends soon, also for who knows the password, but only for that name.
    let mut guesses = 0;
    let refused = loop {
        let answer = post(&one, "/login", None, &body("ann", wrong));
        match answer.status {
            401 => guesses += 1,
            _ => break answer,
        }
        assert!(guesses < 20);
    };
    assert_eq!(refused.error_code(), "too_many_attempts");
    assert_eq!(refused.status, 429);
    let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=7).contains(&retry), "{retry}");
    check(
        &one,
        "/login",
        body("ann", PASSWORD),
        429,
        "too_many_attempts",
    );
    check(&one, "/login", body("eve", wrong), 401, "wrong_password");
}

/// Who registers a name first has it, however many try at once.
#[tokio::test]
async fn nobody_takes_a_name_over() {
    let (redis, one, other) = start(&[]);
    for round in 0..3 {
        let user = format!("user{round}");
        let won: Vec<String> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..6)
                .map(|number| {
                    let (node, user) = (if number % 2 == 0 { &one } else { &other }, &user);
                    scope.spawn(move || {
                        let password = format!("password of {number}");
                        let body = json!({"user": user, "password": password});
                        let answer = post(node, "/register", None, &body);
                        match answer.status {
                            201 => Some(password),
                            _ => {
                                assert_eq!(answer.error_code(), "user_taken");
                                None
                            }
                        }
                    })
                })
                .collect();
            let tries = tries.into_iter();
            tries.filter_map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1, "{won:?}");
        for node in [&one, &other] {
            let body = json!({"user": user, "password": won[0]});
            assert_eq!(post(node, "/login", None, &body).status, 200);
        }
    }
    // What somebody puts into Redis can at worst not be logged in to.
    redis.cli(&["HSET", "tailcast:{}account:odd", "password", "plain text"]);
    let body = json!({"user": "odd", "password": "plain text"});
    assert_eq!(post(&one, "/login", None, &body).status, 500);
}

#[tokio::test]
async fn hosts_and_settings() {
    let secret = "what the tokens of these tests are signed with";
    let (_redis, one, other) = start(&[
        "--auth",
        "jwt",
        "--jwt-secret",
        secret,
        "--account-host",
        "boss,chief",
        "--token-cookie",
        "session",
    ]);
    let boss = register(&one, "boss");
    assert!(boss.starts_with("session="), "{boss}");
    let member = register(&other, "ann");
    let me = |cookie: &str| -> Value {
        let answer = other.request("GET", "/me?room=lobby", &[("cookie", cookie)], "");
        answer.json()
    };
    assert_eq!(me(&boss)["role"], "host");
    assert_eq!(me(&member)["role"], "member");
    let topic = json!({"act": "topic", "message": "Ours"});
    let path = "/rooms/lobby/moderation";
    assert_eq!(post(&one, path, Some(&member), &topic).status, 403);
    assert_eq!(post(&one, path, Some(&boss), &topic).status, 200);
    // Where --auth was said, nobody comes in without a token.
    assert_eq!(one.get("/rooms/lobby").status, 401);
    let nobody = one.get("/me?room=lobby").json();
    let want = json!({
        "user": null, "auth": "jwt", "accounts": true, "default_room": "mystream",
        "role": null, "rights": [],
    });
    assert_eq!(nobody, want);
    // A cookie that is good for nothing is taken away.
    let answer = one.request("GET", "/me", &[("cookie", "session=spoilt")], "");
    assert_eq!((answer.status, &answer.json()["user"]), (200, &Value::Null));
    let set = answer.header("set-cookie").unwrap();
    assert!(
        set.starts_with("session=; ") && set.contains("Max-Age=0"),
        "{set}"
    );
    let strange = [
        ("cookie", "session=spoilt"),
        ("origin", "https://evil.example"),
    ];
    let answer = one.request("GET", "/me", &strange, "");
    assert_eq!(answer.header("set-cookie"), None);
}

#[tokio::test]
async fn a_node_without_accounts() {
    let node = Node::in_memory(&[]);
    let body = json!({"user": "ann", "password": PASSWORD});
    for path in ["/register", "/login", "/logout"] {
        let answer = post(&node, path, None, &body);
        assert_eq!((answer.status, &*answer.error_code()), (404, "not_found"));
    }
    let me = node.get("/me?user=ann&room=lobby").json();
    let all = [
        "subscribe",
        "publish",
        "history",
        "presence",
        "moderate",
        "announce",
    ];
    let want = json!({
        "user": "ann", "auth": "none", "accounts": false, "default_room": "mystream",
        "role": "host", "rights": all,
    });
    assert_eq!(me, want);
    assert_eq!(
        node.get("/me").json(),
        json!({"user": null, "auth": "none", "accounts": false, "default_room": "mystream"})
    );
    assert_eq!(node.get("/me?room=tailcast:x").status, 400);
    assert_eq!(node.get("/me").header("cache-control"), Some("no-store"));
}

/// A node that is to share a secret waits for Redis, and can be stopped meanwhile.
#[tokio::test]
async fn a_secret_that_is_not_there_yet() {
    let mut redis = RedisServer::start();
    redis.kill9();
    let url = redis.url();
    let mut stopped = Node::spawn(&["--redis", &url, "--accounts"]);
    let node = std::thread::spawn(move || Node::start_with(&url, &["--accounts"]));
    while !stopped.stderr().contains("secret") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stopped.sigterm();
    assert!(stopped.wait_exit().success());
    redis.restart();
    let node = node.join().unwrap();
    register(&node, "ann");
    drop(node);
    // Without Redis the node has one of its own.
    let memory = Node::in_memory(&["--accounts"]);
    let cookie = register(&memory, "ann");
    let me = memory
        .request("GET", "/me", &[("cookie", &cookie)], "")
        .json();
    assert_eq!(me["user"], "ann");
}
