//! A CLB's dispatcher and worker on a core each, frames in memory: what each side costs, and what the ring between adds.

use std::io::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{json, Value};
use tgw_contract::{DropReason, Role};
use tgw_forward::{pipeline, Dispatcher, Frame, Nanos, Options, Tables};
use tgw_node::{ring, way, Consumer, Dispatch, Engine, Inbox, Outlet};
use tgw_tap::{Header, Writer};

use crate::case::{cost_of_the_clock, quantile};
use crate::random::{Choice, Random};
use crate::support::NOW;
use crate::traffic::{tables, Direction, Step, Traffic};
use crate::words::Words;
use crate::{machine, Failure, BATCH};

pub(crate) const USAGE: &str = "tgw-bench two-cores [--flows N] [--turns N] [--batches N]
  Dispatcher and worker of a CLB on two cores: ns per frame of each, at N flows (default 10000 and 1000000), as the median
  of so many turns (default 15) of so many batches (default 4000).";

/// Frames in the ring, as a node has it unless told otherwise.
const RING: usize = 1024;
/// Most frames on their way: the dispatcher never finds the ring full.
const IN_FLIGHT: u64 = 512;
/// Simulated time from batch to batch [ns].
const TICK: Nanos = 6_400;
/// The flow table is filled to so many hundredths.
const LOAD: usize = 85;
const FRAME_BYTES: usize = 64;

/// Takes every frame and keeps none.
struct Nowhere;

impl Outlet for Nowhere {
    fn send(&mut self, _: Nanos, _: u16, _: &[Frame], _: &[usize], _: &mut Vec<usize>) -> bool {
        true
    }
}

/// One case [ns per frame].
#[derive(Clone, Copy)]
struct Turn {
    dispatcher: f64,
    worker: f64,
    classify: f64,
    alone: f64,
}

/// What both threads look at; they wait for each other by it.
#[derive(Default)]
struct Shared {
    handed: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

pub(crate) fn run(words: &Words) -> Result<Value, Failure> {
    let flows = match words.maybe("--flows") {
        Some(_) => vec![words.value("--flows")?],
        None => vec![10_000, 1_000_000],
    };
    let turns: usize = words.value_or("--turns", 15)?.max(1);
    let batches: usize = words.value_or("--batches", 4000)?.max(1);
    let cores = machine::cores()?;
    let [.., first, second] = cores[..] else { return Err("two cores are needed, and only one may be used".into()) };
    let mut cases = Vec::new();
    for flows in flows {
        cases.push(case(flows, turns, batches, (first, second))?);
    }
    // The largest number of flows speaks for all.
    let mut document = cases.last().cloned().ok_or("no case")?;
    document["hop_latency_ns"] = json!(round(hop_latency((first, second))?));
    document["cores"] = json!([first, second]);
    document["cases"] = Value::Array(cases);
    Ok(document)
}

fn tap(worker: u16) -> Result<Writer, Failure> {
    let header = Header {
        node: "bench".into(),
        role: u32::from(Role::Clb.number()),
        worker,
        boot_id: [0; 16],
        capacity: 1024,
        pid: std::process::id(),
        created_ns: NOW,
    };
    Ok(Writer::anonymous(header)?)
}

fn case(flows: usize, turns: usize, batches: usize, cores: (usize, usize)) -> Result<Value, Failure> {
    let role = Role::Clb;
    let tables = Arc::new(Tables::from_json(&tables(role, flows, 0).to_string(), role)?);
    let traffic = Traffic::new(Direction::ClbRequest, flows, 0, FRAME_BYTES)?;
    let options =
        Options { flow_capacity: (flows * 100).div_ceil(LOAD).max(8), seed: 0x5EED, workers: 1, ..Options::default() };
    let mut engine = Engine::new(role, pipeline(role, 1, &options), tap(1)?);
    engine.set_tables(Arc::clone(&tables));
    let mut alone = Alone::new(&traffic, flows);
    alone.open(&mut engine)?;
    // Two workers' rings, so that there is something to decide; one thread empties both.
    let [(first, left), (second, right)] = [way(RING), way(RING)];
    let dispatcher_tap = tap(0)?;
    let counters = [dispatcher_tap.counters(), engine.tap().counters()];
    let mut dispatch = Dispatch::new(Dispatcher::default(), dispatcher_tap, vec![first, second]);
    dispatch.set_tables(tables);
    let mut worker =
        Worker { engine, inboxes: [left, right], frames: vec![Frame::default(); BATCH], now: NOW + alone.now };
    let clock = cost_of_the_clock();
    let mut seen = Vec::new();
    for _ in 0..turns {
        let (classify, one) = alone.turn(&mut worker.engine, batches, clock, cores.1)?;
        let shared = Shared::default();
        let (dispatcher, took) = std::thread::scope(|scope| {
            let there = scope.spawn(|| worker.turn(&shared, clock, cores.1));
            let here = dispatcher_turn(&mut dispatch, &mut alone, &shared, (batches, clock, cores.0));
            // The worker ends when told to, whether or not the dispatcher could do its part.
            shared.stop.store(true, Ordering::Release);
            let there = there.join().map_err(|_| Error::other("the worker panicked"))?;
            Ok::<_, Failure>((here?, there?))
        })?;
        seen.push(Turn { dispatcher, worker: took, classify, alone: one });
    }
    for reason in DropReason::ALL {
        if counters.iter().any(|counters| counters.drops(reason) > 0) {
            return Err(format!("a frame was dropped: {}", reason.name()).into());
        }
    }
    Ok(document(flows, &seen))
}

/// Sides of the turns in order, as median and spread ((p90 - p10) / median).
fn middle(seen: &[Turn], side: impl Fn(&Turn) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = seen.iter().map(side).collect();
    values.sort_by(f64::total_cmp);
    let median = quantile(&values, 0.5);
    (median, (quantile(&values, 0.9) - quantile(&values, 0.1)) / median)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn document(flows: usize, seen: &[Turn]) -> Value {
    let (dispatcher, dispatcher_spread) = middle(seen, |turn| turn.dispatcher);
    let (worker, worker_spread) = middle(seen, |turn| turn.worker);
    let (classify, _) = middle(seen, |turn| turn.classify);
    let (alone, _) = middle(seen, |turn| turn.alone);
    json!({
        "flows": flows,
        "frame_bytes": FRAME_BYTES,
        "dispatcher_ns": round(dispatcher),
        "worker_ns": round(worker),
        "classify_ns": round(classify),
        "one_thread_ns": round(alone),
        "hop_ns": round(dispatcher - classify + worker - alone),
        "derived_ratio": round(worker / dispatcher),
        "spread": (dispatcher_spread.max(worker_spread) * 1000.0).round() / 1000.0,
    })
}

/// Loads frames, and does in one thread what takes two otherwise.
struct Alone<'a> {
    traffic: &'a Traffic,
    flows: usize,
    choice: Choice,
    random: Random,
    frames: Vec<Frame>,
    now: Nanos,
}

impl<'a> Alone<'a> {
    fn new(traffic: &'a Traffic, flows: usize) -> Self {
        let frames = vec![Frame::default(); BATCH];
        Self { traffic, flows, choice: Choice::Uniform { flows }, random: Random::new(7), frames, now: NOW }
    }

    /// Every flow sends its SYN and its first data.
    fn open(&mut self, engine: &mut Engine) -> Result<(), Failure> {
        for step in [Step::Open, Step::Data] {
            for first in (0..self.flows).step_by(BATCH) {
                let count = BATCH.min(self.flows - first);
                for (at, frame) in self.frames[..count].iter_mut().enumerate() {
                    self.traffic.load(frame, first + at, step)?;
                }
                engine.process(self.now, &mut self.frames[..count], &mut Nowhere);
                self.now += TICK;
            }
        }
        Ok(())
    }

    fn load(&mut self) -> Result<(), Failure> {
        for frame in &mut self.frames {
            self.traffic.load(frame, self.choice.next(&mut self.random), Step::Data)?;
        }
        Ok(())
    }

    /// Classifying alone, and taking, processing and sending without a ring.
    fn turn(&mut self, engine: &mut Engine, batches: usize, clock: f64, core: usize) -> Result<(f64, f64), Failure> {
        machine::stay_on(core)?;
        let mut dispatcher = Dispatcher::default();
        let (mut classify, mut process) = (Times::default(), Times::default());
        for _ in 0..batches {
            self.load()?;
            let start = Instant::now();
            for frame in &self.frames {
                std::hint::black_box(dispatcher.classify(frame, 2));
            }
            classify.add(start);
            let start = Instant::now();
            engine.process(self.now, &mut self.frames, &mut Nowhere);
            engine.publish(self.now);
            process.add(start);
            self.now += TICK;
        }
        Ok((classify.per_frame(clock), process.per_frame(clock)))
    }
}

/// Times of whole batches.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, start: Instant) {
        self.0.push(start.elapsed().as_nanos() as f64);
    }

    /// Without the slowest 1 % (interrupts) and the cost of the clock.
    fn per_frame(mut self, clock: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0.truncate((self.0.len() * 99 / 100).max(1));
        (self.0.iter().sum::<f64>() / self.0.len().max(1) as f64 - clock) / BATCH as f64
    }
}

fn dispatcher_turn(
    dispatch: &mut Dispatch,
    source: &mut Alone<'_>,
    shared: &Shared,
    (batches, clock, core): (usize, f64, usize),
) -> Result<f64, Failure> {
    machine::stay_on(core)?;
    let mut times = Times::default();
    for _ in 0..batches {
        let handed = shared.handed.load(Ordering::Relaxed);
        wait(|| handed - shared.done.load(Ordering::Acquire) <= IN_FLIGHT - BATCH as u64)?;
        source.load()?;
        let start = Instant::now();
        dispatch.process(source.now, &mut source.frames, |_| {});
        times.add(start);
        source.now += TICK;
        shared.handed.fetch_add(BATCH as u64, Ordering::Release);
    }
    let handed = shared.handed.load(Ordering::Relaxed);
    wait(|| shared.done.load(Ordering::Acquire) == handed)?;
    Ok(times.per_frame(clock))
}

/// Spin until it holds. An error after seconds: the other side has ended.
fn wait(mut holds: impl FnMut() -> bool) -> Result<(), Error> {
    let start = Instant::now();
    while !holds() {
        std::hint::spin_loop();
        if start.elapsed().as_secs() > 5 {
            return Err(Error::other("one core waits in vain for the other"));
        }
    }
    Ok(())
}

struct Worker {
    engine: Engine,
    inboxes: [Inbox; 2],
    frames: Vec<Frame>,
    now: Nanos,
}

impl Worker {
    /// Take whole batches, process them, give their buffers back, until told to stop.
    fn turn(&mut self, shared: &Shared, clock: f64, core: usize) -> Result<f64, Error> {
        machine::stay_on(core)?;
        let mut times = Times::default();
        let mut done = 0;
        while !shared.stop.load(Ordering::Acquire) {
            if shared.handed.load(Ordering::Acquire) - done < BATCH as u64 {
                std::hint::spin_loop();
                continue;
            }
            let start = Instant::now();
            let mut count = 0;
            for inbox in &mut self.inboxes {
                count += inbox.take(&mut self.frames[count..]);
            }
            self.engine.process(self.now, &mut self.frames[..count], &mut Nowhere);
            self.engine.publish(self.now);
            times.add(start);
            self.now += TICK;
            if count != BATCH {
                return Err(Error::other(format!("{count} frames in the ring, {BATCH} expected")));
            }
            done += count as u64;
            shared.done.store(done, Ordering::Release);
        }
        Ok(times.per_frame(clock))
    }
}

/// How long an item takes from one core to the other: half of there and back.
fn hop_latency(cores: (usize, usize)) -> Result<f64, Failure> {
    const ROUNDS: u32 = 20_000;
    let (mut there, mut far) = ring::<u64>(64);
    let (mut back, mut near) = ring::<u64>(64);
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || -> Result<(), Error> {
            machine::stay_on(cores.1)?;
            for _ in 0..ROUNDS {
                let item = pop(&mut far)?;
                let _ = back.push(item); // one item is on its way at a time: there is room
            }
            Ok(())
        });
        machine::stay_on(cores.0)?;
        let mut times = Vec::new();
        for n in 0..ROUNDS {
            let start = Instant::now();
            let _ = there.push(u64::from(n));
            pop(&mut near)?;
            times.push(start.elapsed().as_nanos() as f64 / 2.0);
        }
        echo.join().map_err(|_| Error::other("the echo panicked"))??;
        times.sort_by(f64::total_cmp);
        Ok(quantile(&times, 0.5))
    })
}

fn pop(ring: &mut Consumer<u64>) -> Result<u64, Error> {
    let mut item = None;
    wait(|| {
        item = ring.pop();
        item.is_some()
    })?;
    item.ok_or_else(|| Error::other("an empty ring"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_cost_something_and_nothing_is_dropped() {
        let words = Words::read("--flows 300 --turns 2 --batches 20".split(' ').map(str::to_owned)).unwrap();
        if machine::cores().unwrap().len() < 2 {
            return;
        }
        let document = run(&words).unwrap();
        for key in ["dispatcher_ns", "worker_ns", "classify_ns", "one_thread_ns", "derived_ratio", "hop_latency_ns"] {
            assert!(document[key].as_f64().unwrap() > 0.0, "{key}: {document}");
        }
        assert_eq!(document["cases"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn the_hop_is_what_two_threads_cost_more_than_one() {
        let turn = Turn { dispatcher: 30.0, worker: 70.0, classify: 10.0, alone: 60.0 };
        let document = document(5, &[turn; 3]);
        assert_eq!((document["hop_ns"].as_f64(), document["derived_ratio"].as_f64()), (Some(30.0), Some(2.33)));
        assert_eq!(document["spread"].as_f64(), Some(0.0));
    }
}
