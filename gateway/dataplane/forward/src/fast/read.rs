//! Reading the headers of an ordinary packet at fixed places. `None`: it is not ordinary, the general way knows more.

use tgw_wire::{protocol, tcp};

use super::Door;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// Ethernet, IPv4 and a GRE header with a key.
const TUNNEL: usize = ETHERNET + IPV4 + 8;
/// IPv4 and the ports behind it.
const PORTS: usize = IPV4 + 8;
const GRE_IPV4: u32 = 0x0000_0800;
const GRE_KEY_IPV4: u32 = 0x2000_0800;
const DF: u16 = 0x4000;

/// The tunnel that a packet came in by.
#[derive(Clone, Copy)]
pub(super) struct Outer {
    pub(super) dst: u32,
    pub(super) key: Option<u32>,
    /// Where the packet inside begins, and where it ends at the latest.
    pub(super) at: usize,
    pub(super) end: usize,
}

/// An ordinary TCP or UDP packet.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    pub(super) src: u32,
    pub(super) dst: u32,
    /// Source port in the high half.
    pub(super) ports: u32,
    pub(super) protocol: u8,
    /// TCP flags, 0 for UDP.
    pub(super) flags: u8,
    pub(super) tos: u8,
    /// Bytes, from the IP header on, without padding.
    pub(super) len: u16,
}

#[inline(always)]
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

#[inline(always)]
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// What stands where the addresses and ports of an ordinary tunnelled packet would: nothing of it has been checked.
pub(super) struct Glance {
    pub(super) outer_dst: u32,
    pub(super) src: u32,
    pub(super) dst: u32,
    pub(super) ports: u32,
    pub(super) protocol: u8,
}

pub(super) fn glance(bytes: &[u8]) -> Option<Glance> {
    let head = bytes.first_chunk::<{ TUNNEL + PORTS }>()?;
    let keyed = head[ETHERNET + IPV4] & 0x20 != 0;
    let ip = head.get(if keyed { TUNNEL } else { TUNNEL - 4 }..)?.first_chunk::<PORTS>()?;
    let (src, dst, ports) = (be32(ip, 12), be32(ip, 16), be32(ip, 20));
    Some(Glance { outer_dst: be32(head, 30), src, dst, ports, protocol: ip[9] })
}

/// Whether an IPv4 header without options has its right checksum.
#[inline(always)]
fn is_right(ip: &[u8; IPV4]) -> bool {
    let word = |at: usize| {
        u64::from(ip.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes)))
    };
    // One's complement sums do not mind the order of bytes, and are remainders by 2^16 - 1. The header is not all zeros.
    (word(0) + word(4) + word(8) + word(12) + word(16)).is_multiple_of(0xFFFF)
}

/// Whether a frame is for this port and holds IPv4 without options.
#[inline(always)]
fn is_ours(head: &[u8; ETHERNET + IPV4], door: &Door) -> bool {
    let first = head.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    first << 16 == door.mac << 16 && be32(head, 12) >> 8 == 0x0008_0045
}

/// The IPv4 tunnel of a frame.
#[inline(always)]
pub(super) fn outer(bytes: &[u8], door: &Door) -> Option<Outer> {
    let head = bytes.first_chunk::<TUNNEL>()?;
    let ip = head.get(ETHERNET..)?.first_chunk::<IPV4>()?;
    let gre = be32(head, ETHERNET + IPV4);
    let end = ETHERNET + usize::from(be16(head, 16));
    let dst = be32(head, 30);
    let keyed = gre == GRE_KEY_IPV4;
    let ordinary = is_ours(head.first_chunk()?, door)
        && end <= bytes.len()
        && be16(head, 20) & !DF == 0
        && head[23] == protocol::GRE
        && (keyed || gre == GRE_IPV4)
        && is_right(ip)
        && !door.is_host(dst);
    ordinary.then(|| Outer {
        dst,
        key: keyed.then(|| be32(head, ETHERNET + IPV4 + 4)),
        at: ETHERNET + IPV4 + if keyed { 8 } else { 4 },
        end,
    })
}

/// The packet in a frame that is in no tunnel.
#[inline(always)]
pub(super) fn plain(bytes: &[u8], door: &Door) -> Option<Inner> {
    let head = bytes.first_chunk::<{ ETHERNET + IPV4 }>()?;
    if !is_ours(head, door) || door.is_host(be32(head, 30)) {
        return None;
    }
    inner(bytes, ETHERNET, bytes.len())
}

/// The packet that begins at `at` and ends at `end` at the latest, with a hop to spare.
#[inline(always)]
pub(super) fn inner(bytes: &[u8], at: usize, end: usize) -> Option<Inner> {
    let within = bytes.get(at..end)?;
    let ip = within.first_chunk::<PORTS>()?;
    let len = usize::from(be16(ip, 2));
    let ordinary =
        ip[0] == 0x45 && len <= within.len() && be16(ip, 6) & !DF == 0 && ip[8] > 1 && is_right(ip.first_chunk()?);
    if !ordinary {
        return None;
    }
    let protocol = ip[9];
    let flags = if protocol == protocol::TCP {
        let tcp = within.get(IPV4..)?.first_chunk::<20>()?;
        let (header, flags) = (usize::from(tcp[12] >> 4) * 4, tcp[13]);
        if header < 20 || IPV4 + header > len || !is_usual(flags) {
            return None;
        }
        flags
    } else {
        if protocol != protocol::UDP || IPV4 + usize::from(be16(ip, 24)) != len || len < PORTS {
            return None;
        }
        0
    };
    Some(Inner {
        src: be32(ip, 12),
        dst: be32(ip, 16),
        ports: be32(ip, 20),
        protocol,
        flags,
        tos: ip[1],
        len: len as u16,
    })
}

/// Flags of segments that every stack sends.
#[inline(always)]
const fn is_usual(flags: u8) -> bool {
    if flags & (tcp::SYN | tcp::RST) != 0 && flags & (tcp::PSH | tcp::URG) != 0 {
        return false;
    }
    let flags = flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN);
    matches!(flags, tcp::SYN | tcp::ACK | tcp::RST) || is_answer(flags)
}

const fn is_answer(flags: u8) -> bool {
    const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
    const FIN_ACK: u8 = tcp::FIN | tcp::ACK;
    const RST_ACK: u8 = tcp::RST | tcp::ACK;
    matches!(flags, SYN_ACK | FIN_ACK | RST_ACK)
}
