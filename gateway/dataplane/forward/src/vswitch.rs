//! The vSwitch on a host of real servers: requests out of the tunnel to the server, replies back to the LD that sent.

use std::sync::Arc;

use tgw_contract::{DropReason, Hop};
use tgw_wire::tcp;

use crate::connection::{self, Sender};
use crate::flow::{FlowTable, Full};
use crate::fragments::Fragments;
use crate::hash::Map;
use crate::meters::Sheet;
use crate::packet::{Kind, Part};
use crate::runner::{Context, End, Stage};
use crate::tables::{Endpoint, Section, ServerVip, Tables, VswitchTables};
use crate::too_big::{Answers, Back};
use crate::tunnel::{age, deliver, room, wrap};
use crate::work::Work;
use crate::{FlowCounters, Frame, Nanos, Options};

const SWEEP_PARTS: usize = 32;
/// Pairs of real server and LD that a host can learn: far more than send to it.
const MOST_PAIRS: usize = 1 << 20;

pub(crate) struct Vswitch {
    flows: FlowTable,
    fragments: Fragments,
    answers: Answers,
    /// Id of the real server and outer source that sent to it, as they were learned; a flow, or the fragments of a packet,
    /// name their pair by place.
    pairs: Vec<(u32, u128)>,
    places: Map<(u32, u128), u32>,
    sheet: Arc<Sheet>,
}

impl Vswitch {
    pub(crate) fn new(options: &Options) -> Self {
        let flows = FlowTable::new(options.flow_capacity, options.seed);
        Self {
            flows,
            fragments: Fragments::new(options.seed),
            answers: Answers::default(),
            pairs: Vec::new(),
            places: Map::default(),
            sheet: Arc::default(),
        }
    }
}

impl Stage for Vswitch {
    fn take_tables(&mut self, _: &Tables, _: Option<&Tables>) {}

    fn take_sheet(&mut self, sheet: Arc<Sheet>) {
        self.sheet = sheet;
    }

    fn advance(&mut self, now: Nanos) {
        self.flows.advance(now / 1_000_000_000);
        self.fragments.advance(now);
        self.answers.advance(now);
    }

    fn prepare(&mut self, work: &mut Work) {
        work.flow = match (work.hop, work.is_error()) {
            (Hop::VswIn, false) => work.packet.tuple,
            (Hop::VswIn, true) => work.packet.quoted.tuple.reversed(),
            (_, false) => work.packet.tuple.reversed(),
            (_, true) => work.packet.quoted.tuple,
        };
        work.hash = self.flows.hash(&work.flow);
        self.flows.prefetch(work.hash, &work.flow);
    }

    fn prepare_more(&mut self, work: &Work) {
        self.flows.prefetch_more(work.hash, &work.flow);
    }

    type Lane = ();

    fn act(&mut self, context: &mut Context<'_>, frame: &mut Frame, work: &mut Work) -> Result<u16, End> {
        let tables = context.tables;
        let Section::Vswitch(vswitch) = &tables.section else { return Err(DropReason::NoConfig.into()) };
        work.left = (work.packet.tuple.src, work.packet.tuple.dst);
        let port = match work.hop {
            Hop::VswIn => self.request(context, vswitch, frame, work)?,
            _ => self.reply(context, vswitch, frame, work)?,
        };
        self.count(vswitch, work);
        Ok(port)
    }

    fn counters(&self) -> FlowCounters {
        self.flows.counters()
    }

    fn sweep(&mut self) {
        self.flows.sweep(SWEEP_PARTS);
    }
}

impl Vswitch {
    fn request(
        &mut self,
        context: &mut Context<'_>,
        vswitch: &VswitchTables,
        frame: &mut Frame,
        work: &mut Work,
    ) -> Result<u16, End> {
        let vip = work.packet.tuple.dst;
        let key = work.outer.needed_key()?;
        let server = vswitch.named(key, vip).ok_or(DropReason::NoBackend)?;
        work.server_id = server.id;
        let vip = server.vip(vip).ok_or(DropReason::NoVip)?;
        // An error must be about what this very address sent.
        if context.is_hidden(vip.id) || work.is_error() && work.packet.quoted.tuple.src != vip.address {
            return Err(DropReason::NoVip.into());
        }
        work.vip_id = vip.id;
        age(frame, &work.packet)?;
        if !work.is_error() && work.packet.part != Part::Later {
            self.learn(work, server.id).map_err(|Full| DropReason::ConnTableFull)?;
        }
        let port = context.tables.port(server.port).ok_or(DropReason::NoRoute)?;
        if work.packet.len() > usize::from(port.mtu) {
            let ld = Endpoint { address: work.outer.src, encap: context.tables.encap, key: server.key };
            let back = Back::Tunnel(reply_end(vswitch, vip, ld, work.packet.tuple.src));
            return Err(self.answers.too_big(context, frame, work, port.mtu.into(), back));
        }
        Ok(deliver(frame, work, port, Some(server.mac))?)
    }

    fn reply(
        &mut self,
        context: &mut Context<'_>,
        vswitch: &VswitchTables,
        frame: &mut Frame,
        work: &mut Work,
    ) -> Result<u16, End> {
        let source = work.packet.tuple.src;
        let mut servers = vswitch.servers.iter().filter(|server| server.port == frame.port);
        work.vip_id = servers.find_map(|server| server.vip(source)).ok_or(DropReason::NoVip)?.id;
        if context.is_hidden(work.vip_id) {
            work.vip_id = 0;
            return Err(DropReason::NoVip.into());
        }
        let is_later = work.packet.part == Part::Later;
        let found = if is_later { None } else { self.flows.find(work.hash, &work.flow) };
        let value = if is_later {
            self.fragments.find(&work.packet).ok_or(DropReason::Fragment)? as u32
        } else {
            self.flows.value(found.ok_or(DropReason::NoFlow)?)
        };
        let (id, address) = self.pairs.get(value as usize).copied().ok_or(DropReason::NoFlow)?;
        let server = vswitch.server(id).filter(|server| server.port == frame.port).ok_or(DropReason::NoFlow)?;
        let vip = server.vip(source).ok_or(DropReason::NoFlow)?;
        if work.is_error() && work.flow.dst != source {
            return Err(DropReason::NoFlow.into());
        }
        work.server_id = server.id;
        age(frame, &work.packet)?;
        if let Some(found) = found.filter(|_| !work.is_error()) {
            let state = self.flows.state(found);
            let state = connection::next(state, work.flow.protocol, work.packet.tcp_flags, Sender::Server);
            self.flows.set(found, state, value, connection::timeout(state));
        }
        if work.packet.part == Part::First {
            self.fragments.remember(&work.packet, value.into());
        }
        let ld = Endpoint { address, encap: context.tables.encap, key: server.key };
        let to = reply_end(vswitch, vip, ld, work.packet.tuple.dst);
        let room = room(context.tables, &to);
        if work.packet.len() > room {
            work.outer_dst = to.address;
            let port = context.tables.port(server.port).ok_or(DropReason::NoRoute)?;
            return Err(self.answers.too_big(context, frame, work, room, Back::Port(port, Some(server.mac))));
        }
        Ok(wrap(context, frame, work, &to)?)
    }

    fn count(&self, vswitch: &VswitchTables, work: &Work) {
        let mut first = 0;
        for server in &vswitch.servers {
            if server.id == work.server_id {
                let position = server.vips.iter().position(|vip| vip.id == work.vip_id);
                if let Some(record) = position.and_then(|at| self.sheet.record(first + at as u32)) {
                    work.count(record);
                }
                return;
            }
            first += server.vips.len() as u32;
        }
    }

    /// Remember which LD sent this flow, so that replies go back to it.
    fn learn(&mut self, work: &Work, server: u32) -> Result<(), Full> {
        let flags = work.packet.tcp_flags;
        let found = self.flows.find(work.hash, &work.flow);
        if found.is_none() && work.packet.kind == Kind::Tcp && flags & tcp::RST != 0 {
            return Ok(());
        }
        let value = self.place(server, work.outer.src)?;
        let before = found.map_or(0, |found| self.flows.state(found));
        let state = connection::next(before, work.flow.protocol, flags, Sender::Client);
        let timeout = connection::timeout(state);
        match found {
            Some(found) => self.flows.set(found, state, value, timeout),
            None => {
                self.flows.insert(work.hash, &work.flow, state, value, timeout)?;
            }
        }
        Ok(())
    }

    fn place(&mut self, server: u32, ld: u128) -> Result<u32, Full> {
        if let Some(place) = self.places.get(&(server, ld)) {
            return Ok(*place);
        }
        if self.pairs.len() >= MOST_PAIRS {
            return Err(Full);
        }
        let place = self.pairs.len() as u32;
        self.pairs.push((server, ld));
        self.places.insert((server, ld), place);
        Ok(place)
    }
}

/// Where a reply to `client` goes: back to the LD, or in direct return straight to the EIP nodes. What the LD itself has
/// asked, as it does in health checks, is always answered to the LD.
fn reply_end(vswitch: &VswitchTables, vip: &ServerVip, ld: Endpoint, client: u128) -> Endpoint {
    vswitch.reply_to.filter(|_| vip.direct && client != ld.address).unwrap_or(ld)
}
