//! The headers of a tunnel, written once: what differs from packet to packet is patched in.

use tgw_wire::checksum::Sum;
use tgw_wire::ethernet;
use tgw_wire::{gre, ipv4, protocol};

use super::read::be32;
use crate::packet::{is_v4, to_v4};
use crate::tables::{Encap, Endpoint, Port};
use crate::tunnel::OUTER_TTL;
use crate::Frame;

/// Ethernet, IPv4, and GRE with a key or without.
const LONG: usize = 14 + 20 + 8;
const SHORT: usize = 14 + 20 + 4;

/// Ready-made headers of one tunnel: GRE over IPv4.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Template {
    bytes: [u8; LONG],
    /// Sum of the IPv4 header with no length and no TOS.
    sum: u16,
    /// Largest inner packet that its port takes [bytes].
    most: u16,
    pub(super) port: u16,
    keyed: bool,
    /// Whether more than one listener has this real server.
    pub(super) shared: bool,
    /// The real server that the tunnel leads to, and the place of a listener that has it; 0: none.
    pub(super) server_id: u32,
    pub(super) listener: u32,
    /// Where their traffic is counted.
    pub(super) record: u32,
}

const _: () = assert!(size_of::<Template>() == 64);

impl Template {
    /// No tunnel at all.
    pub(super) const NONE: Self = Self {
        bytes: [0; LONG],
        sum: 0,
        most: 0,
        port: 0,
        keyed: false,
        shared: false,
        server_id: 0,
        listener: 0,
        record: 0,
    };

    /// The headers of a tunnel from `local` to an end point, out of `port`. `None` when it is no such tunnel, or the port's
    /// next hop is not known.
    pub(super) fn new(local: u128, to: &Endpoint, port: &Port) -> Option<Self> {
        if to.encap != Encap::Gre || !is_v4(local) || !is_v4(to.address) {
            return None;
        }
        let mut made = Self { port: port.index, keyed: to.key.is_some(), ..Self::NONE };
        let (link, rest) = made.bytes.split_at_mut(14);
        let (network, tunnel) = rest.split_at_mut(20);
        ethernet::Repr { dst: port.next_hop_mac?, src: port.mac, ethertype: ethernet::IPV4 }.emit(link).ok()?;
        let (src, dst) = (to_v4(local), to_v4(to.address));
        ipv4::Repr { src, dst, protocol: protocol::GRE, ttl: OUTER_TTL, tos: 0, payload_len: 0 }.emit(network).ok()?;
        gre::Repr { protocol: ethernet::IPV4, key: to.key }.emit(tunnel).ok()?;
        network[2..4].fill(0);
        network[10..12].fill(0);
        made.sum = Sum::new().bytes(network).folded();
        made.most = port.mtu.saturating_sub((made.len() - 14) as u16);
        Some(made)
    }

    /// The same for a real server, which a listener has.
    pub(super) const fn of_server(self, server_id: u32, listener: u32, record: u32) -> Self {
        Self { server_id, listener, record, ..self }
    }

    /// The same towards another end point.
    #[inline]
    pub(super) fn to(mut self, dst: u32) -> Self {
        let old = be32(&self.bytes, 30);
        let halves = |address: u32| u32::from((address >> 16) as u16) + u32::from(address as u16);
        let sum = u32::from(self.sum) + (0x1_FFFE - halves(old)) + halves(dst);
        let sum = (sum & 0xFFFF) + (sum >> 16);
        self.sum = ((sum & 0xFFFF) + (sum >> 16)) as u16;
        self.bytes[30..34].copy_from_slice(&dst.to_be_bytes());
        self
    }

    /// The key that names the real server; 0 without.
    #[inline]
    pub(super) fn key(&self) -> u32 {
        be32(&self.bytes, SHORT)
    }

    const fn len(&self) -> usize {
        if self.keyed {
            LONG
        } else {
            SHORT
        }
    }

    /// Whether an inner packet of `len` bytes fits.
    #[inline]
    pub(super) fn fits(&self, len: u16) -> bool {
        len <= self.most
    }

    /// Cut the frame down to the `len` bytes from `at` on, an IPv4 packet with a hop to spare, and put the headers in front.
    /// The packet, for what else is to be done to it. `None`, and nothing has changed, without room for the headers.
    #[inline(always)]
    pub(super) fn wrap<'a>(&self, frame: &'a mut Frame, at: usize, len: u16, tos: u8) -> Option<&'a mut [u8]> {
        let headers = self.len();
        let bytes = frame.reframe(at, usize::from(len), headers)?;
        let total = (headers - 14) as u16 + len;
        let sum = u32::from(self.sum) + u32::from(total) + u32::from(tos);
        let sum = (sum & 0xFFFF) + (sum >> 16);
        let checksum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
        if self.keyed {
            bytes.first_chunk_mut::<LONG>()?.copy_from_slice(&self.bytes);
        } else {
            bytes.first_chunk_mut::<SHORT>()?.copy_from_slice(self.bytes.first_chunk::<SHORT>()?);
        }
        let (head, packet) = bytes.split_at_mut_checked(headers)?;
        let head = head.first_chunk_mut::<SHORT>()?;
        head[15] = tos;
        head[16..18].copy_from_slice(&total.to_be_bytes());
        head[24..26].copy_from_slice(&checksum.to_be_bytes());
        Some(packet)
    }
}
