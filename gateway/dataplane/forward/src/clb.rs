//! A worker of an LD: which real server a request goes to, and replies on their way back.

use std::sync::Arc;

use tgw_contract::{DropReason, Hop};
use tgw_wire::{protocol, tcp};

use crate::affinity::{client_of, Affinity};
use crate::board::{Question, Verdict};
use crate::connection::{self, Sender};
use crate::fast::{ClbLane, Fast};
use crate::flow::{FlowTable, Found};
use crate::fragments::Fragments;
use crate::guard::{Facts, Guard, Newcomer};
use crate::handshake::{send, Handshakes, Step};
use crate::hash::Tuple;
use crate::health::{self, Checker};
use crate::meters::Sheet;
use crate::packet::{Kind, Part};
use crate::proxy::Proxied;
use crate::quic::{self, Route};
use crate::runner::{Context, End, Stage};
use crate::tables::{Backend, ClbTables, ClientAddress, Dispatch, Listener, Section, Tables};
use crate::toa;
use crate::too_big::{Answers, Back};
use crate::tunnel::{age, room, wrap};
use crate::work::Work;
use crate::{Faults, FlowCounters, Frame, Nanos, Options};

/// The hash that chooses a real server: the same in every LD of every cluster.
const CHOICE_SEED: u64 = 0x7467_7720_6D61_676C;
/// A sweep goes through the whole table in so many calls.
const SWEEP_PARTS: usize = 32;

pub(crate) struct Clb {
    pub(crate) flows: FlowTable,
    pub(crate) guard: Guard,
    pub(crate) handshakes: Handshakes,
    pub(crate) now: Nanos,
    options: Options,
    fragments: Fragments,
    /// Made when the first listener asks for it.
    proxied: Option<Proxied>,
    answers: Answers,
    /// Once a listener has asked for it.
    affinity: Option<Affinity>,
    /// In the worker that checks health.
    checker: Option<Checker>,
    /// For what this node sends of its own accord.
    no_faults: Faults,
    sheet: Arc<Sheet>,
    /// Where the records of each listener's real servers begin.
    first_records: Vec<u32>,
}

impl Clb {
    /// `checks`: this worker checks the health of real servers, for all of its node.
    pub(crate) fn new(options: &Options, checks: bool) -> Self {
        Self {
            flows: FlowTable::new(options.flow_capacity, options.seed),
            guard: Guard::new(options.workers, options.seed),
            handshakes: Handshakes::new(options.flow_capacity),
            now: 0,
            options: *options,
            fragments: Fragments::new(options.seed),
            proxied: None,
            answers: Answers::default(),
            affinity: None,
            checker: checks.then(|| Checker::new(options.seed)),
            no_faults: Faults::default(),
            sheet: Arc::default(),
            first_records: Vec::new(),
        }
    }
}

impl Stage for Clb {
    fn take_tables(&mut self, tables: &Tables, before: Option<&Tables>) {
        let Section::Clb(clb) = &tables.section else { return };
        let before = before.and_then(|before| match &before.section {
            Section::Clb(clb) => Some(clb),
            _ => None,
        });
        clb.succeed(before, self.now);
        if let Some(checker) = &mut self.checker {
            checker.take_tables(clb, before, self.now);
        }
        if clb.has_affinity && self.affinity.is_none() {
            self.affinity = Some(Affinity::new(self.options.flow_capacity, self.options.seed));
        }
        if self.proxied.is_none() && clb.listeners.iter().any(|x| x.client_address == ClientAddress::Proxy) {
            self.proxied = Some(Proxied::new(self.options.flow_capacity, self.options.seed));
        }
        self.first_records = clb.first_records();
        self.guard.take_tables(clb);
        self.handshakes.take_tables(tables, clb, before);
    }

    fn take_sheet(&mut self, sheet: Arc<Sheet>) {
        self.sheet = sheet;
    }

    fn advance(&mut self, now: Nanos) {
        self.now = now;
        self.guard.advance(now);
        self.flows.advance(now / 1_000_000_000);
        self.fragments.advance(now);
        self.answers.advance(now);
        self.handshakes.advance(now);
        if let Some(affinity) = &mut self.affinity {
            affinity.advance(now);
        }
        if let Some(proxied) = &mut self.proxied {
            proxied.advance(now);
        }
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

    fn glance(&self, fast: &Fast, frame: &Frame) {
        if let Fast::Clb(fast) = fast {
            fast.glance(&self.flows, frame);
        }
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

    fn run(&mut self, tables: &Tables, frame: &mut Frame, lane: &ClbLane) -> Option<u16> {
        let (Fast::Clb(fast), Section::Clb(clb)) = (&tables.fast, &tables.section) else { return None };
        // Sequence numbers are shifted on the general way alone.
        if self.handshakes.lingers(lane.vip_address()) {
            return None;
        }
        fast.run(clb, &mut self.flows, &self.sheet, frame, lane)
    }

    fn act(&mut self, context: &mut Context<'_>, frame: &mut Frame, work: &mut Work) -> Result<u16, End> {
        let tables = context.tables;
        let Section::Clb(clb) = &tables.section else { return Err(DropReason::NoConfig.into()) };
        let vip = work.vip.ok_or(DropReason::NoVip)?;
        if context.is_hidden(work.vip_id) {
            work.vip_id = 0;
            return Err(DropReason::NoVip.into());
        }
        work.left = (work.packet.tuple.src, work.packet.tuple.dst);
        let is_request = work.hop == Hop::ClbIn;
        if is_request && self.guard.asks(vip) {
            self.admit(tables, vip, work)?;
        }
        let shakes = self.guard.has_cookies(vip) || self.handshakes.lingers(work.flow.dst);
        let mut begins = false;
        let (listener, backend) = if work.packet.part == Part::Later {
            self.later_fragment(clb, vip, work)?
        } else if is_request {
            let listener = listener_of(clb, vip, work).map_err(|reason| self.blame(work, reason))?;
            let mut newcomer = None;
            if shakes {
                match self.shake_request(context, clb, listener, vip, frame, work)? {
                    Step::Sent(port) => return Ok(port),
                    Step::Go(decided) => newcomer = decided,
                }
            }
            age(frame, &work.packet)?;
            begins = listener.client_address == ClientAddress::Toa && self.begins(work);
            let route = self.route(listener, frame, work)?;
            (listener, self.choose(clb, listener, vip, work, route, newcomer)?)
        } else {
            if health::is_answer(tables.local, work) {
                return Err(judge(context, clb, vip, frame, work));
            }
            if shakes {
                if let Some(port) = self.shake_reply(context, clb, vip, frame, work)? {
                    return Ok(port);
                }
            }
            self.reply(clb, vip, work)?
        };
        work.server_id = backend.id;
        if !is_request || work.packet.part == Part::Later {
            age(frame, &work.packet)?;
        }
        if work.packet.part == Part::First {
            self.fragments.remember(&work.packet, u64::from(backend.id) << 16 | u64::from(work.flow.dst_port));
        }
        let (to, back) = if is_request { (backend.endpoint, clb.reply_to) } else { (clb.reply_to, backend.endpoint) };
        let room = room(tables, &to);
        if work.packet.len() > room {
            work.outer_dst = to.address;
            // Its sender is told of it in the numbers that it knows.
            self.shift_back(frame, work);
            return Err(self.answers.too_big(context, frame, work, room, Back::Tunnel(back)));
        }
        match (listener.client_address, &mut self.proxied) {
            (ClientAddress::Toa, _) if begins => toa::tell(frame, &mut work.packet, room),
            (ClientAddress::Proxy, Some(proxied)) if work.packet.part != Part::Later => {
                if is_request {
                    let is_known = self.flows.find(work.hash, &work.flow).is_some();
                    proxied.request(frame, work, room, is_known)?;
                } else {
                    proxied.reply(frame, work)?;
                }
            }
            _ => {}
        }
        let port = wrap(context, frame, work, &to)?;
        self.count(clb, vip, listener, work);
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

    fn counters(&self) -> FlowCounters {
        self.flows.counters()
    }

    fn sweep(&mut self) {
        self.flows.sweep(SWEEP_PARTS);
        self.handshakes.sweep(SWEEP_PARTS, self.now);
        if let Some(affinity) = &mut self.affinity {
            affinity.sweep(SWEEP_PARTS);
        }
        if let Some(proxied) = &mut self.proxied {
            proxied.sweep(SWEEP_PARTS);
        }
    }

    fn emit(&mut self, tables: &Tables, frame: &mut Frame) -> Option<u16> {
        if let Some(port) = self.shake_emit(tables, frame) {
            return Some(port);
        }
        let Section::Clb(clb) = &tables.section else { return None };
        let checker = self.checker.as_mut()?;
        let mut context = Context { tables, faults: &mut self.no_faults };
        while let Some(check) = checker.next(self.now, &clb.board) {
            let listener = clb.listeners.get(check.listener as usize)?;
            let vip = clb.vips.get(listener.vip as usize)?;
            let to = &listener.backends.get(check.place as usize)?.endpoint;
            let flow = Tuple {
                src: tables.local,
                dst: vip.address,
                src_port: check.question.port,
                dst_port: listener.port,
                protocol: protocol::TCP,
            };
            let syn = health::segment(flow, check.question.isn, tcp::SYN);
            match send(&mut context, frame, &syn, to) {
                Some(port) => return Some(port),
                None => checker.revoke(&check),
            }
        }
        None
    }
}

/// An answer to a health check: note it, and reset what it opened.
fn judge(context: &mut Context<'_>, clb: &ClbTables, vip: u32, frame: &mut Frame, work: &mut Work) -> End {
    let taken = End::Drop(DropReason::HealthAnswer);
    let flow = work.flow;
    let listener = clb.listener(vip, flow.protocol, flow.dst_port);
    let sender = listener.and_then(|listener| Some((listener, listener.sender(&work.outer)?)));
    let Some((listener, (place, backend))) = sender else { return taken };
    work.server_id = backend.id;
    let flags = work.packet.tcp_flags;
    let (isn, verdict) = match work.packet.kind {
        Kind::Error => (work.packet.quoted.seq, Verdict::Refused),
        _ if flags & tcp::RST != 0 => (work.packet.ack.wrapping_sub(1), Verdict::Refused),
        _ if flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK => {
            (work.packet.ack.wrapping_sub(1), Verdict::Answered)
        }
        _ => return taken,
    };
    health::note(&clb.board, listener, place, Question { port: flow.src_port, isn }, verdict);
    if verdict == Verdict::Refused {
        return taken;
    }
    // Each SYN-ACK gets its reset, from the worker that has it: when one is lost, the next does.
    let reset = health::segment(flow, isn.wrapping_add(1), tcp::RST);
    match send(context, frame, &reset, &backend.endpoint) {
        Some(port) => End::Answer { port, reason: DropReason::HealthAnswer },
        None => taken,
    }
}

/// Whether a reply is of a connection that goes on, so that its flow is worth a place. A SYN-ACK that answers no SYN we know
/// of is not: the client has proved nothing yet.
fn continues(work: &Work) -> bool {
    match work.packet.kind {
        Kind::Tcp => work.packet.tcp_flags & (tcp::SYN | tcp::RST) == 0,
        Kind::Udp => true,
        _ => false,
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

    /// What a datagram's QUIC connection id says, at a listener that goes by it.
    fn route<'a>(&self, listener: &Listener, frame: &'a Frame, work: &Work) -> Result<Route<'a>, DropReason> {
        match listener.dispatch {
            Dispatch::Quic(server_id) if work.packet.kind == Kind::Udp => {
                quic::route(listener, server_id, work.packet.datagram(frame.bytes()))
            }
            _ => Ok(Route::Unknown),
        }
    }

    /// The real server of a request: the flow's, or a new choice. `newcomer`: what was decided about it, if it was.
    ///
    /// A known flow stays with its server while that one is in the listener and up, whatever its weight: who drains a server
    /// waits for its flows to end. When the server is gone or down, any packet of the flow chooses anew. When all servers
    /// are down, they count as up: checks that fail everywhere are more likely to be wrong than all servers, and a client
    /// is no better off with nothing.
    pub(crate) fn choose<'a>(
        &mut self,
        clb: &ClbTables,
        listener: &'a Listener,
        vip: u32,
        work: &Work,
        route: Route<'_>,
        newcomer: Option<Newcomer>,
    ) -> Result<&'a Backend, DropReason> {
        let board = &clb.board;
        let flags = work.packet.tcp_flags;
        let opening = work.packet.kind == Kind::Tcp && connection::is_opening(flags);
        let found = self.flows.find(work.hash, &work.flow);
        if let Route::Server { place, opens } = route {
            // Whose connection it is stands in the packet: no state is needed, and a flow that is known follows.
            if let Some(backend) = listener.backends.get(place).filter(|_| listener.is_up(board, place)) {
                match found {
                    Some(found) => self.touch(found, work, Sender::Client, backend),
                    None if opens => self.open_named(vip, work, backend)?,
                    None => {}
                }
                return Ok(backend);
            }
        }
        let mut known = None;
        if let Some(found) = found {
            let state = self.flows.state(found);
            known = listener.place(self.flows.value(found)).filter(|_| !(opening && connection::is_over(state)));
            let stays = known.filter(|place| listener.is_up(board, *place));
            if let Some((place, backend)) = stays.and_then(|place| Some((place, listener.backends.get(place)?))) {
                if !work.is_error() {
                    self.touch(found, work, Sender::Client, backend);
                    // One that has gone on after its SYN: see `affinity`.
                    if listener.affinity_s.is_some() && !opening {
                        self.remember(clb, listener, place, work);
                    }
                }
                return Ok(backend);
            }
        }
        // Nothing is known of its connection, or that one is over. One that has proved itself has been let in.
        if newcomer != Some(Newcomer::Enter) && self.guard.is_blacklisted(work.packet.tuple.src) {
            return Err(DropReason::Blacklisted);
        }
        let place = self.choose_anew(clb, listener, work, route, known).ok_or(DropReason::NoBackend)?;
        let backend = listener.backends.get(place).ok_or(DropReason::NoBackend)?;
        if let Some(found) = found.filter(|_| known == Some(place)) {
            // All are down, and it stays where it was.
            if !work.is_error() {
                self.touch(found, work, Sender::Client, backend);
            }
            return Ok(backend);
        }
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
        // In a flood of datagrams nobody is remembered who has no place either.
        if newcomer == Newcomer::Enter && listener.affinity_s.is_some() && work.packet.kind == Kind::Udp {
            self.remember(clb, listener, place, work);
        }
        Ok(backend)
    }

    /// A packet whose id names its server may yet begin a connection, as anyone can write such an id: what newcomers are
    /// asked holds for it too. Where they are counted it takes a place in the table, so as to be no newcomer again.
    fn open_named(&mut self, vip: u32, work: &Work, backend: &Backend) -> Result<(), DropReason> {
        if self.guard.is_blacklisted(work.packet.tuple.src) {
            return Err(DropReason::Blacklisted);
        }
        if !self.guard.counts_newcomers(vip) {
            return Ok(());
        }
        let newcomer = self.guard.newcomer(vip, work.hash);
        if newcomer != Newcomer::PassAgain && !self.guard.may_open(vip) {
            return Err(DropReason::FlowLimit);
        }
        if newcomer == Newcomer::Enter {
            let _ = self.enter(None, work, Sender::Client, backend);
        }
        Ok(())
    }

    /// The place of the real server for what has none that it could stay with. `known`: the one it had, which is down.
    fn choose_anew(
        &mut self,
        clb: &ClbTables,
        listener: &Listener,
        work: &Work,
        route: Route<'_>,
        known: Option<usize>,
    ) -> Option<usize> {
        let board = &clb.board;
        let client = listener.affinity_s.map(|_| client_of(&work.flow));
        if let (Some(client), Some(affinity)) = (&client, &mut self.affinity) {
            let place = affinity.server_of(client).and_then(|id| listener.place(id));
            if let Some(place) = place.filter(|place| listener.is_open(board, *place)) {
                return Some(place);
            }
        }
        let hash = match (route, &client) {
            (Route::Client(id), _) => quic::hash(id, CHOICE_SEED),
            (_, Some(client)) => client.hash(CHOICE_SEED),
            _ => work.flow.hash(CHOICE_SEED),
        };
        // All down: who has a server keeps it.
        listener.choose_up(board, hash, self.now).or(known).or_else(|| listener.choose_any(hash))
    }

    /// A connection of an affine client goes on at this server.
    fn remember(&mut self, clb: &ClbTables, listener: &Listener, place: usize, work: &Work) {
        let Some((affinity, backend)) = self.affinity.as_mut().zip(listener.backends.get(place)) else { return };
        let is_open = |id: u32| listener.place(id).is_some_and(|place| listener.is_open(&clb.board, place));
        affinity.touch(&client_of(&work.flow), listener, backend.id, is_open);
    }

    /// Whether it may be one of the packets by which a client opens a connection: its SYN, what comes next, and whatever
    /// comes of a connection that nobody has confirmed here. The server may be waiting for any of these.
    fn begins(&mut self, work: &Work) -> bool {
        let found = self.flows.find(work.hash, &work.flow);
        let is_confirmed = found.is_some_and(|found| !connection::is_evictable(self.flows.state(found)));
        work.packet.kind == Kind::Tcp && (connection::is_opening(work.packet.tcp_flags) || !is_confirmed)
    }

    /// Where a fragment without ports belongs: to where the first one of its packet went.
    fn later_fragment<'a>(
        &self,
        clb: &'a ClbTables,
        vip: u32,
        work: &Work,
    ) -> Result<(&'a Listener, &'a Backend), DropReason> {
        let value = self.fragments.find(&work.packet).ok_or(DropReason::Fragment)?;
        let listener = clb.listener(vip, work.flow.protocol, value as u16).ok_or(DropReason::Fragment)?;
        let backend = listener.backend((value >> 16) as u32).ok_or(DropReason::NoBackend)?;
        if work.hop != Hop::ClbIn && !work.outer.is_from(&backend.endpoint) {
            return Err(DropReason::Fragment);
        }
        Ok((listener, backend))
    }

    /// Who sent a reply, or an ICMP error about a request.
    fn reply<'a>(
        &mut self,
        clb: &'a ClbTables,
        vip: u32,
        work: &Work,
    ) -> Result<(&'a Listener, &'a Backend), DropReason> {
        work.outer.needed_key()?;
        let listener = clb.listener(vip, work.flow.protocol, work.flow.dst_port).ok_or(DropReason::NoFlow)?;
        match self.flows.find(work.hash, &work.flow) {
            Some(found) => {
                let backend = listener
                    .backend(self.flows.value(found))
                    .filter(|backend| work.outer.is_from(&backend.endpoint))
                    .ok_or(DropReason::NoFlow)?;
                if !work.is_error() {
                    self.touch(found, work, Sender::Server, backend);
                }
                Ok((listener, backend))
            }
            None if work.is_error() => Err(DropReason::NoFlow),
            // This worker has no state (its LD was restarted, the flood gate let the request pass without, or requests go
            // to another worker by their QUIC id), but the tunnel names the server: the connection goes on. If there is
            // room for newcomers, its requests find the server here too from now on.
            None => {
                let (_, backend) = listener.sender(&work.outer).ok_or(DropReason::NoFlow)?;
                if continues(work) && self.guard.newcomer(vip, work.hash) == Newcomer::Enter {
                    let _ = self.enter(None, work, Sender::Server, backend);
                }
                Ok((listener, backend))
            }
        }
    }

    fn count(&self, clb: &ClbTables, vip: u32, listener: &Listener, work: &Work) {
        let Some(place) = clb.place(vip, listener.protocol, listener.port) else { return };
        let first = self.first_records.get(place as usize).zip(listener.place(work.server_id));
        if let Some(record) = first.and_then(|(first, at)| self.sheet.record(first + at as u32)) {
            work.count(record);
        }
    }

    pub(crate) fn touch(&mut self, found: Found, work: &Work, from: Sender, backend: &Backend) {
        let state = connection::next(self.flows.state(found), work.flow.protocol, work.packet.tcp_flags, from);
        self.flows.set(found, state, backend.id, connection::timeout(state));
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
            Some(found) => self.flows.set(found, state, backend.id, timeout),
            None => {
                let entered = self.flows.insert(work.hash, &work.flow, state, backend.id, timeout);
                entered.map_err(|_| DropReason::ConnTableFull)?;
            }
        }
        Ok(())
    }
}
