//! What a node says when it serves: where it is, and what can be typed on this machine to try it.

use std::path::Path;

use crate::auth::Mode;
use crate::config::Config;

/// Prints to standard error where the node is, and what to type next.
pub(super) fn greet(config: &Config) {
    for address in &config.stomp_listen {
        eprintln!("tailcast takes STOMP on {address}");
    }
    for address in &config.ops_listen {
        eprintln!("tailcast tells operators on http://{address}/status");
    }
    let Some(address) = config.listen.first() else {
        return;
    };
    eprintln!("tailcast serves on http://{address}");
    // Who asked for a quiet log knows what to type.
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let own = std::env::args().next();
    let own = own.as_deref().unwrap_or("tailcast");
    for line in lines(config, &address.to_string(), own, is_installed) {
        eprintln!("  {line}");
    }
}

/// What to type, of programs that are there: one that reads, one that writes, one that does both. `own` is how
/// this program was called.
fn lines(
    config: &Config,
    address: &str,
    own: &str,
    is_installed: impl Fn(&str) -> bool,
) -> Vec<String> {
    let room = &config.default_room;
    let browser = format!("or open http://{address} in a browser");
    match config.auth {
        Mode::None => {}
        Mode::Cookie => {
            return vec![format!(
                "clients say who they are by a cookie, as in: curl -N -H 'Accept: text/event-stream' -H 'Cookie: {}=alice' http://{address}/rooms/{room}",
                config.token_cookie
            )];
        }
        Mode::Jwt => {
            let token = format!("clients bring a token; {own} token --help says how to make one");
            return match config.accounts {
                true => vec![token, browser],
                false => vec![token],
            };
        }
    }
    let mut lines = vec![match is_installed("curl") {
        true => {
            format!("read:   curl -N -H 'Accept: text/event-stream' http://{address}/rooms/{room}")
        }
        false => format!("read:   {own} tail {room} --url ws://{address}"),
    }];
    let redis_cli = (!config.memory && is_installed("redis-cli")).then(|| redis_cli(config));
    lines.push(match redis_cli {
        Some(redis_cli) => {
            let key = format!("{}{room}", config.key_prefix);
            format!("write:  {redis_cli} XADD {key} '*' message hello")
        }
        None if is_installed("curl") => {
            format!("write:  curl -d hello http://{address}/rooms/{room}")
        }
        None => format!("write:  {own} publish {room} hello --url ws://{address}"),
    });
    if is_installed("npx") {
        lines.push(format!("both:   npx wscat -c ws://{address}"));
    }
    lines.push(browser);
    lines
}

/// How one talks to that Redis, but for a password.
fn redis_cli(config: &Config) -> String {
    let url = config.redis.to_string();
    match url.strip_prefix("unix://") {
        _ if !config.redis_given => "redis-cli".to_owned(),
        Some(path) => format!("redis-cli -s {}", path.split('?').next().unwrap_or(path)),
        None => format!("redis-cli -u {url}"),
    }
}

/// Whether a program of this name is in PATH.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::config::{load, origin::Sources};

    fn config(flags: &[(&str, &str)]) -> Config {
        let look = |name: &str| {
            let flag = flags.iter().find(|(key, _)| *key == name);
            flag.map(|(_, text)| (*text).to_owned())
        };
        let sources = Sources {
            flags: &look,
            environment: &|_| None,
            variables: &Vec::new,
            file: None,
        };
        load(&sources).expect("good settings").0
    }

    #[test]
    fn only_what_is_installed_is_told() {
        let told = |flags: &[(&str, &str)], programs: &[&str]| {
            let lines = lines(&config(flags), "h:1", "tailcast", |name| {
                programs.contains(&name)
            });
            lines.join("\n")
        };
        for (flags, programs, want) in [
            (
                &[][..],
                &["curl", "redis-cli", "npx"][..],
                &[
                    "curl -N",
                    "redis-cli XADD mystream",
                    "npx wscat -c ws://h:1",
                    "open http://h:1",
                ][..],
            ),
            (
                &[],
                &["redis-cli"],
                &["tailcast tail mystream --url ws://h:1", "redis-cli XADD"],
            ),
            (
                &[],
                &[],
                &["tailcast tail", "tailcast publish mystream hello"],
            ),
            (
                &[("memory", "true")],
                &["curl", "redis-cli"],
                &["curl -d hello http://h:1/rooms/mystream"],
            ),
            (&[("auth", "cookie")], &["curl"], &["Cookie: token=alice"]),
            (
                &[
                    ("auth", "jwt"),
                    ("jwt-secret", "0123456789abcdef-0123456789abcdef"),
                ],
                &["curl"],
                &["tailcast token --help"],
            ),
        ] {
            let told = told(flags, programs);
            for word in want {
                assert!(told.contains(word), "{flags:?} {programs:?}: {told}");
            }
            for program in ["curl", "redis-cli", "npx"] {
                assert!(
                    programs.contains(&program) || !told.contains(&format!("{program} ")),
                    "{program} is not installed: {told}"
                );
            }
        }
    }
}
