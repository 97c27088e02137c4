//! The words every part of tgw shares: hops, verdicts, drop reasons, record layouts, and the colour of probes.
//!
//! `vocabulary.rs` and `records.rs` are generated from `contract/*.toml`; `make lint` fails when they are stale.

pub mod colour;
#[rustfmt::skip]
pub mod records;
#[rustfmt::skip]
pub mod vocabulary;

pub use records::{Counter, Point};
pub use vocabulary::{Direction, DropReason, Hop, Role, Verdict};
