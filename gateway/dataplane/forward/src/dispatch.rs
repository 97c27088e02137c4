//! Which worker a frame belongs to.

use std::ops::Range;
use std::sync::Arc;

use tgw_contract::Role;
use tgw_wire::{ethernet, protocol, vxlan};

use crate::fragments::{name_of, Fragments};
use crate::hash::{mix, Tuple};
use crate::packet::{is_v4, Kind, Packet, Part};
use crate::quic::{self, Route};
use crate::tables::{ClbTables, Dispatch, Listener, Section, Tables};
use crate::work::{is_local_matter, Work};
use crate::Frame;

/// Chooses the worker of a frame: requests and replies of one connection, and ICMP errors about it, go to the same one. How,
/// each listener says:
///
/// - `tuple`: by addresses, ports and protocol.
/// - `ip_pair`: by the two addresses, so that all connections of a client to a VIP meet.
/// - `quic`: requests by the real server that the connection id names, or, while a client has none, by the id that it made
///   up: they stay with their worker when the client's address or port changes. Replies carry another id; they, and what has
///   no id to go by, go by the tuple, and the worker that gets them needs no state (see `Clb::reply`).
///
/// The fragments of a packet go where its first one went: its choice is remembered for the later ones.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    tables: Option<Arc<Tables>>,
    fragments: Fragments,
}

impl Default for Dispatcher {
    fn default() -> Self {
        Self { tables: None, fragments: Fragments::new(SEED) }
    }
}

/// Nobody can aim at a worker who does not know the number of workers; more is not needed, a worker's table has its own seed.
const SEED: u64 = 0x7467_7720_7370_7264;
/// Where the first IP header is.
const L3: usize = ethernet::HEADER_LEN;
const GRE_KEY: u16 = 0x2000;

/// What of a frame decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The packet's own, or (of an ICMP error) the quoted packet's.
    tuple: Tuple,
    /// Source and destination of an ICMP error itself.
    error: Option<(u128, u128)>,
    /// Where the tunnel ends, 0 without.
    outer_dst: u128,
    /// Where the payload of a datagram stands.
    payload: Range<usize>,
    /// Of a fragment: which part it is, and the packet's name.
    fragment: Option<(Part, Tuple)>,
}

impl Dispatcher {
    /// Dispatch as the listeners of these tables want it; without tables everything goes by the tuple.
    pub fn set_tables(&mut self, tables: Arc<Tables>) {
        self.tables = Some(tables);
    }

    /// The worker, from 0 to `workers - 1`; 0 for what cannot be read. The connection inside a tunnel counts, where there
    /// is one. A frame that its worker will refuse may go to any.
    pub fn classify(&mut self, frame: &Frame, workers: usize) -> usize {
        if workers <= 1 {
            return 0;
        }
        let bytes = frame.bytes();
        let Some(seen) = quick(bytes).or_else(|| general(frame)) else { return 0 };
        let hash = match seen.fragment {
            None => self.hash(&seen, bytes),
            Some((Part::Later, name)) => {
                self.fragments.advance(frame.rx_ns);
                // One that comes before its first will be dropped, by whomever.
                self.fragments.find_name(name).unwrap_or_else(|| seen.tuple.symmetric(SEED))
            }
            Some((_, name)) => {
                self.fragments.advance(frame.rx_ns);
                let hash = self.hash(&seen, bytes);
                self.fragments.remember_name(name, hash);
                hash
            }
        };
        (((hash >> 32) * workers as u64) >> 32) as usize
    }

    /// The hash that a packet with ports goes by.
    fn hash(&self, seen: &Seen, bytes: &[u8]) -> u64 {
        let steering = self.tables.as_deref().and_then(|tables| match &tables.section {
            Section::Clb(clb) if clb.steers => steer(tables, clb, seen, bytes),
            _ => None,
        });
        steering.unwrap_or_else(|| seen.tuple.symmetric(SEED))
    }
}

/// The hash of a frame whose listener does not go by the tuple.
fn steer(tables: &Tables, clb: &ClbTables, seen: &Seen, bytes: &[u8]) -> Option<u64> {
    let (listener, is_request) = listener_of(tables, clb, seen)?;
    match listener.dispatch {
        Dispatch::Tuple => None,
        Dispatch::IpPair => {
            let Tuple { src, dst, .. } = seen.tuple;
            Some(Tuple { src, dst, ..Tuple::default() }.symmetric(SEED))
        }
        Dispatch::Quic(server_id) if is_request && seen.error.is_none() => {
            match quic::route(listener, server_id, bytes.get(seen.payload.clone()).unwrap_or_default()) {
                Ok(Route::Server { place, .. }) => Some(mix(SEED ^ u64::from(listener.backends.get(place)?.id))),
                Ok(Route::Client(id)) => Some(quic::hash(id, SEED)),
                Ok(Route::Unknown) | Err(_) => None,
            }
        }
        Dispatch::Quic(_) => None,
    }
}

/// The listener that a packet is to or from, as [`Work`] finds it, and whether it is to.
fn listener_of<'a>(tables: &Tables, clb: &'a ClbTables, seen: &Seen) -> Option<(&'a Listener, bool)> {
    let Tuple { src, dst, src_port, dst_port, protocol } = seen.tuple;
    let (from, to) = seen.error.unwrap_or((src, dst));
    // A quoted packet went the other way.
    let (request_port, reply_port) = if seen.error.is_some() { (src_port, dst_port) } else { (dst_port, src_port) };
    let request = || clb.vip(to).map(|vip| (vip, request_port, true));
    let reply = || clb.vip(from).map(|vip| (vip, reply_port, false));
    let is_out = seen.outer_dst == tables.local;
    let (vip, port, is_request) = if is_out { reply().or_else(request) } else { request().or_else(reply) }?;
    Some((clb.listener(vip, protocol, port)?, is_request))
}

/// Any frame that a worker can admit.
fn general(frame: &Frame) -> Option<Seen> {
    let mut work = Work::default();
    let bytes = frame.bytes();
    let mut outer_dst = 0;
    // As an LD reads it, every frame is expected in a tunnel; what is in none is plain.
    if work.admit(frame, Role::Clb, None).is_ok() {
        let mut outer = Packet::default();
        let version = if ethernet::Packet::new_unchecked(bytes).ethertype() == ethernet::IPV4 { 4 } else { 6 };
        outer.read_ip(bytes, L3, version).ok()?;
        outer_dst = outer.tuple.dst;
    } else {
        work = Work::default();
        work.admit_plain(frame).ok()?;
    }
    let packet = &work.packet;
    let payload = packet.datagram(bytes).len();
    let at = packet.l4 + tgw_wire::udp::HEADER_LEN;
    Some(Seen {
        tuple: if work.is_error() { packet.quoted.tuple } else { packet.tuple },
        error: work.is_error().then_some((packet.tuple.src, packet.tuple.dst)),
        outer_dst,
        payload: if packet.kind == Kind::Udp { at..at + payload } else { 0..0 },
        fragment: (packet.part != Part::Whole).then(|| (packet.part, name_of(packet))),
    })
}

/// The same for the frames that nearly all are: TCP or UDP, without IP options or extensions, in GRE or VXLAN. `None` for all
/// others. Checksums are not looked at: a worker will.
fn quick(bytes: &[u8]) -> Option<Seen> {
    let version = match half(bytes, 12)? {
        ethernet::IPV4 => 4,
        ethernet::IPV6 => 6,
        _ => return None,
    };
    let outer = quick_ip(bytes, L3, bytes.len(), version)?;
    if bytes.first()? & 1 != 0 || is_local_matter(outer.dst) {
        return None;
    }
    let (at, end, ethertype) = match outer.protocol {
        protocol::GRE => {
            let length = match half(bytes, outer.l4)? {
                0 => 4,
                GRE_KEY => 8,
                _ => return None,
            };
            (outer.l4 + length, outer.end, half(bytes, outer.l4 + 2)?)
        }
        protocol::UDP if half(bytes, outer.l4 + 2)? == vxlan::PORT && half(bytes, outer.l4 + 6)? == 0 => {
            let end = outer.l4 + usize::from(half(bytes, outer.l4 + 4)?);
            // The flag of a valid identifier, and nothing else.
            if end > outer.end || half(bytes, outer.l4 + 8)? != 0x0800 {
                return None;
            }
            (outer.l4 + 30, end, half(bytes, outer.l4 + 28)?)
        }
        _ => return None,
    };
    let version = match ethertype {
        ethernet::IPV4 => 4,
        ethernet::IPV6 => 6,
        _ => return None,
    };
    let inner = quick_ip(bytes, at, end, version)?;
    let ports = (half(bytes, inner.l4)?, half(bytes, inner.l4 + 2)?);
    let payload = match inner.protocol {
        protocol::TCP if inner.l4 + 20 <= inner.end => 0..0,
        protocol::UDP => {
            let length = usize::from(half(bytes, inner.l4 + 4)?);
            if length < 8 || inner.l4 + length > inner.end {
                return None;
            }
            inner.l4 + 8..inner.l4 + length
        }
        _ => return None,
    };
    let tuple =
        Tuple { src: inner.src, dst: inner.dst, src_port: ports.0, dst_port: ports.1, protocol: inner.protocol };
    Some(Seen { tuple, error: None, outer_dst: outer.dst, payload, fragment: None })
}

struct QuickIp {
    src: u128,
    dst: u128,
    protocol: u8,
    l4: usize,
    end: usize,
}

/// A whole packet without options, and no fragment, that ends at `end` at the latest.
fn quick_ip(bytes: &[u8], at: usize, end: usize, version: u8) -> Option<QuickIp> {
    let within = bytes.get(at..end)?;
    if version == 4 {
        let header: &[u8; 20] = within.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let is_fragment = header[6] & 0x3F != 0 || header[7] != 0;
        if header[0] != 0x45 || is_fragment || length < 20 || length > within.len() {
            return None;
        }
        let address = |at: usize| {
            let octets = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            0xFFFF_0000_0000 | u128::from(u32::from_be_bytes(octets))
        };
        return Some(QuickIp {
            src: address(12),
            dst: address(16),
            protocol: header[9],
            l4: at + 20,
            end: at + length,
        });
    }
    let header: &[u8; 40] = within.first_chunk()?;
    let length = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let (src, rest) = header.get(8..)?.split_first_chunk::<16>()?;
    let (src, dst) = (u128::from_be_bytes(*src), u128::from_be_bytes(*rest.first_chunk()?));
    if header[0] >> 4 != 6 || length > within.len() || is_v4(src) || is_v4(dst) {
        return None;
    }
    Some(QuickIp { src, dst, protocol: header[6], l4: at + 40, end: at + length })
}

#[inline]
fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|pair| pair.first_chunk()).map(|pair| u16::from_be_bytes(*pair))
}

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(test)]
mod tests {
    use super::support::{frame, plans, seeds::seeds, tunnel, udp, Plan, Tcp, NOW};
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn load(bytes: &[u8]) -> Frame {
        let mut frame = Frame::default();
        assert!(frame.load(0, NOW, bytes));
        frame
    }

    /// Whether a worker could take this frame at all.
    fn is_admitted(frame: &Frame) -> bool {
        Work::default().admit(frame, Role::Clb, None).is_ok()
    }

    fn ordinary(p: &Plan, key: Option<u32>) -> Vec<Vec<u8>> {
        let tcp = Tcp { payload: b"some", ..Tcp::new((p.client, 4000), (p.private, 80), 16) }.ip();
        let datagram = udp((p.client, 4000), (p.private, 443), b"question", true);
        [tcp, datagram].iter().map(|inner| frame(&tunnel(p.eip, p.service, p.encap, key, inner))).collect()
    }

    #[test]
    fn ordinary_frames_are_read_the_quick_way() {
        for p in plans().into_iter().filter(|p| matches!(p.encap, "gre" | "vxlan")) {
            for bytes in [ordinary(&p, None), ordinary(&p, Some(77))].concat() {
                let seen = quick(&bytes).unwrap_or_else(|| panic!("{p:?}"));
                assert_eq!(Some(seen), general(&load(&bytes)), "{p:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// Of what a worker can admit, the quick way sees what the general way sees.
        #[test]
        fn the_quick_way_agrees_with_the_general_one(
            plan in any::<Index>(), seed in any::<Index>(), flips in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
            cut in prop::option::weighted(0.1, any::<Index>()), more in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let plans = plans();
            let plan = plan.get(&plans);
            let mut all = ordinary(plan, None);
            all.extend(ordinary(plan, Some(77)));
            all.extend(seeds(plan).into_iter().map(|(_, bytes)| bytes));
            let mut bytes = seed.get(&all).clone();
            for (at, value) in flips {
                // Most checksums are in the way of most changes: change what they do not cover, or what is read of them.
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes.extend_from_slice(&more);
            let frame = load(&bytes);
            if let (Some(seen), true) = (quick(&bytes), is_admitted(&frame)) {
                prop_assert_eq!(Some(seen), general(&frame));
            }
        }
    }
}
