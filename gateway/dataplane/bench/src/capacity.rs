//! A table of very many connections: what each takes of memory, how long it takes to enter, and to look up.

use std::time::Instant;

use serde_json::{json, Value};

use crate::case::{Effort, Subject};
use crate::machine::resident_bytes;
use crate::random::Choice;
use crate::traffic::Direction;
use crate::Failure;

/// An LD with `flows` connections, its table 85 % full.
pub(crate) fn run(flows: usize, effort: Effort) -> Result<Value, Failure> {
    let before = resident_bytes()?;
    let started = Instant::now();
    let mut subject = Subject::bare(Direction::ClbRequest, flows, 0)?;
    let opened = started.elapsed();
    let bytes = resident_bytes()?.saturating_sub(before);
    subject.measure_against(flows);
    let measured = subject.measure(64, &Choice::Uniform { flows }, effort)?;
    let mut document = measured.document("clb.request", Direction::ClbRequest, flows, 64, "uniform");
    // Two packets for each: its SYN and its first data.
    document["open_ns_per_packet"] = json!((opened.as_nanos() as f64 / (2 * flows) as f64 * 100.0).round() / 100.0);
    document["bytes_per_flow"] = json!((bytes as f64 / flows as f64 * 100.0).round() / 100.0);
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_times_are_measured() {
        // How much it is, only a process that does nothing else can tell.
        let found = run(200_000, Effort { turns: 1, batches: 20, settling: 2 }).unwrap();
        for figure in ["bytes_per_flow", "open_ns_per_packet", "ns_per_packet"] {
            assert!(found[figure].as_f64().unwrap() > 0.0, "{found}");
        }
    }
}
