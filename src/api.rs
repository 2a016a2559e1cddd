//! The HTTP API: publish one entry, read a page of history.

pub(crate) mod history;
pub(crate) mod publish;
