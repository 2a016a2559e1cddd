//! Transactions: entries that wait for their COMMIT. Pure.

use super::refused::Refused;
use super::request::Send;

/// Transactions a client may have open at a time.
const OPEN_MAX: usize = 16;

/// Entries that may wait in all of them. As many are appended at once, beyond the limit of publishes
/// in flight, so it's not much more than that.
const ENTRIES_MAX: usize = 100;

/// A client's open transactions.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Mostly none, and few.
    open: Vec<(Box<str>, Vec<Send>)>,
}

impl Transactions {
    /// Opens one.
    pub(super) fn begin(&mut self, name: Box<str>) -> Result<(), Refused> {
        if self.open.iter().any(|(open, _)| *open == name) {
            return Err(Refused::bad(format!("transaction {name} is open already")));
        }
        if self.open.len() >= OPEN_MAX {
            return Err(Refused::bad(format!(
                "at most {OPEN_MAX} transactions may be open; commit one"
            )));
        }
        self.open.push((name, Vec::new()));
        Ok(())
    }

    /// Keeps an entry for its COMMIT; all of them together have at most so many bytes.
    pub(super) fn add(&mut self, name: &str, send: Send, bytes_max: usize) -> Result<(), Refused> {
        let waiting = || self.open.iter().flat_map(|(_, sends)| sends);
        let bytes = waiting().map(Send::size).sum::<usize>() + send.size();
        if waiting().count() >= ENTRIES_MAX || bytes > bytes_max {
            return Err(Refused::bad(format!(
                "at most {ENTRIES_MAX} frames and {bytes_max} bytes may wait in transactions; commit earlier"
            )));
        }
        let mut open = self.open.iter_mut();
        let (_, sends) = open
            .find(|(open, _)| **open == *name)
            .ok_or_else(|| unknown(name))?;
        sends.push(send);
        Ok(())
    }

    /// Ends one; what waited in it, in order.
    pub(super) fn end(&mut self, name: &str) -> Result<Vec<Send>, Refused> {
        let at = self.open.iter().position(|(open, _)| **open == *name);
        let at = at.ok_or_else(|| unknown(name))?;
        let (_, sends) = self.open.remove(at);
        if self.open.is_empty() {
            self.open = Vec::new();
        }
        Ok(sends)
    }
}

fn unknown(name: &str) -> Refused {
    Refused::bad(format!("there is no open transaction {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::stomp::destination::Aliases;
    use bytes::Bytes;

    fn send(body: &'static str) -> Send {
        Send {
            target: Aliases::default().target("/topic/a").unwrap(),
            fields: Box::new([(Bytes::new(), Bytes::from(body))]),
            key: None,
        }
    }

    #[test]
    fn entries_wait_in_order() {
        let mut transactions = Transactions::default();
        transactions.begin("a".into()).unwrap();
        transactions.begin("b".into()).unwrap();
        assert!(transactions.begin("a".into()).is_err());
        for (name, body) in [("a", "1"), ("b", "2"), ("a", "3")] {
            transactions.add(name, send(body), 100).unwrap();
        }
        assert!(transactions.add("c", send("4"), 100).is_err());
        assert!(transactions.add("a", send("far too long"), 10).is_err());
        assert_eq!(transactions.end("a"), Ok(vec![send("1"), send("3")]));
        assert!(transactions.end("a").is_err());
        assert_eq!(transactions.end("b"), Ok(vec![send("2")]));
    }

    #[test]
    fn they_are_bounded() {
        let mut transactions = Transactions::default();
        for name in 0..OPEN_MAX {
            transactions.begin(name.to_string().into()).unwrap();
        }
        assert!(transactions.begin("more".into()).is_err());
        for at in 0..ENTRIES_MAX {
            let name = (at % OPEN_MAX).to_string();
            transactions.add(&name, send("x"), 1000).unwrap();
        }
        assert!(transactions.add("0", send("x"), 1000).is_err());
    }
}
