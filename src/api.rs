//! The HTTP API: publish entries, read pages of history, see who is where and what all rooms are about.

pub(crate) mod accounts;
pub(crate) mod history;
pub(crate) mod home;
pub(crate) mod many;
pub(crate) mod me;
pub(crate) mod people;
pub(crate) mod publish;
