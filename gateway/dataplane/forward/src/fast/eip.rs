//! The straight way through an EIP node.

use tgw_wire::ethernet::{self, Mac};
use tgw_wire::{protocol, tcp, udp};

use super::bindings::{Bindings, Bound};
use super::read::{be16, inner, outer, plain};
use super::template::Template;
use super::Door;
use crate::meters::Sheet;
use crate::packet::{from_v4, is_v4};
use crate::prefetch::prefetch;
use crate::tables::{EipTables, Endpoint, Port, Tables, EDGE, FABRIC};
use crate::Frame;

const ETHERNET: usize = 14;
/// From so many bindings on their records are asked for ahead of time.
const LARGE: usize = 8192;

/// What an EIP node's tables say of ordinary packets.
#[derive(Debug)]
pub(crate) struct FastEip {
    edge: Door,
    fabric: Door,
    by_public: Bindings,
    by_private: Bindings,
    tunnel: Template,
    /// Ethernet header of what leaves by the edge's port.
    link: [u8; ETHERNET],
    /// Largest packet that port takes [bytes].
    most: u16,
    /// Whether bindings and their records are more than caches near the core hold.
    is_large: bool,
}

/// What is known of a packet on its straight way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EipLane {
    address: u32,
    at: u16,
    len: u16,
    protocol: u8,
    tos: u8,
    is_reply: bool,
}

impl FastEip {
    /// Of these tables; `None` when no packet can be ordinary under them.
    pub(super) fn of(tables: &Tables, eip: &EipTables) -> Option<Self> {
        let (edge, fabric) = (tables.port(EDGE)?, tables.port(FABRIC)?);
        // The tunnel's far end is patched in for each packet; this one stands for it.
        let to = Endpoint { address: from_v4([0, 0, 0, 0].into()), encap: tables.encap, key: None };
        let tunnel = Template::new(tables.local, &to, fabric)?;
        let narrow = || {
            eip.bindings
                .iter()
                .zip(0..)
                .filter(|(binding, _)| is_v4(binding.public) && is_v4(binding.private) && is_v4(binding.service))
        };
        let by_public = narrow().map(|(binding, place)| Bound {
            from: binding.public as u32,
            to: binding.private as u32,
            service: binding.service as u32,
            place,
        });
        let by_private = narrow().map(|(binding, place)| Bound {
            from: binding.private as u32,
            to: binding.public as u32,
            service: 0,
            place,
        });
        Some(Self {
            edge: Door::of(tables, edge),
            fabric: Door::of(tables, fabric),
            by_public: Bindings::new(by_public.collect::<Vec<_>>().into_iter()),
            by_private: Bindings::new(by_private.collect::<Vec<_>>().into_iter()),
            tunnel,
            link: link(edge)?,
            most: edge.mtu,
            is_large: eip.bindings.len() > LARGE,
        })
    }

    /// Read a frame; false when it is not ordinary. Asks for the cache line that the lookup will read.
    #[inline(always)]
    pub(crate) fn read(&self, frame: &Frame, lane: &mut EipLane, prefetch: bool) -> bool {
        let Some(read) = self.read_headers(frame) else { return false };
        *lane = read;
        if prefetch {
            let bindings = if lane.is_reply { &self.by_private } else { &self.by_public };
            bindings.prefetch(lane.address);
        }
        true
    }

    #[inline(always)]
    fn read_headers(&self, frame: &Frame) -> Option<EipLane> {
        let bytes = frame.bytes();
        let (packet, at, is_reply) = match frame.port {
            EDGE => (plain(bytes, &self.edge)?, ETHERNET, false),
            FABRIC => {
                let outer = outer(bytes, &self.fabric)?;
                (inner(bytes, outer.at, outer.end)?, outer.at, true)
            }
            _ => return None,
        };
        let (address, client) = if is_reply { (packet.src, packet.dst) } else { (packet.dst, packet.src) };
        // A probe leaves a trace.
        if self.edge.is_reserved(client) {
            return None;
        }
        Some(EipLane { address, at: at as u16, len: packet.len, protocol: packet.protocol, tos: packet.tos, is_reply })
    }

    /// Once the binding has come: ask for its record, where there are so many that it is likely far away.
    #[inline]
    pub(crate) fn look_again(&self, sheet: &Sheet, lane: &EipLane) {
        if !self.is_large {
            return;
        }
        let bindings = if lane.is_reply { &self.by_private } else { &self.by_public };
        if let Some(record) = bindings.get(lane.address).and_then(|bound| sheet.record(bound.place)) {
            prefetch(record);
        }
    }

    /// Whether the packet's address is bound.
    #[inline]
    pub(crate) fn finds(&self, lane: &EipLane) -> bool {
        let bindings = if lane.is_reply { &self.by_private } else { &self.by_public };
        bindings.get(lane.address).is_some()
    }

    /// Translate the packet and send it on. `None`, and nothing has changed, when there is more to it.
    #[inline(always)]
    pub(crate) fn run(&self, sheet: &Sheet, frame: &mut Frame, lane: &EipLane) -> Option<u16> {
        if lane.is_reply {
            let bound = self.by_private.get(lane.address)?;
            if lane.len > self.most {
                return None;
            }
            let bytes = frame.reframe(usize::from(lane.at), usize::from(lane.len), ETHERNET)?;
            let (head, packet) = bytes.split_at_mut_checked(ETHERNET)?;
            *head.first_chunk_mut()? = self.link;
            translate(packet, lane, 12, bound.to)?;
            if let Some(record) = sheet.record(bound.place) {
                record.reply(usize::from(lane.len));
            }
            return Some(EDGE);
        }
        let bound = self.by_public.get(lane.address)?;
        if !self.tunnel.fits(lane.len) {
            return None;
        }
        let tunnel = self.tunnel.to(bound.service);
        translate(tunnel.wrap(frame, usize::from(lane.at), lane.len, lane.tos)?, lane, 16, bound.to)?;
        if let Some(record) = sheet.record(bound.place) {
            record.request(usize::from(lane.len));
        }
        Some(self.tunnel.port)
    }
}

fn link(port: &Port) -> Option<[u8; ETHERNET]> {
    let mut bytes = [0; ETHERNET];
    let dst: Mac = port.next_hop_mac?;
    ethernet::Repr { dst, src: port.mac, ethertype: ethernet::IPV4 }.emit(&mut bytes).ok()?;
    Some(bytes)
}

/// One hop less, and another address at `field` of the IPv4 header, with the checksums that cover them (RFC 1624).
#[inline(always)]
fn translate(packet: &mut [u8], lane: &EipLane, field: usize, address: u32) -> Option<()> {
    let checksum_at = 20 + if lane.protocol == protocol::TCP { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT };
    let upper = be16(packet, checksum_at);
    let upper_place: &mut [u8; 2] = packet.get_mut(checksum_at..)?.first_chunk_mut()?;
    let halves = |address: u32| (address >> 16) + (address & 0xFFFF);
    let delta = (0x1_FFFE - halves(lane.address)) + halves(address);
    let follow = |checksum: u16, delta: u32| {
        let sum = u32::from(!checksum) + delta;
        let sum = (sum & 0xFFFF) + (sum >> 16);
        !((sum & 0xFFFF) + (sum >> 16)) as u16
    };
    if lane.protocol == protocol::TCP {
        *upper_place = follow(upper, delta).to_be_bytes();
    } else if upper != 0 {
        let new = follow(upper, delta);
        *upper_place = if new == 0 { 0xFFFF } else { new }.to_be_bytes();
    }
    let ip = packet.first_chunk_mut::<20>()?;
    let checksum = follow(u16::from_be_bytes([ip[10], ip[11]]), delta + 0xFEFF);
    ip[8] -= 1;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip.get_mut(field..)?.first_chunk_mut::<4>()?.copy_from_slice(&address.to_be_bytes());
    Some(())
}
