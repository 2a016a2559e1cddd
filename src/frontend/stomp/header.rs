//! Which fields of an entry become headers of a MESSAGE: those that every client reads as they are.
//!
//! Clients differ in how they read a header. Some trim names, some fold their case, some take the
//! last of a repeated name instead of the first, and some end a frame at a NUL byte wherever it is.
//! So a name is allowed by what it's made of, and not by what it isn't: a field that some client could
//! take for one of the server's own headers is no header for anybody.

use memchr::memchr;

use super::frame::LINE_MAX;

/// Headers that the server writes, in lower case. A field of such a name would be taken for them.
const OWN: [&str; 9] = [
    "subscription",
    "destination",
    "message-id",
    "ack",
    "content-length",
    "timestamp",
    "receipt-id",
    "x-omitted",
    // Beside a body that the publisher wrote as base64 it would be right by chance, beside any other a lie.
    "content-transfer-encoding",
];

/// Headers of gaps, and of what may be told in gaps one day.
const OWN_PREFIX: &str = "x-gap-";

/// The publisher of an entry. The node writes it, and nobody else can.
const USER: &str = "user";

/// What every object of JavaScript has. Clients that keep headers in one lose it to a field of that
/// name, and some of them fail then (stompit asks `headers.hasOwnProperty`).
const OF_OBJECTS: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// Most fields of an entry that become headers, `user` apart. A client may refuse a frame with more
/// than 64 headers, and end its connection (stompit does).
pub(super) const FIELDS_MAX: usize = 48;

/// A field as a header, if it can be one.
pub(super) fn of<'a>(name: &'a [u8], value: &'a [u8]) -> Option<(&'a str, &'a str)> {
    let fits = name.len() + value.len() < LINE_MAX / 2;
    let has_nul = memchr(0, value).is_some();
    if !fits || has_nul {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?;
    let value = std::str::from_utf8(value).ok()?;
    let is_free = is_safe(name) && !is_own(name);
    (is_free && !is_other_user(name, value)).then_some((name, value))
}

/// Whether it's the field that says who published the entry.
pub(super) fn is_user(name: &str) -> bool {
    name == USER
}

/// Whether a name is made of what no client takes away from one, and splits at or unescapes.
fn is_safe(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_safe_char) && !OF_OBJECTS.contains(&name)
}

fn is_safe_char(char: char) -> bool {
    match char {
        // They separate and escape.
        ':' | '\\' => false,
        '\0'..='\x7f' => char.is_ascii_graphic(),
        // No white space, and no mark that is not seen.
        _ => char.is_alphanumeric(),
    }
}

/// A name without what case makes of it: for the Kelvin sign, whose small letter is a k, and for the
/// long s, whose capital is an S, as well.
fn folded(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

fn is_own(name: &str) -> bool {
    let name = folded(name);
    OWN.contains(&&*name) || name.starts_with(OWN_PREFIX)
}

/// Whether some client would read this as who published the entry, but as another than it was: `User`
/// where names are folded, and ` admin` where values are trimmed.
fn is_other_user(name: &str, value: &str) -> bool {
    folded(name) == USER && (name != USER || value.trim_matches(is_trimmed) != value)
}

/// What clients take away around a value: white space by Unicode, what JavaScript adds to that now and
/// did once, and control characters, some of which Python adds.
fn is_trimmed(char: char) -> bool {
    char.is_whitespace() || char.is_control() || matches!(char, '\u{feff}' | '\u{180e}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn can_be(name: &str) -> bool {
        of(name.as_bytes(), b"v").is_some()
    }

    #[test]
    fn names() {
        for good in [
            "a",
            "x-a_b.c",
            "größe",
            "名前",
            "नाम",
            "!\"#$%&'()*+,-./;<=>?@[]^`{|}~",
            "User-Agent",
        ] {
            assert!(can_be(good), "{good}");
        }
        for own in [
            "message-id",
            "Message-ID",
            "CONTENT-LENGTH",
            "x-gap-after",
            "X-Gap-Later",
            "receipt-id",
        ] {
            assert!(!can_be(own), "{own}");
        }
        for bad in [
            "",
            "a:b",
            "a\\cb",
            "hasOwnProperty",
            "__proto__",
            "User",
            "USER",
        ] {
            assert!(!can_be(bad), "{bad}");
        }
        assert!(of(b"n\xff", b"v").is_none() && of(b"n", b"\xff").is_none());
        assert!(of(b"n", b"a\0b").is_none());
        assert!(of(b"n", &[b'x'; LINE_MAX]).is_none());
        assert_eq!(of(b"n", " v\r\n".as_bytes()), Some(("n", " v\r\n")));
    }

    /// Over all of Unicode: what's left of a name when clients trim it, in front or behind, is all of
    /// it, and no letter makes a name of the server's own when case is changed.
    #[test]
    fn no_character_of_a_name_can_be_lost() {
        for char in '\0'..=char::MAX {
            if can_be(&format!("a{char}")) {
                assert!(!is_trimmed(char), "{char:?}");
            }
        }
        let own = [
            "ac\u{212a}",
            "\u{17f}ubscription",
            "me\u{df}age-id",
            "u\u{17f}er",
        ];
        for own in own {
            assert!(!can_be(own), "{own}");
        }
    }

    #[test]
    fn who_published_it() {
        let user = |value: &str| of(b"user", value.as_bytes()).is_some();
        assert!(user("admin") && user("Zo\u{eb} L") && user("a:b"));
        for blank in [
            ' ', '\t', '\u{a0}', '\u{feff}', '\u{2028}', '\u{85}', '\u{1c}', '\u{180e}',
        ] {
            assert!(!user(&format!("{blank}admin")), "{blank:?}");
            assert!(!user(&format!("admin{blank}")), "{blank:?}");
        }
    }
}
