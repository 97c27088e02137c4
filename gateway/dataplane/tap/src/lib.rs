//! The tap: what a worker saw, in a file that outlives it.
//!
//! A header with cursors, heartbeat and counters, then a ring of 128-byte records; `contract/records.toml` declares the
//! layout and the protocol. One writer (the worker) and one reader (the collector), in different processes: they share
//! nothing but the mapped file, so the file of a killed worker reads like that of a living one. A full ring counts what
//! it could not take and stops nobody.

mod bucket;
mod error;
mod header;
mod map;
mod reader;
mod writer;

pub use bucket::Bucket;
pub use error::TapError;
pub use header::{file_name, Header};
pub use reader::{Reader, State};
pub use writer::{Counters, Writer, DROP_POINTS_PER_SECOND};
