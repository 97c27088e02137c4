//! VXLAN (RFC 7348): the eight bytes after UDP.

use crate::{be32, WireError};

/// Bytes of the header.
pub const HEADER: usize = 8;
/// UDP destination port.
pub const PORT: u16 = 4789;

const VALID_VNI: u8 = 0x08;

/// A checked view.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Check the flags and the length.
    pub fn checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER {
            return Err(WireError::Truncated);
        }
        if bytes[0] != VALID_VNI {
            return Err(WireError::Unsupported);
        }
        Ok(Self(bytes))
    }

    /// The network identifier.
    #[must_use]
    pub fn vni(&self) -> u32 {
        be32(self.0, 4) >> 8
    }
}

/// Write a header into the first [`HEADER`] bytes of `out`; false when it does not fit or the identifier has over 24 bits.
pub fn build(out: &mut [u8], vni: u32) -> bool {
    let Some(out) = out.get_mut(..HEADER) else {
        return false;
    };
    if vni >> 24 != 0 {
        return false;
    }
    out[..4].copy_from_slice(&[VALID_VNI, 0, 0, 0]);
    out[4..8].copy_from_slice(&(vni << 8).to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_reads_back() {
        let mut bytes = [0u8; 8];
        assert!(build(&mut bytes, 0x00AB_CDEF));
        assert_eq!(View::checked(&bytes).unwrap().vni(), 0x00AB_CDEF);
    }

    #[test]
    fn bad_ones_are_refused() {
        assert!(!build(&mut [0; 8], 1 << 24) && !build(&mut [0; 7], 1));
        assert_eq!(View::checked(&[0; 8]).unwrap_err(), WireError::Unsupported);
        assert_eq!(View::checked(&[8; 7]).unwrap_err(), WireError::Truncated);
    }
}
