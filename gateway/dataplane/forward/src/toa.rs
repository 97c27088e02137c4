//! The client's address as a TCP option, for servers that see another source: the option that LVS's TOA introduced, which
//! kernel modules of that name read out of the packets that open a connection.

use tgw_wire::checksum::Delta;
use tgw_wire::tcp;

use crate::packet::{to_v4, Kind, Packet, Part};
use crate::translate::open_gap;
use crate::Frame;

const KIND_V4: u8 = 254;
const KIND_V6: u8 = 253;
const LEN_V4: usize = 8;
const LEN_V6: usize = 20;
const END: u8 = 0;
const NOP: u8 = 1;
const MOST_HEADER: usize = 60;

/// Put the option in front of the others, when there is room for it in the header and, with `room` bytes of packet at
/// most, on the way; a first fragment gets none. One that the client has put there itself would lie: it goes in any case.
pub(crate) fn tell(frame: &mut Frame, packet: &mut Packet, room: usize) {
    if packet.kind != Kind::Tcp {
        return;
    }
    hide(frame, packet);
    if packet.part != Part::Whole {
        return;
    }
    let (option, length) = option(packet);
    let option = option.get(..length).unwrap_or_default();
    let header_len = view(frame, packet).header_len();
    if header_len + length > MOST_HEADER || packet.len() + length > room {
        return;
    }
    let at = packet.l4 + tcp::HEADER_LEN;
    let Some(delta) = open_gap(frame, packet, at, length) else { return };
    if let Some(place) = frame.bytes_mut().get_mut(at..at + length) {
        place.copy_from_slice(option);
    }
    let mut segment = tcp::Packet::new_unchecked(frame.bytes_mut().get_mut(packet.l4..packet.end).unwrap_or_default());
    let longer = segment.set_header(header_len + length, packet.tcp_flags);
    segment.adjust(delta.replace(&[], option));
    segment.adjust(longer);
}

fn option(packet: &Packet) -> ([u8; LEN_V6], usize) {
    let mut bytes = [0; LEN_V6];
    let [high, low] = packet.tuple.src_port.to_be_bytes();
    if packet.version == 4 {
        let [a, b, c, d] = to_v4(packet.tuple.src).octets();
        bytes[..LEN_V4].copy_from_slice(&[KIND_V4, LEN_V4 as u8, high, low, a, b, c, d]);
        return (bytes, LEN_V4);
    }
    bytes[..4].copy_from_slice(&[KIND_V6, LEN_V6 as u8, high, low]);
    bytes[4..].copy_from_slice(&packet.tuple.src.to_be_bytes());
    (bytes, LEN_V6)
}

/// Write nothings over options of our kind.
fn hide(frame: &mut Frame, packet: &Packet) {
    let mut old = [0; MOST_HEADER];
    let segment = view(frame, packet);
    let options = segment.options();
    let length = options.len();
    let Some(place) = old.get_mut(..length) else { return };
    place.copy_from_slice(options);
    let mut new = old;
    let mut at = 0;
    while let Some((kind, rest)) = old.get(at..length).and_then(<[u8]>::split_first) {
        let step = match (kind, rest.first()) {
            (&END, _) => break,
            (&NOP, _) => 1,
            (_, Some(&step)) if step >= 2 => usize::from(step),
            _ => break, // what follows cannot be read by the server either
        };
        if matches!(*kind, KIND_V4 | KIND_V6) {
            let end = (at + step).min(length);
            if let Some(place) = new.get_mut(at..end) {
                place.fill(NOP);
            }
        }
        at += step;
    }
    if new == old {
        return;
    }
    let (old, new) = (old.get(..length).unwrap_or_default(), new.get(..length).unwrap_or_default());
    let at = packet.l4 + tcp::HEADER_LEN;
    if let Some(place) = frame.bytes_mut().get_mut(at..at + length) {
        place.copy_from_slice(new);
    }
    let segment = frame.bytes_mut().get_mut(packet.l4..packet.end).unwrap_or_default();
    tcp::Packet::new_unchecked(segment).adjust(Delta::new().replace(old, new));
}

fn view<'a>(frame: &'a Frame, packet: &Packet) -> tcp::Packet<&'a [u8]> {
    tcp::Packet::new_unchecked(frame.bytes().get(packet.l4..packet.end).unwrap_or_default())
}
