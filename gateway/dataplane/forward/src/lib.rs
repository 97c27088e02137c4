//! The pipelines of the gateway, sans I/O: a batch of frames and the time go in, one outcome per frame comes out.

#![forbid(clippy::undocumented_unsafe_blocks)]

mod faults;
mod frame;
mod tables;

use std::sync::Arc;

use tgw_contract::{DropReason, Point, Role};

pub use faults::{Fault, FaultKind, Faults};
pub use frame::{Frame, DEFAULT_CAPACITY, HEADROOM};
pub use tables::{ConfigError, Port, Problem, Tables};

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
}

impl Default for Options {
    fn default() -> Self {
        Self { flow_capacity: 65_536, seed: 0, workers: 1 }
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
}

struct Unready;

impl Pipeline for Unready {
    fn process(&mut self, _: Nanos, _: &mut [Frame], outcomes: &mut [Outcome], _: &mut dyn Observer) {
        outcomes.fill(Outcome::Drop(DropReason::NoConfig));
    }
    fn set_tables(&mut self, _: Arc<Tables>) {}
    fn counters(&self) -> FlowCounters {
        FlowCounters::default()
    }
    fn set_faults(&mut self, _: Faults) {}
    fn idle(&mut self, _: Nanos) {}
}

/// The pipeline of a role. `worker` is the number of its tap.
#[must_use]
pub fn pipeline(_role: Role, _worker: u16, _options: &Options) -> Box<dyn Pipeline> {
    Box::new(Unready)
}

/// Chooses the worker of a frame.
#[derive(Clone, Debug, Default)]
pub struct Dispatcher {}

impl Dispatcher {
    /// The worker, from 0 to `workers - 1`.
    pub fn classify(&mut self, _frame: &Frame, _workers: usize) -> usize {
        0
    }
}

/// What can be read of a frame, for a record that the runtime writes.
#[must_use]
pub fn describe(frame: &Frame, _role: Role, _tables: Option<&Tables>) -> Point {
    Point { ts_ns: frame.rx_ns, ..Point::default() }
}
