//! A running node: devices x pipelines x taps.
//!
//! EIP and vSwitch run to completion: a worker receives, processes, sends and records by itself. A CLB has a dispatcher
//! that receives and hands each connection to one worker through a lock-free ring; workers send by themselves.
//! [`Node`] does it with threads and real devices, [`Inline`] in the caller's thread at the caller's time: the same
//! engine, the same accounting, the same taps.

mod clock;
mod config;
mod control;
mod delay;
mod dispatch;
mod engine;
mod fault;
mod inline;
mod lane;
mod node;
mod open;
mod residence;
mod ring;
mod worker;

pub use config::{Config, Kind, Port};
pub use dispatch::{way, Dispatch, Inbox, Way};
pub use engine::{Engine, Outlet};
pub use fault::{Fault, FaultError, FaultKind};
pub use inline::Inline;
pub use node::{DeviceSet, EngineCounters, MakePipeline, Node, NodeError, WorkerCounters};
pub use open::{PortDevice, Xdp};
pub use residence::{Residence, BUCKETS};
pub use ring::{ring, Consumer, Producer};
