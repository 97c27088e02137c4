//! Which worker a frame belongs to.

use tgw_contract::Role;

use crate::hash::Tuple;
use crate::work::Work;
use crate::Frame;

/// Chooses the worker of a frame: requests and replies of one connection, and ICMP errors about it, go to the same one.
#[derive(Clone, Debug, Default)]
pub struct Dispatcher {}

/// Nobody can aim at a worker who does not know the number of workers; more is not needed, a worker's table has its own seed.
const SEED: u64 = 0x7467_7720_7370_7264;

impl Dispatcher {
    /// The worker, from 0 to `workers - 1`; 0 for what cannot be read. The connection inside a tunnel counts, where there
    /// is one.
    pub fn classify(&mut self, frame: &Frame, workers: usize) -> usize {
        if workers <= 1 {
            return 0;
        }
        let Some(tuple) = connection(frame) else { return 0 };
        let hash = tuple.symmetric(SEED);
        (((hash >> 32) * workers as u64) >> 32) as usize
    }
}

fn connection(frame: &Frame) -> Option<Tuple> {
    let mut work = Work::default();
    // As an LD reads it, every frame is expected in a tunnel; what is in none is plain.
    if work.admit(frame, Role::Clb, None).is_err() {
        work = Work::default();
        work.admit_plain(frame).ok()?;
    }
    Some(if work.is_error() { work.packet.quoted.tuple } else { work.packet.tuple })
}
