//! Changing an address of a packet in place, with every checksum that covers it.

use tgw_wire::checksum::{Delta, Sum};
use tgw_wire::{icmpv4, icmpv6, ipv4, ipv6, protocol, tcp, udp};

use crate::packet::{to_v4, to_v6, Kind, Packet};
use crate::Frame;

/// Which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Src,
    Dst,
}

/// Give the packet in `bytes` another address, of its own IP version. The transport checksum follows; a UDP checksum of
/// zero stays zero.
pub(crate) fn set_address(bytes: &mut [u8], packet: &Packet, end: End, address: u128) {
    let delta = set_ip(bytes.get_mut(packet.l3..packet.end).unwrap_or_default(), packet.version, end, address);
    let upper = bytes.get_mut(packet.l4..packet.end).unwrap_or_default();
    match (packet.kind, packet.version) {
        (Kind::Tcp, _) => tcp::Packet::new_unchecked(upper).adjust(delta),
        (Kind::Udp, _) => udp::Packet::new_unchecked(upper).adjust(delta),
        // ICMPv4 has no pseudo header.
        (Kind::Error, 6) => icmpv6::Packet::new_unchecked(upper).adjust(delta),
        _ => {}
    }
}

/// Give the packet that an ICMP error quotes another address: its checksums and the error's own follow.
pub(crate) fn set_quoted_address(bytes: &mut [u8], packet: &Packet, end: End, address: u128) {
    let quoted = &packet.quoted;
    let region = bytes.get_mut(quoted.l3..packet.end).unwrap_or_default();
    let before = checksum(region, packet.version);
    let moved = set_ip(region, packet.version, end, address);
    let after = checksum(region, packet.version);
    let mut delta = moved.replace_word(before, after);
    if let Some(upper) = bytes.get_mut(quoted.l4..packet.end) {
        let (at, is_tcp) =
            if quoted.tuple.protocol == protocol::TCP { (tcp::CHECKSUM_AT, true) } else { (udp::CHECKSUM_AT, false) };
        let field = |upper: &[u8]| upper.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        if let Some(old) = field(upper) {
            if is_tcp {
                tcp::Packet::new_unchecked(&mut *upper).adjust(moved);
            } else {
                udp::Packet::new_unchecked(&mut *upper).adjust(moved);
            }
            delta = delta.replace_word(old, field(upper).unwrap_or(old));
        }
    }
    let message = bytes.get_mut(packet.l4..packet.end).unwrap_or_default();
    if packet.version == 4 {
        icmpv4::Packet::new_unchecked(message).adjust(delta);
    } else {
        icmpv6::Packet::new_unchecked(message).adjust(delta);
    }
}

/// Open a gap of `count` bytes (an even number) at `at` in the packet, behind its transport header's fixed part: what is in
/// front moves. Returns what changed in the pseudo header; `None`, and nothing changes, without the headroom.
pub(crate) fn open_gap(frame: &mut Frame, packet: &mut Packet, at: usize, count: usize) -> Option<Delta> {
    frame.prepend(count)?;
    let bytes = frame.bytes_mut();
    if at + count <= bytes.len() && packet.l3 <= at {
        bytes.copy_within(packet.l3 + count..at + count, packet.l3);
    }
    let end = packet.end + count;
    Some(set_end(bytes, packet, end))
}

/// Cut the packet off at `end`, an even number of bytes behind its transport header's beginning. Returns what changed.
pub(crate) fn cut(frame: &mut Frame, packet: &mut Packet, end: usize) -> Delta {
    let bytes = frame.bytes_mut();
    let gone = !Sum::new().bytes(bytes.get(end..packet.end).unwrap_or_default()).folded();
    set_end(bytes, packet, end).replace(&[], &gone.to_be_bytes())
}

/// Let the packet end elsewhere. Returns what changed in the pseudo header.
fn set_end(bytes: &mut [u8], packet: &mut Packet, end: usize) -> Delta {
    let (before, after) = (packet.end - packet.l4, end.saturating_sub(packet.l4));
    packet.end = end;
    let length = packet.len();
    let ip = bytes.get_mut(packet.l3..).unwrap_or_default();
    if packet.version == 4 {
        ipv4::Packet::new_unchecked(ip).set_total_len(length as u16);
    } else {
        ipv6::Packet::new_unchecked(ip).set_payload_len(length.saturating_sub(ipv6::HEADER_LEN) as u16);
    }
    Delta::new().replace_word(before as u16, after as u16)
}

fn set_ip(bytes: &mut [u8], version: u8, end: End, address: u128) -> Delta {
    if version == 4 {
        let mut ip = ipv4::Packet::new_unchecked(bytes);
        match end {
            End::Src => ip.set_src(to_v4(address)),
            End::Dst => ip.set_dst(to_v4(address)),
        }
    } else {
        let mut ip = ipv6::Packet::new_unchecked(bytes);
        match end {
            End::Src => ip.set_src(to_v6(address)),
            End::Dst => ip.set_dst(to_v6(address)),
        }
    }
}

/// The header checksum; IPv6 has none, which then never changes.
fn checksum(bytes: &[u8], version: u8) -> u16 {
    if version == 4 {
        ipv4::Packet::new_unchecked(bytes).checksum()
    } else {
        0
    }
}
