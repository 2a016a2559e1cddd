//! The table, and what fits into a close frame.

use super::*;
use crate::relay::entry::EntryId;
use crate::relay::format::GapReason;

#[test]
fn codes_and_whether_to_reconnect() {
    let gap = Gap {
        after: EntryId::new(5, 0),
        before: EntryId::new(9, 0),
        reason: GapReason::Trimmed,
    };
    let text = || Cow::Borrowed("why");
    let table = [
        (CloseReason::Gone, 1000, false),
        (CloseReason::Drain, 1012, true),
        (CloseReason::Policy(text()), 1008, false),
        (CloseReason::TooLarge("--max-frame"), 1009, false),
        (CloseReason::Internal(text()), 1011, true),
        (CloseReason::NotStored(text()), 1013, true),
        (CloseReason::BadRequest(text()), 4400, false),
        (CloseReason::Timeout(text()), 4408, true),
        (CloseReason::Gap(gap), 4409, true),
        (CloseReason::TooFast("slow down".into()), 4429, true),
        (CloseReason::Protocol(1002, text()), 1002, false),
    ];
    for (reason, code, reconnect) in table {
        assert_eq!(
            (reason.code(), reason.reconnect()),
            (code, reconnect),
            "{reason:?}"
        );
        assert!(reason.text().len() <= CLOSE_TEXT_MAX);
    }
    let widest = Gap {
        before: EntryId::MAX,
        ..gap
    };
    let text = CloseReason::Gap(widest).text();
    let from = EntryId::MAX.predecessor();
    assert!(text.ends_with(&format!("from={from}")), "{text}");
}

#[test]
fn text_is_cut_between_characters() {
    for pad in 0..5 {
        for sign in ["e", "é", "€", "🙂"] {
            let long = format!("{}{}", "x".repeat(pad), sign.repeat(200));
            let text = CloseReason::Internal(Cow::Owned(long.clone())).text();
            assert!(long.starts_with(&*text));
            assert!(text.len() <= CLOSE_TEXT_MAX && text.len() + sign.len() > CLOSE_TEXT_MAX);
        }
    }
}
