//! One case: a pipeline with its flows in place, timed in turn with the machine's limit over the same frames.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{json, Value};
use tgw_contract::{DropReason, Point};
use tgw_forward::{pipeline, Frame, Observer, Options, Outcome, Pipeline, Tables};

use crate::limit::Limit;
use crate::random::{Choice, Random};
use crate::support::NOW;
use crate::traffic::{tables, Direction, Step, Traffic};
use crate::{Failure, BATCH};

/// The tables of flows are filled to so many hundredths, as the design asks.
const LOAD: usize = 85;
/// Simulated time from batch to batch: 10 million packets per second [ns].
const TICK: u64 = 6_400;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Turns of case and limit.
    pub(crate) turns: usize,
    /// Batches timed in a turn.
    pub(crate) batches: usize,
    /// Batches before them that are not timed: the caches get used to the other one's absence.
    pub(crate) settling: usize,
}

/// Counts points: traffic without a colour causes none.
#[derive(Default)]
struct Points(u64);

impl Observer for Points {
    fn point(&mut self, _: &Point) {
        self.0 += 1;
    }
}

/// A node with its flows.
pub(crate) struct Subject {
    direction: Direction,
    flows: usize,
    rules: usize,
    pipeline: Box<dyn Pipeline>,
    limit: Limit,
    keys: Vec<u32>,
    frames: Vec<Frame>,
    outcomes: Vec<Outcome>,
    points: Points,
    now: u64,
    random: Random,
}

/// What one case showed [ns per packet].
pub(crate) struct Measured {
    pub(crate) ns: f64,
    pub(crate) limit_ns: f64,
    /// (p90 - p10) / median of the turns.
    pub(crate) spread: f64,
}

impl Subject {
    /// Make the node, and let every flow send its SYN and its first data.
    pub(crate) fn new(direction: Direction, flows: usize, rules: usize) -> Result<Self, Failure> {
        let role = direction.role();
        let options = Options { flow_capacity: (flows * 100).div_ceil(LOAD).max(8), seed: 0x5EED, workers: 1 };
        let mut pipeline = pipeline(role, 0, &options);
        let tables = Tables::from_json(&tables(role, flows, rules).to_string(), role)?;
        pipeline.set_tables(Arc::new(tables));
        let mut subject = Self {
            direction,
            flows,
            rules,
            pipeline,
            limit: Limit::new(flows),
            keys: Vec::new(),
            frames: vec![Frame::default(); BATCH],
            outcomes: vec![Outcome::Drop(DropReason::NoConfig); BATCH],
            points: Points::default(),
            now: NOW,
            random: Random::new(flows as u64),
        };
        subject.open_flows()?;
        Ok(subject)
    }

    fn open_flows(&mut self) -> Result<(), Failure> {
        let traffic = Traffic::new(self.direction.request(), self.flows, self.rules, 64)?;
        for step in [Step::Open, Step::Data] {
            self.keys.clear();
            for first in (0..self.flows).step_by(BATCH) {
                let count = BATCH.min(self.flows - first);
                for (at, frame) in self.frames[..count].iter_mut().enumerate() {
                    traffic.load(frame, first + at, step)?;
                }
                self.process(count);
                self.check(count)?;
                if self.direction == Direction::ClbReply {
                    // The key of the real server that was chosen, out of the GRE header.
                    let key = |frame: &Frame| frame.bytes().get(38..).and_then(|bytes| bytes.first_chunk().copied());
                    self.keys.extend(self.frames[..count].iter().filter_map(key).map(u32::from_be_bytes));
                }
            }
        }
        let entered = self.pipeline.counters().active;
        let expected = if self.direction.role() == tgw_contract::Role::Eip { 0 } else { self.flows as u64 };
        if entered != expected {
            return Err(format!("{entered} flows in the table, {expected} expected").into());
        }
        Ok(())
    }

    fn process(&mut self, count: usize) {
        self.pipeline.process(self.now, &mut self.frames[..count], &mut self.outcomes[..count], &mut self.points);
        self.now += TICK;
    }

    /// A benchmark of drops would be none.
    fn check(&self, count: usize) -> Result<(), Failure> {
        for outcome in &self.outcomes[..count] {
            if let Outcome::Drop(reason) = outcome {
                return Err(format!("{}: a frame was dropped: {}", self.direction.name(), reason.name()).into());
            }
        }
        if self.points.0 != 0 {
            return Err("a packet without a colour left a trace".into());
        }
        Ok(())
    }

    /// Time the pipeline and the limit in turns over packets of `size` bytes.
    pub(crate) fn measure(&mut self, size: usize, choice: &Choice, effort: Effort) -> Result<Measured, Failure> {
        let mut traffic = Traffic::new(self.direction, self.flows, self.rules, size)?;
        traffic.keys = std::mem::take(&mut self.keys);
        let clock = cost_of_the_clock();
        let (mut own, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..effort.turns {
            own.push(self.turn(&traffic, choice, effort, clock, false)?);
            limits.push(self.turn(&traffic, choice, effort, clock, true)?);
        }
        self.keys = traffic.keys;
        own.sort_by(f64::total_cmp);
        limits.sort_by(f64::total_cmp);
        let ns = quantile(&own, 0.5);
        let spread = (quantile(&own, 0.9) - quantile(&own, 0.1)) / ns;
        Ok(Measured { ns, limit_ns: quantile(&limits, 0.5), spread })
    }

    fn turn(
        &mut self,
        traffic: &Traffic,
        choice: &Choice,
        effort: Effort,
        clock: f64,
        limit: bool,
    ) -> Result<f64, Failure> {
        let mut times = Vec::with_capacity(effort.batches);
        for batch in 0..effort.settling + effort.batches {
            for frame in &mut self.frames {
                traffic.load(frame, choice.next(&mut self.random), Step::Data)?;
            }
            let start = Instant::now();
            if limit {
                self.limit.process(&mut self.frames, traffic.inner)?;
            } else {
                self.process(BATCH);
            }
            let took = start.elapsed();
            if !limit {
                self.check(BATCH)?;
            }
            if batch >= effort.settling {
                times.push(took.as_nanos() as f64);
            }
        }
        // Interrupts and other processes hit less than one batch in a hundred.
        times.sort_by(f64::total_cmp);
        times.truncate((times.len() * 99 / 100).max(1));
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        Ok((mean - clock) / BATCH as f64)
    }
}

/// What reading the clock twice adds to a time between [ns].
pub(crate) fn cost_of_the_clock() -> f64 {
    let mut times: Vec<f64> = (0..10_001).map(|_| Instant::now().elapsed().as_nanos() as f64).collect();
    times.sort_by(f64::total_cmp);
    quantile(&times, 0.5)
}

/// Of sorted values, of which there is at least one.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

impl Measured {
    /// As it stands in the results.
    pub(crate) fn document(&self, case: &str, direction: Direction, flows: usize, size: usize, mode: &str) -> Value {
        let round = |value: f64, unit: f64| (value * unit).round() / unit;
        json!({
            "case": case,
            "role": direction.role().name(),
            "flows": flows,
            "frame_bytes": size,
            "mode": mode,
            "ns_per_packet": round(self.ns, 100.0),
            "limit_ns_per_packet": round(self.limit_ns, 100.0),
            "ratio_to_limit": round(self.ns / self.limit_ns, 1000.0),
            "spread": round(self.spread, 1000.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values = [1.0, 2.0, 3.0, 5.0];
        assert!((quantile(&values, 0.5) - 2.5).abs() < 1e-9);
        assert!((quantile(&values, 0.9) - 4.4).abs() < 1e-9);
        assert!((quantile(&[7.0], 0.9) - 7.0).abs() < 1e-9);
    }

    #[test]
    fn every_direction_forwards_all_of_its_frames() {
        let effort = Effort { turns: 1, batches: 20, settling: 2 };
        for direction in Direction::ALL {
            for flows in [1, 300] {
                let mut subject = Subject::new(direction, flows, 0).unwrap();
                let measured = subject.measure(64, &Choice::Uniform { flows }, effort).unwrap();
                assert!(measured.ns > 0.0 && measured.limit_ns > 0.0, "{direction:?}");
            }
        }
    }
}
