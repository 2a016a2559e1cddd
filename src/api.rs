//! The HTTP API: publish one entry, read a page of history.

pub(crate) mod history;
pub(crate) mod many;
pub(crate) mod people;
pub(crate) mod publish;
