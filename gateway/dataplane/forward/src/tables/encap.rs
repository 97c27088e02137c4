//! The kinds of tunnels, and what each can carry besides the packet.

use tgw_wire::{ethernet, geneve, gre, gue, ipip, protocol, udp, vxlan};

/// How packets are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encap {
    /// Generic Routing Encapsulation.
    Gre,
    /// The same in UDP (RFC 8086).
    GreUdp,
    /// VXLAN.
    Vxlan,
    /// IP in IP: no key.
    Ipip,
    /// Generic UDP Encapsulation, variant 0: a key, or none.
    Gue,
    /// Geneve.
    Geneve,
}

impl Encap {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Gre, Self::GreUdp, Self::Vxlan, Self::Ipip, Self::Gue, Self::Geneve];

    /// Its name in the tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gre => "gre",
            Self::GreUdp => "gre_udp",
            Self::Vxlan => "vxlan",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Geneve => "geneve",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encap| encap.name() == name)
    }

    /// Whether a tunnel to a real server may do without a key.
    #[must_use]
    pub const fn may_be_keyless(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }

    /// The largest key; `None` when it carries none.
    #[must_use]
    pub const fn largest_key(self) -> Option<u32> {
        match self {
            Self::Gre | Self::GreUdp | Self::Gue => Some(u32::MAX),
            Self::Vxlan => Some(vxlan::MAX_VNI),
            Self::Geneve => Some(geneve::MAX_VNI),
            Self::Ipip => None,
        }
    }

    /// Bytes between the outer IP header and the packet.
    #[must_use]
    pub const fn overhead(self, key: Option<u32>) -> usize {
        let gre = if key.is_some() { gre::KEYED_LEN } else { gre::HEADER_LEN };
        match self {
            Self::Gre => gre,
            Self::GreUdp => udp::HEADER_LEN + gre,
            Self::Vxlan => udp::HEADER_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN,
            Self::Ipip => 0,
            Self::Gue => udp::HEADER_LEN + if key.is_some() { gue::KEYED_LEN } else { gue::HEADER_LEN },
            Self::Geneve => udp::HEADER_LEN + geneve::HEADER_LEN,
        }
    }

    /// The outer IP header's protocol number around a packet of IP version 4 or 6.
    pub(crate) const fn protocol(self, version: u8) -> u8 {
        match self {
            Self::Gre => protocol::GRE,
            Self::Ipip => ipip::protocol_of(version),
            Self::GreUdp | Self::Vxlan | Self::Gue | Self::Geneve => protocol::UDP,
        }
    }

    /// Whether its UDP checksum is wanted in IPv6 (RFC 8086, RFC 8926; VXLAN goes without, RFC 7348).
    pub(crate) const fn wants_checksum(self) -> bool {
        matches!(self, Self::GreUdp | Self::Gue | Self::Geneve)
    }
}
