//! A worker of an LD: which real server a request goes to, and replies on their way back.

use tgw_contract::{DropReason, Hop};
use tgw_wire::tcp;

use crate::connection::{self, Sender};
use crate::flow::{FlowTable, Found};
use crate::fragments::Fragments;
use crate::hash::Map;
use crate::limits::TokenBucket;
use crate::packet::{Kind, Part};
use crate::proxy::Proxied;
use crate::runner::{Context, End, Stage};
use crate::tables::{Backend, ClbTables, ClientAddress, Listener, Section, Tables};
use crate::toa;
use crate::too_big::{Answers, Back};
use crate::tunnel::{age, room, wrap};
use crate::work::Work;
use crate::{FlowCounters, Frame, Nanos, Options};

/// The hash that chooses a real server: the same in every LD of every cluster.
const CHOICE_SEED: u64 = 0x7467_7720_6D61_676C;
/// A sweep goes through the whole table in so many calls.
const SWEEP_PARTS: usize = 32;

pub(crate) struct Clb {
    flows: FlowTable,
    fragments: Fragments,
    /// Made when the first listener asks for it.
    proxied: Option<Proxied>,
    answers: Answers,
    options: Options,
    workers: u16,
    /// By place of the VIP in the tables.
    limits: Vec<Option<TokenBucket>>,
    /// Ids of those VIPs.
    vip_ids: Vec<u32>,
    now: Nanos,
}

impl Clb {
    pub(crate) fn new(options: &Options) -> Self {
        let flows = FlowTable::new(options.flow_capacity, options.seed);
        Self {
            flows,
            fragments: Fragments::new(options.seed),
            proxied: None,
            answers: Answers::default(),
            options: *options,
            workers: options.workers,
            limits: Vec::new(),
            vip_ids: Vec::new(),
            now: 0,
        }
    }
}

impl Stage for Clb {
    fn take_tables(&mut self, tables: &Tables) {
        let Section::Clb(clb) = &tables.section else { return };
        if self.proxied.is_none() && clb.listeners.iter().any(|x| x.client_address == ClientAddress::Proxy) {
            self.proxied = Some(Proxied::new(self.options.flow_capacity, self.options.seed));
        }
        let old: Map<u32, TokenBucket> =
            self.vip_ids.iter().zip(&self.limits).filter_map(|(id, bucket)| bucket.map(|b| (*id, b))).collect();
        self.vip_ids = clb.vips.iter().map(|vip| vip.id).collect();
        let bucket = |id: u32, rate: u32| {
            let rate = TokenBucket::share(rate, self.workers);
            old.get(&id).map_or_else(|| TokenBucket::new(rate, self.now), |bucket| bucket.at_rate(rate))
        };
        self.limits = clb.vips.iter().map(|vip| vip.new_flows_per_s.map(|rate| bucket(vip.id, rate))).collect();
    }

    fn advance(&mut self, now: Nanos) {
        self.now = now;
        self.flows.advance(now / 1_000_000_000);
        self.fragments.advance(now);
        self.answers.advance(now);
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
        self.flows.prefetch(work.hash);
    }

    fn prepare_more(&mut self, work: &Work) {
        self.flows.prefetch_entry(work.hash);
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
        let mut begins = false;
        let (listener, backend) = if work.packet.part == Part::Later {
            self.later_fragment(clb, vip, work)?
        } else if is_request {
            let listener = listener_of(clb, vip, work)?;
            age(frame, &work.packet)?;
            begins = listener.client_address == ClientAddress::Toa && self.begins(work);
            (listener, self.choose(listener, vip, work)?)
        } else {
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
            return Err(self.answers.too_big(context, frame, work, room, Back::Tunnel(back)));
        }
        match (listener.client_address, &mut self.proxied) {
            (ClientAddress::Toa, _) if begins => toa::tell(frame, &mut work.packet, room),
            (ClientAddress::Proxy, Some(proxied)) if work.packet.part != Part::Later => {
                if is_request {
                    proxied.request(frame, work, room)?;
                } else {
                    proxied.reply(frame, work)?;
                }
            }
            _ => {}
        }
        Ok(wrap(context, frame, work, &to)?)
    }

    fn counters(&self) -> FlowCounters {
        self.flows.counters()
    }

    fn sweep(&mut self) {
        self.flows.sweep(SWEEP_PARTS);
        if let Some(proxied) = &mut self.proxied {
            proxied.sweep(SWEEP_PARTS);
        }
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

fn value_of(backend: &Backend) -> u64 {
    u64::from(backend.id)
}

fn backend_of(listener: &Listener, value: u64) -> Option<&Backend> {
    listener.backend(value as u32)
}

impl Clb {
    /// The real server of a request: the flow's, or a new choice.
    fn choose<'a>(&mut self, listener: &'a Listener, vip: u32, work: &Work) -> Result<&'a Backend, DropReason> {
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
        let choice = listener.maglev.as_ref().map(|maglev| maglev.choose(work.flow.hash(CHOICE_SEED)));
        let backend = choice.and_then(|index| listener.backends.get(index)).ok_or(DropReason::NoBackend)?;
        match (work.packet.kind, found) {
            // An error makes no flow, and a reset neither: it only ends what another LD may know.
            (Kind::Error, _) => {}
            (Kind::Tcp, None) if flags & tcp::RST != 0 => {}
            // A connection from before this LD had the VIP: no news for the limit, and it can do without state.
            (Kind::Tcp, _) if !opening => {
                let _ = self.enter(found, work, Sender::Client, backend);
            }
            (_, found) => {
                let is_new = found.is_none_or(|found| connection::is_over(self.flows.state(found)));
                if is_new && !self.allows(vip) {
                    return Err(DropReason::FlowLimit);
                }
                self.enter(found, work, Sender::Client, backend)?;
            }
        }
        Ok(backend)
    }

    /// Whether it is one of the packets by which a client opens a connection: its SYN, or what comes next.
    fn begins(&mut self, work: &Work) -> bool {
        let found = self.flows.find(work.hash, &work.flow);
        let is_half_open = found.is_some_and(|found| connection::is_half_open(self.flows.state(found)));
        work.packet.kind == Kind::Tcp && (connection::is_opening(work.packet.tcp_flags) || is_half_open)
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
        let backend = backend_of(listener, value >> 16).ok_or(DropReason::NoBackend)?;
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
        let flags = work.packet.tcp_flags;
        match self.flows.find(work.hash, &work.flow) {
            Some(found) => {
                let backend = backend_of(listener, self.flows.value(found))
                    .filter(|backend| work.outer.is_from(&backend.endpoint))
                    .ok_or(DropReason::NoFlow)?;
                if !work.is_error() {
                    let state = self.flows.state(found);
                    self.touch(found, state, work, Sender::Server, backend);
                }
                Ok((listener, backend))
            }
            // This LD has lost its state (it was restarted), but the tunnel names the server: the connection goes on.
            None if work.packet.kind == Kind::Tcp && flags & (tcp::SYN | tcp::RST) == 0 => {
                let backend = listener.backends.iter().find(|backend| work.outer.is_from(&backend.endpoint));
                let backend = backend.ok_or(DropReason::NoFlow)?;
                let _ = self.enter(None, work, Sender::Server, backend);
                Ok((listener, backend))
            }
            None => Err(DropReason::NoFlow),
        }
    }

    fn touch(&mut self, found: Found, state: u8, work: &Work, from: Sender, backend: &Backend) {
        let state = connection::next(state, work.flow.protocol, work.packet.tcp_flags, from);
        self.flows.set(found, state, value_of(backend), connection::timeout(state));
    }

    /// Enter a flow, or give the one that was found a new beginning.
    fn enter(&mut self, found: Option<Found>, work: &Work, from: Sender, backend: &Backend) -> Result<(), DropReason> {
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

    fn allows(&mut self, vip: u32) -> bool {
        match self.limits.get_mut(vip as usize) {
            Some(Some(bucket)) => bucket.take(self.now),
            _ => true,
        }
    }
}
