//! The EIP node: stateless 1:1 translation between public and private addresses, and the tunnel towards the VIP's cluster.

use std::sync::Arc;

use tgw_contract::{DropReason, Hop};

use crate::fast::{EipLane, Fast};
use crate::meters::Sheet;
use crate::runner::{Context, End, Stage};
use crate::tables::{EipTables, Endpoint, Section, Tables, EDGE};
use crate::too_big::{Answers, Back};
use crate::translate::{self, set_address, set_quoted_address};
use crate::tunnel::{age, deliver, room, wrap};
use crate::work::Work;
use crate::{FlowCounters, Frame, Nanos};

#[derive(Default)]
pub(crate) struct Eip {
    sheet: Arc<Sheet>,
    answers: Answers,
}

impl Stage for Eip {
    fn take_tables(&mut self, _: &Tables, _: Option<&Tables>) {}

    fn take_sheet(&mut self, sheet: Arc<Sheet>) {
        self.sheet = sheet;
    }

    fn advance(&mut self, now: Nanos) {
        self.answers.advance(now);
    }

    fn prepare(&mut self, _: &mut Work) {}

    type Lane = EipLane;

    fn read(&mut self, fast: &Fast, frame: &Frame, lane: &mut EipLane, prefetch: bool) -> bool {
        matches!(fast, Fast::Eip(fast) if fast.read(frame, lane, prefetch))
    }

    fn look_again(&mut self, fast: &Fast, lane: &mut EipLane) {
        if let Fast::Eip(fast) = fast {
            fast.look_again(&self.sheet, lane);
        }
    }

    fn finds(&mut self, fast: &Fast, lane: &EipLane) -> bool {
        matches!(fast, Fast::Eip(fast) if fast.finds(lane))
    }

    fn run(&mut self, tables: &Tables, frame: &mut Frame, lane: &EipLane) -> Option<u16> {
        let Fast::Eip(fast) = &tables.fast else { return None };
        fast.run(&self.sheet, frame, lane)
    }

    fn act(&mut self, context: &mut Context<'_>, frame: &mut Frame, work: &mut Work) -> Result<u16, End> {
        let Section::Eip(eip) = &context.tables.section else { return Err(DropReason::NoConfig.into()) };
        let port = match work.hop {
            Hop::EipIn => self.request(context, eip, frame, work)?,
            _ => self.reply(context, eip, frame, work)?,
        };
        if let Some(record) = work.vip.and_then(|place| self.sheet.record(place)) {
            work.count(record);
        }
        Ok(port)
    }

    fn counters(&self) -> FlowCounters {
        FlowCounters::default()
    }

    fn sweep(&mut self) {}
}

impl Eip {
    fn request(
        &mut self,
        context: &mut Context<'_>,
        eip: &EipTables,
        frame: &mut Frame,
        work: &mut Work,
    ) -> Result<u16, End> {
        let public = work.packet.tuple.dst;
        let index = eip.by_public.get(&public).ok_or(DropReason::NoVip)?;
        let binding = eip.bindings.get(*index as usize).ok_or(DropReason::NoVip)?;
        // An error must be about what this very address sent.
        if context.is_hidden(binding.vip_id) || work.is_error() && work.packet.quoted.tuple.src != public {
            return Err(DropReason::NoVip.into());
        }
        (work.vip, work.vip_id) = (Some(*index), binding.vip_id);
        age(frame, &work.packet)?;
        let to = Endpoint { address: binding.service, encap: context.tables.encap, key: None };
        let room = room(context.tables, &to);
        if work.packet.len() > room {
            work.outer_dst = to.address;
            let port = context.tables.port(frame.port).ok_or(DropReason::NoRoute)?;
            return Err(self.answers.too_big(context, frame, work, room, Back::Port(port, port.next_hop_mac)));
        }
        if work.is_error() {
            set_quoted_address(frame.bytes_mut(), &work.packet, translate::End::Src, binding.private);
        }
        set_address(frame.bytes_mut(), &work.packet, translate::End::Dst, binding.private);
        work.left = (work.packet.tuple.src, binding.private);
        Ok(wrap(context, frame, work, &to)?)
    }

    fn reply(
        &mut self,
        context: &mut Context<'_>,
        eip: &EipTables,
        frame: &mut Frame,
        work: &mut Work,
    ) -> Result<u16, End> {
        let private = work.packet.tuple.src;
        let index = eip.by_private.get(&private).ok_or(DropReason::NoVip)?;
        let binding = eip.bindings.get(*index as usize).ok_or(DropReason::NoVip)?;
        if context.is_hidden(binding.vip_id) || work.is_error() && work.packet.quoted.tuple.dst != private {
            return Err(DropReason::NoVip.into());
        }
        (work.vip, work.vip_id) = (Some(*index), binding.vip_id);
        age(frame, &work.packet)?;
        let port = context.tables.port(EDGE).ok_or(DropReason::NoRoute)?;
        if work.packet.len() > usize::from(port.mtu) {
            // Back to the real server, through the LDs of its VIP.
            let to = Endpoint { address: binding.service, encap: context.tables.encap, key: None };
            return Err(self.answers.too_big(context, frame, work, port.mtu.into(), Back::Tunnel(to)));
        }
        if work.is_error() {
            set_quoted_address(frame.bytes_mut(), &work.packet, translate::End::Dst, binding.public);
        }
        set_address(frame.bytes_mut(), &work.packet, translate::End::Src, binding.public);
        work.left = (binding.public, work.packet.tuple.dst);
        Ok(deliver(frame, work, port, port.next_hop_mac)?)
    }
}
