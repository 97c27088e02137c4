//! GRE (RFC 2784) with the key of RFC 2890. Checksums, sequence numbers and routing are not accepted.

use crate::{be16, be32, WireError};

/// Bytes without a key.
pub const HEADER: usize = 4;
/// Bytes with a key.
pub const HEADER_KEY: usize = 8;

const KEY: u16 = 0x2000;

/// A checked view.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Check flags, version and length.
    pub fn checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER {
            return Err(WireError::Truncated);
        }
        let flags = be16(bytes, 0);
        if flags & !KEY != 0 {
            return Err(WireError::Unsupported);
        }
        if flags & KEY != 0 && bytes.len() < HEADER_KEY {
            return Err(WireError::Truncated);
        }
        Ok(Self(bytes))
    }

    /// The key, 0 when there is none.
    #[must_use]
    pub fn key(&self) -> u32 {
        if self.length() == HEADER_KEY {
            be32(self.0, 4)
        } else {
            0
        }
    }

    /// EtherType of the payload.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        be16(self.0, 2)
    }

    /// Bytes of the header.
    #[must_use]
    pub fn length(&self) -> usize {
        if be16(self.0, 0) & KEY != 0 {
            HEADER_KEY
        } else {
            HEADER
        }
    }
}

/// Write a header; `key` 0 writes none. The bytes written (4 or 8), `None` when `out` is shorter.
pub fn build(out: &mut [u8], key: u32, ethertype: u16) -> Option<usize> {
    let length = if key == 0 { HEADER } else { HEADER_KEY };
    let out = out.get_mut(..length)?;
    let flags = if key == 0 { 0 } else { KEY };
    out[..2].copy_from_slice(&flags.to_be_bytes());
    out[2..4].copy_from_slice(&ethertype.to_be_bytes());
    if key != 0 {
        out[4..8].copy_from_slice(&key.to_be_bytes());
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_reads_back() {
        for key in [0, 1, 0xFFFF_FFFF] {
            let mut bytes = [0u8; 8];
            let length = build(&mut bytes, key, 0x0800).unwrap();
            let view = View::checked(&bytes[..length]).unwrap();
            assert_eq!((view.key(), view.ethertype(), view.length()), (key, 0x0800, length));
        }
    }

    #[test]
    fn other_flags_and_versions_are_refused() {
        for flags in [[0x80, 0], [0x10, 0], [0x00, 1], [0x40, 0]] {
            assert_eq!(View::checked(&[flags[0], flags[1], 8, 0]).unwrap_err(), WireError::Unsupported);
        }
        assert_eq!(View::checked(&[0x20, 0, 8, 0]).unwrap_err(), WireError::Truncated);
        assert_eq!(View::checked(&[0, 0, 8]).unwrap_err(), WireError::Truncated);
    }
}
