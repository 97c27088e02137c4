//! A worker of an LD: which real server a request goes to, and replies on their way back.

use std::sync::Arc;

use tgw_contract::{DropReason, Hop};
use tgw_wire::tcp;

use crate::connection::{self, Sender};
use crate::fast::{ClbLane, Fast};
use crate::flow::{FlowTable, Found};
use crate::guard::{Facts, Guard, Newcomer};
use crate::handshake::{Handshakes, Step};
use crate::meters::Board;
use crate::packet::Kind;
use crate::runner::{Context, End, Stage};
use crate::tables::{Backend, ClbTables, Endpoint, Listener, Section, Tables};
use crate::tunnel::{age, wrap};
use crate::work::Work;
use crate::{FlowCounters, Frame, Nanos, Options};

/// The hash that chooses a real server: the same in every LD of every cluster.
const CHOICE_SEED: u64 = 0x7467_7720_6D61_676C;
/// A sweep goes through the whole table in so many calls.
const SWEEP_PARTS: usize = 32;

pub(crate) struct Clb {
    pub(crate) flows: FlowTable,
    pub(crate) guard: Guard,
    pub(crate) handshakes: Handshakes,
    pub(crate) now: Nanos,
    board: Arc<Board>,
    /// Where the records of each listener's real servers begin.
    first_records: Vec<u32>,
}

impl Clb {
    pub(crate) fn new(options: &Options) -> Self {
        let flows = FlowTable::new(options.flow_capacity, options.seed);
        let guard = Guard::new(options.workers, options.seed);
        Self {
            flows,
            guard,
            handshakes: Handshakes::new(options.flow_capacity),
            now: 0,
            board: Arc::default(),
            first_records: Vec::new(),
        }
    }
}

impl Stage for Clb {
    fn take_tables(&mut self, tables: &Tables) {
        let Section::Clb(clb) = &tables.section else { return };
        self.first_records = clb.first_records();
        self.guard.take_tables(clb);
        self.handshakes.take_tables(tables, clb);
    }

    fn take_board(&mut self, board: Arc<Board>) {
        self.board = board;
    }

    fn advance(&mut self, now: Nanos) {
        self.now = now;
        self.guard.advance(now);
        self.flows.advance(now / 1_000_000_000);
    }

    fn prepare(&mut self, work: &mut Work) {
        work.flow = match (work.hop, work.is_error()) {
            (Hop::ClbIn, false) => work.packet.tuple,
            (Hop::ClbIn, true) => work.packet.quoted.tuple.reversed(),
            (_, false) => work.packet.tuple.reversed(),
            (_, true) => work.packet.quoted.tuple,
        };
        work.hash = self.flows.hash(&work.flow);
        self.flows.prefetch(work.hash, &work.flow);
    }

    fn prepare_more(&mut self, work: &Work) {
        self.flows.prefetch_more(work.hash, &work.flow);
    }

    type Lane = ClbLane;

    fn read(&mut self, fast: &Fast, frame: &Frame, lane: &mut ClbLane, prefetch: bool) -> bool {
        matches!(fast, Fast::Clb(fast) if fast.read(&self.flows, frame, lane, prefetch))
    }

    fn look_again(&mut self, fast: &Fast, lane: &mut ClbLane) {
        if let Fast::Clb(fast) = fast {
            fast.look_again(&self.flows, lane);
        }
    }

    fn finds(&mut self, fast: &Fast, lane: &ClbLane) -> bool {
        matches!(fast, Fast::Clb(fast) if fast.finds(&mut self.flows, lane))
    }

    fn use_tags(&mut self, tags: bool) {
        self.flows.use_tags(tags);
    }

    fn run(&mut self, fast: &Fast, frame: &mut Frame, lane: &ClbLane) -> Option<u16> {
        let Fast::Clb(fast) = fast else { return None };
        fast.run(&mut self.flows, &self.board, frame, lane)
    }

    fn act(&mut self, context: &mut Context<'_>, frame: &mut Frame, work: &mut Work) -> Result<u16, End> {
        let tables = context.tables;
        let Section::Clb(clb) = &tables.section else { return Err(DropReason::NoConfig.into()) };
        let vip = work.vip.ok_or(DropReason::NoVip)?;
        if context.is_hidden(work.vip_id) {
            work.vip_id = 0;
            return Err(DropReason::NoVip.into());
        }
        let to = if work.hop == Hop::ClbIn {
            if self.guard.asks(vip) {
                self.admit(tables, vip, work)?;
            }
            let listener = listener_of(clb, vip, work).map_err(|reason| self.blame(work, reason))?;
            let mut newcomer = None;
            if self.guard.has_cookies(vip) {
                match self.shake_request(context, clb, listener, vip, frame, work)? {
                    Step::Sent(port) => return Ok(port),
                    Step::Go(decided) => newcomer = decided,
                }
            }
            age(frame, &work.packet)?;
            let backend = self.choose(listener, vip, work, newcomer)?;
            work.server_id = backend.id;
            backend.endpoint
        } else {
            if self.guard.has_cookies(vip) {
                if let Some(port) = self.shake_reply(context, clb, vip, frame, work)? {
                    return Ok(port);
                }
            }
            let to = self.reply(clb, vip, work)?;
            age(frame, &work.packet)?;
            to
        };
        work.left = (work.packet.tuple.src, work.packet.tuple.dst);
        let port = wrap(context, frame, work, &to)?;
        self.count(clb, vip, work);
        Ok(port)
    }

    fn died(&mut self, tables: &Tables, work: &Work, reason: DropReason) {
        if work.hop != Hop::ClbIn || !self.guard.learns(reason) || tables.is_reserved(work.packet.tuple.src) {
            return;
        }
        let Section::Clb(clb) = &tables.section else { return };
        if clb.vip(work.packet.tuple.dst).is_some() {
            self.guard.learn(work.packet.tuple.src);
        }
    }

    fn emit(&mut self, tables: &Tables, frame: &mut Frame) -> Option<u16> {
        self.shake_emit(tables, frame)
    }

    fn counters(&self) -> FlowCounters {
        self.flows.counters()
    }

    fn sweep(&mut self) {
        self.flows.sweep(SWEEP_PARTS);
    }
}

/// The listener that a request, or an ICMP error about a reply, is for.
fn listener_of<'a>(clb: &'a ClbTables, vip: u32, work: &Work) -> Result<&'a Listener, DropReason> {
    let listener = clb.listener(vip, work.flow.protocol, work.flow.dst_port);
    if work.is_error() {
        // It must be about what this very VIP sent.
        return listener.filter(|_| work.flow.dst == work.packet.tuple.dst).ok_or(DropReason::NoFlow);
    }
    listener.ok_or(DropReason::NoListener)
}

fn value_of(backend: &Backend) -> u32 {
    backend.id
}

fn backend_of(listener: &Listener, value: u32) -> Option<&Backend> {
    listener.backend(value)
}

impl Clb {
    fn admit(&mut self, tables: &Tables, vip: u32, work: &Work) -> Result<(), DropReason> {
        let is_probe = self.handshakes.is_probe(tables, work, self.now);
        let packet = &work.packet;
        self.guard.admit(&Facts { vip, source: packet.tuple.src, length: packet.end - packet.l3, is_probe })
    }

    /// Why a request dies that nothing was found for: of `reason`, unless its sender is known for such.
    fn blame(&self, work: &Work, reason: DropReason) -> DropReason {
        if self.guard.is_blacklisted(work.packet.tuple.src) {
            return DropReason::Blacklisted;
        }
        reason
    }

    /// The real server of a request: the flow's, or a new choice. `newcomer`: what was decided about it, if it was.
    pub(crate) fn choose<'a>(
        &mut self,
        listener: &'a Listener,
        vip: u32,
        work: &Work,
        newcomer: Option<Newcomer>,
    ) -> Result<&'a Backend, DropReason> {
        let flags = work.packet.tcp_flags;
        let opening = work.packet.kind == Kind::Tcp && connection::is_opening(flags);
        let found = self.flows.find(work.hash, &work.flow);
        if let Some(found) = found {
            let state = self.flows.state(found);
            let known = backend_of(listener, self.flows.value(found));
            match known {
                Some(backend) if work.is_error() => return Ok(backend),
                Some(backend) if !(opening && connection::is_over(state)) => {
                    self.touch(found, state, work, Sender::Client, backend);
                    return Ok(backend);
                }
                _ => {}
            }
        }
        // Nothing is known of its connection, or that one is over. One that has proved itself has been let in.
        if newcomer != Some(Newcomer::Enter) && self.guard.is_blacklisted(work.packet.tuple.src) {
            return Err(DropReason::Blacklisted);
        }
        let choice = listener.maglev.as_ref().map(|maglev| maglev.choose(work.flow.hash(CHOICE_SEED)));
        let backend = choice.and_then(|index| listener.backends.get(index)).ok_or(DropReason::NoBackend)?;
        // An error makes no flow, and a reset neither: it only ends what another LD may know.
        if work.is_error() || found.is_none() && work.packet.kind == Kind::Tcp && flags & tcp::RST != 0 {
            return Ok(backend);
        }
        // What has a place keeps it; for one more the flood gate is asked.
        let newcomer = match found {
            Some(_) => Newcomer::Enter,
            None => newcomer.unwrap_or_else(|| self.guard.newcomer(vip, work.hash)),
        };
        if work.packet.kind == Kind::Tcp && !opening {
            // A connection from before this LD had the VIP: no news for the limit, and it can do without state.
            if newcomer == Newcomer::Enter {
                let _ = self.enter(found, work, Sender::Client, backend);
            }
            return Ok(backend);
        }
        let is_new = found.is_none_or(|found| connection::is_over(self.flows.state(found)));
        if is_new && newcomer != Newcomer::PassAgain && !self.guard.may_open(vip) {
            return Err(DropReason::FlowLimit);
        }
        if newcomer == Newcomer::Enter {
            self.enter(found, work, Sender::Client, backend)?;
        }
        Ok(backend)
    }

    /// Where a reply, or an ICMP error about a request, goes on to.
    fn reply(&mut self, clb: &ClbTables, vip: u32, work: &mut Work) -> Result<Endpoint, DropReason> {
        let key = work.outer.key.ok_or(DropReason::TunnelDecapFail)?;
        let listener = clb.listener(vip, work.flow.protocol, work.flow.dst_port).ok_or(DropReason::NoFlow)?;
        let flags = work.packet.tcp_flags;
        match self.flows.find(work.hash, &work.flow) {
            Some(found) => {
                let backend = backend_of(listener, self.flows.value(found))
                    .filter(|backend| backend.endpoint.key == Some(key))
                    .ok_or(DropReason::NoFlow)?;
                if !work.is_error() {
                    let state = self.flows.state(found);
                    self.touch(found, state, work, Sender::Server, backend);
                }
                work.server_id = backend.id;
            }
            // This LD has lost its state (it was restarted), but the tunnel names the server: the connection goes on.
            None if work.packet.kind == Kind::Tcp && flags & (tcp::SYN | tcp::RST) == 0 => {
                let backend = listener.backends.iter().find(|backend| backend.endpoint.key == Some(key));
                let backend = backend.ok_or(DropReason::NoFlow)?;
                let _ = self.enter(None, work, Sender::Server, backend);
                work.server_id = backend.id;
            }
            None => return Err(DropReason::NoFlow),
        }
        Ok(clb.reply_to)
    }

    fn count(&self, clb: &ClbTables, vip: u32, work: &Work) {
        let Some(place) = clb.place(vip, work.flow.protocol, work.flow.dst_port) else { return };
        let backends = clb.listeners.get(place as usize).map_or(&[][..], |listener| &listener.backends);
        let position = backends.iter().position(|backend| backend.id == work.server_id);
        let first = self.first_records.get(place as usize);
        if let Some(record) = first.zip(position).and_then(|(first, at)| self.board.record(first + at as u32)) {
            work.count(record);
        }
    }

    pub(crate) fn touch(&mut self, found: Found, state: u8, work: &Work, from: Sender, backend: &Backend) {
        let state = connection::next(state, work.flow.protocol, work.packet.tcp_flags, from);
        self.flows.set(found, state, value_of(backend), connection::timeout(state));
    }

    /// Enter a flow, or give the one that was found a new beginning.
    pub(crate) fn enter(
        &mut self,
        found: Option<Found>,
        work: &Work,
        from: Sender,
        backend: &Backend,
    ) -> Result<(), DropReason> {
        let state = connection::next(0, work.flow.protocol, work.packet.tcp_flags, from);
        let timeout = connection::timeout(state);
        match found {
            Some(found) => self.flows.set(found, state, value_of(backend), timeout),
            None => {
                let entered = self.flows.insert(work.hash, &work.flow, state, value_of(backend), timeout);
                entered.map_err(|_| DropReason::ConnTableFull)?;
            }
        }
        Ok(())
    }
}
