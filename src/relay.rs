//! The relay itself: rooms, cursors, replay, fan-out. It knows no sockets and no Redis.

pub mod close;
pub mod connection;
pub mod entry;
pub mod format;
pub mod hub;
pub mod log;
pub mod outlet;
pub mod position;
