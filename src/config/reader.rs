//! Turns the texts that were found into values, one by one, and gathers what is wrong with them.

use std::time::Duration;

use super::origin::Found;
use super::table::{Kind, Setting};
use super::value;

/// Reads typed values and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) found: &'a [Found],
    pub(super) errors: Vec<String>,
}

impl Reader<'_> {
    pub(super) fn found(&self, name: &str) -> Option<&Found> {
        self.found.iter().find(|found| found.setting.name == name)
    }

    pub(super) fn given(&self, name: &str) -> bool {
        self.found(name).is_some_and(Found::given)
    }

    /// Whether `--accounts` alone says how people come in.
    pub(super) fn implies_jwt(&self) -> bool {
        let accounts = self.found("accounts");
        let are_on = accounts.is_some_and(|found| value::switch(&found.text) == Ok(true));
        are_on && !self.given("auth")
    }

    pub(super) fn complain(&mut self, name: &str, what: &str) {
        let line = match self.found(name) {
            Some(found) => found.complaint(what),
            None => format!("--{name} {what}"),
        };
        self.errors.push(line);
    }

    /// The value, or its type's default and an error noted.
    pub(super) fn read<T: Default>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str, &Setting) -> Result<T, String>,
    ) -> T {
        let parsed = match self.found(name) {
            Some(found) => parse(&found.text, found.setting),
            None => Err("is missing from the table of settings".to_owned()),
        };
        parsed.unwrap_or_else(|what| {
            self.complain(name, &what);
            T::default()
        })
    }

    pub(super) fn time(&mut self, name: &str) -> Duration {
        self.read(name, |text, setting| {
            let time = value::time(text)?;
            match setting.kind {
                Kind::Time(least) if time < Duration::from_millis(least) => Err(format!(
                    "is too short; write a time above 0, as in {}",
                    setting.default
                )),
                _ => Ok(time),
            }
        })
    }

    pub(super) fn time_or_never(&mut self, name: &str) -> Option<Duration> {
        Some(self.time(name)).filter(|time| !time.is_zero())
    }

    pub(super) fn number<T: TryFrom<u64> + Default>(&mut self, name: &str) -> T {
        self.read(name, |text, setting| {
            let (number, least) = match setting.kind {
                Kind::Size(least) => (value::size(text)?, least),
                Kind::Count(least) => (value::count(text)?, least),
                _ => return Err("is no number".to_owned()),
            };
            if number < least {
                return Err(format!("is too small; write {least} or more"));
            }
            T::try_from(number).map_err(|_| "is too large; write a smaller number".to_owned())
        })
    }

    /// One of the words, as what stands beside it.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, of: &[(&str, T)], otherwise: T) -> T {
        let chosen = self.read(name, |text, _| {
            match of.iter().find(|(word, _)| *word == text) {
                Some((_, choice)) => Ok(Some(*choice)),
                None => {
                    let words: Vec<&str> = of.iter().map(|(word, _)| *word).collect();
                    Err(format!("is unknown; write one of {}", words.join(", ")))
                }
            }
        });
        chosen.unwrap_or(otherwise)
    }
}
