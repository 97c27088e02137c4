//! An engine with the runtime's own faults in front of it, and the orders it has taken.

use tgw_contract::DropReason;
use tgw_device::BATCH;
use tgw_forward::{Frame, Nanos};

use crate::control::Control;
use crate::delay::DelayLine;
use crate::dispatch::Inbox;
use crate::engine::Engine;
use crate::fault::{pipeline_faults, Dice, Fault, FaultKind};

/// One worker without its thread.
pub(crate) struct Lane {
    pub(crate) engine: Engine,
    line: DelayLine,
    /// Number of the tap, which is also its place in `Control`.
    worker: u16,
    seen: u64,
    stuck: bool,
}

impl Lane {
    pub(crate) fn new(engine: Engine, worker: u16) -> Self {
        Self { engine, line: DelayLine::default(), worker, seen: 0, stuck: false }
    }

    /// Take new orders, if there are any. A stuck worker hears nothing but that it no longer is.
    pub(crate) fn obey(&mut self, control: &Control) {
        if self.stuck {
            if !Self::is_stuck(&control.faults(), self.worker) {
                self.stuck = false;
            }
            return;
        }
        let Some(orders) = control.news(&mut self.seen) else {
            return;
        };
        if let Some(tables) = orders.tables {
            self.engine.set_tables(tables);
        }
        self.set_faults(&orders.faults);
        control.took(usize::from(self.worker), self.seen);
    }

    pub(crate) fn set_faults(&mut self, faults: &[Fault]) {
        let mine: Vec<&Fault> = faults.iter().filter(|fault| fault.concerns(self.worker)).collect();
        self.engine.set_faults(pipeline_faults(&mine));
        self.line.set(mine.iter().find_map(|fault| match fault.kind {
            FaultKind::Delay { delay_us } => {
                Some((Nanos::from(delay_us) * 1000, Dice::new(fault.probability, fault.seed)))
            }
            _ => None,
        }));
        self.stuck = Self::is_stuck(faults, self.worker);
    }

    pub(crate) fn is_stuck(faults: &[Fault], worker: u16) -> bool {
        faults.iter().any(|fault| fault.kind == FaultKind::StuckWorker && fault.concerns(worker))
    }

    pub(crate) fn worker(&self) -> u16 {
        self.worker
    }

    pub(crate) fn stuck(&self) -> bool {
        self.stuck
    }

    /// Whether so much is held that nothing more should be taken in.
    pub(crate) fn is_full(&self) -> bool {
        self.line.room() < BATCH
    }

    /// Hold what the delay fault chooses of `frames`; the others move to the front. How many stay.
    pub(crate) fn admit(&mut self, frames: &mut [Frame]) -> usize {
        self.line.admit(frames)
    }

    /// Move what is due at `now` into the front of `frames`; how many.
    pub(crate) fn due(&mut self, now: Nanos, frames: &mut [Frame]) -> usize {
        self.line.release(now, frames)
    }

    /// The end: what is held, and what waits in the ring, dies here; the tap is marked closed.
    pub(crate) fn end(&mut self, mut inbox: Option<&mut Inbox>, frames: &mut [Frame], now: Nanos) {
        loop {
            let held = self.line.drain(frames);
            self.engine.discard(&frames[..held], DropReason::ShuttingDown);
            let waiting = inbox.as_mut().map_or(0, |inbox| inbox.take(frames));
            self.engine.discard(&frames[..waiting], DropReason::ShuttingDown);
            if held == 0 && waiting == 0 {
                break;
            }
        }
        self.engine.close(now);
    }

    /// When the first held frame is due.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        self.line.due()
    }
}
