//! TCP segments that an LD writes itself, and sequence numbers that it changes in place.

use tgw_wire::checksum::{Delta, Sum};
use tgw_wire::ethernet::{self, Mac};
use tgw_wire::{icmpv4, icmpv6, ipv4, ipv6, protocol, tcp};

use crate::cookie::Offer;
use crate::hash::Tuple;
use crate::packet::{is_v4, to_v4, to_v6, Packet};
use crate::work::Work;
use crate::Frame;

/// Hops that a segment of our own may take.
const TTL: u8 = 64;
/// Addresses of the Ethernet header that a tunnel's replaces.
const NOBODY: Mac = Mac([0x02, 0x74, 0x67, 0x77, 0, 1]);

/// Where the two numbers stand in a segment.
const SEQ: usize = 4;
const ACK: usize = 8;
const DATA_OFFSET: usize = 12;
const WINDOW: usize = 14;

/// Kinds of options.
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const LONGEST_OPTIONS: usize = 40;

/// A segment without a payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// From whom to whom.
    pub(crate) flow: Tuple,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// The options of a SYN.
    pub(crate) offer: Option<Offer>,
}

impl Segment {
    /// Write it into the frame, in place of what is there, ready to be wrapped. `None` when it does not fit.
    pub(crate) fn write(&self, frame: &mut Frame) -> Option<Work> {
        let Tuple { src, dst, src_port, dst_port, .. } = self.flow;
        let is_v4 = is_v4(src);
        let ip_len = if is_v4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let options_len = match self.offer {
            Some(Offer { sack: true, .. }) => 8,
            Some(_) => 4,
            None => 0,
        };
        let payload_len = tcp::HEADER_LEN + options_len;
        let ethertype = if is_v4 { ethernet::IPV4 } else { ethernet::IPV6 };
        frame.writable_tail();
        frame.set_len(ethernet::HEADER_LEN + ip_len + payload_len);
        let (link, rest) = frame.bytes_mut().split_at_mut_checked(ethernet::HEADER_LEN)?;
        let (network, segment) = rest.split_at_mut_checked(ip_len)?;
        if segment.len() != payload_len {
            return None;
        }
        ethernet::Repr { dst: NOBODY, src: NOBODY, ethertype }.emit(link).ok()?;
        let (flags, window) = (self.flags, self.window);
        tcp::Repr { src_port, dst_port, seq: self.seq, ack: self.ack, flags, window }.emit(segment).ok()?;
        if let (Some(offer), Some(options)) = (self.offer, segment.get_mut(tcp::HEADER_LEN..)) {
            let [high, low] = offer.mss.to_be_bytes();
            let all = [MSS, 4, high, low, NOP, NOP, SACK_PERMITTED, 2];
            options.copy_from_slice(all.get(..options_len)?);
        }
        *segment.get_mut(DATA_OFFSET)? = (payload_len as u8 / 4) << 4;
        let protocol = protocol::TCP;
        let sum = if is_v4 {
            let (src, dst) = (to_v4(src), to_v4(dst));
            ipv4::Repr { src, dst, protocol, ttl: TTL, tos: 0, payload_len }.emit(network).ok()?;
            Sum::pseudo_v4(src, dst, protocol, payload_len)
        } else {
            let (src, dst) = (to_v6(src), to_v6(dst));
            let repr = ipv6::Repr { src, dst, protocol, hop_limit: TTL, traffic_class: 0, flow_label: 0, payload_len };
            repr.emit(network).ok()?;
            Sum::pseudo_v6(src, dst, protocol, payload_len)
        };
        let checksum = sum.bytes(segment).checksum();
        segment.get_mut(tcp::CHECKSUM_AT..tcp::CHECKSUM_AT + 2)?.copy_from_slice(&checksum.to_be_bytes());
        let mut work = Work::default();
        work.admit_plain(frame).ok()?;
        Some(work)
    }
}

/// The window of a segment in `bytes`.
pub(crate) fn window(bytes: &[u8], packet: &Packet) -> u16 {
    let at = packet.l4 + WINDOW;
    bytes.get(at..at + 2).and_then(|pair| pair.first_chunk()).map_or(0, |pair| u16::from_be_bytes(*pair))
}

/// What the options of a SYN in `bytes` say.
pub(crate) fn offer(bytes: &[u8], packet: &Packet) -> Offer {
    // What a SYN without the option means: RFC 9293, section 3.7.1.
    let mut offer = Offer { mss: if packet.version == 4 { 536 } else { 1220 }, sack: false };
    let range = options(bytes, packet);
    each_option(bytes.get(range).unwrap_or_default(), |kind, _, value| match (kind, value) {
        (MSS, [high, low]) => offer.mss = u16::from_be_bytes([*high, *low]),
        (SACK_PERMITTED, []) => offer.sack = true,
        _ => {}
    });
    offer
}

/// Add to the sequence number of the segment in `bytes`.
pub(crate) fn shift_seq(bytes: &mut [u8], packet: &Packet, by: u32) {
    let segment = bytes.get_mut(packet.l4..packet.end).unwrap_or_default();
    let delta = shift(segment, SEQ, by, Delta::new());
    tcp::Packet::new_unchecked(segment).adjust(delta);
}

/// Add to what the segment in `bytes` acknowledges, selectively too.
pub(crate) fn shift_ack(bytes: &mut [u8], packet: &Packet, by: u32) {
    if packet.tcp_flags & tcp::ACK == 0 {
        return;
    }
    let range = options(bytes, packet);
    let mut delta = Delta::new();
    if let Some(options) = bytes.get_mut(range) {
        // Blocks may stand at odd places; the options as a whole do not.
        let mut old = [0; LONGEST_OPTIONS];
        if let Some(old) = old.get_mut(..options.len()) {
            old.copy_from_slice(options);
            let mut is_changed = false;
            each_option(old, |kind, at, value| {
                if kind != SACK {
                    return;
                }
                for edge in 0..value.len() / 4 {
                    shift(options, at + 4 * edge, by, Delta::new());
                    is_changed = true;
                }
            });
            if is_changed {
                delta = delta.replace(old, options);
            }
        }
    }
    let segment = bytes.get_mut(packet.l4..packet.end).unwrap_or_default();
    let delta = shift(segment, ACK, by, delta);
    tcp::Packet::new_unchecked(segment).adjust(delta);
}

/// Add to the sequence number of the segment that the ICMP error in `bytes` quotes.
pub(crate) fn shift_quoted_seq(bytes: &mut [u8], packet: &Packet, by: u32) {
    let quoted = bytes.get_mut(packet.quoted.l4..packet.end).unwrap_or_default();
    let delta = shift(quoted, SEQ, by, Delta::new());
    let message = bytes.get_mut(packet.l4..packet.end).unwrap_or_default();
    if packet.version == 4 {
        icmpv4::Packet::new_unchecked(message).adjust(delta);
    } else {
        icmpv6::Packet::new_unchecked(message).adjust(delta);
    }
}

/// Where the options are: nowhere when the header is not all there.
fn options(bytes: &[u8], packet: &Packet) -> std::ops::Range<usize> {
    let header = tcp::Packet::new_unchecked(bytes.get(packet.l4..packet.end).unwrap_or_default()).header_len();
    let end = packet.l4 + header.max(tcp::HEADER_LEN);
    packet.l4 + tcp::HEADER_LEN..if end <= packet.end { end } else { packet.l4 + tcp::HEADER_LEN }
}

/// Each option's kind, the place of its value, and the value; up to the first that is wrong.
fn each_option(options: &[u8], mut told: impl FnMut(u8, usize, &[u8])) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            END => return,
            NOP => at += 1,
            _ => {
                let length = options.get(at + 1).map_or(0, |length| usize::from(*length));
                let Some(value) = options.get(at..at + length).and_then(|option| option.get(2..)) else { return };
                told(kind, at + 2, value);
                at += length;
            }
        }
    }
}

/// Add to the number at a place, if it is all there. Returns the change, on top of `delta`.
fn shift(bytes: &mut [u8], at: usize, by: u32, delta: Delta) -> Delta {
    let Some(field) = bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut::<4>()) else { return delta };
    let old = *field;
    *field = u32::from_be_bytes(old).wrapping_add(by).to_be_bytes();
    delta.replace(&old, field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(version: u8, options: &[u8], payload: &[u8]) -> (Frame, Packet) {
        let (src, dst) = if version == 4 { (0xFFFF_0A00_0001, 0xFFFF_0A00_0002) } else { (1 << 100, 2 << 100) };
        let flow = Tuple { src, dst, src_port: 4000, dst_port: 80, protocol: 6 };
        let mut frame = Frame::default();
        let bare = Segment { flow, seq: 7, ack: 9, flags: tcp::ACK, window: 512, offer: None };
        let work = bare.write(&mut frame).unwrap();
        let (l3, l4) = (work.packet.l3, work.packet.l4);
        let mut bytes = frame.bytes().to_vec();
        bytes.extend_from_slice(options);
        bytes.resize(l4 + 20 + options.len().div_ceil(4) * 4, END);
        bytes[l4 + DATA_OFFSET] = ((bytes.len() - l4) as u8 / 4) << 4;
        bytes.extend_from_slice(payload);
        let length = (bytes.len() - l3) as u16;
        if version == 4 {
            bytes[l3 + 2..l3 + 4].copy_from_slice(&length.to_be_bytes());
            bytes[l3 + 10..l3 + 12].fill(0);
            let checksum = Sum::new().bytes(&bytes[l3..l4]).checksum();
            bytes[l3 + 10..l3 + 12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            bytes[l3 + 4..l3 + 6].copy_from_slice(&(length - 40).to_be_bytes());
        }
        bytes[l4 + 16..l4 + 18].fill(0);
        let checksum = sum(&bytes, src, dst, l4).checksum();
        bytes[l4 + 16..l4 + 18].copy_from_slice(&checksum.to_be_bytes());
        assert!(frame.load(0, 0, &bytes));
        let mut work = Work::default();
        work.admit_plain(&frame).unwrap();
        (frame, work.packet)
    }

    fn sum(bytes: &[u8], src: u128, dst: u128, l4: usize) -> Sum {
        let segment = &bytes[l4..];
        let pseudo = if is_v4(src) {
            Sum::pseudo_v4(to_v4(src), to_v4(dst), protocol::TCP, segment.len())
        } else {
            Sum::pseudo_v6(to_v6(src), to_v6(dst), protocol::TCP, segment.len())
        };
        pseudo.bytes(segment)
    }

    fn is_right(frame: &Frame, packet: &Packet) -> bool {
        sum(frame.bytes(), packet.tuple.src, packet.tuple.dst, packet.l4).is_right()
    }

    #[test]
    fn what_is_written_is_read() {
        for (version, sack) in [(4, false), (4, true), (6, false), (6, true)] {
            let (mut frame, plain) = segment(version, &[], b"");
            let sent = Segment {
                flow: plain.tuple,
                seq: 5,
                ack: 6,
                flags: tcp::SYN | tcp::ACK,
                window: 77,
                offer: Some(Offer { mss: 1300, sack }),
            };
            let packet = sent.write(&mut frame).unwrap().packet;
            assert!(is_right(&frame, &packet));
            assert_eq!((packet.tuple, packet.seq, packet.ack), (plain.tuple, 5, 6));
            assert_eq!(offer(frame.bytes(), &packet), Offer { mss: 1300, sack });
            assert_eq!(window(frame.bytes(), &packet), 77);
        }
        let flow = Tuple { src: 1 << 100, dst: 2 << 100, ..Tuple::default() };
        let bare = Segment { flow, seq: 0, ack: 0, flags: tcp::ACK, window: 0, offer: None };
        assert!(bare.write(&mut Frame::with_capacity(0)).is_none());
    }

    #[test]
    fn a_syn_without_options_means_the_least() {
        for (version, mss) in [(4, 536), (6, 1220)] {
            let (frame, packet) = segment(version, &[], b"");
            assert_eq!(offer(frame.bytes(), &packet), Offer { mss, sack: false });
            let (frame, packet) = segment(version, &[NOP, SACK_PERMITTED, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], b"");
            assert_eq!(offer(frame.bytes(), &packet), Offer { mss, sack: true });
        }
    }

    proptest! {
        /// Blocks at odd places and options that lie about their length: what is a block moves, nothing else does, and the
        /// checksum stays right.
        #[test]
        fn numbers_move_and_the_checksum_follows(
            version in prop_oneof![Just(4u8), Just(6)],
            nops in 0usize..6,
            edges in prop::collection::vec(any::<u32>(), 0..7),
            tail in prop::collection::vec(any::<u8>(), 0..4),
            payload in prop::collection::vec(any::<u8>(), 0..30),
            by in any::<u32>(),
        ) {
            let mut options = vec![NOP; nops];
            options.extend([SACK, 2 + 4 * edges.len() as u8]);
            options.extend(edges.iter().flat_map(|edge| edge.to_be_bytes()));
            options.extend(&tail);
            let (mut frame, packet) = segment(version, &options, &payload);
            prop_assert!(is_right(&frame, &packet));
            let before = frame.bytes().to_vec();
            shift_ack(frame.bytes_mut(), &packet, by);
            prop_assert!(is_right(&frame, &packet));
            shift_seq(frame.bytes_mut(), &packet, by ^ 0xFFFF);
            prop_assert!(is_right(&frame, &packet));
            let mut expected = before.clone();
            let mut add = |at: usize, by: u32| {
                let old = u32::from_be_bytes(expected[at..at + 4].try_into().unwrap());
                expected[at..at + 4].copy_from_slice(&old.wrapping_add(by).to_be_bytes());
            };
            add(packet.l4 + SEQ, by ^ 0xFFFF);
            add(packet.l4 + ACK, by);
            for edge in 0..edges.len() {
                add(packet.l4 + 20 + nops + 2 + 4 * edge, by);
            }
            let at = packet.l4 + tcp::CHECKSUM_AT;
            expected[at..at + 2].copy_from_slice(&frame.bytes()[at..at + 2]);
            // Random bytes behind them may be one more such option.
            if !tail.contains(&SACK) {
                prop_assert_eq!(frame.bytes(), &expected[..]);
            }
        }

        #[test]
        fn any_options_at_all(options in prop::collection::vec(any::<u8>(), 0..40), by in any::<u32>()) {
            let (mut frame, packet) = segment(4, &options, b"xyz");
            let _ = offer(frame.bytes(), &packet);
            shift_ack(frame.bytes_mut(), &packet, by);
            prop_assert!(is_right(&frame, &packet));
        }
    }
}
