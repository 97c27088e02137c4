//! The straight way for what nearly all traffic is: IPv4 in GRE over IPv4, TCP that goes on or UDP, of a known flow, while
//! nothing is out of the ordinary. Everything else takes the general way (`work`, `clb`, `eip`), and so does every packet
//! that turns out not to be ordinary on its way here; nothing has been changed by then.
//!
//! The straight way must do exactly what the general way would do: `tests/fast.rs` sends the same frames both ways.

mod bindings;
mod clb;
mod eip;
mod numbers;
mod read;
mod servers;
mod template;

pub(crate) use clb::{ClbLane, FastClb};
pub(crate) use eip::{EipLane, FastEip};

use crate::packet::is_v4;
use crate::tables::{Port, Section, Tables};

/// What of the tables the straight way reads, in the form in which it does.
#[derive(Debug, Default)]
pub(crate) enum Fast {
    /// Nothing takes the straight way.
    #[default]
    Nothing,
    Eip(FastEip),
    Clb(FastClb),
}

impl Fast {
    /// Of tables that are otherwise whole.
    pub(crate) fn of(tables: &Tables) -> Self {
        let made = match &tables.section {
            Section::Eip(eip) => FastEip::of(tables, eip).map(Self::Eip),
            Section::Clb(clb) => FastClb::of(tables, clb).map(Self::Clb),
            Section::Vswitch(_) => None,
        };
        made.unwrap_or_default()
    }
}

/// Where frames of a port come in: what of the tables is compared with every one.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// Its MAC, as a little-endian load of the frame's first eight bytes has it in its low six.
    mac: u64,
    /// A bit for each value of the low six bits of a host address: an address whose bit is not set is none.
    bits: u64,
    hosts: Vec<u32>,
    /// Prefixes that probes come from: (mask, address).
    reserved: Vec<(u32, u32)>,
}

impl Door {
    fn of(tables: &Tables, port: &Port) -> Self {
        let [a, b, c, d, e, f] = port.mac.0;
        let hosts: Vec<u32> =
            port.host_addresses.iter().filter(|&&host| is_v4(host)).map(|&host| host as u32).collect();
        Self {
            mac: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]),
            bits: hosts.iter().fold(0, |bits, &host| bits | 1 << (host & 63)),
            hosts,
            reserved: tables.reserved.iter().filter_map(tgw_contract::colour::Prefix::v4).collect(),
        }
    }

    /// Whether a probe may come from this address, or go to it.
    #[inline(always)]
    pub(crate) fn is_reserved(&self, address: u32) -> bool {
        self.reserved.iter().any(|&(mask, prefix)| address & mask == prefix)
    }

    /// Whether this is an address of the host itself, of its link alone, or of no one host.
    #[inline(always)]
    fn is_host(&self, address: u32) -> bool {
        self.bits >> (address & 63) & 1 != 0 && self.hosts.contains(&address)
            || address >= 0xE000_0000
            || address >> 16 == 0xA9FE
    }
}
