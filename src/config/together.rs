//! What only several settings together can get wrong.

use super::reader::Reader;
use super::{Config, Durability, TailMode, auth};

impl Reader<'_> {
    /// Holds the settings against each other.
    pub(super) fn together(&mut self, config: &Config) {
        // With single values wrong already, their stand-ins would give errors nobody made.
        if !self.errors.is_empty() {
            return;
        }
        if config.memory && config.redis_given {
            self.complain("redis", "and --memory exclude each other; leave one out");
        }
        if config.memory && config.durability == Durability::Replicated {
            self.complain(
                "durability",
                "needs Redis; leave it out, or leave out --memory",
            );
        }
        if config.tail == TailMode::Block && config.tail_connections == 0 {
            self.complain(
                "tail-connections",
                "leaves --tail block no connection; write 1 or more",
            );
        }
        if config.window_bytes > config.window_total {
            self.complain(
                "window-bytes",
                "is more than --window-total; lower it, or raise that",
            );
        }
        for (name, most) in [
            ("max-frame", config.max_frame),
            ("stomp-max-frame", config.stomp_max_frame),
        ] {
            if most > config.publish_queue_bytes {
                self.complain(
                    name,
                    "is more than --publish-queue-bytes; lower it, or raise that",
                );
            }
        }
        let filled = |name: &str| {
            let found = self.found(name);
            found.is_some_and(|found| found.given() && !found.text.is_empty())
        };
        for (name, what) in auth::together(config, filled) {
            self.complain(name, what);
        }
    }
}
