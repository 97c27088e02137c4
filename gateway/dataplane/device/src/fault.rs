//! Seeded faults on what a device receives: the ground truth of the tests that look for faults.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use tgw_forward::{Frame, Nanos};

use crate::Device;

/// How likely each fault is, from 0 (never) to 1 (always), for every frame on its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// The frame is gone.
    pub loss: f64,
    /// The frame comes twice.
    pub duplicate: f64,
    /// One byte of the frame changes.
    pub corrupt: f64,
    /// The frame comes `delay_ns` later (and so behind others).
    pub delay: f64,
    /// How much later, in ns.
    pub delay_ns: Nanos,
}

/// What the decorator did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Frames thrown away.
    pub lost: u64,
    /// Frames given twice.
    pub duplicated: u64,
    /// Frames changed.
    pub corrupted: u64,
    /// Frames held back.
    pub delayed: u64,
}

/// A device behind a bad wire. The same seed and frames give the same faults.
pub struct Faulty<D> {
    inner: D,
    plan: Plan,
    random: Random,
    held: VecDeque<(Nanos, Vec<u8>)>,
    done: Done,
}

impl<D: Device> Faulty<D> {
    /// Decorate `inner`.
    #[must_use]
    pub fn new(inner: D, plan: Plan, seed: u64) -> Self {
        Self { inner, plan, random: Random(seed), held: VecDeque::new(), done: Done::default() }
    }

    /// What was done so far.
    #[must_use]
    pub fn done(&self) -> Done {
        self.done
    }

    /// What is due at `now`, into the front of `frames`.
    fn release(&mut self, now: Nanos, frames: &mut [Frame]) -> usize {
        let mut filled = 0;
        while filled < frames.len() && self.held.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, bytes)) = self.held.pop_front() else {
                break;
            };
            filled += usize::from(frames[filled].load(self.inner.port(), now, &bytes));
        }
        filled
    }
}

impl<D: Device> Device for Faulty<D> {
    fn port(&self) -> u16 {
        self.inner.port()
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.inner.descriptor()
    }

    fn receive(&mut self, now: Nanos, frames: &mut [Frame]) -> usize {
        let released = self.release(now, frames);
        let end = released + self.inner.receive(now, &mut frames[released..]);
        let mut kept = released;
        for at in released..end {
            let plan = self.plan;
            if self.random.chance(plan.loss) {
                self.done.lost += 1;
                continue;
            }
            if self.random.chance(plan.corrupt) {
                let draw = self.random.next();
                let bytes = frames[at].bytes_mut();
                if let Some(byte) = bytes.get_mut(draw as usize % bytes.len().max(1)) {
                    *byte ^= ((draw >> 56) as u8).max(1);
                    self.done.corrupted += 1;
                }
            }
            if self.random.chance(plan.duplicate) {
                // The copy comes with the next call, like a frame that took a second way.
                self.held.push_front((now, frames[at].bytes().to_vec()));
                self.done.duplicated += 1;
            }
            if self.random.chance(plan.delay) {
                self.held.push_back((now.saturating_add(plan.delay_ns), frames[at].bytes().to_vec()));
                self.done.delayed += 1;
                continue;
            }
            frames.swap(kept, at);
            kept += 1;
        }
        kept
    }

    fn send(&mut self, now: Nanos, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) {
        self.inner.send(now, frames, chosen, refused);
    }

    fn take_lost(&mut self) -> u64 {
        self.inner.take_lost()
    }
}

/// SplitMix64: small, seeded, good enough to throw dice.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn chance(&mut self, probability: f64) -> bool {
        // 53 bits fill a double's mantissa: a fair number in [0, 1).
        probability > 0.0 && ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }
}
