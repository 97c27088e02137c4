//! IPv6 (RFC 8200), with a bounded walk over extension headers.

use crate::{be16, WireError};

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// Offset of the hop limit.
pub const HOP_LIMIT: usize = 7;
/// Offset of the source address.
pub const SOURCE: usize = 8;
/// Offset of the destination address.
pub const DESTINATION: usize = 24;
/// How many extension headers are walked; a longer chain is malformed to us.
pub const MAX_EXTENSIONS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Where the walk over the extension headers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Protocol of the upper layer.
    pub protocol: u8,
    /// Its offset from the start of the IPv6 header.
    pub offset: usize,
    /// Whether a fragment header that really fragments stands before it.
    pub fragment: bool,
}

/// A checked view: version 6, header and payload length inside the buffer.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Check version and lengths. Bytes after the payload length are cut off.
    pub fn checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let _ = Self::quoted(bytes)?;
        let total = HEADER + usize::from(be16(bytes, 4));
        bytes.get(..total).map(Self).ok_or(WireError::Truncated)
    }

    /// A packet quoted by ICMPv6: the header is whole, the payload may be cut short.
    pub fn quoted(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER {
            return Err(WireError::Truncated);
        }
        if bytes[0] >> 4 != 6 {
            return Err(WireError::Malformed);
        }
        Ok(Self(bytes))
    }

    /// Bytes of the whole packet.
    #[must_use]
    pub fn total_length(&self) -> usize {
        self.0.len()
    }

    /// Hop limit.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.0[HOP_LIMIT]
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> [u8; 16] {
        address(self.0, SOURCE)
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> [u8; 16] {
        address(self.0, DESTINATION)
    }

    /// Walk the extension headers to the upper layer.
    pub fn upper(&self) -> Result<Upper, WireError> {
        let mut protocol = self.0[6];
        let mut offset = HEADER;
        let mut fragment = false;
        for _ in 0..=MAX_EXTENSIONS {
            let length = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    let length = self.0.get(offset + 1).ok_or(WireError::Truncated)?;
                    (usize::from(*length) + 1) * 8
                }
                FRAGMENT => 8,
                _ => return Ok(Upper { protocol, offset, fragment }),
            };
            let header = self.0.get(offset..offset + length).ok_or(WireError::Truncated)?;
            if protocol == FRAGMENT && be16(header, 2) & 0xFFF9 != 0 {
                fragment = true;
            }
            protocol = header[0];
            offset += length;
        }
        Err(WireError::Malformed)
    }

    /// The bytes from `offset` (counted from the start of the header) on.
    #[must_use]
    pub fn from(&self, offset: usize) -> &'a [u8] {
        self.0.get(offset..).unwrap_or(&[])
    }
}

fn address(bytes: &[u8], at: usize) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&bytes[at..at + 16]);
    out
}

/// Write a header into the first [`HEADER`] bytes of `out`; false when it does not fit.
pub fn build(
    out: &mut [u8],
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    hop_limit: u8,
    payload: usize,
) -> bool {
    let Ok(length) = u16::try_from(payload) else {
        return false;
    };
    let Some(out) = out.get_mut(..HEADER) else {
        return false;
    };
    out[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    out[4..6].copy_from_slice(&length.to_be_bytes());
    out[6] = protocol;
    out[HOP_LIMIT] = hop_limit;
    out[SOURCE..SOURCE + 16].copy_from_slice(&source);
    out[DESTINATION..DESTINATION + 16].copy_from_slice(&destination);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        assert!(build(&mut bytes, [1; 16], [2; 16], next, 64, payload.len()));
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn what_is_built_reads_back() {
        let bytes = packet(6, &[9; 20]);
        let view = View::checked(&bytes).unwrap();
        assert_eq!((view.source(), view.destination(), view.hop_limit()), ([1; 16], [2; 16], 64));
        assert_eq!(view.upper().unwrap(), Upper { protocol: 6, offset: 40, fragment: false });
        assert_eq!(view.from(40), &[9; 20]);
    }

    #[test]
    fn extensions_are_walked() {
        let bytes = packet(0, &[60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        let upper = View::checked(&bytes).unwrap().upper().unwrap();
        assert_eq!(upper, Upper { protocol: 17, offset: 56, fragment: false });
    }

    #[test]
    fn fragments_show() {
        let bytes = packet(44, &[6, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]);
        assert!(View::checked(&bytes).unwrap().upper().unwrap().fragment);
        let atomic = packet(44, &[6, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        assert!(!View::checked(&atomic).unwrap().upper().unwrap().fragment);
    }

    #[test]
    fn a_long_chain_ends() {
        let bytes = packet(0, &[0u8; 8 * 20]);
        assert_eq!(View::checked(&bytes).unwrap().upper().unwrap_err(), WireError::Malformed);
        let cut = packet(0, &[0u8; 4]);
        assert_eq!(View::checked(&cut).unwrap().upper().unwrap_err(), WireError::Truncated);
    }
}
