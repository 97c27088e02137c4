//! IP in IP (RFC 2003 and 4213; RFC 2473 in IPv6): no header of its own, the outer protocol number says what is inside.

/// Outer protocol number when IPv4 is inside.
pub const IPV4: u8 = 4;
/// Outer protocol number when IPv6 is inside.
pub const IPV6: u8 = 41;

/// The protocol number of an inner packet of IP version 4 or 6.
#[must_use]
pub const fn protocol_of(version: u8) -> u8 {
    if version == 4 {
        IPV4
    } else {
        IPV6
    }
}

/// The IP version inside, if the protocol number announces one.
#[must_use]
pub const fn version_of(protocol: u8) -> Option<u8> {
    match protocol {
        IPV4 => Some(4),
        IPV6 => Some(6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_versions_agree() {
        for version in [4, 6] {
            assert_eq!(version_of(protocol_of(version)), Some(version));
        }
        assert_eq!((0..=255).filter(|number| version_of(*number).is_some()).count(), 2);
    }
}
