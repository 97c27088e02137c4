//! A bounded ring between exactly two threads, without locks: the dispatcher's way to a worker, and the way back.
//!
//! The only unsafe code of this crate. Two positions that only grow, `head` (the consumer's) and `tail` (the
//! producer's), each on a cache line of its own; slot `n & mask` holds item `n` while `head <= n < tail`. The producer
//! touches slots outside that window, the consumer slots inside it. [`Producer`] and [`Consumer`] are not `Clone` and
//! their methods take `&mut self`, so each position has one writer.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Keeps the two threads' words on different cache lines (and out of the adjacent-line prefetcher's way).
#[repr(align(128))]
struct Padded<T>(T);

struct Ring<T> {
    head: Padded<AtomicUsize>,
    tail: Padded<AtomicUsize>,
    mask: usize,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is reached by one thread at a time: the window rule above, kept by the release stores of `tail` and
// `head` and the acquire loads that pair with them. Items cross threads, so T must be Send; none is shared.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let (head, tail) = (*self.head.0.get_mut(), *self.tail.0.get_mut());
        for n in 0..tail.wrapping_sub(head) {
            let slot = &mut self.slots[head.wrapping_add(n) & self.mask];
            // SAFETY: inside the window, hence written and not yet read; both ends are gone (`&mut self`).
            unsafe { slot.get_mut().assume_init_drop() };
        }
    }
}

/// The end that puts items in.
pub struct Producer<T> {
    ring: Arc<Ring<T>>,
    /// The consumer's position as last seen: saves reading its cache line while there is room by our own count.
    head: usize,
}

/// The end that takes items out.
pub struct Consumer<T> {
    ring: Arc<Ring<T>>,
    /// The producer's position as last seen.
    tail: usize,
}

/// A ring with room for `capacity` items, rounded up to a power of two.
#[must_use]
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let ring = Arc::new(Ring {
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        mask: capacity - 1,
        slots,
    });
    (Producer { ring: Arc::clone(&ring), head: 0 }, Consumer { ring, tail: 0 })
}

impl<T: Send> Producer<T> {
    /// Whether there is no room. Once there is some, only this end can use it up.
    pub fn is_full(&mut self) -> bool {
        let ring = &*self.ring;
        // Relaxed: this end is the only one that stores `tail`.
        let tail = ring.tail.0.load(Ordering::Relaxed);
        if tail.wrapping_sub(self.head) > ring.mask {
            // Acquire: the consumer's reads of the slots before `head` happened before we write them again.
            self.head = ring.head.0.load(Ordering::Acquire);
        }
        tail.wrapping_sub(self.head) > ring.mask
    }

    /// Put an item in; back it comes when the ring is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        let ring = &*self.ring;
        let tail = ring.tail.0.load(Ordering::Relaxed);
        // SAFETY: slot `tail` is outside the window (there is room), so the consumer does not touch it, and no other
        // producer exists. What the slot held was moved out by the consumer; nothing is overwritten that needs a drop.
        unsafe { (*ring.slots[tail & ring.mask].get()).write(item) };
        // Release: whoever sees the new tail sees the item.
        ring.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }
}

impl<T: Send> Consumer<T> {
    /// Take the oldest item out.
    pub fn pop(&mut self) -> Option<T> {
        let ring = &*self.ring;
        // Relaxed: this end is the only one that stores `head`.
        let head = ring.head.0.load(Ordering::Relaxed);
        if head == self.tail {
            // Acquire: pairs with the producer's release; the items before `tail` are whole.
            self.tail = ring.tail.0.load(Ordering::Acquire);
            if head == self.tail {
                return None;
            }
        }
        // SAFETY: slot `head` is inside the window: written by the producer before the tail we have acquired, not yet
        // taken by us; the producer does not touch it before we store `head`. It is moved out once, as `head` moves on.
        let item = unsafe { (*ring.slots[head & ring.mask].get()).assume_init_read() };
        // Release: the producer that sees the new head may write the slot again.
        ring.head.0.store(head.wrapping_add(1), Ordering::Release);
        Some(item)
    }

    /// Whether nothing is there now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.head.0.load(Ordering::Relaxed) == self.ring.tail.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any sequence of pushes and pops does what a bounded VecDeque does; what is left inside is dropped once.
        #[test]
        fn is_a_bounded_queue(capacity in 1usize..20, steps in prop::collection::vec(any::<bool>(), 0..200)) {
            let (mut producer, mut consumer) = ring::<Arc<usize>>(capacity);
            let room = capacity.next_power_of_two();
            let mut oracle = VecDeque::new();
            let items: Vec<Arc<usize>> = (0..steps.len()).map(Arc::new).collect();
            for (item, push) in items.iter().zip(&steps) {
                if *push {
                    prop_assert_eq!(producer.is_full(), oracle.len() == room);
                    let taken = producer.push(Arc::clone(item)).is_ok();
                    prop_assert_eq!(taken, oracle.len() < room);
                    if taken { oracle.push_back(**item); }
                } else {
                    prop_assert_eq!(consumer.pop().map(|item| *item), oracle.pop_front());
                }
                prop_assert_eq!(consumer.is_empty(), oracle.is_empty());
            }
            drop((producer, consumer));
            prop_assert!(items.iter().all(|item| Arc::strong_count(item) == 1));
        }
    }

    #[test]
    fn two_threads_keep_the_order_and_lose_nothing() {
        const ITEMS: u64 = if cfg!(miri) { 1000 } else { 200_000 };
        let (mut producer, mut consumer) = ring::<Box<u64>>(64);
        let sender = std::thread::spawn(move || {
            for n in 0..ITEMS {
                let mut item = Box::new(n);
                while let Err(back) = producer.push(item) {
                    item = back;
                    std::thread::yield_now();
                }
            }
        });
        for n in 0..ITEMS {
            let item = loop {
                match consumer.pop() {
                    Some(item) => break item,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*item, n);
        }
        sender.join().unwrap();
        assert!(consumer.pop().is_none());
    }
}
