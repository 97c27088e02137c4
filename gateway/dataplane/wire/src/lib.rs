//! The protocols on the wire, one file each, every file in the same order: field ranges, the checked view, accessors,
//! setters, what to build, display, tests.
//!
//! A view is made by `new_checked`, which refuses bytes whose lengths contradict each other, or by `new_unchecked`, which
//! takes anything. After a check, every slice that a view returns lies where the header says; a setter that voids the
//! check says so. Nothing here panics: an unchecked view of too few bytes reads zeros and writes nothing.

#![forbid(unsafe_code)]

mod bytes;
pub mod checksum;
pub mod ethernet;
pub mod geneve;
pub mod gre;
pub mod gre_udp;
pub mod gue;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipip;
pub mod ipv4;
pub mod ipv6;
pub mod quic;
pub mod tcp;
pub mod udp;
pub mod vxlan;

use std::fmt;

/// IP protocol numbers.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMPV4: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Generic Routing Encapsulation.
    pub const GRE: u8 = 47;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// Why bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There are fewer bytes than the header takes or announces.
    Truncated,
    /// Fields contradict each other or the standard.
    Malformed,
    /// Well formed, but of a kind that is not handled.
    Unsupported,
    /// The checksum is wrong.
    Checksum,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Truncated => "truncated header",
            Self::Malformed => "fields contradict each other",
            Self::Unsupported => "unsupported kind",
            Self::Checksum => "wrong checksum",
        })
    }
}

impl std::error::Error for Error {}

/// What a check returns.
pub type Result<T> = std::result::Result<T, Error>;
