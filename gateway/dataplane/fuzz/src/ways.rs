//! The straight way and the general way do the same to every frame: what `forward/tests/fast.rs` says of frames that nearly
//! are ordinary, said of any.

use std::sync::Arc;

use tgw_contract::{DropReason, Point, Role};
use tgw_forward::{FlowCounters, Frame, Options, Outcome, Pipeline, Snapshot, Tuning};

use crate::support::Notes;
use crate::{region, unpack, Batch};

/// All that can be seen of a node from outside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    outcomes: Vec<Outcome>,
    frames: Vec<Vec<u8>>,
    points: Vec<[u8; 128]>,
    flows: FlowCounters,
    meters: Snapshot,
}

fn send(node: &mut dyn Pipeline, (now, batch): &Batch) -> Seen {
    let mut frames = Vec::new();
    for (port, bytes) in batch {
        let mut frame = Frame::with_capacity(4096);
        if frame.load(*port, *now, bytes) {
            frames.push(frame);
        }
    }
    let mut outcomes = vec![Outcome::Drop(DropReason::RingFull); frames.len()];
    let mut notes = Notes::default();
    node.process(*now, &mut frames, &mut outcomes, &mut notes);
    Seen {
        outcomes,
        frames: frames.iter().map(|frame| frame.bytes().to_vec()).collect(),
        points: notes.0.iter().map(Point::to_bytes).collect(),
        flows: node.counters(),
        meters: node.meters().snapshot(),
    }
}

/// Feed an input to two nodes of each role that has both ways. Panics where they differ.
pub fn agree(data: &[u8]) {
    let [choice, frames @ ..] = data else { return };
    let Some(tables) = region(*choice) else { return };
    let batches = unpack(frames);
    let window = 1 + data.len() % 64;
    for (role, tables) in [Role::Eip, Role::Clb].into_iter().zip(tables) {
        let node = |tuning| {
            let mut node =
                tgw_forward::pipeline(role, 0, &Options { flow_capacity: 64, seed: 5, tuning, ..Options::default() });
            node.set_tables(Arc::clone(tables));
            node
        };
        let mut straight = node(Tuning { window, ..Tuning::default() });
        let mut general = node(Tuning { straight: false, window: 1, prefetch: false, tags: false });
        for batch in &batches {
            assert_eq!(send(&mut *straight, batch), send(&mut *general, batch));
        }
    }
}
