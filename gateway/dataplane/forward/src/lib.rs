//! The pipelines of the gateway, sans I/O: a batch of frames and the time go in, one outcome per frame comes out.

#![forbid(clippy::undocumented_unsafe_blocks)]

// Some unit tests share the packets of the integration tests, which know this crate by its name.
#[cfg(test)]
extern crate self as tgw_forward;

mod affinity;
mod blacklist;
mod board;
mod clb;
mod connection;
mod cookie;
mod dispatch;
mod eip;
mod fast;
mod faults;
mod flow;
mod fragments;
mod frame;
mod gate;
mod guard;
mod handshake;
mod hash;
mod health;
pub mod limits;
pub mod maglev;
mod memory;
mod meters;
mod packet;
mod prefetch;
mod proxy;
mod quic;
pub mod rendezvous;
mod runner;
mod segment;
mod siphash;
mod source_list;
mod splice;
mod tables;
mod toa;
mod too_big;
mod translate;
mod tunnel;
mod vswitch;
mod work;

use std::sync::Arc;

use tgw_contract::{DropReason, Point, Role, Verdict};

use runner::Runner;
use work::Work;

pub use dispatch::Dispatcher;
pub use faults::{Fault, FaultKind, Faults};
pub use frame::{Frame, DEFAULT_CAPACITY, HEADROOM};
pub use hash::Tuple;
pub use meters::{Meters, Snapshot, Tally};
pub use tables::{ConfigError, Encap, Endpoint, Port, Problem, ServerHealth, Tables};

/// Nanoseconds since 1970 (CLOCK_REALTIME), given by the caller.
pub type Nanos = u64;

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is to leave by this port, as it stands in its buffer.
    Forward {
        /// Index of the port.
        port: u16,
    },
    /// It died here.
    Drop(DropReason),
    /// It died here, and what stands in its buffer now is this node's answer to it.
    Answer {
        /// Index of the port that the answer is to leave by.
        port: u16,
        /// Why the frame died.
        reason: DropReason,
    },
}

/// Takes the Trace and Drop Points that a pipeline notes.
pub trait Observer {
    /// One point. `seq` and `worker` are the tap's to fill in, `residence_ns` is the node's.
    fn point(&mut self, point: &Point);
}

/// Connections of a flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Ever entered.
    pub created: u64,
    /// Ever left.
    pub expired: u64,
    /// There now.
    pub active: u64,
}

/// How a pipeline is sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections that this worker can track.
    pub flow_capacity: usize,
    /// Seed of the flow table's hash; a secret in production.
    pub seed: u64,
    /// Workers of the node that share the VIPs' limits.
    pub workers: u16,
    /// Number of the tap of the first of them, which checks the health of real servers for all.
    pub first_worker: u16,
    /// How the packet path goes about it.
    pub tuning: Tuning,
}

/// How the packet path goes about its work: what it does stays the same. The default is the fastest; the rest is there to
/// show how much each idea gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Ordinary packets take the straight way.
    pub straight: bool,
    /// Packets between asking for a cache line and reading it, 1 to 64.
    pub window: usize,
    /// Ask for cache lines ahead of time.
    pub prefetch: bool,
    /// Look at tags before tuples in the flow table.
    pub tags: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { straight: true, window: 24, prefetch: true, tags: true }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { flow_capacity: 65_536, seed: 0, workers: 1, first_worker: 1, tuning: Tuning::default() }
    }
}

/// One worker's packet path.
pub trait Pipeline: Send {
    /// Process a batch: exactly one outcome per frame. `outcomes` is as long as `frames`.
    fn process(&mut self, now: Nanos, frames: &mut [Frame], outcomes: &mut [Outcome], observer: &mut dyn Observer);
    /// Use other tables from the next batch on.
    fn set_tables(&mut self, tables: Arc<Tables>);
    /// The state of the flow table; zeros without one.
    fn counters(&self) -> FlowCounters;
    /// Inject other faults from the next batch on.
    fn set_faults(&mut self, faults: Faults);
    /// What is to be done now and then: a part of the sweep over idle flows.
    fn idle(&mut self, now: Nanos);
    /// What the pipeline counts by VIP, listener and real server; good for its whole life.
    fn meters(&self) -> Arc<Meters> {
        Arc::default()
    }
    /// Go about the work in another way from the next batch on.
    fn tune(&mut self, _tuning: Tuning) {}
    /// For measurements: read the frames as [`Pipeline::process`] does, and look their flows up if `look_up`, but do nothing
    /// with them. How many were ordinary, and of known flows if that was asked.
    fn rehearse(&mut self, _frames: &[Frame], _look_up: bool) -> usize {
        0
    }
    /// Write the next frame of the node's own making into `frame`: the port it is to leave by, or `None` when there is
    /// nothing to send now. Asked between batches until it says `None`.
    fn emit(&mut self, _now: Nanos, _frame: &mut Frame) -> Option<u16> {
        None
    }
}

/// The pipeline of a role; without tables it drops everything as NO_CONFIG. `worker` is the number of its tap:
/// of an LD's, those up to [`Options::first_worker`] check the health of real servers.
#[must_use]
pub fn pipeline(role: Role, worker: u16, options: &Options) -> Box<dyn Pipeline> {
    // Workers differ in their hash, so that no set of flows is bad for all.
    let options = Options { seed: options.seed ^ u64::from(worker) << 48, ..*options };
    match role {
        Role::Eip => Box::new(Runner::new(role, eip::Eip::default(), options.tuning)),
        Role::Clb => {
            Box::new(Runner::new(role, clb::Clb::new(&options, worker <= options.first_worker), options.tuning))
        }
        Role::Vswitch => Box::new(Runner::new(role, vswitch::Vswitch::new(&options), options.tuning)),
    }
}

/// Drive the flow table with any bytes and compare it with a plain map; panics where they differ.
#[cfg(fuzzing)]
pub fn flow_steps(data: &[u8]) {
    flow::steps::run(data);
}

/// What can be read of a frame, for a record that the runtime writes: `kind`, `reason` and `verdict` are left to it.
#[must_use]
pub fn describe(frame: &Frame, role: Role, tables: Option<&Tables>) -> Point {
    let mut work = Work::default();
    // A frame that cannot be admitted is described as far as it was read.
    let _ = work.admit(frame, role, tables);
    described(work, frame, tables)
}

/// As [`describe`], for a frame as its pipeline left it, to leave by `port`: addresses are those that it leaves with.
#[must_use]
pub fn describe_sent(frame: &Frame, role: Role, tables: Option<&Tables>, port: u16) -> Point {
    let mut work = Work::default();
    let _ = work.readmit(frame, role, tables, port);
    described(work, frame, tables)
}

fn described(mut work: Work, frame: &Frame, tables: Option<&Tables>) -> Point {
    let probe_id = tables.map_or(0, |tables| {
        work.find_vip(tables);
        runner::colour(&work, tables, |isn| tables.key.is_cookie(isn, frame.rx_ns))
    });
    Point { kind: 0, verdict: 0, ..work.point(frame, Verdict::Dropped, 0, probe_id) }
}
