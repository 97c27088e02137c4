//! GRE in UDP (RFC 8086): a UDP header in front of a GRE header ([`crate::gre`]), whose source port carries the entropy of
//! the flow inside. In IPv6 the UDP checksum is wanted (section 6); in IPv4 there may be none.

use crate::{gre, udp, Result};

/// The UDP port it is sent to.
pub const PORT: u16 = 4754;

/// What the two headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source port: the flow's entropy, best from 49152 on.
    pub src_port: u16,
    /// The GRE header.
    pub gre: gre::Repr,
    /// Bytes of the packet inside.
    pub inner_len: usize,
}

impl Repr {
    /// Bytes of both headers.
    #[must_use]
    pub const fn len(&self) -> usize {
        udp::HEADER_LEN + self.gre.len()
    }

    /// Never: two headers take bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Write both headers to the front of `buffer`, the UDP checksum as none. `Truncated` when they do not fit,
    /// `Malformed` when the datagram would be longer than 65535 bytes.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let payload_len = self.gre.len() + self.inner_len;
        udp::Repr { src_port: self.src_port, dst_port: PORT, payload_len, checksum: 0 }.emit(buffer)?;
        self.gre.emit(buffer.get_mut(udp::HEADER_LEN..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::IPV6;

    #[test]
    fn build_and_read() {
        for key in [None, Some(7)] {
            let repr = Repr { src_port: 50_000, gre: gre::Repr { protocol: IPV6, key }, inner_len: 3 };
            let mut bytes = vec![9; repr.len() + 3];
            repr.emit(&mut bytes).unwrap();
            let datagram = udp::Packet::new_checked(&bytes).unwrap();
            assert_eq!((datagram.dst_port(), datagram.length(), datagram.checksum()), (4754, bytes.len(), 0));
            let view = gre::Packet::new_checked(datagram.payload()).unwrap();
            assert_eq!((view.key(), view.protocol(), view.payload()), (key, IPV6, &[9; 3][..]));
            assert!(repr.emit(&mut vec![0; repr.len() - 1]).is_err());
        }
    }
}
