//! One packet a call, as kernel programs are measured one run at a time (`BPF_PROG_TEST_RUN` with repeat = 1).
//!
//! There, a system call lies between two packets. Here too, and it is the same one: before each packet, an empty XDP program
//! is run on it by the kernel. Then the packet is written into its buffer, as the kernel copies it in, and one call of the
//! pipeline is timed. The cost of reading the clock around a call without a packet is subtracted. Where the system refuses
//! XDP programs (no root), the packet goes through a socket and back instead: two system calls that copy it.
//!
//! A second figure is for caches emptied further than that: the first level is walked over before each packet.

use std::hint::black_box;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use serde_json::{json, Value};

use crate::bpf::{instruction, Program};
use crate::case::{quantile, Subject, Timed};
use crate::random::Choice;
use crate::traffic::Direction;
use crate::Failure;

/// Bytes walked before each packet: more than twice any first-level data cache of today.
const WALKED: usize = 128 << 10;
const LINE: usize = 64;

/// What lies between two packets.
enum Between {
    /// A run of an empty XDP program on one packet.
    Program(Program),
    /// A packet through a socket.
    Sockets(UnixDatagram, UnixDatagram),
}

impl Between {
    fn new() -> Result<Self, Failure> {
        // r0 = XDP_PASS; exit
        match Program::load(&[instruction(0xB7, 0, 0, 0, 2), instruction(0x95, 0, 0, 0, 0)]) {
            Ok(program) if program.run_once(&[0; 64]).is_ok() => Ok(Self::Program(program)),
            _ => {
                let (one, other) = UnixDatagram::pair()?;
                Ok(Self::Sockets(one, other))
            }
        }
    }

    /// What it is, for the results.
    const fn name(&self) -> &'static str {
        match self {
            Self::Program(_) => "one run of an empty XDP program (BPF_PROG_TEST_RUN, repeat = 1)",
            Self::Sockets(..) => "64 bytes through a datagram socket",
        }
    }

    fn pass(&self) -> Result<(), Failure> {
        match self {
            Self::Program(program) => program.run_once(&[0; 64])?,
            Self::Sockets(one, other) => {
                let mut buffer = [0; 64];
                one.send(&buffer)?;
                other.recv(&mut buffer)?;
            }
        }
        Ok(())
    }
}

/// What lies between two packets here.
pub(crate) fn between() -> Result<&'static str, Failure> {
    Ok(Between::new()?.name())
}

/// ns per packet of `direction` at so many flows, and of the limit under the same conditions.
pub(crate) fn run(direction: Direction, flows: usize, packets: usize) -> Result<Value, Failure> {
    let mut subject = Subject::new(direction, flows, 0)?;
    let between = Between::new()?;
    let mut document = measure(&mut subject, &between, flows, packets, false)?;
    let walked = measure(&mut subject, &between, flows, packets, true)?;
    document["case"] = json!(direction.name());
    document["flows"] = json!(flows);
    document["frame_bytes"] = json!(64);
    for figure in ["ns_per_packet", "median_ns", "limit_ns_per_packet"] {
        document[format!("emptied_{figure}")] = walked[figure].clone();
    }
    Ok(document)
}

fn measure(
    subject: &mut Subject,
    between: &Between,
    flows: usize,
    packets: usize,
    walk: bool,
) -> Result<Value, Failure> {
    let traffic = subject.traffic(64)?;
    let choice = Choice::Uniform { flows };
    let mut walked = vec![1u8; WALKED];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for at in 0..packets * 3 {
        if walk {
            for line in walked.chunks_mut(LINE) {
                line[0] = line[0].wrapping_add(1);
            }
            black_box(&mut walked);
        }
        between.pass()?;
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
