//! The EIP node: stateless 1:1 translation between public and private addresses, and the tunnel towards the VIP's cluster.

use tgw_contract::{DropReason, Hop};

use crate::runner::{Context, End, Stage};
use crate::tables::{EipTables, Endpoint, Section, Tables, EDGE};
use crate::translate::{self, set_address, set_quoted_address};
use crate::tunnel::{age, deliver, wrap};
use crate::work::Work;
use crate::{FlowCounters, Frame, Nanos};

#[derive(Default)]
pub(crate) struct Eip;

impl Stage for Eip {
    fn take_tables(&mut self, _: &Tables, _: Option<&Tables>) {}

    fn advance(&mut self, _: Nanos) {}

    fn prepare(&mut self, _: &mut Work) {}

    fn act(&mut self, context: &mut Context<'_>, frame: &mut Frame, work: &mut Work) -> Result<u16, End> {
        let Section::Eip(eip) = &context.tables.section else { return Err(DropReason::NoConfig.into()) };
        match work.hop {
            Hop::EipIn => Ok(request(context, eip, frame, work)?),
            _ => Ok(reply(context, eip, frame, work)?),
        }
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
    work.vip_id = binding.vip_id;
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
    work.vip_id = binding.vip_id;
    age(frame, &work.packet)?;
    if work.is_error() {
        set_quoted_address(frame.bytes_mut(), &work.packet, translate::End::Dst, binding.public);
    }
    set_address(frame.bytes_mut(), &work.packet, translate::End::Src, binding.public);
    work.left = (binding.public, work.packet.tuple.dst);
    let port = context.tables.port(EDGE).ok_or(DropReason::NoRoute)?;
    deliver(frame, work, port, port.next_hop_mac)
}
