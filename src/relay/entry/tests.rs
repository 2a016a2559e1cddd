//! IDs as text, and in order.

use proptest::prelude::*;

use super::*;

fn id() -> impl Strategy<Value = EntryId> {
    let half = || prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..5u64];
    (half(), half()).prop_map(|(ms, seq)| EntryId::new(ms, seq))
}

proptest! {
    #[test]
    fn text_comes_back(id in id()) {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!(id.ms.to_string().parse(), Ok(EntryId::new(id.ms, 0)));
    }

    #[test]
    fn nothing_lies_between_an_id_and_its_predecessor(id in id(), other in id()) {
        let before = id.predecessor();
        prop_assert!(before < id || id == EntryId::ZERO);
        prop_assert!(other <= before || other >= id);
    }

    #[test]
    fn any_text_parses_or_not(text in any::<String>()) {
        if let Ok(id) = text.parse::<EntryId>() {
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
        if let Ok(room) = RoomName::parse(&text) {
            prop_assert_eq!(room.as_str(), text);
        }
    }
}

#[test]
fn bad_ids() {
    for bad in [
        "",
        "-",
        "5-",
        "-5",
        "+5-1",
        "5-+1",
        "5-1-1",
        " 5-1",
        "18446744073709551616-0",
    ] {
        assert_eq!(bad.parse::<EntryId>(), Err(EntryIdError), "{bad}");
    }
}

#[test]
fn inboxes() {
    let check = |user: &str, want: Option<&str>| {
        let room = RoomName::of_user(user).ok();
        assert_eq!(room.as_ref().map(RoomName::as_str), want, "{user:?}");
        let owner = room.as_ref().and_then(RoomName::owner);
        assert_eq!(owner, want.map(|_| user));
    };
    check("alice", Some("@alice"));
    check("@alice", Some("@@alice"));
    check("tailcast:x", Some("@tailcast:x"));
    check("", None);
    check("a\nb", None);
    check(&"a".repeat(256), None);
    assert_eq!(RoomName::parse("alice@home").unwrap().owner(), None);
    assert_eq!(RoomName::parse("@"), Err(RoomNameError::Empty));
}
