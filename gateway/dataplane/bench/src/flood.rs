//! A SYN flood at an LD: nine of ten packets are SYNs of made-up clients, the tenth is of a connection that was there before.
//!
//! Asked is what the flood does to those connections: does one lose its place, do their packets take longer, does memory
//! grow. Twice: with a flood gate on each VIP, and without any protection, where half-open flows give way.

use std::time::Instant;

use serde_json::{json, Value};
use tgw_contract::{DropReason, Role};
use tgw_forward::{Frame, Outcome, Pipeline};

use crate::case::{cost_of_the_clock, quantile, Points, TICK};
use crate::machine::resident_bytes;
use crate::random::Random;
use crate::support::{node_with, tables as made, NOW};
use crate::traffic::{tables, Direction, Step, Traffic};
use crate::{Failure, BATCH};

/// Batches of the flood between two of connections.
const FLOOD_BATCHES: usize = 9;
/// New flows per second and VIP above which none is inserted.
const GATE: u32 = 1000;

struct Node {
    pipeline: Box<dyn Pipeline>,
    frames: Vec<Frame>,
    outcomes: Vec<Outcome>,
    points: Points,
    now: u64,
}

impl Node {
    fn process(&mut self) -> f64 {
        let start = Instant::now();
        self.pipeline.process(self.now, &mut self.frames, &mut self.outcomes, &mut self.points);
        let took = start.elapsed();
        self.now += TICK;
        took.as_nanos() as f64
    }

    /// Key of the real server, out of the GRE header; `None` for a frame that was dropped.
    fn key(&self, at: usize) -> Option<u32> {
        let Outcome::Forward { .. } = self.outcomes[at] else { return None };
        self.frames[at].bytes().get(38..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// `flows` connections, `rounds` of nine batches of the flood and one of connections, each.
pub(crate) fn run(flows: usize, rounds: usize) -> Result<Value, Failure> {
    let mut document = with_gate(flows, rounds, true)?;
    document["without_protection"] = with_gate(flows, rounds, false)?;
    Ok(document)
}

fn with_gate(flows: usize, rounds: usize, gate: bool) -> Result<Value, Failure> {
    let options = tgw_forward::Options { flow_capacity: flows * 2, seed: 0x5EED, ..tgw_forward::Options::default() };
    let mut plain = tables(Role::Clb, flows, 0);
    let mut node = Node {
        pipeline: node_with(Role::Clb, &plain, options),
        frames: vec![Frame::default(); BATCH],
        outcomes: vec![Outcome::Drop(DropReason::NoConfig); BATCH],
        points: Points::default(),
        now: NOW,
    };
    let traffic = Traffic::new(Direction::ClbRequest, flows, 0, 64)?;
    let mut keys = vec![0; flows];
    for step in [Step::Open, Step::Data] {
        for first in (0..flows).step_by(BATCH) {
            for (at, frame) in node.frames.iter_mut().enumerate() {
                traffic.load(frame, (first + at) % flows, step)?;
            }
            node.process();
            for at in 0..BATCH {
                keys[(first + at) % flows] = node.key(at).ok_or("a connection was refused")?;
            }
        }
    }
    if gate {
        for vip in plain["clb"]["vips"].as_array_mut().into_iter().flatten() {
            vip["flood_gate_per_s"] = json!(GATE);
        }
        plain["epoch"] = json!(8);
        node.pipeline.set_tables(made(&plain, Role::Clb));
    }
    let clock = cost_of_the_clock();
    let mut random = Random::new(7);
    // Written before memory is measured, so that what is measured is the node's.
    let room = |count: usize| {
        let mut times = vec![1.0; count];
        times.clear();
        times
    };
    let (mut alone, mut under, mut mixed) =
        (room(rounds * 2), room(rounds * 2), room(rounds * 2 * (FLOOD_BATCHES + 1)));
    let before = (resident_bytes()?, node.pipeline.counters());
    let established = |node: &mut Node, random: &mut Random| -> Result<f64, Failure> {
        for frame in &mut node.frames {
            traffic.load(frame, random.below(flows), Step::Data)?;
        }
        Ok(node.process() - clock)
    };
    // Alone and under the flood in turns: the machine has its moods.
    let mut syns = 0u64;
    for round in 0..rounds * 2 {
        let flooded = round / 64 % 2 == 1;
        for _ in 0..FLOOD_BATCHES {
            for frame in &mut node.frames {
                if flooded {
                    load_syn(&traffic, frame, flows, &mut random)?;
                } else {
                    traffic.load(frame, random.below(flows), Step::Data)?;
                }
            }
            let took = node.process() - clock;
            if flooded {
                mixed.push(took);
                syns += BATCH as u64;
            }
        }
        let took = established(&mut node, &mut random)?;
        if flooded {
            under.push(took);
            mixed.push(took);
        } else {
            alone.push(took);
        }
    }
    let after = (resident_bytes()?, node.pipeline.counters());
    let mut evicted = 0u64;
    for first in (0..flows).step_by(BATCH) {
        for (at, frame) in node.frames.iter_mut().enumerate() {
            traffic.load(frame, (first + at) % flows, Step::Data)?;
        }
        let known = node.pipeline.rehearse(&node.frames, true);
        evicted += (BATCH - known) as u64;
        node.process();
        for at in 0..BATCH {
            if node.key(at) != Some(keys[(first + at) % flows]) {
                return Err("a connection was sent to another real server".into());
            }
        }
    }
    let mean = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.truncate((times.len() * 99 / 100).max(1));
        times.iter().sum::<f64>() / times.len() as f64 / BATCH as f64
    };
    let median = quantile(&mixed, 0.5) / BATCH as f64;
    let (alone, under, mixed) = (mean(&mut alone), mean(&mut under), mean(&mut mixed));
    let round = |value: f64, unit: f64| (value * unit).round() / unit;
    Ok(json!({
        "established_flows": flows,
        "flood_packets": syns,
        "established_evicted": evicted,
        "established_ns": round(alone, 100.0),
        "established_under_flood_ns": round(under, 100.0),
        "slowdown": round(under / alone - 1.0, 1000.0),
        "mixed_ns_per_packet": round(mixed, 100.0),
        "mixed_median_ns": round(median, 100.0),
        "rss_growth_bytes": after.0 as i64 - before.0 as i64,
        "flows_before": before.1.active,
        "flows_after": after.1.active,
    }))
}

/// A SYN of nobody, to one of the VIPs.
fn load_syn(traffic: &Traffic, frame: &mut Frame, flows: usize, random: &mut Random) -> Result<(), Failure> {
    // Flows that were never opened: other addresses and ports.
    traffic.load(frame, flows + random.below(200_000_000), Step::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_keep_their_place() {
        let found = run(2_000, 600).unwrap();
        for case in [&found, &found["without_protection"]] {
            assert_eq!(case["established_evicted"], 0, "{found}");
            assert!(case["flood_packets"].as_u64().unwrap() > 100_000);
        }
        let gated = found["flows_after"].as_u64().unwrap() - found["flows_before"].as_u64().unwrap();
        assert!(gated <= 64 * u64::from(GATE), "{found}");
        assert!(found["without_protection"]["flows_after"].as_u64().unwrap() >= 3_900, "the table is full of them");
    }
}
