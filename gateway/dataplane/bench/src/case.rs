//! One case: a pipeline with its flows in place, timed in turn with the machine's limit over the same frames.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{json, Value};
use tgw_contract::{DropReason, Point};
use tgw_forward::{pipeline, Frame, Observer, Options, Outcome, Pipeline, Tables, Tuning};

use crate::limit::Limit;
use crate::random::{Choice, Random};
use crate::support::NOW;
use crate::traffic::{tables, Direction, Step, Traffic};
use crate::{Failure, BATCH};

/// The tables of flows are filled to so many hundredths, as the design asks.
const LOAD: usize = 85;
/// Simulated time from batch to batch: 10 million packets per second [ns].
pub(crate) const TICK: u64 = 6_400;

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
pub(crate) struct Points(u64);

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

/// What is timed over a batch of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// The pipeline.
    Pipeline,
    /// The pipeline, given one frame at a time.
    OneByOne,
    /// The machine's limit.
    Limit,
    /// The pipeline's reading of the frames alone.
    Read,
    /// Reading, and looking the flows up.
    LookUp,
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
        let mut subject = Self::bare(direction, flows, rules)?;
        subject.measure_against(flows);
        Ok(subject)
    }

    /// Have a limit for so many flows.
    pub(crate) fn measure_against(&mut self, flows: usize) {
        self.limit = Limit::new(flows);
    }

    /// The same with no limit to speak of.
    pub(crate) fn bare(direction: Direction, flows: usize, rules: usize) -> Result<Self, Failure> {
        let role = direction.role();
        let options = Options {
            flow_capacity: (flows * 100).div_ceil(LOAD).max(8),
            seed: 0x5EED,
            workers: 1,
            ..Options::default()
        };
        let mut pipeline = pipeline(role, 0, &options);
        let tables = Tables::from_json(&tables(role, flows, rules).to_string(), role)?;
        pipeline.set_tables(Arc::new(tables));
        let mut subject = Self {
            direction,
            flows,
            rules,
            pipeline,
            limit: Limit::new(1),
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
        let traffic = self.traffic(size)?;
        let clock = cost_of_the_clock();
        let (mut own, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..effort.turns {
            own.push(self.turn(&traffic, choice, effort, clock, Timed::Pipeline)?);
            limits.push(self.turn(&traffic, choice, effort, clock, Timed::Limit)?);
        }
        own.sort_by(f64::total_cmp);
        limits.sort_by(f64::total_cmp);
        let ns = quantile(&own, 0.5);
        let spread = (quantile(&own, 0.9) - quantile(&own, 0.1)) / ns;
        Ok(Measured { ns, limit_ns: quantile(&limits, 0.5), spread })
    }

    /// The traffic of this subject, with what its flows have been given.
    pub(crate) fn traffic(&self, size: usize) -> Result<Traffic, Failure> {
        let mut traffic = Traffic::new(self.direction, self.flows, self.rules, size)?;
        traffic.keys.clone_from(&self.keys);
        Ok(traffic)
    }

    pub(crate) fn tune(&mut self, tuning: Tuning) {
        self.pipeline.tune(tuning);
    }

    /// One frame alone, in the first buffer: timed by the caller.
    pub(crate) fn one(&mut self, timed: Timed, inner: usize) -> Result<(), Failure> {
        self.work(timed, inner, 1)
    }

    /// Put the next packet into the first buffer.
    pub(crate) fn load_one(&mut self, traffic: &Traffic, choice: &Choice) -> Result<(), Failure> {
        traffic.load(&mut self.frames[0], choice.next(&mut self.random), Step::Data)
    }

    /// A call that does nothing.
    pub(crate) fn nothing(&mut self) {
        self.process(0);
    }

    fn work(&mut self, timed: Timed, inner: usize, count: usize) -> Result<(), Failure> {
        match timed {
            Timed::Pipeline => self.process(count),
            Timed::OneByOne => {
                for (frame, outcome) in self.frames[..count].chunks_mut(1).zip(self.outcomes.chunks_mut(1)) {
                    self.pipeline.process(self.now, frame, outcome, &mut self.points);
                }
                self.now += TICK;
            }
            Timed::Limit => self.limit.process(&mut self.frames[..count], inner)?,
            Timed::Read | Timed::LookUp => {
                let done = self.pipeline.rehearse(&self.frames[..count], timed == Timed::LookUp);
                if done != count {
                    return Err(format!("{timed:?}: {done} of {count} frames were ordinary").into());
                }
            }
        }
        Ok(())
    }

    pub(crate) fn turn(
        &mut self,
        traffic: &Traffic,
        choice: &Choice,
        effort: Effort,
        clock: f64,
        timed: Timed,
    ) -> Result<f64, Failure> {
        let mut times = Vec::with_capacity(effort.batches);
        for batch in 0..effort.settling + effort.batches {
            for frame in &mut self.frames {
                traffic.load(frame, choice.next(&mut self.random), Step::Data)?;
            }
            let start = Instant::now();
            self.work(timed, traffic.inner, BATCH)?;
            let took = start.elapsed();
            if matches!(timed, Timed::Pipeline | Timed::OneByOne) {
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
