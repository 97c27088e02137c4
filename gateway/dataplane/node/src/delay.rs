//! The lab's delay fault: frames wait inside the node before they are processed.

use std::collections::VecDeque;

use tgw_forward::{Frame, Nanos};

use crate::fault::Dice;

/// Frames that wait at most; beyond it the device keeps its frames, as it does when a real worker is slow.
const ROOM: usize = 1024;

/// Holds frames back in order of their release.
#[derive(Default)]
pub(crate) struct DelayLine {
    setting: Option<(Nanos, Dice)>,
    held: VecDeque<Frame>,
    spare: Vec<Frame>,
}

impl DelayLine {
    /// Hold each frame that the dice choose for `delay_ns`; `None` holds no more, and lets go of what it holds.
    pub(crate) fn set(&mut self, setting: Option<(Nanos, Dice)>) {
        self.setting = setting;
    }

    /// How many more frames can be held.
    pub(crate) fn room(&self) -> usize {
        ROOM.saturating_sub(self.held.len())
    }

    /// Hold what the dice choose of `frames`; the others move to the front. How many stay.
    pub(crate) fn admit(&mut self, frames: &mut [Frame]) -> usize {
        let Some((_, dice)) = &mut self.setting else {
            return frames.len();
        };
        let mut stay = 0;
        for at in 0..frames.len() {
            if dice.roll() {
                let empty = self.spare.pop().unwrap_or_default();
                self.held.push_back(std::mem::replace(&mut frames[at], empty));
            } else {
                frames.swap(stay, at);
                stay += 1;
            }
        }
        stay
    }

    /// Move what is due at `now` into the front of `frames`; how many.
    pub(crate) fn release(&mut self, now: Nanos, frames: &mut [Frame]) -> usize {
        let mut filled = 0;
        while filled < frames.len() && self.due().is_some_and(|due| due <= now) {
            filled += self.give(&mut frames[filled]);
        }
        filled
    }

    /// Move what is held, due or not, into the front of `frames`; how many.
    pub(crate) fn drain(&mut self, frames: &mut [Frame]) -> usize {
        let mut filled = 0;
        while filled < frames.len() && !self.held.is_empty() {
            filled += self.give(&mut frames[filled]);
        }
        filled
    }

    /// When the next frame is due.
    pub(crate) fn due(&self) -> Option<Nanos> {
        let delay = self.setting.as_ref().map_or(0, |(delay, _)| *delay);
        self.held.front().map(|frame| frame.rx_ns.saturating_add(delay))
    }

    fn give(&mut self, place: &mut Frame) -> usize {
        let Some(frame) = self.held.pop_front() else {
            return 0;
        };
        self.spare.push(std::mem::replace(place, frame));
        1
    }
}
