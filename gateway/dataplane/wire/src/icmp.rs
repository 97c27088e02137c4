//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the error messages, which quote the packet they are about.

use crate::WireError;

/// Bytes before the quoted packet.
pub const HEADER: usize = 8;
/// Offset of the checksum.
pub const CHECKSUM: usize = 2;

/// A checked view: at least the eight bytes are there.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    bytes: &'a [u8],
    v6: bool,
}

impl<'a> View<'a> {
    /// Check the length. `v6`: ICMPv6.
    pub fn checked(bytes: &'a [u8], v6: bool) -> Result<Self, WireError> {
        if bytes.len() < HEADER {
            return Err(WireError::Truncated);
        }
        Ok(Self { bytes, v6 })
    }

    /// Type.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.bytes[0]
    }

    /// Whether it is an error message that quotes a packet.
    #[must_use]
    pub fn is_error(&self) -> bool {
        if self.v6 {
            matches!(self.bytes[0], 1..=4)
        } else {
            matches!(self.bytes[0], 3 | 4 | 11 | 12)
        }
    }

    /// Whether it says that the destination cannot be reached (for a reason other than the packet's size).
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        if self.v6 {
            self.bytes[0] == 1
        } else {
            self.bytes[0] == 3 && self.bytes[1] != 4
        }
    }

    /// The quoted packet.
    #[must_use]
    pub fn quoted(&self) -> &'a [u8] {
        &self.bytes[HEADER..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_questions() {
        let error = |kind, v6| View::checked(&[kind, 0, 0, 0, 0, 0, 0, 0], v6).unwrap().is_error();
        assert!(error(3, false) && error(11, false) && error(1, true) && error(2, true));
        assert!(!error(8, false) && !error(0, false) && !error(128, true) && !error(135, true));
    }

    #[test]
    fn too_big_is_not_unreachable() {
        assert!(View::checked(&[3, 1, 0, 0, 0, 0, 0, 0], false).unwrap().is_unreachable());
        assert!(!View::checked(&[3, 4, 0, 0, 0, 0, 0, 0], false).unwrap().is_unreachable());
        assert!(!View::checked(&[2, 0, 0, 0, 0, 0, 0, 0], true).unwrap().is_unreachable());
    }

    #[test]
    fn the_quote_follows() {
        assert_eq!(View::checked(&[3, 0, 0, 0, 0, 0, 0, 0, 9, 8], false).unwrap().quoted(), &[9, 8]);
        assert_eq!(View::checked(&[3; 7], false).unwrap_err(), WireError::Truncated);
    }
}
