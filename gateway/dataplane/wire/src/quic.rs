//! QUIC: what every version's header has (RFC 8999), and what versions 1 (RFC 9000) and 2 (RFC 9369) make of it.

use std::fmt;

use crate::bytes::{put, slice, u32_at, u8_at};
use crate::{Error, Result};

mod field {
    pub const FIRST: usize = 0;
    pub const VERSION: usize = 1;
    pub const DCID_LEN: usize = 5;
    pub const DCID: usize = 6;
    /// Where the destination's connection id begins behind a short header.
    pub const SHORT_DCID: usize = 1;
}

/// Version 1.
pub const VERSION_1: u32 = 1;
/// Version 2.
pub const VERSION_2: u32 = 0x6B33_43CF;
/// The longest connection id of versions 1 and 2.
pub const MAX_CID_LEN: usize = 20;
const LONG: u8 = 0x80;
const FIXED: u8 = 0x40;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A short header: its version, and how long its connection id is, are known to who chose the id.
    Short,
    /// A server names the versions it speaks.
    VersionNegotiation,
    /// A long header of a version that is not known here.
    Unknown,
    /// The first packets of a connection.
    Initial,
    /// Early data.
    ZeroRtt,
    /// The rest of the handshake.
    Handshake,
    /// A server wants the client to try again with a token.
    Retry,
}

/// A view of the first packet of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a packet whose header is all there, up to both connection ids where it is long. `Malformed` when a version 1
    /// or 2 packet lacks its fixed bit, or has an id longer than [`MAX_CID_LEN`]. Of other versions, and of short headers, no
    /// more is asked than what all versions share: the fixed bit is not part of that.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        let bytes = packet.0.as_ref();
        if bytes.is_empty() {
            return Err(Error::Truncated);
        }
        if !packet.is_long() {
            return Ok(packet);
        }
        let scid_at = field::DCID + packet.dcid_len();
        if bytes.len() <= scid_at || bytes.len() <= scid_at + packet.scid_len() {
            return Err(Error::Truncated);
        }
        if matches!(packet.version(), VERSION_1 | VERSION_2) {
            let too_long = packet.dcid_len() > MAX_CID_LEN || packet.scid_len() > MAX_CID_LEN;
            if u8_at(bytes, field::FIRST) & FIXED == 0 || too_long {
                return Err(Error::Malformed);
            }
        }
        Ok(packet)
    }

    /// Whether the header is long.
    pub fn is_long(&self) -> bool {
        u8_at(self.0.as_ref(), field::FIRST) & LONG != 0
    }

    /// The version, where the header is long; zero in a version negotiation.
    pub fn version(&self) -> u32 {
        u32_at(self.0.as_ref(), field::VERSION)
    }

    /// What the packet is.
    pub fn kind(&self) -> Kind {
        if !self.is_long() {
            return Kind::Short;
        }
        // Version 2 turns the four types by one, so that nobody takes them for granted.
        let turn = match self.version() {
            0 => return Kind::VersionNegotiation,
            VERSION_1 => 0,
            VERSION_2 => 3,
            _ => return Kind::Unknown,
        };
        match ((u8_at(self.0.as_ref(), field::FIRST) >> 4) + turn) & 3 {
            0 => Kind::Initial,
            1 => Kind::ZeroRtt,
            2 => Kind::Handshake,
            _ => Kind::Retry,
        }
    }

    /// The destination's connection id of a long header.
    pub fn dcid(&self) -> &[u8] {
        slice(self.0.as_ref(), field::DCID..field::DCID + self.dcid_len())
    }

    /// The source's connection id of a long header.
    pub fn scid(&self) -> &[u8] {
        let at = field::DCID + self.dcid_len() + 1;
        slice(self.0.as_ref(), at..at + self.scid_len())
    }

    /// What follows the first byte of a short header: the destination's connection id, as long as its chooser made it, and
    /// what is protected.
    pub fn short_rest(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, field::SHORT_DCID..bytes.len())
    }

    fn dcid_len(&self) -> usize {
        usize::from(u8_at(self.0.as_ref(), field::DCID_LEN))
    }

    fn scid_len(&self) -> usize {
        usize::from(u8_at(self.0.as_ref(), field::DCID + self.dcid_len()))
    }
}

/// What a long header says, up to its connection ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr<'a> {
    /// One with a long header: [`Kind::Unknown`] and a version negotiation get all type bits as zeros.
    pub kind: Kind,
    /// The version.
    pub version: u32,
    /// The destination's connection id, at most 255 bytes.
    pub dcid: &'a [u8],
    /// The source's connection id, at most 255 bytes.
    pub scid: &'a [u8],
}

impl Repr<'_> {
    /// Bytes it takes.
    #[must_use]
    pub const fn len(&self) -> usize {
        field::DCID + self.dcid.len() + 1 + self.scid.len()
    }

    /// Never: a long header takes at least seven bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Write the header to the front of `buffer`. `Truncated` when it does not fit, `Malformed` for a short header or when an
    /// id is too long.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let place = buffer.get_mut(..self.len()).ok_or(Error::Truncated)?;
        let kind = match self.kind {
            Kind::Short => return Err(Error::Malformed),
            Kind::VersionNegotiation | Kind::Unknown | Kind::Initial => 0,
            Kind::ZeroRtt => 1,
            Kind::Handshake => 2,
            Kind::Retry => 3,
        };
        let turned = if self.version == VERSION_2 { (kind + 1) & 3 } else { kind };
        let dcid_len = u8::try_from(self.dcid.len()).map_err(|_| Error::Malformed)?;
        let scid_len = u8::try_from(self.scid.len()).map_err(|_| Error::Malformed)?;
        put(place, field::FIRST, [LONG | FIXED | turned << 4]);
        put(place, field::VERSION, self.version.to_be_bytes());
        put(place, field::DCID_LEN, [dcid_len]);
        let (dcid, rest) = place.split_at_mut(field::DCID).1.split_at_mut(self.dcid.len());
        dcid.copy_from_slice(self.dcid);
        put(rest, 0, [scid_len]);
        if let Some(scid) = rest.get_mut(1..) {
            scid.copy_from_slice(self.scid);
        }
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "QUIC {:?}", self.kind())?;
        if self.is_long() {
            write!(out, " version {:#010x} to {:02x?} from {:02x?}", self.version(), self.dcid(), self.scid())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn long(kind: Kind, version: u32, dcid: &[u8], scid: &[u8]) -> Vec<u8> {
        let repr = Repr { kind, version, dcid, scid };
        let mut bytes = vec![9; repr.len() + 3];
        repr.emit(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn build_and_read() {
        for version in [VERSION_1, VERSION_2] {
            for kind in [Kind::Initial, Kind::ZeroRtt, Kind::Handshake, Kind::Retry] {
                let bytes = long(kind, version, &[1, 2, 3], &[4]);
                let view = Packet::new_checked(&bytes).unwrap();
                assert_eq!((view.kind(), view.version()), (kind, version));
                assert_eq!((view.dcid(), view.scid()), (&[1, 2, 3][..], &[4][..]));
            }
        }
        let bytes = long(Kind::Initial, 1, &[1], &[]);
        assert_eq!(Packet::new_unchecked(&bytes).to_string(), "QUIC Initial version 0x00000001 to [01] from []");
        assert_eq!(Packet::new_unchecked([0x40, 1]).to_string(), "QUIC Short");
        assert_eq!(
            Repr { kind: Kind::Short, version: 1, dcid: &[], scid: &[] }.emit(&mut [0; 9]),
            Err(Error::Malformed)
        );
        assert_eq!(
            Repr { kind: Kind::Retry, version: 1, dcid: &[], scid: &[] }.emit(&mut [0; 6]),
            Err(Error::Truncated)
        );
    }

    /// The first bytes of RFC 9001, appendix A.2 and A.5, and of RFC 9369, appendix A.2.
    #[test]
    fn the_samples_of_the_standards() {
        let initial = [0xC0, 0, 0, 0, 1, 8, 0x83, 0x94, 0xC8, 0xF0, 0x3E, 0x51, 0x57, 0x08, 0, 0];
        let view = Packet::new_checked(&initial[..]).unwrap();
        assert_eq!((view.kind(), view.dcid(), view.scid()), (Kind::Initial, &initial[6..14], &[][..]));
        let second = [0xD7, 0x6B, 0x33, 0x43, 0xCF, 8, 0x83, 0x94, 0xC8, 0xF0, 0x3E, 0x51, 0x57, 0x08, 0, 0];
        assert_eq!(Packet::new_checked(&second[..]).unwrap().kind(), Kind::Initial);
        let short = [0x4C, 0xFE, 0x41, 0x89];
        let view = Packet::new_checked(&short[..]).unwrap();
        assert_eq!((view.kind(), view.short_rest()), (Kind::Short, &short[1..]));
    }

    #[test]
    fn what_no_version_or_these_versions_do_not_allow() {
        let check = |bytes: &[u8]| Packet::new_checked(bytes).err();
        assert_eq!(check(&[]), Some(Error::Truncated));
        let whole = Repr { kind: Kind::Initial, version: 1, dcid: &[1; 8], scid: &[2; 8] }.len();
        let bytes = long(Kind::Initial, 1, &[1; 8], &[2; 8]);
        for cut in 1..whole {
            assert_eq!(check(&bytes[..cut]), Some(Error::Truncated), "{cut}");
        }
        assert_eq!(check(&bytes[..whole]), None);
        for version in [VERSION_1, VERSION_2] {
            let mut unfixed = long(Kind::Handshake, version, &[1; 8], &[]);
            unfixed[0] &= !FIXED;
            assert_eq!(check(&unfixed), Some(Error::Malformed));
            assert_eq!(check(&long(Kind::Initial, version, &[1; 20], &[1; 20])), None);
            assert_eq!(check(&long(Kind::Initial, version, &[1; 21], &[])), Some(Error::Malformed));
            assert_eq!(check(&long(Kind::Initial, version, &[], &[1; 21])), Some(Error::Malformed));
        }
    }

    /// RFC 8999: a version that is not known, or greased, may have longer ids and no fixed bit.
    #[test]
    fn other_versions_pass_by_what_all_share() {
        for version in [0, 0x0A0A_0A0A, 0xFF00_001D, 7] {
            let mut bytes = long(Kind::Unknown, version, &[1; 200], &[2; 255]);
            bytes[0] = LONG;
            let view = Packet::new_checked(&bytes).unwrap();
            assert_eq!((view.dcid().len(), view.scid().len()), (200, 255));
            assert_eq!(view.kind(), if version == 0 { Kind::VersionNegotiation } else { Kind::Unknown });
        }
        assert!(Packet::new_checked([0x00]).is_ok(), "RFC 9287: the fixed bit of a short header may be greased");
    }

    proptest! {
        #[test]
        fn nothing_is_read_beyond_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let view = Packet::new_unchecked(&bytes);
            let _ = (view.kind(), view.dcid(), view.scid(), view.short_rest());
            if let Ok(view) = Packet::new_checked(&bytes) {
                if view.is_long() {
                    prop_assert_eq!(view.dcid(), &bytes[6..6 + usize::from(bytes[5])]);
                    prop_assert_eq!(view.scid().len(), usize::from(bytes[6 + view.dcid().len()]));
                }
            }
        }
    }
}
