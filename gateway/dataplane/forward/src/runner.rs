//! What the three pipelines share: a batch goes through in stages, each frame gets its outcome and its record.

use std::sync::Arc;

use tgw_contract::colour::{probe_id, ColourKey, Cookies};
use tgw_contract::{Direction, DropReason, Role, Verdict};
use tgw_wire::tcp;

use crate::fast::Fast;
use crate::meters::{Meters, Sheet};
use crate::packet::Kind;
use crate::tables::Tables;
use crate::work::Work;
use crate::{FaultKind, Faults, FlowCounters, Frame, Nanos, Observer, Outcome, Pipeline, Tuning};

/// Frames that go through the pipeline together.
const BATCH: usize = 64;
/// Frames whose headers are asked for ahead of the one that is read.
const AHEAD: usize = 4;

/// What a stage may use besides its own state.
pub(crate) struct Context<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) faults: &'a mut Faults,
}

impl Context<'_> {
    /// Whether the lab hides this VIP from this frame.
    pub(crate) fn is_hidden(&mut self, vip_id: u32) -> bool {
        !self.faults.is_empty() && self.faults.strikes(FaultKind::VipMissing { vip_id })
    }
}

/// What makes one role different from another.
pub(crate) trait Stage: Send {
    /// What is known of an ordinary packet on its straight way.
    type Lane: Copy + Default + Send;
    /// Ask for what a packet that comes alone will need, as long as it is ordinary.
    fn glance(&self, _: &Fast, _: &Frame) {}
    /// Read an ordinary packet and ask for what its lookups will read; false when it is none, or there is no straight way.
    fn read(&mut self, _: &Fast, _: &Frame, _: &mut Self::Lane, _prefetch: bool) -> bool {
        false
    }
    /// What was asked for has come: ask for what it leads to.
    fn look_again(&mut self, _: &Fast, _: &mut Self::Lane) {}
    /// Whether the flow or rule of an ordinary packet is known.
    fn finds(&mut self, _: &Fast, _: &Self::Lane) -> bool {
        false
    }
    /// Look at tags before tuples in the flow table, or do not.
    fn use_tags(&mut self, _: bool) {}
    /// Send an ordinary packet on: the port it leaves by. `None`, and nothing has changed, when there is more to it.
    fn run(&mut self, _: &Tables, _: &mut Frame, _: &Self::Lane) -> Option<u16> {
        None
    }
    /// Other tables are in force than those before, if there were any.
    fn take_tables(&mut self, tables: &Tables, before: Option<&Tables>);
    /// Count by these records from now on.
    fn take_sheet(&mut self, sheet: Arc<Sheet>);
    /// Time has come to `now`: called before each batch and each sweep.
    fn advance(&mut self, now: Nanos);
    /// Hash what will be looked up, and prefetch it.
    fn prepare(&mut self, work: &mut Work);
    /// What was prefetched for the batch has come: prefetch what it leads to.
    fn prepare_more(&mut self, _: &Work) {}
    /// Decide about an admitted frame and change it: the port it leaves by, or why it dies.
    fn act(&mut self, context: &mut Context<'_>, frame: &mut Frame, work: &mut Work) -> Result<u16, End>;
    /// A frame has died, admitted or not.
    fn died(&mut self, _: &Tables, _: &Work, _: DropReason) {}
    fn counters(&self) -> FlowCounters;
    fn sweep(&mut self);
    /// The next frame of the node's own making, see [`Pipeline::emit`]; the frame is empty.
    fn emit(&mut self, _: &Tables, _: &mut Frame) -> Option<u16> {
        None
    }
}

/// How a frame ends that is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It dies.
    Drop(DropReason),
    /// It dies, and its buffer now holds an answer that is to leave by `port`.
    Answer { port: u16, reason: DropReason },
}

impl From<DropReason> for End {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// A pipeline: a stage, and what every one needs.
pub(crate) struct Runner<S: Stage> {
    role: Role,
    stage: S,
    tuning: Tuning,
    tables: Option<Arc<Tables>>,
    cookies: Cookies,
    faults: Faults,
    meters: Arc<Meters>,
    sheet: Arc<Sheet>,
    /// What is known of the frames of a batch, as far as they are in the window.
    slots: Vec<Slot<S::Lane>>,
    /// Of those that take the general way.
    works: Vec<Admitted>,
}

/// A frame on the general way, as far as it was read.
type Admitted = (Work, Result<(), DropReason>);

/// The way that a frame of the batch takes.
#[derive(Clone, Copy, Debug, Default)]
struct Slot<L> {
    lane: L,
    is_straight: bool,
}

impl<S: Stage> Runner<S> {
    pub(crate) fn new(role: Role, stage: S, tuning: Tuning) -> Self {
        let mut made = Self {
            role,
            stage,
            tuning,
            tables: None,
            cookies: Cookies::new(ColourKey::new([0; 16])),
            faults: Faults::default(),
            meters: Arc::default(),
            sheet: Arc::default(),
            slots: vec![Slot::default(); BATCH],
            works: vec![(Work::default(), Ok(())); BATCH],
        };
        made.tune(tuning);
        made
    }

    /// A batch in a sliding window: each frame is read, and what its lookups will need asked for; when the window has moved
    /// on half its length, what that has led to is asked for; when it has moved on its whole length, the frame is sent on.
    fn batch(
        &mut self,
        tables: &Tables,
        now: Nanos,
        frames: &mut [Frame],
        outcomes: &mut [Outcome],
        observer: &mut dyn Observer,
    ) {
        let count = frames.len().min(outcomes.len()).min(BATCH);
        let Tuning { window, prefetch, straight, .. } = self.tuning;
        let half = window / 2;
        let straight = straight && self.faults.is_empty();
        if let (true, [alone]) = (straight && prefetch, &*frames) {
            self.stage.glance(&tables.fast, alone);
        }
        for step in 0..count + window - 1 {
            if step < count {
                if prefetch {
                    if let Some(frame) = frames.get(step + AHEAD) {
                        frame.prefetch();
                    }
                }
                if let (Some(frame), Some(slot)) = (frames.get(step), self.slots.get_mut(step)) {
                    slot.is_straight = straight && self.stage.read(&tables.fast, frame, &mut slot.lane, prefetch);
                    if !slot.is_straight {
                        self.admit(tables, frame, step);
                    }
                }
            }
            let at = step.checked_sub(half).filter(|&at| prefetch && at < count);
            if let Some((at, slot)) = at.and_then(|at| Some((at, self.slots.get_mut(at)?))) {
                if slot.is_straight {
                    self.stage.look_again(&tables.fast, &mut slot.lane);
                } else if let Some((work, Ok(()))) = self.works.get(at) {
                    self.stage.prepare_more(work);
                }
            }
            let Some(at) = (step + 1).checked_sub(window) else { continue };
            let (Some(frame), Some(outcome), Some(slot)) =
                (frames.get_mut(at), outcomes.get_mut(at), self.slots.get(at))
            else {
                continue;
            };
            if slot.is_straight {
                if let Some(port) = self.stage.run(tables, frame, &slot.lane) {
                    *outcome = Outcome::Forward { port };
                    continue;
                }
                self.admit(tables, frame, at);
            }
            *outcome = self.general(tables, now, frame, at, observer);
        }
    }

    /// Set out on the general way: read the frame from its first byte on.
    #[inline(never)]
    fn admit(&mut self, tables: &Tables, frame: &Frame, at: usize) {
        let Some((work, admitted)) = self.works.get_mut(at) else { return };
        *work = Work::default();
        *admitted = work.admit(frame, self.role, Some(tables));
        if admitted.is_ok() {
            self.stage.prepare(work);
        }
    }

    /// The rest of the general way.
    #[inline(never)]
    fn general(
        &mut self,
        tables: &Tables,
        now: Nanos,
        frame: &mut Frame,
        at: usize,
        observer: &mut dyn Observer,
    ) -> Outcome {
        // There is one for each frame of a batch.
        let Some((work, admitted)) = self.works.get_mut(at) else { return Outcome::Drop(DropReason::NoConfig) };
        let admitted = *admitted;
        let mut context = Context { tables, faults: &mut self.faults };
        let decided = match injected(&mut context, work, admitted) {
            Some(Injected::Silent) => return Outcome::Drop(DropReason::InjectedLoss),
            Some(Injected::Visible) => Err(DropReason::InjectedLoss.into()),
            None => admitted.map_err(End::from).and_then(|()| self.stage.act(&mut context, frame, work)),
        };
        let (outcome, reason) = match decided {
            Ok(port) => {
                let probe = colour(work, tables, |isn| self.cookies.is_cookie(isn, now));
                if probe != 0 {
                    observer.point(&work.point(frame, Verdict::Forwarded, 0, probe));
                }
                return Outcome::Forward { port };
            }
            Err(End::Drop(reason)) => (Outcome::Drop(reason), reason),
            Err(End::Answer { port, reason }) => (Outcome::Answer { port, reason }, reason),
        };
        self.stage.died(tables, work, reason);
        if let Some(vip) = work.vip {
            self.sheet.dropped(vip);
        }
        if reason.is_recorded() {
            let probe = colour(work, tables, |isn| self.cookies.is_cookie(isn, now));
            observer.point(&work.point(frame, Verdict::Dropped, reason.number(), probe));
        }
        outcome
    }
}

impl<S: Stage> Pipeline for Runner<S> {
    fn process(&mut self, now: Nanos, frames: &mut [Frame], outcomes: &mut [Outcome], observer: &mut dyn Observer) {
        let Some(tables) = self.tables.clone() else {
            outcomes.fill(Outcome::Drop(DropReason::NoConfig));
            return;
        };
        self.stage.advance(now);
        for (frames, outcomes) in frames.chunks_mut(BATCH).zip(outcomes.chunks_mut(BATCH)) {
            self.batch(&tables, now, frames, outcomes, observer);
        }
    }

    fn set_tables(&mut self, tables: Arc<Tables>) {
        if tables.role != self.role {
            return;
        }
        if *self.cookies.key() != tables.key {
            self.cookies = Cookies::new(tables.key.clone());
        }
        self.sheet = self.meters.take_tables(&tables);
        self.stage.take_sheet(Arc::clone(&self.sheet));
        self.stage.take_tables(&tables, self.tables.as_deref());
        self.tables = Some(tables);
    }

    fn counters(&self) -> FlowCounters {
        self.stage.counters()
    }

    fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    fn idle(&mut self, now: Nanos) {
        self.stage.advance(now);
        self.stage.sweep();
    }

    fn meters(&self) -> Arc<Meters> {
        Arc::clone(&self.meters)
    }

    fn tune(&mut self, tuning: Tuning) {
        self.tuning = Tuning { window: tuning.window.clamp(1, BATCH), ..tuning };
        self.stage.use_tags(tuning.tags);
    }

    fn rehearse(&mut self, frames: &[Frame], look_up: bool) -> usize {
        let Some(tables) = self.tables.clone() else { return 0 };
        let Tuning { window, prefetch, .. } = self.tuning;
        let mut done = 0;
        for frames in frames.chunks(BATCH) {
            for step in 0..frames.len() + window - 1 {
                if let (Some(frame), Some(slot)) = (frames.get(step), self.slots.get_mut(step)) {
                    slot.is_straight = self.stage.read(&tables.fast, frame, &mut slot.lane, prefetch && look_up);
                }
                let at = step.checked_sub(window / 2).filter(|&at| prefetch && look_up && at < frames.len());
                if let Some(slot) = at.and_then(|at| self.slots.get_mut(at)) {
                    self.stage.look_again(&tables.fast, &mut slot.lane);
                }
                let at = (step + 1).checked_sub(window).filter(|&at| at < frames.len());
                if let Some(slot) = at.and_then(|at| self.slots.get(at)).filter(|slot| slot.is_straight) {
                    done += usize::from(!look_up || self.stage.finds(&tables.fast, &slot.lane));
                }
            }
        }
        done
    }

    fn emit(&mut self, now: Nanos, frame: &mut Frame) -> Option<u16> {
        let tables = self.tables.as_ref()?;
        self.stage.advance(now);
        frame.writable_tail();
        (frame.port, frame.rx_ns) = (0, now);
        self.stage.emit(tables, frame)
    }
}

enum Injected {
    Silent,
    Visible,
}

/// Whether the lab drops this frame. Frames of the host's own stack never came this far on a real node.
fn injected(context: &mut Context<'_>, work: &Work, admitted: Result<(), DropReason>) -> Option<Injected> {
    if context.faults.is_empty() || admitted == Err(DropReason::NotOurs) {
        return None;
    }
    let reply = work.hop.direction() == Direction::Reply;
    if context.faults.strikes(FaultKind::LossSilent) || reply && context.faults.strikes(FaultKind::ReplyLoss) {
        return Some(Injected::Silent);
    }
    context.faults.strikes(FaultKind::LossVisible).then_some(Injected::Visible)
}

/// The probe that a packet belongs to, 0 for none: a SYN or RST of a prober, or the SYN-ACK or RST that answers it.
pub(crate) fn colour(work: &Work, tables: &Tables, is_cookie: impl FnOnce(u32) -> bool) -> u64 {
    let packet = &work.packet;
    if packet.kind != Kind::Tcp {
        return 0;
    }
    let (prober, port) = match work.hop.direction() {
        Direction::Request => (packet.tuple.src, packet.tuple.src_port),
        Direction::Reply => (packet.tuple.dst, packet.tuple.dst_port),
    };
    if !tables.is_reserved(prober) {
        return 0;
    }
    let flags = packet.tcp_flags;
    let isn = match work.hop.direction() {
        // Without flags it is a quoted packet that was cut before them; most likely a SYN.
        Direction::Request if flags & (tcp::SYN | tcp::ACK) == tcp::SYN || flags == 0 => packet.seq,
        Direction::Request if flags & tcp::RST != 0 => packet.seq.wrapping_sub(1),
        Direction::Reply if flags & tcp::ACK != 0 && flags & (tcp::SYN | tcp::RST) != 0 => packet.ack.wrapping_sub(1),
        _ => return 0,
    };
    if is_cookie(isn) {
        probe_id(prober, port, isn)
    } else {
        0
    }
}
