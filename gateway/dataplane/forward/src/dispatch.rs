//! Which worker a frame belongs to.

use tgw_contract::Role;

use crate::fragments::Fragments;
use crate::hash::Tuple;
use crate::packet::Part;
use crate::work::Work;
use crate::Frame;

/// Chooses the worker of a frame: requests and replies of one connection, and ICMP errors about it, go to the same one.
/// So do the fragments of a packet: the first one's choice is remembered for the later ones.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    fragments: Fragments,
}

impl Default for Dispatcher {
    fn default() -> Self {
        Self { fragments: Fragments::new(SEED) }
    }
}

/// Nobody can aim at a worker who does not know the number of workers; more is not needed, a worker's table has its own seed.
const SEED: u64 = 0x7467_7720_7370_7264;

impl Dispatcher {
    /// The worker, from 0 to `workers - 1`; 0 for what cannot be read. The connection inside a tunnel counts, where there
    /// is one.
    pub fn classify(&mut self, frame: &Frame, workers: usize) -> usize {
        if workers <= 1 {
            return 0;
        }
        let Some(work) = read(frame) else { return 0 };
        let hash = self.hash(frame, &work);
        (((hash >> 32) * workers as u64) >> 32) as usize
    }
}

impl Dispatcher {
    fn hash(&mut self, frame: &Frame, work: &Work) -> u64 {
        let packet = &work.packet;
        let tuple: Tuple = if work.is_error() { packet.quoted.tuple } else { packet.tuple };
        if packet.part == Part::Whole {
            return tuple.symmetric(SEED);
        }
        self.fragments.advance(frame.rx_ns);
        if packet.part == Part::Later {
            // One that comes before its first will be dropped, by whomever.
            return self.fragments.find(packet).unwrap_or_else(|| tuple.symmetric(SEED));
        }
        let hash = tuple.symmetric(SEED);
        self.fragments.remember(packet, hash);
        hash
    }
}

fn read(frame: &Frame) -> Option<Work> {
    let mut work = Work::default();
    // As an LD reads it, every frame is expected in a tunnel; what is in none is plain.
    if work.admit(frame, Role::Clb, None).is_err() {
        work = Work::default();
        work.admit_plain(frame).ok()?;
    }
    Some(work)
}
