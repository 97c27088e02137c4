//! The dispatcher's half of a CLB: from the device's frames to the workers' rings, and the empty frames back.

use std::sync::Arc;

use tgw_contract::{Counter, DropReason, Role};
use tgw_device::BATCH;
use tgw_forward::{Dispatcher, Frame, Nanos, Tables};
use tgw_tap::Writer;

use crate::engine::{refuse, Every, BEAT_NS};
use crate::ring::{ring, Consumer, Producer};

/// The dispatcher's ends of the two rings to one worker.
pub struct Way {
    full: Producer<Frame>,
    empty: Consumer<Frame>,
}

/// The worker's ends, of the way from each dispatcher.
pub struct Inbox {
    ends: Vec<Ends>,
    /// Whose turn it is to be emptied first.
    next: usize,
}

struct Ends {
    full: Consumer<Frame>,
    empty: Producer<Frame>,
}

/// Two rings: frames to a worker, and their buffers back.
#[must_use]
pub fn way(capacity: usize) -> (Way, Inbox) {
    let (there, inbox) = ring(capacity);
    // Buffers in use: the ring's and one batch at either end. So the way back never overflows (and if it did, the
    // buffer would be freed and made anew).
    let (outbox, back) = ring(capacity + 2 * BATCH);
    (Way { full: there, empty: back }, Inbox { ends: vec![Ends { full: inbox, empty: outbox }], next: 0 })
}

impl Way {
    /// Put the frame into the ring and an empty one in its place; false, and nothing done, when the ring is full.
    pub fn hand_over(&mut self, frame: &mut Frame) -> bool {
        if self.full.is_full() {
            return false; // under overload a dropped frame must not cost a buffer too
        }
        let empty = self.empty.pop().unwrap_or_default();
        match self.full.push(std::mem::replace(frame, empty)) {
            Ok(()) => true,
            Err(back) => {
                *frame = back;
                false
            }
        }
    }
}

impl Inbox {
    /// Many ways to one worker, each a dispatcher's own.
    pub(crate) fn join(inboxes: impl IntoIterator<Item = Self>) -> Self {
        Self { ends: inboxes.into_iter().flat_map(|inbox| inbox.ends).collect(), next: 0 }
    }

    /// Move waiting frames into the front of `frames`, whose buffers go back; how many.
    pub fn take(&mut self, frames: &mut [Frame]) -> usize {
        let mut filled = 0;
        let count = self.ends.len();
        for turn in 0..count {
            let ends = &mut self.ends[(self.next + turn) % count];
            while filled < frames.len() {
                let Some(frame) = ends.full.pop() else { break };
                let _ = ends.empty.push(std::mem::replace(&mut frames[filled], frame));
                filled += 1;
            }
        }
        self.next = self.next.wrapping_add(1) % count.max(1);
        filled
    }

    /// Whether no frame waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.iter().all(|ends| ends.full.is_empty())
    }
}

/// Classifies frames and keeps the dispatcher's account: a frame is out once a worker's ring has it.
pub struct Dispatch {
    dispatcher: Dispatcher,
    tables: Option<Arc<Tables>>,
    ways: Vec<Way>,
    touched: Vec<bool>,
    beaten: Every,
    pub(crate) tap: Writer,
}

impl Dispatch {
    /// A dispatcher without tables, to the workers at the other ends of `ways` (at least one).
    #[must_use]
    pub fn new(dispatcher: Dispatcher, tap: Writer, ways: Vec<Way>) -> Self {
        let touched = vec![false; ways.len()];
        Self { dispatcher, tables: None, ways, touched, beaten: Every::new(BEAT_NS), tap }
    }

    /// Use other tables from the next batch on.
    pub fn set_tables(&mut self, tables: Arc<Tables>) {
        self.tap.set(Counter::Epoch, tables.epoch());
        self.dispatcher.set_tables(Arc::clone(&tables));
        self.tables = Some(tables);
    }

    /// The heartbeat, when it is due; true when it was.
    pub fn turn(&mut self, now: Nanos) -> bool {
        let due = self.beaten.is_due(now);
        if due {
            self.tap.beat(now);
        }
        due
    }

    /// Give each frame to its worker, or drop it as RING_FULL. `wake` is called once for each worker that got some.
    pub fn process(&mut self, now: Nanos, frames: &mut [Frame], mut wake: impl FnMut(usize)) {
        if frames.is_empty() {
            return;
        }
        let (mut handed, mut handed_bytes, mut bytes) = (0, 0, 0);
        for frame in frames.iter_mut() {
            let length = frame.bytes().len() as u64;
            bytes += length;
            let worker = self.dispatcher.classify(frame, self.ways.len()).min(self.ways.len() - 1);
            if self.ways[worker].hand_over(frame) {
                self.touched[worker] = true;
                handed += 1;
                handed_bytes += length;
            } else {
                refuse(&mut self.tap, frame, Role::Clb, self.tables.as_deref(), DropReason::RingFull);
            }
        }
        self.tap.count(Counter::Batches, 1);
        self.tap.count_in(frames.len() as u64, bytes);
        self.tap.count_out(handed, handed_bytes);
        self.tap.count(Counter::HandedOver, handed);
        self.tap.publish(now);
        for (worker, touched) in self.touched.iter_mut().enumerate() {
            if std::mem::take(touched) {
                wake(worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_costs_no_buffer() {
        let (mut way, mut inbox) = way(1);
        assert!(way.hand_over(&mut Frame::with_capacity(200)));
        assert!(inbox.ends[0].empty.push(Frame::with_capacity(300)).is_ok());
        let mut frame = Frame::with_capacity(400);
        assert!(frame.load(3, 9, &[1, 2, 3]));
        assert!(!way.hand_over(&mut frame));
        assert_eq!((frame.bytes(), frame.port, frame.rx_ns), (&[1, 2, 3][..], 3, 9), "the frame is still there");
        assert!(way.empty.pop().is_some(), "and so is the buffer that would have taken its place");
        let mut taken = [Frame::default()];
        assert_eq!(inbox.take(&mut taken), 1);
        assert!(way.hand_over(&mut frame) && frame.bytes().is_empty());
    }
}
