//! How far a run is, on standard error: a bar on a terminal, elsewhere a line now and then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);

/// One part of a run.
pub(super) struct Progress {
    what: &'static str,
    length: u64,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// Begins a part that is done at `length`, in whatever it's counted.
    pub(super) fn begin(what: &'static str, length: u64, told: &str) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(length);
            if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(what);
            bar.set_message(told.to_owned());
            Shown::Bar(bar)
        } else {
            eprintln!("{what}: {told}");
            Shown::Lines {
                last: Instant::now(),
            }
        };
        Progress {
            what,
            length,
            shown,
        }
    }

    /// How far it is, and what there is to say of it.
    pub(super) fn at(&mut self, position: u64, told: impl FnOnce() -> String) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(position);
                bar.set_message(told());
            }
            Shown::Lines { last } if last.elapsed() >= EVERY => {
                *last = Instant::now();
                let percent = position.min(self.length) * 100 / self.length.max(1);
                eprintln!("{}: {percent} %, {}", self.what, told());
            }
            Shown::Lines { .. } => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
