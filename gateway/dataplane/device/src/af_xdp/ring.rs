//! The index arithmetic of the four rings that a socket shares with the kernel. Safe code over any memory.
//!
//! One side produces entries, the other consumes them. Both count entries in 32 bits that wrap; an entry's slot is its
//! number modulo the ring's size, a power of two. Each side keeps the other's last known count and looks again only when
//! that one leaves it nothing to do.

/// A ring's memory, seen by both sides.
pub(crate) trait Shared {
    /// What a slot holds.
    type Entry: Copy;

    /// Slots, a power of two.
    fn size(&self) -> u32;
    /// Entries ever produced: what was written before them is seen after this (acquire).
    fn produced(&self) -> u32;
    /// Entries ever consumed (acquire).
    fn consumed(&self) -> u32;
    /// Publish what was produced (release).
    fn set_produced(&self, count: u32);
    /// Give slots back (release).
    fn set_consumed(&self, count: u32);
    /// Read the slot of this number, taken modulo the size.
    fn read(&self, number: u32) -> Self::Entry;
    /// Write the slot of this number, taken modulo the size.
    fn write(&self, number: u32, entry: Self::Entry);
    /// The ring's flags.
    fn flags(&self) -> u32;
}

/// The kernel sleeps and wants a system call before it goes on with this ring.
const NEED_WAKEUP: u32 = libc::XDP_RING_NEED_WAKEUP;

/// Our end of a ring that we fill (fill, transmit).
pub(crate) struct Producer<S> {
    shared: S,
    /// Number of the next entry.
    next: u32,
    /// The other side's count when we last looked.
    consumed: u32,
}

impl<S: Shared> Producer<S> {
    pub(crate) fn new(shared: S) -> Self {
        let (next, consumed) = (shared.produced(), shared.consumed());
        Self { shared, next, consumed }
    }

    /// Slots that are free; looks at the other side only when fewer than `wanted` are known to be.
    pub(crate) fn room(&mut self, wanted: u32) -> u32 {
        let size = self.shared.size();
        // A count beyond the ring would be the other side's mistake: then there is no room.
        let known = |consumed: u32| size.saturating_sub(self.next.wrapping_sub(consumed));
        let room = known(self.consumed);
        if room >= wanted {
            return room;
        }
        self.consumed = self.shared.consumed();
        known(self.consumed)
    }

    /// Put an entry into the next slot; the other side sees it after [`Producer::publish`]. False when the ring is full.
    pub(crate) fn push(&mut self, entry: S::Entry) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        self.shared.write(self.next, entry);
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Show the other side what was pushed.
    pub(crate) fn publish(&mut self) {
        self.shared.set_produced(self.next);
    }

    /// How many entries the other side has not consumed yet, by its own count.
    pub(crate) fn pending(&mut self) -> u32 {
        self.consumed = self.shared.consumed();
        self.next.wrapping_sub(self.consumed).min(self.shared.size())
    }

    /// Overwrite the last `count` entries. Only where the other side is known not to be reading.
    pub(crate) fn overwrite_last(&mut self, count: u32, entry: S::Entry) {
        for back in 1..=count.min(self.shared.size()) {
            self.shared.write(self.next.wrapping_sub(back), entry);
        }
    }

    /// Whether the kernel wants to be woken for this ring.
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.shared.flags() & NEED_WAKEUP != 0
    }
}

/// Our end of a ring that the kernel fills (receive, completion).
pub(crate) struct Consumer<S> {
    shared: S,
    /// Number of the next entry.
    next: u32,
    /// The other side's count when we last looked.
    produced: u32,
}

impl<S: Shared> Consumer<S> {
    pub(crate) fn new(shared: S) -> Self {
        let next = shared.consumed();
        Self { shared, next, produced: next }
    }

    /// The next entry, if there is one. Its slot is the other side's again after [`Consumer::release`].
    pub(crate) fn pop(&mut self) -> Option<S::Entry> {
        if self.next == self.produced {
            self.produced = self.shared.produced();
            if self.next == self.produced {
                return None;
            }
        }
        let entry = self.shared.read(self.next);
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Give the slots of what was popped back.
    pub(crate) fn release(&mut self) {
        self.shared.set_consumed(self.next);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// A ring's memory without a kernel.
    #[derive(Clone)]
    struct Plain(Arc<Memory>);

    struct Memory {
        produced: AtomicU32,
        consumed: AtomicU32,
        flags: AtomicU32,
        slots: Vec<AtomicU64>,
    }

    impl Plain {
        /// An empty ring whose counts stand at `start`.
        fn new(size: usize, start: u32) -> Self {
            Self(Arc::new(Memory {
                produced: start.into(),
                consumed: start.into(),
                flags: 0.into(),
                slots: (0..size).map(|_| u64::MAX.into()).collect(),
            }))
        }

        fn slot(&self, number: u32) -> &AtomicU64 {
            &self.0.slots[number as usize % self.0.slots.len()]
        }
    }

    impl Shared for Plain {
        type Entry = u64;

        fn size(&self) -> u32 {
            self.0.slots.len() as u32
        }
        fn produced(&self) -> u32 {
            self.0.produced.load(Ordering::Acquire)
        }
        fn consumed(&self) -> u32 {
            self.0.consumed.load(Ordering::Acquire)
        }
        fn set_produced(&self, count: u32) {
            self.0.produced.store(count, Ordering::Release);
        }
        fn set_consumed(&self, count: u32) {
            self.0.consumed.store(count, Ordering::Release);
        }
        fn read(&self, number: u32) -> u64 {
            self.slot(number).load(Ordering::Relaxed)
        }
        fn write(&self, number: u32, entry: u64) {
            self.slot(number).store(entry, Ordering::Relaxed);
        }
        fn flags(&self) -> u32 {
            self.0.flags.load(Ordering::Relaxed)
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push,
        Publish,
        Pop,
        Release,
        Room(u32),
        Overwrite(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Push),
            2 => Just(Step::Publish),
            4 => Just(Step::Pop),
            2 => Just(Step::Release),
            1 => (0..20u32).prop_map(Step::Room),
            1 => (0..5u32).prop_map(Step::Overwrite),
        ];
        prop::collection::vec(step, 0..if cfg!(miri) { 40 } else { 400 })
    }

    proptest! {
        /// The oracle: three plain queues of what is not published, published, and popped but not given back.
        #[test]
        fn a_ring_is_a_queue(
            bits in 0..5u32,
            start in prop_oneof![Just(0), Just(u32::MAX - 5), any::<u32>()],
            steps in steps(),
        ) {
            let memory = Plain::new(1 << bits, start);
            let mut producer = Producer::new(memory.clone());
            let mut consumer = Consumer::new(memory);
            let (mut hidden, mut shown, mut held) = (VecDeque::new(), VecDeque::new(), 0);
            let mut number = 0;
            for step in steps {
                let free = (1 << bits) - hidden.len() - shown.len() - held;
                match step {
                    Step::Push => {
                        prop_assert_eq!(producer.push(number), free > 0);
                        if free > 0 {
                            hidden.push_back(number);
                        }
                        number += 1;
                    }
                    Step::Publish => {
                        producer.publish();
                        shown.append(&mut hidden);
                    }
                    Step::Pop => {
                        let expected = shown.pop_front();
                        prop_assert_eq!(consumer.pop(), expected);
                        held += usize::from(expected.is_some());
                    }
                    Step::Release => {
                        consumer.release();
                        held = 0;
                    }
                    Step::Room(wanted) => {
                        let room = producer.room(wanted) as usize;
                        prop_assert!(room <= free && (room == free || room >= wanted as usize));
                    }
                    Step::Overwrite(count) => {
                        // Only what is not consumed: the last of the hidden and the shown.
                        let count = count.min((hidden.len() + shown.len()) as u32);
                        producer.overwrite_last(count, 1 << 40);
                        for entry in shown.iter_mut().chain(&mut hidden).rev().take(count as usize) {
                            *entry = 1 << 40;
                        }
                    }
                }
                prop_assert_eq!(producer.pending() as usize, hidden.len() + shown.len() + held);
            }
        }
    }

    #[test]
    fn two_threads_lose_nothing_and_keep_the_order() {
        const ITEMS: u64 = if cfg!(miri) { 500 } else { 20_000 };
        let memory = Plain::new(8, u32::MAX - 100);
        let mut producer = Producer::new(memory.clone());
        let other = std::thread::spawn(move || {
            let mut consumer = Consumer::new(memory);
            let mut expected = 0;
            while expected < ITEMS {
                match consumer.pop() {
                    Some(entry) => {
                        assert_eq!(entry, expected);
                        expected += 1;
                    }
                    None => {
                        consumer.release();
                        std::thread::yield_now();
                    }
                }
            }
        });
        let mut number = 0;
        while number < ITEMS {
            if producer.push(number) {
                number += 1;
            } else {
                producer.publish();
                std::thread::yield_now();
            }
            if number % 5 == 0 {
                producer.publish();
            }
        }
        producer.publish();
        other.join().unwrap();
    }

    #[test]
    fn counts_that_cannot_be_are_no_room() {
        let memory = Plain::new(4, 0);
        memory.set_consumed(9); // consumed more than was produced
        let mut producer = Producer::new(memory.clone());
        assert_eq!(producer.room(1), 0);
        assert!(!producer.push(1));
        memory.0.flags.store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }
}
