//! One pipeline and its tap: what happens to a batch, and the account of it.
//!
//! The account is exact: every frame given to [`Engine::process`] is counted in, and then either counted out, because an
//! outlet took it, or counted under one drop reason. Nothing else in this crate touches those counters of a worker.

use std::sync::Arc;

use tgw_contract::{Counter, DropReason, Point, Role, Verdict};
use tgw_forward::{describe, describe_sent, Faults, Frame, Meters, Nanos, Outcome, Pipeline, Tables};
use tgw_tap::Writer;

use tgw_device::BATCH;

use crate::residence::Residence;

const DROP_POINT: u8 = 2;
/// A heartbeat is due this often; the contract says at least every 100 ms.
pub(crate) const BEAT_NS: Nanos = 40_000_000;
/// The sweep over idle flows is due this often.
const SWEEP_NS: Nanos = 1_000_000_000;

/// Where processed frames go.
pub trait Outlet {
    /// Send the frames that `chosen` indexes out of `port`; append to `refused` those it does not take. False, and
    /// nothing sent, when there is no such port.
    fn send(&mut self, now: Nanos, port: u16, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) -> bool;
}

/// A pipeline, its tap, and the tables both use.
pub struct Engine {
    role: Role,
    pipeline: Box<dyn Pipeline>,
    tables: Option<Arc<Tables>>,
    tap: Writer,
    outcomes: Vec<Outcome>,
    pending: Vec<usize>,
    chosen: Vec<usize>,
    refused: Vec<usize>,
    beaten: Every,
    swept: Every,
    residence: Arc<Residence>,
    /// Frames that have left since the records were last published: when they came in, how many.
    left: Vec<(Nanos, u64)>,
}

impl Engine {
    /// An engine without tables: it drops everything as NO_CONFIG.
    #[must_use]
    pub fn new(role: Role, pipeline: Box<dyn Pipeline>, tap: Writer) -> Self {
        let room = || Vec::with_capacity(BATCH);
        Self {
            role,
            pipeline,
            tables: None,
            tap,
            outcomes: vec![Outcome::Drop(DropReason::NoConfig); BATCH],
            pending: room(),
            chosen: room(),
            refused: room(),
            beaten: Every::new(BEAT_NS),
            swept: Every::new(SWEEP_NS),
            residence: Arc::default(),
            left: Vec::with_capacity(BATCH),
        }
    }

    /// Use other tables from the next batch on. The same ones again change nothing.
    pub fn set_tables(&mut self, tables: Arc<Tables>) {
        if self.tables.as_ref().is_some_and(|old| Arc::ptr_eq(old, &tables)) {
            return;
        }
        self.tap.set(Counter::Epoch, tables.epoch());
        self.pipeline.set_tables(Arc::clone(&tables));
        self.tables = Some(tables);
    }

    /// Inject other faults from the next batch on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.pipeline.set_faults(faults);
    }

    /// How long frames stay here.
    #[must_use]
    pub fn residence(&self) -> Arc<Residence> {
        Arc::clone(&self.residence)
    }

    /// What the pipeline counts by VIP, listener and real server.
    #[must_use]
    pub fn meters(&self) -> Arc<Meters> {
        self.pipeline.meters()
    }

    /// The tap.
    #[must_use]
    pub fn tap(&self) -> &Writer {
        &self.tap
    }

    /// The tap, to count what the engine does not see.
    pub fn tap_mut(&mut self) -> &mut Writer {
        &mut self.tap
    }

    /// Take a batch in, process it and send it out. The records are staged: [`Engine::publish`] them once it has left.
    pub fn process(&mut self, now: Nanos, frames: &mut [Frame], outlet: &mut dyn Outlet) {
        for batch in frames.chunks_mut(BATCH) {
            self.batch(now, batch, outlet);
        }
    }

    /// Take frames in only to drop them for `reason`.
    pub fn discard(&mut self, frames: &[Frame], reason: DropReason) {
        self.count_in(frames);
        for frame in frames {
            self.refuse(frame, reason);
        }
    }

    /// Put the staged records into the ring; `now` is when their frames left.
    pub fn publish(&mut self, now: Nanos) {
        for (came, frames) in self.left.drain(..) {
            self.residence.add(now.saturating_sub(came), frames);
        }
        self.tap.publish(now);
    }

    /// What a worker owes between batches: its heartbeat, and now and then a sweep over idle flows. True when the heart
    /// has beaten.
    pub fn turn(&mut self, now: Nanos) -> bool {
        if self.swept.is_due(now) {
            self.pipeline.idle(now);
            self.count_flows();
        }
        let due = self.beaten.is_due(now);
        if due {
            self.tap.beat(now);
        }
        due
    }

    /// End in good order.
    pub fn close(&mut self, now: Nanos) {
        self.count_flows();
        self.tap.close(now);
    }

    fn batch(&mut self, now: Nanos, frames: &mut [Frame], outlet: &mut dyn Outlet) {
        self.count_in(frames);
        self.tap.count(Counter::Batches, 1);
        if self.tables.is_none() {
            for frame in frames.iter() {
                self.refuse(frame, DropReason::NoConfig);
            }
            return;
        }
        let outcomes = &mut self.outcomes[..frames.len()];
        self.pipeline.process(now, frames, outcomes, &mut self.tap);
        self.pending.clear();
        let mut answers = 0;
        for (index, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Outcome::Forward { .. } => self.pending.push(index),
                Outcome::Drop(reason) => self.tap.count_drop(*reason),
                Outcome::Answer { reason, .. } => {
                    self.tap.count_drop(*reason);
                    answers += 1;
                }
            }
        }
        self.transmit(now, frames, outlet);
        if answers > 0 {
            self.answer(now, frames, outlet);
        }
        self.count_flows();
    }

    fn transmit(&mut self, now: Nanos, frames: &[Frame], outlet: &mut dyn Outlet) {
        let mut pending = std::mem::take(&mut self.pending);
        let mut chosen = std::mem::take(&mut self.chosen);
        let mut refused = std::mem::take(&mut self.refused);
        while let Some(port) = pending.first().and_then(|&index| self.port_of(index)) {
            chosen.clear();
            refused.clear();
            pending.retain(|&index| {
                let here = self.port_of(index) == Some(port);
                if here {
                    chosen.push(index);
                }
                !here
            });
            let reason = if outlet.send(now, port, frames, &chosen, &mut refused) {
                DropReason::DeviceFull
            } else {
                refused.clone_from(&chosen);
                DropReason::NoRoute
            };
            let bytes = |indices: &[usize]| indices.iter().map(|&i| frames[i].bytes().len() as u64).sum::<u64>();
            let left = chosen.len().saturating_sub(refused.len()) as u64;
            self.tap.count_out(left, bytes(&chosen).saturating_sub(bytes(&refused)));
            self.note_left(frames, &chosen, &refused);
            for &index in &refused {
                let seen = describe_sent(&frames[index], self.role, self.tables.as_deref(), port);
                stage_drop(&mut self.tap, seen, reason);
            }
        }
        (self.pending, self.chosen, self.refused) = (pending, chosen, refused);
    }

    /// Frames of a batch mostly came in together.
    fn note_left(&mut self, frames: &[Frame], chosen: &[usize], refused: &[usize]) {
        for &index in chosen.iter().filter(|index| !refused.contains(index)) {
            let full = self.left.len() >= BATCH;
            match self.left.last_mut() {
                // When nobody publishes, the newest stand for the rest.
                Some((came, count)) if *came == frames[index].rx_ns || full => *count += 1,
                _ => self.left.push((frames[index].rx_ns, 1)),
            }
        }
    }

    /// Send the node's own answers. One that no device takes is counted; its question has been accounted for.
    fn answer(&mut self, now: Nanos, frames: &[Frame], outlet: &mut dyn Outlet) {
        for index in 0..frames.len() {
            if let Some(Outcome::Answer { port, .. }) = self.outcomes.get(index) {
                self.send_own(now, *port, frames, index, outlet);
            }
        }
    }

    /// Send what the pipeline has to say by itself, `frame` being room for it. Whether there was anything.
    pub fn emit(&mut self, now: Nanos, frame: &mut Frame, outlet: &mut dyn Outlet) -> bool {
        let mut any = false;
        while let Some(port) = self.pipeline.emit(now, frame) {
            any = true;
            self.send_own(now, port, std::slice::from_ref(frame), 0, outlet);
        }
        any
    }

    fn send_own(&mut self, now: Nanos, port: u16, frames: &[Frame], index: usize, outlet: &mut dyn Outlet) {
        self.refused.clear();
        let taken = outlet.send(now, port, frames, &[index], &mut self.refused) && self.refused.is_empty();
        self.tap.count(if taken { Counter::Generated } else { Counter::GeneratedLost }, 1);
    }

    fn port_of(&self, index: usize) -> Option<u16> {
        match self.outcomes.get(index) {
            Some(Outcome::Forward { port }) => Some(*port),
            _ => None,
        }
    }

    /// Count a drop that the pipeline did not decide, and record it with what can be read from the frame.
    fn refuse(&mut self, frame: &Frame, reason: DropReason) {
        refuse(&mut self.tap, frame, self.role, self.tables.as_deref(), reason);
    }

    fn count_in(&mut self, frames: &[Frame]) {
        self.tap.count_in(frames.len() as u64, frames.iter().map(|frame| frame.bytes().len() as u64).sum());
    }

    fn count_flows(&mut self) {
        let flows = self.pipeline.counters();
        self.tap.set(Counter::FlowsCreated, flows.created);
        self.tap.set(Counter::FlowsExpired, flows.expired);
        self.tap.set(Counter::FlowsActive, flows.active);
    }
}

/// Count a frame that the runtime drops, and stage its Drop Point.
pub(crate) fn refuse(tap: &mut Writer, frame: &Frame, role: Role, tables: Option<&Tables>, reason: DropReason) {
    stage_drop(tap, describe(frame, role, tables), reason);
}

fn stage_drop(tap: &mut Writer, mut point: Point, reason: DropReason) {
    tap.count_drop(reason);
    point.kind = DROP_POINT;
    point.reason = reason.number();
    point.verdict = Verdict::Dropped.number();
    tap.revoke(&point);
}

/// Something to be done again and again, on the caller's clock.
pub(crate) struct Every {
    period: Nanos,
    last: Nanos,
}

impl Every {
    pub(crate) fn new(period: Nanos) -> Self {
        Self { period, last: 0 }
    }

    /// Whether it is to be done now. A clock that was set back makes it due, not silent.
    pub(crate) fn is_due(&mut self, now: Nanos) -> bool {
        let due = now.abs_diff(self.last) >= self.period;
        if due {
            self.last = now;
        }
        due
    }
}
