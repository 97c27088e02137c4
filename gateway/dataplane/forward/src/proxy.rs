//! The client's address in a PROXY header (version 2 of HAProxy's protocol) in front of the first bytes of a connection.
//!
//! The header takes sequence numbers that the client does not know of: of each connection it is kept where they begin, and
//! both directions are translated for as long as it lives. Every packet that carries the client's first byte (or could,
//! as its first acknowledgement does) carries the header too until the server has acknowledged it, so that a lost header
//! is sent again by whatever the client sends again.

use tgw_wire::checksum::Delta;
use tgw_wire::{icmpv4, icmpv6, tcp};

use crate::connection;
use crate::flow::FlowTable;
use crate::packet::{to_v4, Kind, Packet, Part};
use crate::translate::{cut, open_gap};
use crate::work::Work;
use crate::{Frame, Nanos};
use tgw_contract::DropReason;

/// Connections of one worker that can be translated at a time.
const MOST: usize = 65_536;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection on behalf of another.
const PROXY: u8 = 0x21;
const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;
const LEN_V4: usize = 28;
const LEN_V6: usize = 52;
/// The client has sent a SYN, and nothing since: the flow may make room for another (`connection::is_evictable`).
const KNOCKED: u8 = connection::HALF_OPEN;
/// It has gone on: the flow stays.
const GOES_ON: u8 = connection::ESTABLISHED;
/// Beside one of these: the header has been sent at least once.
const SENT: u8 = 0x10;
/// The server has all of it.
const TAKEN: u8 = 0x20;
/// One end has closed.
const CLOSED: u8 = 0x40;
const SACK: u8 = 5;
const NOP: u8 = 1;

/// Where the header stands in the connections of one worker.
pub(crate) struct Proxied {
    /// By flow; the value is the sequence number of the client's first byte.
    flows: FlowTable,
}

/// Bytes of the header in a connection of IP version 4 or 6.
const fn length(version: u8) -> u32 {
    if version == 4 {
        LEN_V4 as u32
    } else {
        LEN_V6 as u32
    }
}

const fn timeout(state: u8) -> u16 {
    match state {
        _ if state & CLOSED != 0 => 120,
        _ if state & SENT != 0 => 900,
        _ => 30,
    }
}

/// How the numbers of one connection are translated.
#[derive(Clone, Copy)]
struct Shift {
    /// The client's first byte.
    first: u32,
    /// Bytes of the header.
    length: u32,
    /// Once the server has the header, nothing that counts lies in front of it; numbers may then have gone half round.
    taken: bool,
}

impl Shift {
    /// A sequence number of the client's as the server counts.
    fn forth(self, number: u32) -> u32 {
        if self.taken || number.wrapping_sub(self.first) as i32 > 0 {
            number.wrapping_add(self.length)
        } else {
            number
        }
    }

    /// A number that the server says back, as the client counts. What lies in the header is the client's first byte.
    fn back(self, number: u32) -> u32 {
        match number.wrapping_sub(self.first) as i32 {
            _ if self.taken => number.wrapping_sub(self.length),
            beyond if beyond <= 0 => number,
            beyond if beyond as u32 <= self.length => self.first,
            _ => number.wrapping_sub(self.length),
        }
    }
}

impl Proxied {
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        Self { flows: FlowTable::new(capacity.min(MOST), seed) }
    }

    pub(crate) fn advance(&mut self, now: Nanos) {
        self.flows.advance(now / 1_000_000_000);
    }

    pub(crate) fn sweep(&mut self, parts: usize) {
        self.flows.sweep(parts);
    }

    /// Translate a packet of the client, which may be `room` bytes long at most on its way. `is_known`: its flow has a place
    /// in the LD's table; a SYN that the flood gate lets pass without one gets none here either. `NoFlow`: its connection
    /// began elsewhere, and nobody here knows where the header stands. `Fragment`: the header does not go into one.
    pub(crate) fn request(
        &mut self,
        frame: &mut Frame,
        work: &mut Work,
        room: usize,
        is_known: bool,
    ) -> Result<(), DropReason> {
        if work.packet.kind != Kind::Tcp {
            return Ok(()); // an error quotes the server, whose own numbers stand as they are
        }
        let (flags, seq) = (work.packet.tcp_flags, work.packet.seq);
        let hash = self.flows.hash(&work.flow);
        let found = self.flows.find(hash, &work.flow);
        if connection::is_opening(flags) {
            let first = seq.wrapping_add(1);
            match found {
                Some(found) if self.flows.value(found) == first => {}
                // Made up, or of a client that has lost its memory: the server will tell, in the numbers of old.
                Some(found) if self.flows.state(found) & (SENT | CLOSED) == SENT => return Ok(()),
                Some(found) => self.flows.set(found, KNOCKED, first, timeout(KNOCKED)),
                None if is_known => {
                    let entered = self.flows.insert(hash, &work.flow, KNOCKED, first, timeout(KNOCKED));
                    entered.map_err(|_| DropReason::ConnTableFull)?;
                }
                None => {}
            }
            // Data in a SYN begins with the first byte.
            let header_len = segment(frame, &work.packet).header_len();
            return if work.packet.l4 + header_len < work.packet.end {
                insert(frame, &mut work.packet, room)
            } else {
                Ok(())
            };
        }
        let Some(found) = found else {
            return if flags & tcp::RST != 0 { Ok(()) } else { Err(DropReason::NoFlow) };
        };
        let (state, first) = (self.flows.state(found), self.flows.value(found));
        let length = length(work.packet.version);
        let at_first = seq == first;
        let state = if flags & tcp::RST == 0 { state & (SENT | TAKEN | CLOSED) | GOES_ON } else { state };
        let state_after = match flags {
            _ if flags & (tcp::RST | tcp::FIN) != 0 => state | CLOSED,
            _ if at_first => state | SENT,
            _ => state,
        };
        if at_first && state & TAKEN == 0 && flags & tcp::RST == 0 {
            insert(frame, &mut work.packet, room)?;
            self.flows.set(found, state_after | SENT, first, timeout(state_after | SENT));
            return Ok(());
        }
        self.flows.set(found, state_after, first, timeout(state_after));
        let shift = Shift { first, length, taken: state & TAKEN != 0 };
        let shifted = if at_first && state & SENT != 0 { seq.wrapping_add(length) } else { shift.forth(seq) };
        let mut segment = segment_mut(frame, &work.packet);
        let delta = segment.set_seq(shifted);
        segment.adjust(delta);
        Ok(())
    }

    /// Translate a packet of the server, or an ICMP error about one of the client's. `NoFlow`, as above.
    pub(crate) fn reply(&mut self, frame: &mut Frame, work: &Work) -> Result<(), DropReason> {
        let hash = self.flows.hash(&work.flow);
        let found = self.flows.find(hash, &work.flow).ok_or(DropReason::NoFlow)?;
        let (state, first) = (self.flows.state(found), self.flows.value(found));
        let length = length(work.packet.version);
        let mut shift = Shift { first, length, taken: state & TAKEN != 0 };
        if work.is_error() {
            // What carried the header stands where the client sent it.
            let quoted = work.packet.quoted.seq;
            set_quoted_seq(frame, &work.packet, if quoted == first { quoted } else { shift.back(quoted) });
            return Ok(());
        }
        let flags = work.packet.tcp_flags;
        let mut after = if flags & (tcp::FIN | tcp::RST) != 0 { state | CLOSED } else { state };
        if flags & tcp::ACK != 0 {
            if state & SENT != 0 && work.packet.ack.wrapping_sub(first) as i32 >= length as i32 {
                after |= TAKEN;
                shift.taken = true;
            }
            let mut segment = segment_mut(frame, &work.packet);
            let delta = segment.set_ack(shift.back(work.packet.ack));
            segment.adjust(delta);
            set_blocks(frame, &work.packet, |edge| shift.back(edge));
        }
        self.flows.set(found, after, first, timeout(after));
        Ok(())
    }
}

/// Put the header in front of the payload. The end of the payload goes where there is no room for both: the client will
/// send it again.
fn insert(frame: &mut Frame, packet: &mut Packet, room: usize) -> Result<(), DropReason> {
    if packet.part != Part::Whole {
        return Err(DropReason::Fragment);
    }
    let (header, length) = header(packet);
    let header = header.get(..length).unwrap_or_default();
    let at = packet.l4 + segment(frame, packet).header_len();
    let most = room.saturating_sub(length);
    if packet.len() > most {
        // At an even place, so that the checksum is easily told.
        let end = (packet.l3 + most).saturating_sub(packet.l4) / 2 * 2 + packet.l4;
        if end < at {
            return Err(DropReason::MtuExceeded);
        }
        let gone = cut(frame, packet, end);
        let mut segment = segment_mut(frame, packet);
        let (header_len, flags) = (segment.header_len(), packet.tcp_flags & !tcp::FIN);
        segment.adjust(gone);
        let unfinished = segment.set_header(header_len, flags);
        segment.adjust(unfinished);
    }
    let delta = open_gap(frame, packet, at, length).ok_or(DropReason::TunnelEncapFail)?;
    if let Some(place) = frame.bytes_mut().get_mut(at..at + length) {
        place.copy_from_slice(header);
    }
    segment_mut(frame, packet).adjust(delta.replace(&[], header));
    Ok(())
}

fn header(packet: &Packet) -> ([u8; LEN_V6], usize) {
    let mut bytes = [0; LEN_V6];
    let (src, dst) = (packet.tuple.src, packet.tuple.dst);
    let (from, to) = (packet.tuple.src_port.to_be_bytes(), packet.tuple.dst_port.to_be_bytes());
    bytes[..12].copy_from_slice(&SIGNATURE);
    if packet.version == 4 {
        bytes[12..16].copy_from_slice(&[PROXY, TCP_V4, 0, LEN_V4 as u8 - 16]);
        bytes[16..20].copy_from_slice(&to_v4(src).octets());
        bytes[20..24].copy_from_slice(&to_v4(dst).octets());
        bytes[24..26].copy_from_slice(&from);
        bytes[26..28].copy_from_slice(&to);
        return (bytes, LEN_V4);
    }
    bytes[12..16].copy_from_slice(&[PROXY, TCP_V6, 0, LEN_V6 as u8 - 16]);
    bytes[16..32].copy_from_slice(&src.to_be_bytes());
    bytes[32..48].copy_from_slice(&dst.to_be_bytes());
    bytes[48..50].copy_from_slice(&from);
    bytes[50..52].copy_from_slice(&to);
    (bytes, LEN_V6)
}

/// Translate the edges of selective acknowledgements.
fn set_blocks(frame: &mut Frame, packet: &Packet, translate: impl Fn(u32) -> u32) {
    let mut segment = segment_mut(frame, packet);
    let options = segment.options_mut();
    let mut delta = Delta::new();
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let step = match (kind, options.get(at + 1)) {
            (0, _) => break,
            (NOP, _) => 1,
            (_, Some(&step)) if step >= 2 => usize::from(step),
            _ => break,
        };
        let mut edge = at + 2;
        while kind == SACK && edge + 4 <= at + step {
            let Some(place) = options.get_mut(edge..).and_then(|rest| rest.first_chunk_mut::<4>()) else { break };
            let (old, new) = (*place, translate(u32::from_be_bytes(*place)).to_be_bytes());
            *place = new;
            // Options begin at an even place of the segment.
            delta = if edge % 2 == 0 {
                delta.replace(&old, &new)
            } else {
                let odd = |[a, b, c, d]: [u8; 4]| [0, a, b, c, d, 0];
                delta.replace(&odd(old), &odd(new))
            };
            edge += 4;
        }
        at += step;
    }
    segment.adjust(delta);
}

/// Another sequence number of the TCP packet that an ICMP error quotes. What is quoted of it may end before its checksum,
/// which nobody verifies.
fn set_quoted_seq(frame: &mut Frame, packet: &Packet, seq: u32) {
    let bytes = frame.bytes_mut();
    let quoted = bytes.get_mut(packet.quoted.l4..packet.end).unwrap_or_default();
    let delta = tcp::Packet::new_unchecked(quoted).set_seq(seq);
    let message = bytes.get_mut(packet.l4..packet.end).unwrap_or_default();
    if packet.version == 4 {
        icmpv4::Packet::new_unchecked(message).adjust(delta);
    } else {
        icmpv6::Packet::new_unchecked(message).adjust(delta);
    }
}

fn segment<'a>(frame: &'a Frame, packet: &Packet) -> tcp::Packet<&'a [u8]> {
    tcp::Packet::new_unchecked(frame.bytes().get(packet.l4..packet.end).unwrap_or_default())
}

fn segment_mut<'a>(frame: &'a mut Frame, packet: &Packet) -> tcp::Packet<&'a mut [u8]> {
    tcp::Packet::new_unchecked(frame.bytes_mut().get_mut(packet.l4..packet.end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_syn_alone_may_be_evicted() {
        assert!(connection::is_evictable(KNOCKED));
        for marks in [0, SENT, SENT | TAKEN, CLOSED, SENT | CLOSED, SENT | TAKEN | CLOSED] {
            assert!(!connection::is_evictable(GOES_ON | marks));
        }
    }

    #[test]
    fn numbers_around_the_header() {
        let first = u32::MAX - 3; // and on beyond the turn
        let shift = Shift { first, length: 28, taken: false };
        assert_eq!(shift.forth(first.wrapping_sub(1)), first.wrapping_sub(1), "the SYN stands where it stood");
        assert_eq!(shift.forth(first.wrapping_add(1)), first.wrapping_add(29));
        for within in 0..=28 {
            assert_eq!(shift.back(first.wrapping_add(within)), first);
        }
        assert_eq!(shift.back(first.wrapping_add(29)), first.wrapping_add(1));
        assert_eq!(shift.back(first.wrapping_sub(1)), first.wrapping_sub(1));
    }

    proptest! {
        #[test]
        fn there_and_back(first in any::<u32>(), sent in any::<u32>(), taken in any::<bool>()) {
            let shift = Shift { first, length: 52, taken };
            let number = first.wrapping_add(if taken { sent } else { sent >> 2 });
            prop_assert_eq!(shift.back(shift.forth(number)), number, "also after gigabytes");
        }
    }
}
