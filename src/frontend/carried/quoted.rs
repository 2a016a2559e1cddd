//! Text inside a JSON string, as SockJS has it.

/// Appends what stands for text between a JSON string's quotes. Besides what JSON itself escapes,
/// characters that some browsers lose or change are escaped. Texts in a row become what they become
/// together.
pub(crate) fn put(out: &mut Vec<u8>, text: &str) {
    let mut plain = 0;
    for (at, first) in text.bytes().enumerate() {
        if !may_be_escaped(first) {
            continue;
        }
        let Some(char) = text.get(at..).and_then(|rest| rest.chars().next()) else {
            continue;
        };
        if let Some(escaped) = Escape::of(char) {
            out.extend_from_slice(&text.as_bytes()[plain..at]);
            escaped.put(out);
            plain = at + char.len_utf8();
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
}

/// Whether a character that begins with this byte needs a closer look.
fn may_be_escaped(first: u8) -> bool {
    matches!(first, 0..=0x1f | b'"' | b'\\' | 0xe2 | 0xef)
}

enum Escape {
    /// A backslash and this.
    Short(u8),
    /// By its number.
    Number(u32),
}

impl Escape {
    fn of(char: char) -> Option<Self> {
        Some(match char {
            '"' => Escape::Short(b'"'),
            '\\' => Escape::Short(b'\\'),
            '\n' => Escape::Short(b'n'),
            '\r' => Escape::Short(b'r'),
            '\t' => Escape::Short(b't'),
            '\u{8}' => Escape::Short(b'b'),
            '\u{c}' => Escape::Short(b'f'),
            '\0'..='\u{1f}'
            | '\u{200c}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff0}'..='\u{ffff}' => Escape::Number(u32::from(char)),
            _ => return None,
        })
    }

    fn put(self, out: &mut Vec<u8>) {
        match self {
            Escape::Short(byte) => out.extend_from_slice(&[b'\\', byte]),
            Escape::Number(number) => {
                out.extend_from_slice(format!("\\u{number:04x}").as_bytes());
            }
        }
    }
}

/// The text again; none if it's none.
pub(crate) fn read(quoted: &[u8]) -> Option<String> {
    let quoted = [b"\"", quoted, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, text);
        out
    }

    #[test]
    fn what_is_escaped() {
        let check = |text: &str, want: &str| {
            assert_eq!(String::from_utf8(escaped(text)).unwrap(), want);
        };
        check("", "");
        check("plain é 😀", "plain é 😀");
        check("a\"b\\\n\r\t\u{8}\u{c}", r#"a\"b\\\n\r\t\b\f"#);
        check("\0\u{1f}\u{7f}", "\\u0000\\u001f\u{7f}");
        check(
            "\u{200b}\u{200c}\u{2028}\u{206f}",
            "\u{200b}\\u200c\\u2028\\u206f",
        );
        check(
            "\u{feff}\u{fff0}\u{ffff}\u{10000}",
            "\u{feff}\\ufff0\\uffff\u{10000}",
        );
    }

    proptest! {
        #[test]
        fn text_comes_back_and_parts_are_a_whole(one in any::<String>(), two in any::<String>()) {
            let whole = format!("{one}{two}");
            prop_assert_eq!(escaped(&whole), [escaped(&one), escaped(&two)].concat());
            prop_assert_eq!(read(&escaped(&whole)), Some(whole));
        }
    }

    /// Every character there is, against the ranges.
    #[test]
    fn none_is_overlooked() {
        for char in '\0'..=char::MAX {
            let text = char.to_string();
            assert_eq!(
                escaped(&text) != text.as_bytes(),
                Escape::of(char).is_some()
            );
        }
    }
}
