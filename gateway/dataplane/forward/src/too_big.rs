//! Packets too big for the port that they must leave by: their senders are told what fits (RFC 1191, RFC 8201).
//!
//! The answer is built in the frame of the packet that died, and goes back the way that packet came. It speaks for the
//! packet's destination, an address that its sender knows and that every hop on the way back translates.

use tgw_contract::DropReason;
use tgw_wire::checksum::Sum;
use tgw_wire::ethernet::Mac;
use tgw_wire::{icmpv4, icmpv6, ipv4, ipv6, protocol};

use crate::hash::Tuple;
use crate::limits::TokenBucket;
use crate::packet::{is_v4, to_v4, to_v6, Kind, Packet, Part};
use crate::runner::{Context, End};
use crate::tables::{Endpoint, Port};
use crate::tunnel::{deliver, wrap};
use crate::work::{is_local_matter, Work};
use crate::{Frame, Nanos};

const TTL: u8 = 64;
/// Bytes of an answer at most, so that it fits through a tunnel wherever the smallest MTU of the protocol does
/// (RFC 1812: 576; RFC 4443: 1280).
const LARGEST_V4: usize = 500;
const LARGEST_V6: usize = 1200;

/// Where the packet came from.
#[derive(Clone, Copy)]
pub(crate) enum Back<'a> {
    Tunnel(Endpoint),
    Port(&'a Port, Option<Mac>),
}

/// Answers, not too many.
pub(crate) struct Answers {
    bucket: TokenBucket,
    now: Nanos,
}

impl Default for Answers {
    fn default() -> Self {
        // So many answers a second.
        Self { bucket: TokenBucket::new(1000, 0), now: 0 }
    }
}

impl Answers {
    pub(crate) fn advance(&mut self, now: Nanos) {
        self.now = now;
    }

    /// How the packet ends, which is larger than `room` [bytes].
    pub(crate) fn too_big(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut Frame,
        work: &Work,
        room: usize,
        back: Back<'_>,
    ) -> End {
        let reason = DropReason::MtuExceeded;
        if !may_answer(frame.bytes(), &work.packet) || !self.bucket.take(self.now) {
            return reason.into();
        }
        let Some(packet) = build(frame, &work.packet, room) else { return reason.into() };
        let mut answer = Work { packet, ..*work };
        let sent = match back {
            Back::Tunnel(to) => wrap(context, frame, &mut answer, &to),
            Back::Port(port, mac) => deliver(frame, &answer, port, mac),
        };
        match sent {
            Ok(port) => End::Answer { port, reason },
            Err(_) => reason.into(),
        }
    }
}

/// Whether a packet's sender is to be told: it forbade fragments, it is one host, and this is no error message and no
/// later fragment (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
fn may_answer(bytes: &[u8], packet: &Packet) -> bool {
    let from = bytes.get(packet.l3..).unwrap_or_default();
    let forbidden = packet.version == 6 || ipv4::Packet::new_unchecked(from).dont_fragment();
    let is_host = match packet.tuple.src {
        src if is_local_matter(src) => false,
        src if is_v4(src) => !to_v4(src).is_loopback() && to_v4(src).octets()[0] != 0,
        src => src > 1, // neither :: nor ::1
    };
    forbidden && is_host && packet.part != Part::Later && matches!(packet.kind, Kind::Tcp | Kind::Udp)
}

/// Make the frame hold the answer about the packet in it, and nothing else.
fn build(frame: &mut Frame, packet: &Packet, room: usize) -> Option<Packet> {
    let (ip_len, largest) =
        if packet.version == 4 { (ipv4::HEADER_LEN, LARGEST_V4) } else { (ipv6::HEADER_LEN, LARGEST_V6) };
    let quoted = packet.len().min(largest - ip_len - icmpv4::HEADER_LEN);
    frame.set_len(packet.end);
    frame.trim_front(packet.l3);
    frame.set_len(quoted);
    frame.prepend(ip_len + icmpv4::HEADER_LEN)?;
    let payload_len = icmpv4::HEADER_LEN + quoted;
    let (network, message) = frame.bytes_mut().split_at_mut_checked(ip_len)?;
    let (src, dst) = (packet.tuple.dst, packet.tuple.src);
    let protocol = if packet.version == 4 {
        let (src, dst) = (to_v4(src), to_v4(dst));
        ipv4::Repr { src, dst, protocol: protocol::ICMPV4, ttl: TTL, tos: 0, payload_len }.emit(network).ok()?;
        let mtu = u32::try_from(room.min(usize::from(u16::MAX))).ok()?;
        icmpv4::Repr { kind: icmpv4::UNREACHABLE, code: icmpv4::TOO_BIG, rest: mtu }.emit(message).ok()?;
        icmpv4::Packet::new_unchecked(message).fill_checksum();
        protocol::ICMPV4
    } else {
        let (src, dst) = (to_v6(src), to_v6(dst));
        let protocol = protocol::ICMPV6;
        let repr = ipv6::Repr { src, dst, protocol, hop_limit: TTL, traffic_class: 0, flow_label: 0, payload_len };
        repr.emit(network).ok()?;
        let rest = u32::try_from(room).ok()?;
        icmpv6::Repr { kind: icmpv6::TOO_BIG, code: 0, rest }.emit(message).ok()?;
        icmpv6::Packet::new_unchecked(message).fill_checksum(Sum::pseudo_v6(src, dst, protocol, payload_len));
        protocol
    };
    Some(Packet {
        kind: Kind::Error,
        version: packet.version,
        ttl: TTL,
        l4: ip_len,
        end: ip_len + payload_len,
        tuple: Tuple { src, dst, protocol, src_port: 0, dst_port: 0 },
        ..Packet::default()
    })
}
