//! Faults: Redis and nodes are killed, stopped, emptied, filled and set back while clients read and
//! publishers publish, and the checker holds what everybody got against the stream.
//!
//! Every test prints its seed; `TAILCAST_SEED` sets it. The schedule of clients, publishers and
//! faults comes from it; what the machine makes of that is its own.

mod fleet;
mod guests;
mod nodes;
mod outages;
mod presence;
mod publishers;
mod raw_http;
mod slow;
mod storms;
mod streams;
mod world;
