//! TCP (RFC 9293): the fixed header.

use std::fmt;

use crate::bytes::{put, slice, slice_mut, u16_at, u32_at, u8_at};
use crate::checksum::Delta;
use crate::{Error, Result};

mod field {
    pub const SRC_PORT: usize = 0;
    pub const DST_PORT: usize = 2;
    pub const SEQ: usize = 4;
    pub const ACK: usize = 8;
    pub const DATA_OFFSET: usize = 12;
    pub const FLAGS: usize = 13;
    pub const WINDOW: usize = 14;
    pub const CHECKSUM: usize = 16;
    pub const URGENT: usize = 18;
}

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Where the checksum stands.
pub const CHECKSUM_AT: usize = field::CHECKSUM;

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronize sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset the connection.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;

/// A view of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything: for a quoted segment, of which only 8 bytes need be there.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a segment whose header, options included, is all there.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        let len = packet.0.as_ref().len();
        if len < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let header = packet.header_len();
        if header < HEADER_LEN {
            return Err(Error::Malformed);
        }
        if len < header {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Source port.
    pub fn src_port(&self) -> u16 {
        u16_at(self.0.as_ref(), field::SRC_PORT)
    }

    /// Destination port.
    pub fn dst_port(&self) -> u16 {
        u16_at(self.0.as_ref(), field::DST_PORT)
    }

    /// Sequence number.
    pub fn seq(&self) -> u32 {
        u32_at(self.0.as_ref(), field::SEQ)
    }

    /// Acknowledgement number.
    pub fn ack(&self) -> u32 {
        u32_at(self.0.as_ref(), field::ACK)
    }

    /// Bytes of the header, options included.
    pub fn header_len(&self) -> usize {
        usize::from(u8_at(self.0.as_ref(), field::DATA_OFFSET) >> 4) * 4
    }

    /// The flags' low eight bits.
    pub fn flags(&self) -> u8 {
        u8_at(self.0.as_ref(), field::FLAGS)
    }

    /// Whether a stack sends these flags together: some flag, SYN without FIN and RST, FIN without RST, and FIN, PSH and URG
    /// only with an acknowledgement. The flags of ECN say nothing here.
    pub fn flags_are_sane(&self) -> bool {
        are_sane(self.flags())
    }

    /// The options, cut where the bytes end.
    pub fn options(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, HEADER_LEN.min(bytes.len())..self.header_len().min(bytes.len()))
    }

    /// The checksum.
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), field::CHECKSUM)
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, self.header_len()..bytes.len())
    }
}

const fn are_sane(flags: u8) -> bool {
    match flags & (FIN | SYN | RST | PSH | ACK | URG) {
        0 => false,
        flags if flags & SYN != 0 && flags & (FIN | RST) != 0 => false,
        flags if flags & FIN != 0 && flags & RST != 0 => false,
        flags => flags & ACK != 0 || flags & (FIN | PSH | URG) == 0,
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// The options, to change; then call [`Packet::adjust`].
    pub fn options_mut(&mut self) -> &mut [u8] {
        let end = self.header_len();
        let bytes = self.0.as_mut();
        let len = bytes.len();
        slice_mut(bytes, HEADER_LEN.min(len)..end.min(len))
    }

    /// Another sequence number. Returns what changed, for the checksum.
    pub fn set_seq(&mut self, seq: u32) -> Delta {
        self.set_number(field::SEQ, seq)
    }

    /// Another acknowledgement number, likewise.
    pub fn set_ack(&mut self, ack: u32) -> Delta {
        self.set_number(field::ACK, ack)
    }

    /// Another length of the header (a multiple of 4, at most 60) and other flags, likewise. Voids the check.
    pub fn set_header(&mut self, header_len: usize, flags: u8) -> Delta {
        let bytes = self.0.as_mut();
        let reserved = u8_at(bytes, field::DATA_OFFSET) & 0x0F;
        let old = u16_at(bytes, field::DATA_OFFSET);
        let new = u16::from_be_bytes([((header_len / 4) as u8) << 4 | reserved, flags]);
        put(bytes, field::DATA_OFFSET, new.to_be_bytes());
        Delta::new().replace_word(old, new)
    }

    fn set_number(&mut self, at: usize, number: u32) -> Delta {
        let bytes = self.0.as_mut();
        let old = u32_at(bytes, at);
        put(bytes, at, number.to_be_bytes());
        Delta::new().replace(&old.to_be_bytes(), &number.to_be_bytes())
    }

    /// The checksum follows a change of what it covers. Nothing when the segment is cut before it.
    pub fn adjust(&mut self, delta: Delta) {
        let checksum = delta.apply(self.checksum());
        put(self.0.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }
}

/// What a header without options says. The checksum is written as zero: it covers the payload and the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The flags' low eight bits.
    pub flags: u8,
    /// Window.
    pub window: u16,
}

impl Repr {
    /// Write the header to the front of `buffer`. `Truncated` when it does not fit.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let place = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        put(place, field::SRC_PORT, self.src_port.to_be_bytes());
        put(place, field::DST_PORT, self.dst_port.to_be_bytes());
        put(place, field::SEQ, self.seq.to_be_bytes());
        put(place, field::ACK, self.ack.to_be_bytes());
        put(place, field::DATA_OFFSET, [0x50, self.flags]);
        put(place, field::WINDOW, self.window.to_be_bytes());
        put(place, field::CHECKSUM, [0, 0]);
        put(place, field::URGENT, [0, 0]);
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TCP {} > {} flags {:#04x}", self.src_port(), self.dst_port(), self.flags())?;
        write!(out, " seq {} ack {}", self.seq(), self.ack())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Vec<u8> {
        let mut bytes = vec![7; HEADER_LEN + 3];
        Repr { src_port: 80, dst_port: 4000, seq: 5, ack: 6, flags: SYN | ACK, window: 100 }.emit(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn build_and_read() {
        let bytes = segment();
        let view = Packet::new_checked(&bytes).unwrap();
        assert_eq!((view.src_port(), view.dst_port(), view.seq(), view.ack()), (80, 4000, 5, 6));
        assert_eq!((view.flags(), view.header_len(), view.payload()), (SYN | ACK, 20, &[7; 3][..]));
        assert_eq!(view.to_string(), "TCP 80 > 4000 flags 0x12 seq 5 ack 6");
    }

    #[test]
    fn contradictions_are_refused() {
        let mut bytes = segment();
        bytes[12] = 0x40;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Malformed);
        bytes[12] = 0x60;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Truncated);
        bytes.truncate(19);
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Truncated);
    }

    #[test]
    fn flags_that_stacks_send() {
        let sane = [SYN, SYN | ACK, ACK, ACK | PSH, FIN | ACK, FIN | PSH | ACK, RST, RST | ACK, URG | ACK, SYN | 0xC0];
        for flags in 0..=255u8 {
            let plain = flags & !0xC0;
            let expected = sane.contains(&plain)
                || plain & ACK != 0 && [SYN | FIN, SYN | RST, FIN | RST].iter().all(|pair| plain & pair != *pair);
            assert_eq!(are_sane(flags), expected, "{flags:#04x}");
        }
    }

    #[test]
    fn changes_keep_the_checksum_right() {
        let mut bytes = segment();
        let checksum = crate::checksum::Sum::new().bytes(&bytes).checksum();
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        let mut view = Packet::new_unchecked(&mut bytes[..]);
        for delta in [view.set_seq(0xFFFF_0001), view.set_ack(7), view.set_header(60, ACK)] {
            view.adjust(delta);
        }
        assert_eq!((view.seq(), view.ack(), view.header_len(), view.flags()), (0xFFFF_0001, 7, 60, ACK));
        assert_eq!(view.options(), [7; 3], "cut where the bytes end");
        assert!(crate::checksum::Sum::new().bytes(&bytes).is_right());
    }

    #[test]
    fn a_segment_cut_before_its_checksum_is_not_touched() {
        let mut bytes = segment();
        bytes.truncate(17);
        let before = bytes.clone();
        Packet::new_unchecked(&mut bytes[..]).adjust(Delta::new().replace_word(1, 2));
        assert_eq!(bytes, before);
    }
}
