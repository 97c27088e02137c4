//! What the three pipelines share: a batch goes through in stages, each frame gets its outcome and its record.

use std::sync::Arc;

use tgw_contract::colour::{probe_id, ColourKey, Cookies};
use tgw_contract::{Direction, DropReason, Role, Verdict};
use tgw_wire::tcp;

use crate::packet::Kind;
use crate::tables::Tables;
use crate::work::Work;
use crate::{FaultKind, Faults, FlowCounters, Frame, Nanos, Observer, Outcome, Pipeline};

/// Frames that go through the stages together: what prefetches keep in the first cache.
const WINDOW: usize = 64;

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
    /// Other tables are in force than those before, if there were any.
    fn take_tables(&mut self, tables: &Tables, before: Option<&Tables>);
    /// Time has come to `now`: called before each batch and each sweep.
    fn advance(&mut self, now: Nanos);
    /// Hash what will be looked up, and prefetch it.
    fn prepare(&mut self, work: &mut Work);
    /// What was prefetched for the batch has come: prefetch what it leads to.
    fn prepare_more(&mut self, _: &Work) {}
    /// Decide about an admitted frame and change it: the port it leaves by, or why it dies.
    fn act(&mut self, context: &mut Context<'_>, frame: &mut Frame, work: &mut Work) -> Result<u16, End>;
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
pub(crate) struct Runner<S> {
    role: Role,
    stage: S,
    tables: Option<Arc<Tables>>,
    cookies: Cookies,
    faults: Faults,
    works: Vec<(Work, Result<(), DropReason>)>,
}

impl<S: Stage> Runner<S> {
    pub(crate) fn new(role: Role, stage: S) -> Self {
        Self {
            role,
            stage,
            tables: None,
            cookies: Cookies::new(ColourKey::new([0; 16])),
            faults: Faults::default(),
            works: Vec::with_capacity(WINDOW),
        }
    }

    fn window(
        &mut self,
        tables: &Tables,
        now: Nanos,
        frames: &mut [Frame],
        outcomes: &mut [Outcome],
        observer: &mut dyn Observer,
    ) {
        self.works.clear();
        for frame in frames.iter() {
            self.works.push((Work::default(), Ok(())));
            if let Some((work, admitted)) = self.works.last_mut() {
                *admitted = work.admit(frame, self.role, Some(tables));
            }
        }
        for (work, admitted) in &mut self.works {
            if admitted.is_ok() {
                self.stage.prepare(work);
            }
        }
        for (work, admitted) in &self.works {
            if admitted.is_ok() {
                self.stage.prepare_more(work);
            }
        }
        let mut context = Context { tables, faults: &mut self.faults };
        for ((frame, outcome), (work, admitted)) in frames.iter_mut().zip(outcomes).zip(&mut self.works) {
            let decided = match injected(&mut context, work, *admitted) {
                Some(Injected::Silent) => {
                    *outcome = Outcome::Drop(DropReason::InjectedLoss);
                    continue;
                }
                Some(Injected::Visible) => Err(DropReason::InjectedLoss.into()),
                None => admitted.map_err(End::from).and_then(|()| self.stage.act(&mut context, frame, work)),
            };
            match decided {
                Ok(port) => {
                    *outcome = Outcome::Forward { port };
                    let probe = colour(work, tables, |isn| self.cookies.is_cookie(isn, now));
                    if probe != 0 {
                        observer.point(&work.point(frame, Verdict::Forwarded, 0, probe));
                    }
                }
                Err(end) => {
                    let (ended, reason) = match end {
                        End::Drop(reason) => (Outcome::Drop(reason), reason),
                        End::Answer { port, reason } => (Outcome::Answer { port, reason }, reason),
                    };
                    *outcome = ended;
                    if reason.is_recorded() {
                        let probe = colour(work, tables, |isn| self.cookies.is_cookie(isn, now));
                        observer.point(&work.point(frame, Verdict::Dropped, reason.number(), probe));
                    }
                }
            }
        }
    }
}

impl<S: Stage> Pipeline for Runner<S> {
    fn process(&mut self, now: Nanos, frames: &mut [Frame], outcomes: &mut [Outcome], observer: &mut dyn Observer) {
        let Some(tables) = self.tables.clone() else {
            outcomes.fill(Outcome::Drop(DropReason::NoConfig));
            return;
        };
        self.stage.advance(now);
        for (frames, outcomes) in frames.chunks_mut(WINDOW).zip(outcomes.chunks_mut(WINDOW)) {
            self.window(&tables, now, frames, outcomes, observer);
        }
    }

    fn set_tables(&mut self, tables: Arc<Tables>) {
        if tables.role != self.role {
            return;
        }
        if *self.cookies.key() != tables.key {
            self.cookies = Cookies::new(tables.key.clone());
        }
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
