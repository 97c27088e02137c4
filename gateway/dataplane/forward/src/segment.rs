//! TCP segments of the node's own making, through a tunnel.

use tgw_contract::DropReason;
use tgw_wire::checksum::Sum;
use tgw_wire::{ipv4, ipv6, protocol, tcp};

use crate::hash::Tuple;
use crate::packet::{is_v4, to_v4, to_v6};
use crate::runner::Context;
use crate::tables::Endpoint;
use crate::tunnel::wrap;
use crate::work::Work;
use crate::Frame;

/// Hops that a segment may take once it is out of its tunnel.
const TTL: u8 = 64;
const WINDOW: u16 = 65_535;

/// A segment without data or options. Addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) src: (u128, u16),
    pub(crate) dst: (u128, u16),
    pub(crate) seq: u32,
    pub(crate) flags: u8,
}

/// Put the segment into the frame, whatever it held, wrapped for the tunnel to `to`: the port that it is to leave by.
pub(crate) fn build(
    context: &mut Context<'_>,
    frame: &mut Frame,
    segment: &Segment,
    to: &Endpoint,
) -> Result<u16, DropReason> {
    let mut work = Work::default();
    write(frame, &mut work, segment).map_err(|_| DropReason::TunnelEncapFail)?;
    wrap(context, frame, &mut work, to)
}

fn write(frame: &mut Frame, work: &mut Work, segment: &Segment) -> tgw_wire::Result<()> {
    let (src, dst) = (segment.src.0, segment.dst.0);
    let (version, l4) = if is_v4(dst) { (4, ipv4::HEADER_LEN) } else { (6, ipv6::HEADER_LEN) };
    let end = l4 + tcp::HEADER_LEN;
    let buffer = frame.writable_tail().get_mut(..end).ok_or(tgw_wire::Error::Truncated)?;
    let (network, transport) = buffer.split_at_mut_checked(l4).ok_or(tgw_wire::Error::Truncated)?;
    let sum = if version == 4 {
        let (src, dst) = (to_v4(src), to_v4(dst));
        let repr = ipv4::Repr { src, dst, protocol: protocol::TCP, ttl: TTL, tos: 0, payload_len: tcp::HEADER_LEN };
        repr.emit(network)?;
        Sum::pseudo_v4(src, dst, protocol::TCP, tcp::HEADER_LEN)
    } else {
        let (src, dst) = (to_v6(src), to_v6(dst));
        let repr = ipv6::Repr {
            src,
            dst,
            protocol: protocol::TCP,
            hop_limit: TTL,
            traffic_class: 0,
            flow_label: 0,
            payload_len: tcp::HEADER_LEN,
        };
        repr.emit(network)?;
        Sum::pseudo_v6(src, dst, protocol::TCP, tcp::HEADER_LEN)
    };
    let (src_port, dst_port) = (segment.src.1, segment.dst.1);
    let repr = tcp::Repr { src_port, dst_port, seq: segment.seq, ack: 0, flags: segment.flags, window: WINDOW };
    repr.emit(transport)?;
    let checksum = sum.bytes(transport).checksum();
    if let Some(place) = transport.get_mut(tcp::CHECKSUM_AT..).and_then(|tail| tail.first_chunk_mut()) {
        *place = checksum.to_be_bytes();
    }
    frame.set_len(end);
    work.packet.version = version;
    (work.packet.l3, work.packet.l4, work.packet.end) = (0, l4, end);
    work.packet.tuple = Tuple { src, dst, src_port, dst_port, protocol: protocol::TCP };
    Ok(())
}
