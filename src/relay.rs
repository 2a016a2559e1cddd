//! The relay itself: rooms, cursors, replay, fan-out. It knows no sockets and no Redis.

pub mod close;
pub mod entry;
pub mod format;
pub mod log;
