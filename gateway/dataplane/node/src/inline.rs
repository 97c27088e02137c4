//! A node without threads, devices or a clock: the library door for simulations, tests and notebooks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tgw_contract::{Counter, Role};
use tgw_device::BATCH;
use tgw_forward::{pipeline, ConfigError, Dispatcher, Frame, Nanos, Options, ServerHealth, Tables};
use tgw_tap::{Header, Reader, TapError};

use crate::config::Config;
use crate::dispatch::{way, Dispatch, Inbox, Way};
use crate::engine::{Engine, Outlet};
use crate::fault::Fault;
use crate::lane::Lane;
use crate::node::{tap_in, NodeError, WorkerCounters};
use crate::worker::DISPATCHER;

/// A frame and the port it comes in by or goes out of.
pub type PortFrame = (u16, Vec<u8>);

/// How frames reach the lanes: as in the threaded node, but called instead of woken.
enum Front {
    /// A CLB's dispatcher, which keeps an account of its own.
    Dispatcher { dispatch: Box<Dispatch>, stuck: bool },
    /// The device spreads the flows (RSS); what a worker does not fetch is lost before the node has it.
    Spread { dispatcher: Dispatcher, ways: Vec<Way> },
}

/// One node, run by its caller: frames and a time in, frames out.
pub struct Inline {
    role: Role,
    front: Front,
    lanes: Vec<(Lane, Inbox)>,
    readers: Vec<Reader>,
    counters: Vec<WorkerCounters>,
    paths: Vec<PathBuf>,
    faults: Vec<Fault>,
    tables: Option<Arc<Tables>>,
    /// Whether nobody else reads the taps, so that what was taken frees its slots.
    own_taps: bool,
    frames: Vec<Frame>,
    /// Frames of the node's own making that go out with the next ones.
    own: Outbox,
}

#[derive(Default)]
struct Outbox(Vec<PortFrame>);

impl Outlet for Outbox {
    fn send(&mut self, _: Nanos, port: u16, frames: &[Frame], chosen: &[usize], _: &mut Vec<usize>) -> bool {
        self.0.extend(chosen.iter().map(|&index| (port, frames[index].bytes().to_vec())));
        true
    }
}

impl Inline {
    /// A node by its configuration (its ports are not opened). As many workers as it says, vSwitches included: here one
    /// hash spreads both directions.
    pub fn new(config: &Config, pid: u32, created_ns: Nanos) -> Result<Self, NodeError> {
        let workers = config.workers.unwrap_or(1);
        let one = Config { workers: Some(1), dispatchers: None, ..config.clone() };
        let checked = one.check()?;
        let role = checked.role;
        if workers == 0 || workers > 64 {
            return Err(NodeError::Config(crate::config::problem("workers", "1 to 64", workers)));
        }
        let first = u16::from(role == Role::Clb);
        let mut readers = Vec::new();
        let mut counters = Vec::new();
        let mut paths = Vec::new();
        let mut tap = |worker: u16| -> Result<_, TapError> {
            let header = Header {
                node: config.name.clone(),
                role: u32::from(role.number()),
                worker,
                boot_id: checked.boot_id,
                capacity: config.tap_capacity,
                pid,
                created_ns,
            };
            let tap = tap_in(config.tap_dir.as_deref(), header)?;
            readers.push(tap.reader());
            counters.push(WorkerCounters { worker, counters: tap.counters(), engine: None });
            paths.extend(tap.path().map(Path::to_owned));
            Ok(tap)
        };
        let dispatcher_tap = if role == Role::Clb { Some(tap(DISPATCHER)?) } else { None };
        let options = Options {
            flow_capacity: config.flow_capacity,
            seed: config.seed,
            workers,
            first_worker: first,
            ..Options::default()
        };
        let mut ways = Vec::new();
        let mut lanes = Vec::new();
        for worker in first..first + workers {
            let (way, inbox) = way(config.ring_capacity);
            ways.push(way);
            lanes.push((Lane::new(Engine::new(role, pipeline(role, worker, &options), tap(worker)?), worker), inbox));
        }
        for (lane, _) in &lanes {
            if let Some(worker) = counters.iter_mut().find(|counters| counters.worker == lane.worker()) {
                worker.attach(&lane.engine);
            }
        }
        let dispatcher = Dispatcher::default();
        let front = match dispatcher_tap {
            Some(tap) => Front::Dispatcher { dispatch: Box::new(Dispatch::new(dispatcher, tap, ways)), stuck: false },
            None => Front::Spread { dispatcher, ways },
        };
        let own_taps = config.tap_dir.is_none();
        let frames = (0..BATCH).map(|_| Frame::default()).collect();
        Ok(Self {
            role,
            front,
            lanes,
            readers,
            counters,
            paths,
            faults: Vec::new(),
            tables: None,
            own_taps,
            frames,
            own: Outbox::default(),
        })
    }

    /// Check the tables and use them from the next frame on. Nothing changes when they are wrong.
    pub fn apply(&mut self, tables: &str) -> Result<u64, ConfigError> {
        let tables = Arc::new(Tables::from_json(tables, self.role)?);
        let epoch = tables.epoch();
        if let Front::Dispatcher { dispatch, .. } = &mut self.front {
            dispatch.set_tables(Arc::clone(&tables));
        }
        for (lane, _) in &mut self.lanes {
            lane.engine.set_tables(Arc::clone(&tables));
        }
        self.tables = Some(tables);
        Ok(epoch)
    }

    /// Take frames in at `now` and return what comes out, held frames that are due included.
    ///
    /// A frame longer than a frame buffer is cut, as a packet socket cuts it.
    pub fn process<'a>(&mut self, frames: impl IntoIterator<Item = (u16, &'a [u8])>, now: Nanos) -> Vec<PortFrame> {
        let mut out = std::mem::take(&mut self.own);
        let mut frames = frames.into_iter();
        loop {
            let mut count = 0;
            while count < BATCH {
                let Some((port, bytes)) = frames.next() else {
                    break;
                };
                let frame = &mut self.frames[count];
                let room = frame.writable_tail().len();
                frame.load(port, now, &bytes[..bytes.len().min(room)]);
                count += 1;
            }
            self.take_in(now, count);
            self.run(now, &mut out);
            if count < BATCH {
                return out.0;
            }
        }
    }

    /// The packed records since the last call, worker by worker.
    pub fn take_records(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for reader in &mut self.readers {
            reader.take(&mut out);
            if self.own_taps {
                reader.release();
            }
        }
        out
    }

    /// The counters of every worker.
    #[must_use]
    pub fn counters(&self) -> &[WorkerCounters] {
        &self.counters
    }

    /// What health checks have found of the real servers, see [`Tables::health`]; empty before the first tables.
    #[must_use]
    pub fn health(&self) -> Vec<ServerHealth> {
        self.tables.as_ref().map_or_else(Vec::new, |tables| tables.health())
    }

    /// The tap files.
    #[must_use]
    pub fn tap_paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Add a fault.
    pub fn inject(&mut self, fault: Fault) {
        self.faults.push(fault);
        self.spread_faults();
    }

    /// End all faults.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
        self.spread_faults();
    }

    /// What every worker that turns owes at `now`: heartbeats, sweeps, and frames of the node's own making, which come out
    /// with the next call of [`Inline::process`].
    pub fn beat(&mut self, now: Nanos) {
        if let Front::Dispatcher { dispatch, stuck: false } = &mut self.front {
            dispatch.turn(now);
        }
        for (lane, _) in self.lanes.iter_mut().filter(|(lane, _)| !lane.stuck()) {
            lane.engine.turn(now);
            if let Some(frame) = self.frames.first_mut() {
                lane.engine.emit(now, frame, &mut self.own);
            }
        }
    }

    /// End in good order: the taps are marked closed.
    pub fn close(&mut self, now: Nanos) {
        if let Front::Dispatcher { dispatch, .. } = &mut self.front {
            dispatch.tap.close(now);
        }
        for (lane, inbox) in &mut self.lanes {
            lane.end(Some(inbox), &mut self.frames, now);
        }
    }

    fn take_in(&mut self, now: Nanos, count: usize) {
        let frames = &mut self.frames[..count];
        match &mut self.front {
            Front::Dispatcher { dispatch, stuck: false } => dispatch.process(now, frames, |_| {}),
            Front::Dispatcher { dispatch, stuck: true } => dispatch.tap.count(Counter::LostOnDevice, count as u64),
            Front::Spread { dispatcher, ways } => {
                for frame in frames {
                    let worker = dispatcher.classify(frame, ways.len()).min(ways.len() - 1);
                    if !ways[worker].hand_over(frame) {
                        self.lanes[worker].0.engine.tap_mut().count(Counter::LostOnDevice, 1);
                    }
                }
            }
        }
    }

    fn run(&mut self, now: Nanos, out: &mut Outbox) {
        for (lane, inbox) in self.lanes.iter_mut().filter(|(lane, _)| !lane.stuck()) {
            loop {
                let due = lane.due(now, &mut self.frames);
                lane.engine.process(now, &mut self.frames[..due], out);
                let taken = if lane.is_full() { 0 } else { inbox.take(&mut self.frames) };
                let stay = lane.admit(&mut self.frames[..taken]);
                lane.engine.process(now, &mut self.frames[..stay], out);
                lane.engine.publish(now);
                if due == 0 && taken == 0 {
                    break;
                }
            }
        }
    }

    fn spread_faults(&mut self) {
        if let Front::Dispatcher { stuck, .. } = &mut self.front {
            *stuck = Lane::is_stuck(&self.faults, DISPATCHER);
        }
        for (lane, _) in &mut self.lanes {
            lane.set_faults(&self.faults);
        }
    }
}
