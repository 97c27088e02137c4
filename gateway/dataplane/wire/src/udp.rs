//! UDP (RFC 768).

use crate::{be16, WireError};

/// Bytes of the header.
pub const HEADER: usize = 8;
/// Offset of the checksum.
pub const CHECKSUM: usize = 6;

/// A checked view: the length field covers the header and lies inside the buffer.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Check the length.
    pub fn checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER {
            return Err(WireError::Truncated);
        }
        let length = usize::from(be16(bytes, 4));
        if length < HEADER {
            return Err(WireError::Malformed);
        }
        bytes.get(..length).map(Self).ok_or(WireError::Truncated)
    }

    /// Source and destination port.
    #[must_use]
    pub fn ports(&self) -> (u16, u16) {
        (be16(self.0, 0), be16(self.0, 2))
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[HEADER..]
    }
}

/// Write a header with checksum zero (allowed over IPv4, and for tunnels over IPv6 by RFC 6935) into the first [`HEADER`]
/// bytes of `out`; false when it does not fit.
pub fn build(out: &mut [u8], source: u16, destination: u16, payload: usize) -> bool {
    let Ok(length) = u16::try_from(payload + HEADER) else {
        return false;
    };
    let Some(out) = out.get_mut(..HEADER) else {
        return false;
    };
    out[..2].copy_from_slice(&source.to_be_bytes());
    out[2..4].copy_from_slice(&destination.to_be_bytes());
    out[4..6].copy_from_slice(&length.to_be_bytes());
    out[6..8].fill(0);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_reads_back() {
        let mut bytes = [1u8; 12];
        assert!(build(&mut bytes, 7, 4789, 4));
        let view = View::checked(&bytes).unwrap();
        assert_eq!((view.ports(), view.payload()), ((7, 4789), &[1u8; 4][..]));
    }

    #[test]
    fn lengths_are_checked() {
        let mut bytes = [0u8; 8];
        assert_eq!(View::checked(&bytes).unwrap_err(), WireError::Malformed);
        bytes[5] = 9;
        assert_eq!(View::checked(&bytes).unwrap_err(), WireError::Truncated);
        assert_eq!(View::checked(&bytes[..7]).unwrap_err(), WireError::Truncated);
    }
}
