//! Appends, ranges, states and health.

use std::ops::Bound;
use std::time::Duration;

use tailcast::relay::entry::EntryId;
use tailcast::relay::log::{Append, AppendError, Lane, Limit, Log, LogError, Range};
use tailcast::store::redis::{Durability, RedisLog, Retention, Settings, probe};
use tokio::time::Instant;

use crate::harness::{Server, append, room, store, until};

const SOON: Duration = Duration::from_secs(10);

fn all() -> Range {
    Range {
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        limit: 100_000,
        newest_first: false,
    }
}

pub(crate) async fn messages(log: &dyn Log, name: &str) -> Vec<String> {
    let entries = log.range(&room(name), all()).await.unwrap();
    let text = |message: &[u8]| String::from_utf8_lossy(message).into_owned();
    entries.iter().map(|entry| text(entry.message())).collect()
}

#[tokio::test]
async fn order_of_calls_is_order_of_entries() {
    let server = Server::start(&[]).await;
    let log = server.log();
    let told: Vec<_> = (0..5000)
        .map(|index| {
            let key = (index % 3 == 0).then(|| format!("key {index}"));
            append(&*log, "r", &index.to_string(), key.as_deref(), SOON)
        })
        .collect();
    let mut ids = Vec::new();
    for told in told {
        ids.push(told.await.unwrap().unwrap());
    }
    assert!(ids.is_sorted_by(|a, b| a < b));
    let want: Vec<_> = (0..5000).map(|index| index.to_string()).collect();
    assert_eq!(messages(&*log, "r").await, want);

    let some = |from, to, limit, newest_first| {
        let range = Range {
            from,
            to,
            limit,
            newest_first,
        };
        log.range(&room("r"), range)
    };
    let (first, second) = (ids[0], ids[1]);
    let got = some(Bound::Excluded(first), Bound::Unbounded, 2, false)
        .await
        .unwrap();
    assert_eq!(got.iter().map(|e| e.id).collect::<Vec<_>>(), ids[1..3]);
    let got = some(Bound::Unbounded, Bound::Excluded(second), 9, true)
        .await
        .unwrap();
    assert_eq!(got.iter().map(|e| e.id).collect::<Vec<_>>(), [first]);
    let got = some(Bound::Excluded(EntryId::MAX), Bound::Unbounded, 9, false)
        .await
        .unwrap();
    assert!(got.is_empty());
    let state = log.state(&room("r")).await.unwrap().unwrap();
    assert_eq!((state.first, state.last), (Some(first), ids[4999]));
    assert_eq!((state.len, state.added), (5000, Some(5000)));
    assert_eq!(log.state(&room("none")).await, Ok(None));
}

#[tokio::test]
async fn a_key_stores_once() {
    let server = Server::start(&[]).await;
    let log = server.log();
    let first = append(&*log, "r", "a", Some("k"), SOON)
        .await
        .unwrap()
        .unwrap();
    for _ in 0..3 {
        let again = append(&*log, "r", "b", Some("k"), SOON).await.unwrap();
        assert_eq!(again, Ok(first));
    }
    // The server forgets scripts.
    server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    let again = append(&*log, "r", "b", Some("k"), SOON).await.unwrap();
    assert_eq!(again, Ok(first));
    let other = append(&*log, "r", "c", Some("k2"), SOON).await.unwrap();
    assert!(other.unwrap() > first);
    assert_eq!(messages(&*log, "r").await, ["a", "c"]);
}

#[tokio::test]
async fn one_error_concerns_one_append() {
    let server = Server::start(&[]).await;
    server.command(&["SET", "string", "x"]).await.unwrap();
    let log = server.log();
    let told: Vec<_> = (0..90)
        .map(|index| {
            let name = if index % 3 == 1 { "string" } else { "r" };
            let key = (index % 2 == 0).then(|| format!("{index}"));
            append(&*log, name, &index.to_string(), key.as_deref(), SOON)
        })
        .collect();
    for (index, told) in told.into_iter().enumerate() {
        let outcome = told.await.unwrap();
        if index % 3 == 1 {
            assert_eq!(outcome, Err(AppendError::Refused(LogError::WrongType)));
        } else {
            assert!(outcome.is_ok(), "{index}: {outcome:?}");
        }
    }
    assert_eq!(messages(&*log, "r").await.len(), 60);
    assert_eq!(log.state(&room("string")).await, Err(LogError::WrongType));
}

#[tokio::test]
async fn full_memory_and_missing_replicas() {
    let server = Server::start(&[]).await;
    let log = RedisLog::start(Settings {
        durability: Durability::Replicated {
            replicas: 1,
            timeout: Duration::from_millis(50),
        },
        ..server.settings()
    })
    .unwrap();
    let outcome = append(&*log, "r", "a", None, SOON).await.unwrap();
    let Err(AppendError::NotReplicated(id)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(log.state(&room("r")).await.unwrap().unwrap().last, id);
    server
        .command(&["CONFIG", "SET", "maxmemory", "1"])
        .await
        .unwrap();
    for key in [None, Some("k")] {
        let outcome = append(&*log, "r", "a", key, SOON).await.unwrap();
        let full = matches!(outcome, Err(AppendError::Refused(LogError::Full(_))));
        assert!(full, "{outcome:?}");
    }
    // A state that passes is waited for, up to the deadline.
    server
        .command(&["CONFIG", "SET", "maxmemory", "0"])
        .await
        .unwrap();
    server
        .command(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .await
        .unwrap();
    let short = Duration::from_millis(300);
    let outcome = append(&*log, "r", "a", None, short).await.unwrap();
    let refused = matches!(outcome, Err(AppendError::Refused(LogError::ReadOnly(_))));
    assert!(refused, "{outcome:?}");
    let told = append(&*log, "r", "b", None, SOON);
    server
        .command(&["CONFIG", "SET", "min-replicas-to-write", "0"])
        .await
        .unwrap();
    let outcome = told.await.unwrap();
    assert!(
        matches!(outcome, Err(AppendError::NotReplicated(_))),
        "{outcome:?}"
    );
    assert_eq!(messages(&*log, "r").await, ["a", "b"]);
}

#[tokio::test]
async fn waits_while_down_then_is_refused() {
    let mut server = Server::start(&["--appendonly", "yes"]).await;
    let log = server.log();
    store(&*log, "r", "0").await;
    server.kill();
    let started = Instant::now();
    let short = Duration::from_millis(400);
    let outcome = append(&*log, "r", "lost", None, short).await.unwrap();
    let refused = matches!(outcome, Err(AppendError::Refused(LogError::Unavailable(_))));
    // The connection may have broken with it on the wire; that is rare, and told.
    let unknown = matches!(outcome, Err(AppendError::Unknown(_)));
    assert!(refused || unknown, "{outcome:?}");
    let took = started.elapsed();
    assert!(!refused || took >= short, "{took:?}");
    assert!(took < short * 5, "{took:?}");
    until("health says so", || async { log.health().is_err() }).await;
    let told = append(&*log, "r", "1", None, SOON * 3);
    server.run().await;
    told.await.unwrap().unwrap();
    until("health says so", || async { log.health().is_ok() }).await;
    assert_eq!(messages(&*log, "r").await, ["0", "1"]);
}

#[tokio::test]
async fn starts_without_redis_and_limits_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let log = RedisLog::start(Settings {
        url: format!("unix://{}/none.sock", dir.path().display()),
        publish_queue: 2,
        ..Settings::default()
    })
    .unwrap();
    assert!(log.health().is_err());
    let short = Duration::from_millis(200);
    let told: Vec<_> = (0..3)
        .map(|_| append(&*log, "r", "x", None, short))
        .collect();
    let mut outcomes = Vec::new();
    for told in told {
        outcomes.push(told.await.unwrap());
    }
    assert_eq!(outcomes[2], Err(AppendError::Refused(LogError::Busy)));
    for outcome in &outcomes[..2] {
        let refused = matches!(outcome, Err(AppendError::Refused(LogError::Unavailable(_))));
        assert!(refused, "{outcome:?}");
    }
    assert!(matches!(
        log.range(&room("r"), all()).await,
        Err(LogError::Unavailable(_))
    ));
    // Whatever waits when the log goes is told.
    let told = append(&*log, "r", "x", None, SOON);
    drop(log);
    assert!(matches!(told.await.unwrap(), Err(AppendError::Refused(_))));
}

#[tokio::test]
async fn a_hung_server_is_told_in_time() {
    let server = Server::start(&[]).await;
    let log = server.log();
    store(&*log, "r", "0").await;
    server.signal("-STOP");
    let started = Instant::now();
    let short = Duration::from_millis(500);
    let told = append(&*log, "r", "1", None, short);
    let keyed = append(&*log, "r", "2", Some("k"), short * 2);
    let outcome = told.await.unwrap();
    let took = started.elapsed();
    assert!(
        matches!(outcome, Err(AppendError::Unknown(_))),
        "{outcome:?}"
    );
    assert!(took >= short && took < short * 2, "{took:?}");
    let outcome = keyed.await.unwrap();
    assert!(
        matches!(outcome, Err(AppendError::Unknown(_))),
        "{outcome:?}"
    );
    // What waits behind was never sent.
    let outcome = append(&*log, "r", "3", None, short).await.unwrap();
    assert!(
        matches!(outcome, Err(AppendError::Refused(_))),
        "{outcome:?}"
    );
    // A key makes it safe to try again.
    let keyed = append(&*log, "r", "2", Some("k"), SOON);
    server.signal("-CONT");
    let id = keyed.await.unwrap().unwrap();
    store(&*log, "r", "4").await;
    let stored = messages(&*log, "r").await;
    assert_eq!(stored.iter().filter(|message| *message == "2").count(), 1);
    assert!(!stored.contains(&"3".to_owned()));
    assert!(log.state(&room("r")).await.unwrap().unwrap().last > id);
}

#[tokio::test]
async fn trims_and_expires() {
    let server = Server::start(&[]).await;
    let log = RedisLog::start(Settings {
        keep: Retention::Entries(100),
        expire_after: Some(Duration::from_secs(1000)),
        key_prefix: "app:".to_owned(),
        ..server.settings()
    })
    .unwrap();
    let told: Vec<_> = (0..1000)
        .map(|_| append(&*log, "r", "x", None, SOON))
        .collect();
    for told in told {
        told.await.unwrap().unwrap();
    }
    let state = log.state(&room("r")).await.unwrap().unwrap();
    assert!((100..=300).contains(&state.len), "{state:?}");
    let left = server.command(&["PTTL", "app:r"]).await.unwrap();
    assert!(
        matches!(left, redis::Value::Int(ms) if ms > 900_000),
        "{left:?}"
    );
    let calls = server.command(&["INFO", "commandstats"]).await.unwrap();
    assert!(
        format!("{calls:?}").contains("cmdstat_pexpire:calls=1,"),
        "{calls:?}"
    );

    let aged = RedisLog::start(Settings {
        keep: Retention::Age(Duration::from_secs(3600)),
        ..server.settings()
    })
    .unwrap();
    let old: Vec<String> = (1..=300).map(|seq| format!("5-{seq}")).collect();
    for id in &old {
        server
            .command(&["XADD", "old", id, "a", "b"])
            .await
            .unwrap();
    }
    store(&*aged, "old", "x").await;
    assert!(aged.state(&room("old")).await.unwrap().unwrap().len < 200);
}

#[tokio::test]
async fn says_who_it_is() {
    let server = Server::start(&["--appendonly", "yes"]).await;
    let seen = probe(&server.url()).await.unwrap();
    assert!(seen.tracking);
    assert_eq!(seen.append_only, Some(true));
    assert_eq!(seen.save.as_deref(), Some(""));
    assert_eq!(seen.eviction.as_deref(), Some("noeviction"));
    assert_eq!(seen.role.as_deref(), Some("master"));
    assert!(seen.server.is_some() && seen.version.is_some());
    server
        .command(&["CONFIG", "SET", "requirepass", "secret"])
        .await
        .unwrap();
    let denied = probe(&server.url()).await.unwrap_err().to_string();
    assert!(denied.contains("denied"), "{denied}");
    let log = server.log();
    let denied = || async { matches!(log.health(), Err(LogError::Denied(_))) };
    until("health says that a password is missing", denied).await;
    let log = RedisLog::start(Settings {
        url: format!("{}?pass=secret", server.url()),
        ..Settings::default()
    })
    .unwrap();
    store(&*log, "r", "x").await;
}

#[tokio::test]
async fn a_replica_takes_no_appends_until_it_is_a_master() {
    let server = Server::start(&[]).await;
    let log = server.log();
    store(&*log, "r", "0").await;
    server
        .command(&["REPLICAOF", "127.0.0.1", "1"])
        .await
        .unwrap();
    let short = Duration::from_millis(300);
    let outcome = append(&*log, "r", "lost", None, short).await.unwrap();
    let refused = matches!(outcome, Err(AppendError::Refused(LogError::ReadOnly(_))));
    assert!(refused, "{outcome:?}");
    let told = append(&*log, "r", "1", None, SOON);
    server.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    told.await.unwrap().unwrap();
    assert_eq!(messages(&*log, "r").await, ["0", "1"]);
}

#[tokio::test]
async fn the_first_lane_goes_in_first_though_the_usual_one_is_full() {
    let mut server = Server::start(&["--appendonly", "yes"]).await;
    let log = RedisLog::start(Settings {
        publish_queue: 3,
        ..server.settings()
    })
    .unwrap();
    store(&*log, "r", "0").await;
    server.kill();
    until("health says so", || async { log.health().is_err() }).await;
    let usual: Vec<_> = ["1", "2", "3"]
        .map(|message| append(&*log, "r", message, None, SOON * 2))
        .into();
    let refused = append(&*log, "r", "4", None, SOON).await.unwrap();
    assert_eq!(refused, Err(AppendError::Refused(LogError::Busy)));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for message in ["host 1", "host 2"] {
        let tell = tell.clone();
        log.append(Append {
            room: room("r"),
            fields: Box::new([("message".into(), message.into())]),
            key: None,
            limits: Box::default(),
            lane: Lane::First,
            deadline: Instant::now() + SOON * 2,
            done: Box::new(move |outcome| drop(tell.send(outcome))),
        });
    }
    drop(tell);
    server.run().await;
    while let Some(outcome) = told.recv().await {
        outcome.unwrap();
    }
    for told in usual {
        told.await.unwrap().unwrap();
    }
    until("health says so", || async { log.health().is_ok() }).await;
    let stored = messages(&*log, "r").await;
    assert_eq!(stored, ["0", "host 1", "host 2", "1", "2", "3"]);
}

#[tokio::test]
async fn limits_hold_when_the_server_forgets_scripts() {
    let server = Server::start(&[]).await;
    let log = server.log();
    let limited = |burst: u32| {
        let (tell, told) = tokio::sync::oneshot::channel();
        log.append(Append {
            room: room("r"),
            fields: Box::new([("message".into(), "x".into())]),
            key: None,
            limits: Box::new([Limit {
                name: "user".into(),
                interval: Duration::from_secs(60),
                burst,
            }]),
            lane: Lane::Usual,
            deadline: Instant::now() + SOON,
            done: Box::new(|outcome| drop(tell.send(outcome))),
        });
        async { told.await.unwrap() }
    };
    limited(2).await.unwrap();
    server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    limited(2).await.unwrap();
    let Err(AppendError::TooFast { limit, retry }) = limited(2).await else {
        panic!("the third is one too many");
    };
    assert_eq!(limit, 0);
    assert!(retry > Duration::from_secs(30) && retry <= Duration::from_secs(60));
    // It's forgotten when it's full again, and a foreign value does no harm.
    let key = "tailcast:{}rate:1:r:user";
    let left = server.command(&["PTTL", key]).await.unwrap();
    let full = matches!(left, redis::Value::Int(ms) if (60_000..=120_000).contains(&ms));
    assert!(full, "{left:?}");
    server.command(&["SET", key, "nonsense"]).await.unwrap();
    limited(1).await.unwrap();
    // What was far in the future counts as a full charge, no more.
    server.command(&["SET", key, "9e18"]).await.unwrap();
    let Err(AppendError::TooFast { retry, .. }) = limited(1).await else {
        panic!("it is charged");
    };
    assert!(retry <= Duration::from_secs(60));
    assert_eq!(messages(&*log, "r").await.len(), 3);
}
