//! The EIP node: stateless 1:1 translation between public and private addresses, and the tunnel towards the VIP's cluster.

use std::sync::Arc;

use tgw_contract::{DropReason, Hop};

use crate::fast::{EipLane, Fast};
use crate::meters::Sheet;
use crate::runner::{Context, End, Stage};
use crate::tables::{EipTables, Endpoint, Section, Tables, EDGE};
use crate::translate::{self, set_address, set_quoted_address};
use crate::tunnel::{age, deliver, wrap};
use crate::work::Work;
use crate::{FlowCounters, Frame, Nanos};

#[derive(Default)]
pub(crate) struct Eip {
    sheet: Arc<Sheet>,
}

impl Stage for Eip {
    fn take_tables(&mut self, _: &Tables, _: Option<&Tables>) {}

    fn take_sheet(&mut self, sheet: Arc<Sheet>) {
        self.sheet = sheet;
    }

    fn advance(&mut self, _: Nanos) {}

    fn prepare(&mut self, _: &mut Work) {}

    type Lane = EipLane;

    fn read(&mut self, fast: &Fast, frame: &Frame, lane: &mut EipLane, prefetch: bool) -> bool {
        matches!(fast, Fast::Eip(fast) if fast.read(frame, lane, prefetch))
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
            Hop::EipIn => request(context, eip, frame, work)?,
            _ => reply(context, eip, frame, work)?,
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

fn request(context: &mut Context<'_>, eip: &EipTables, frame: &mut Frame, work: &mut Work) -> Result<u16, DropReason> {
    let public = work.packet.tuple.dst;
    let index = eip.by_public.get(&public).ok_or(DropReason::NoVip)?;
    let binding = eip.bindings.get(*index as usize).ok_or(DropReason::NoVip)?;
    // An error must be about what this very address sent.
    if context.is_hidden(binding.vip_id) || work.is_error() && work.packet.quoted.tuple.src != public {
        return Err(DropReason::NoVip);
    }
    (work.vip, work.vip_id) = (Some(*index), binding.vip_id);
    age(frame, &work.packet)?;
    if work.is_error() {
        set_quoted_address(frame.bytes_mut(), &work.packet, translate::End::Src, binding.private);
    }
    set_address(frame.bytes_mut(), &work.packet, translate::End::Dst, binding.private);
    work.left = (work.packet.tuple.src, binding.private);
    let to = Endpoint { address: binding.service, encap: context.tables.encap, key: None };
    wrap(context, frame, work, &to)
}

fn reply(context: &mut Context<'_>, eip: &EipTables, frame: &mut Frame, work: &mut Work) -> Result<u16, DropReason> {
    let private = work.packet.tuple.src;
    let index = eip.by_private.get(&private).ok_or(DropReason::NoVip)?;
    let binding = eip.bindings.get(*index as usize).ok_or(DropReason::NoVip)?;
    if context.is_hidden(binding.vip_id) || work.is_error() && work.packet.quoted.tuple.dst != private {
        return Err(DropReason::NoVip);
    }
    (work.vip, work.vip_id) = (Some(*index), binding.vip_id);
    age(frame, &work.packet)?;
    if work.is_error() {
        set_quoted_address(frame.bytes_mut(), &work.packet, translate::End::Dst, binding.public);
    }
    set_address(frame.bytes_mut(), &work.packet, translate::End::Src, binding.public);
    work.left = (binding.public, work.packet.tuple.dst);
    let port = context.tables.port(EDGE).ok_or(DropReason::NoRoute)?;
    deliver(frame, work, port, port.next_hop_mac)
}
