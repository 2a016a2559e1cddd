//! The people of the demo, being there: a socket for each, so that rooms have somebody in them.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use super::script::{Room, users};
use crate::cli::client::{self, Failure};
use crate::relay::entry::RoomName;

/// Rooms that one of them is in.
const ROOMS_EACH: usize = 3;

/// Everybody comes within this time, one after the other.
const ARRIVAL: Duration = Duration::from_millis(100);

/// Somebody, and where they are.
struct Guest {
    user: &'static str,
    rooms: Vec<RoomName>,
}

/// Has everybody come, and stay until the program ends, on a thread of their own. On a server that
/// believes them who they say they are.
pub(super) fn gather(url: &str, rooms: &[Room]) -> Result<()> {
    // The client speaks no TLS; then nobody is there.
    let Ok(base) = client::base(url) else {
        return Ok(());
    };
    let guests = guests(rooms);
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut staying = JoinSet::new();
            for guest in guests {
                staying.spawn(stay(base.clone(), guest));
                sleep(ARRIVAL).await;
            }
            staying.join_all().await;
        });
    });
    Ok(())
}

/// Each is in the rooms where they have something to say.
fn guests(rooms: &[Room]) -> Vec<Guest> {
    let is_in = |room: &&Room, user: &str| room.lines.iter().any(|line| line.user == user);
    let guest = |(number, user)| {
        // Each begins with another one, or the first rooms would be full and the last ones empty.
        let from_there = rooms.iter().cycle().skip(number).take(rooms.len());
        let theirs = from_there.filter(|room| is_in(room, user));
        let theirs = theirs.map(|room| room.name.clone());
        Guest {
            user,
            rooms: theirs.take(ROOMS_EACH).collect(),
        }
    };
    users(rooms).into_iter().enumerate().map(guest).collect()
}

async fn stay(base: String, guest: Guest) {
    let mut failures = 0;
    loop {
        match attend(&base, &guest).await {
            Ok(()) => failures = 0,
            Err(Failure::Nobody(_) | Failure::Retry(_)) => failures += 1,
            // Whoever may not be here says so in what they publish, too.
            Err(Failure::Final(_)) => return,
        }
        sleep(client::backoff(failures)).await;
    }
}

/// Is there, until the connection ends.
async fn attend(base: &str, guest: &Guest) -> Result<(), Failure> {
    let Some((home, others)) = guest.rooms.split_first() else {
        return Err(Failure::Final("nowhere to be".to_owned()));
    };
    // Names in the demo are plain letters.
    let address = format!("{}&user={}", client::address(base, home, "now"), guest.user);
    let mut socket = client::connect(&address, None).await?;
    let lost = |error: tokio_tungstenite::tungstenite::Error| Failure::Retry(error.to_string());
    for room in others {
        let join = json!({"type": "join", "room": room.as_str()}).to_string();
        socket.send(Message::text(join)).await.map_err(lost)?;
    }
    // Reading answers the pings.
    while let Some(message) = socket.next().await {
        message.map_err(lost)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_everywhere() {
        let rooms = super::super::script::rooms().expect("rooms");
        let guests = guests(&rooms);
        for room in &rooms {
            let here = guests
                .iter()
                .filter(|guest| guest.rooms.contains(&room.name));
            assert!(here.count() > 1, "{}", room.name);
        }
        let plain = |guest: &Guest| guest.user.bytes().all(|byte| byte.is_ascii_lowercase());
        assert!(guests.iter().all(plain));
    }
}
