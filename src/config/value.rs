//! Reads single values: times, sizes, addresses, URLs. Every error says what to write instead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A time with its unit: `500ms`, `30s`, `5m`, `24h`, `7d`, or `0`.
pub fn time(text: &str) -> Result<Duration, String> {
    const HOW: &str = "write a whole number and a unit, as in 500ms, 30s, 5m, 24h or 7d";
    let (digits, unit) = split_unit(text);
    let per_unit: u64 = match unit {
        "" if digits == "0" => 1,
        "" => return Err(format!("has no unit; {HOW}")),
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("is no time; {HOW}")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("is no time; {HOW}"))?;
    // A century is for ever; more would overflow sums with the clock.
    count
        .checked_mul(per_unit)
        .filter(|ms| *ms <= 100 * 365 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "is too long; the most is 36500d".to_owned())
}

/// Bytes: `64KiB`, `1MiB`, `2GiB`, or a plain number.
pub fn size(text: &str) -> Result<u64, String> {
    const HOW: &str = "write bytes, or a whole number with KiB, MiB or GiB, as in 64KiB";
    let (digits, unit) = split_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(format!("is no size; {HOW}")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("is no size; {HOW}"))?;
    count
        .checked_mul(1 << shift)
        .filter(|bytes| usize::try_from(*bytes).is_ok_and(|bytes| isize::try_from(bytes).is_ok()))
        .ok_or_else(|| "is more than this machine can address; write a smaller size".to_owned())
}

/// A whole number.
pub fn count(text: &str) -> Result<u64, String> {
    const HOW: &str = "write a whole number, as in 100";
    match split_unit(text) {
        (digits, "") => digits.parse().map_err(|_| format!("is no number; {HOW}")),
        _ => Err(format!("is no number; {HOW}")),
    }
}

/// `true` or `false`.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("is neither true nor false; write one of them".to_owned()),
    }
}

/// The digits in front, and what follows. Signs and spaces are no digits.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// What stands between commas, trimmed; nothing for an empty text.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// Addresses to listen on.
pub fn addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    let mut found = Vec::new();
    for part in list(text) {
        let address = match part.strip_prefix("localhost:") {
            Some(port) => port
                .parse()
                .ok()
                .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            None => part.parse().ok(),
        };
        let Some(address) = address else {
            return Err(format!(
                "has {part}, which is no address with a port; write it as in 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"
            ));
        };
        // Port 0 is another port each time, so it may repeat.
        if address.port() != 0 && found.contains(&address) {
            return Err(format!("has {part} twice; leave one out"));
        }
        found.push(address);
    }
    if found.is_empty() {
        return Err("is empty; write an address with a port, as in 127.0.0.1:8080".to_owned());
    }
    Ok(found)
}

/// A URL without its password.
pub fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':') else {
        return url.to_owned();
    };
    let mut masked = format!("{scheme}:");
    // The last @ ends the password even in a URL that forgot to encode one.
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) => {
            match user.split_once(':') {
                Some((name, _)) => masked.push_str(&format!("{name}:***@")),
                None if user.starts_with("//") => masked.push_str(&format!("{user}@")),
                None => masked.push_str("***@"),
            }
            host
        }
        None => rest,
    };
    let Some((path, query)) = rest.split_once('?') else {
        masked.push_str(rest);
        return masked;
    };
    masked.push_str(path);
    for (index, pair) in query.split('&').enumerate() {
        masked.push(if index == 0 { '?' } else { '&' });
        masked.push_str(if pair.starts_with("pass=") {
            "pass=***"
        } else {
            pair
        });
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(time(text).ok(), ms.map(Duration::from_millis), "{text}");
        };
        check("0", Some(0));
        check("0s", Some(0));
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("24h", Some(86_400_000));
        check("7d", Some(604_800_000));
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "+5s",
            "5 s",
            "1.5s",
            "5w",
            "99999999999999999999s",
            "36501d",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn sizes() {
        let check = |text: &str, want: Option<u64>| assert_eq!(size(text).ok(), want, "{text}");
        check("0", Some(0));
        check("1000", Some(1_000));
        check("64KiB", Some(65_536));
        check("64k", Some(65_536));
        check("1MiB", Some(1_048_576));
        check("2GiB", Some(2_147_483_648));
        for bad in [
            "",
            "KiB",
            "-1",
            "1KB",
            "1 KiB",
            "1.5MiB",
            "9999999999999GiB",
            "18446744073709551615",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn listeners() {
        let check = |text: &str, want: &[&str]| {
            let found = addresses(text).unwrap_or_default();
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, want, "{text}");
        };
        check("localhost:8080", &["127.0.0.1:8080"]);
        check("127.0.0.1:1, [::1]:2", &["127.0.0.1:1", "[::1]:2"]);
        check("127.0.0.1:0,127.0.0.1:0", &["127.0.0.1:0", "127.0.0.1:0"]);
        for bad in [
            "",
            ",",
            "8080",
            ":8080",
            "localhost",
            "example.com:80",
            "127.0.0.1:99999",
            "127.0.0.1:1,127.0.0.1:1",
        ] {
            check(bad, &[]);
        }
    }

    #[test]
    fn masks() {
        let check = |url: &str, want: &str| assert_eq!(mask(url), want);
        check("redis://h:1/2", "redis://h:1/2");
        check("redis://:secret@h", "redis://:***@h");
        check("rediss://me:se@c/r?et@h:1/2", "rediss://me:***@h:1/2");
        check(
            "unix:///tmp/s?db=1&pass=secret&user=me",
            "unix:///tmp/s?db=1&pass=***&user=me",
        );
        check("redis:secret@h", "redis:***@h");
        check("redis://me@h", "redis://me@h");
        check("nothing", "nothing");
    }
}
