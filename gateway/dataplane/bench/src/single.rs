//! One packet a call, as kernel programs are measured one run at a time (`BPF_PROG_TEST_RUN` with repeat = 1).
//!
//! There, a system call lies between two packets. Here, before each packet: the first-level cache is emptied (a buffer of
//! several times its size is walked), and a system call is made; then the packet is written into its buffer, as the kernel
//! copies it in, and one call of the pipeline is timed. The cost of reading the clock around a call without a packet is
//! subtracted.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{json, Value};

use crate::case::{quantile, Subject, Timed};
use crate::random::Choice;
use crate::traffic::Direction;
use crate::Failure;

/// Bytes walked before each packet: more than twice any first-level data cache of today.
const WALKED: usize = 128 << 10;
const LINE: usize = 64;

/// ns per packet of `direction` at so many flows, and of the limit under the same conditions.
pub(crate) fn run(direction: Direction, flows: usize, packets: usize) -> Result<Value, Failure> {
    let mut subject = Subject::new(direction, flows, 0)?;
    let traffic = subject.traffic(64)?;
    let choice = Choice::Uniform { flows };
    let mut walked = vec![1u8; WALKED];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for at in 0..packets * 3 {
        for line in walked.chunks_mut(LINE) {
            line[0] = line[0].wrapping_add(1);
        }
        black_box(&mut walked);
        // SAFETY: getppid takes nothing, touches nothing and cannot fail; glibc does not cache it.
        black_box(unsafe { libc::getppid() });
        subject.load_one(&traffic, &choice)?;
        let start = Instant::now();
        match at % 3 {
            0 => subject.one(Timed::Pipeline, traffic.inner)?,
            1 => subject.one(Timed::Limit, traffic.inner)?,
            _ => subject.nothing(),
        }
        times[at % 3].push(start.elapsed().as_nanos() as f64);
    }
    let mean = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.truncate((times.len() * 99 / 100).max(1));
        times.iter().sum::<f64>() / times.len() as f64
    };
    let [own, limit, empty] = &mut times;
    let (own_ns, limit_ns, empty_ns) = (mean(own), mean(limit), mean(empty));
    let round = |value: f64| (value * 100.0).round() / 100.0;
    Ok(json!({
        "case": direction.name(),
        "flows": flows,
        "frame_bytes": 64,
        "ns_per_packet": round(own_ns - empty_ns),
        "limit_ns_per_packet": round(limit_ns - empty_ns),
        "empty_call_ns": round(empty_ns),
        "median_ns": round(quantile(own, 0.5) - empty_ns),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_a_call() {
        let found = run(Direction::ClbRequest, 100, 200).unwrap();
        assert!(found["ns_per_packet"].as_f64().unwrap() > 0.0, "{found}");
    }
}
