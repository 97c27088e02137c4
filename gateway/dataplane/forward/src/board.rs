//! Which real servers are up, and since when: written by health checks, read by every worker, without a lock.
//!
//! The board is part of the tables, so all workers that act by the same tables see the same. When others come, each worker
//! carries over what the old ones knew, and the first to do so decides; the worker that sends the checks then keeps it true.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::Nanos;

/// What is known of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) up: bool,
    /// When that began; 0: it has been so ever since this node has known the server.
    pub(crate) since: Nanos,
}

impl Standing {
    /// How a server begins that was there before anybody asked.
    pub(crate) const EVER: Self = Self { up: true, since: 0 };

    const fn word(self) -> u64 {
        self.since << 1 | self.up as u64
    }
}

/// The question that a health check asks, to know its answer by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) port: u16,
    pub(crate) isn: u32,
}

/// What has come of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pending,
    Answered,
    Refused,
}

/// A standing that nobody has settled yet is zero, which no standing is: who is down is so since some time.
const UNSETTLED: u64 = 0;

#[derive(Debug, Default)]
struct Slot {
    standing: AtomicU64,
    /// The question that waits for its answer: verdict, port, sequence number; 0 without one.
    question: AtomicU64,
}

/// A place for each real server of each listener that checks health or starts slowly.
#[derive(Debug, Default)]
pub(crate) struct Board {
    slots: Vec<Slot>,
    /// How many are down: mostly none, and then nobody need look further.
    down: AtomicUsize,
}

impl Question {
    const fn word(self, verdict: Verdict) -> u64 {
        let verdict = match verdict {
            Verdict::Pending => 1,
            Verdict::Answered => 2,
            Verdict::Refused => 3,
        };
        verdict << 48 | (self.port as u64) << 32 | self.isn as u64
    }
}

impl Board {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| Slot::default()).collect(), down: AtomicUsize::new(0) }
    }

    pub(crate) fn standing(&self, slot: usize) -> Standing {
        let word = self.slots.get(slot).map_or(UNSETTLED, |slot| slot.standing.load(Ordering::Relaxed));
        if word == UNSETTLED {
            return Standing::EVER;
        }
        Standing { up: word & 1 == 1, since: word >> 1 }
    }

    pub(crate) fn is_up(&self, slot: usize) -> bool {
        self.standing(slot).up
    }

    /// Whether any server is down.
    #[inline]
    pub(crate) fn any_down(&self) -> bool {
        self.down.load(Ordering::Relaxed) != 0
    }

    fn count(&self, before: u64, after: u64) {
        let is_down = |word: u64| word != UNSETTLED && word & 1 == 0;
        match (is_down(before), is_down(after)) {
            (false, true) => self.down.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.down.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// The first to say so decides how a server begins.
    pub(crate) fn settle(&self, slot: usize, standing: Standing) {
        if let Some(slot) = self.slots.get(slot) {
            let word = standing.word();
            let settled = slot.standing.compare_exchange(UNSETTLED, word, Ordering::Relaxed, Ordering::Relaxed);
            if settled.is_ok() {
                self.count(UNSETTLED, word);
            }
        }
    }

    pub(crate) fn set(&self, slot: usize, standing: Standing) {
        if let Some(slot) = self.slots.get(slot) {
            let before = slot.standing.swap(standing.word(), Ordering::Relaxed);
            self.count(before, standing.word());
        }
    }

    pub(crate) fn ask(&self, slot: usize, question: Question) {
        if let Some(slot) = self.slots.get(slot) {
            slot.question.store(question.word(Verdict::Pending), Ordering::Relaxed);
        }
    }

    /// Any worker may bring the answer; what answers another question than the one that waits changes nothing.
    pub(crate) fn answer(&self, slot: usize, question: Question, verdict: Verdict) {
        if let Some(slot) = self.slots.get(slot) {
            let (waits, word) = (question.word(Verdict::Pending), question.word(verdict));
            let _ = slot.question.compare_exchange(waits, word, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub(crate) fn verdict(&self, slot: usize, question: Question) -> Verdict {
        let word = self.slots.get(slot).map_or(0, |slot| slot.question.load(Ordering::Relaxed));
        if word == question.word(Verdict::Answered) {
            Verdict::Answered
        } else if word == question.word(Verdict::Refused) {
            Verdict::Refused
        } else {
            Verdict::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_settles_and_the_checker_decides() {
        let board = Board::new(2);
        assert_eq!(board.standing(0), Standing::EVER);
        board.settle(0, Standing { up: true, since: 70 });
        board.settle(0, Standing { up: false, since: 90 });
        assert_eq!(board.standing(0), Standing { up: true, since: 70 });
        board.set(0, Standing { up: false, since: 80 });
        assert_eq!((board.standing(0), board.is_up(0)), (Standing { up: false, since: 80 }, false));
        assert!(board.any_down());
        board.set(0, Standing { up: true, since: 90 });
        assert!(!board.any_down());
        board.settle(1, Standing::EVER);
        board.settle(1, Standing { up: true, since: 5 });
        assert_eq!(board.standing(1), Standing::EVER);
        assert_eq!(board.standing(7), Standing::EVER, "no slot: nobody asks");
    }

    #[test]
    fn only_the_question_that_waits_is_answered_and_only_once() {
        let board = Board::new(1);
        let question = Question { port: 61_000, isn: 0xFFFF_FFFF };
        board.answer(0, question, Verdict::Answered);
        assert_eq!(board.verdict(0, question), Verdict::Pending);
        board.ask(0, question);
        for other in [Question { isn: 1, ..question }, Question { port: 61_001, ..question }] {
            board.answer(0, other, Verdict::Answered);
            assert_eq!(board.verdict(0, question), Verdict::Pending);
        }
        board.answer(0, question, Verdict::Refused);
        board.answer(0, question, Verdict::Answered);
        assert_eq!(board.verdict(0, question), Verdict::Refused);
        let next = Question { isn: 0, ..question };
        board.ask(0, next);
        board.answer(0, question, Verdict::Answered);
        assert_eq!(board.verdict(0, next), Verdict::Pending);
    }
}
