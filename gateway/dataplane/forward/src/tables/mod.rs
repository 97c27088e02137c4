//! The tables of a node: checked when they are made, read-only afterwards, shared by its workers.

mod check;
mod encap;
mod listener;
mod policy;
mod protection;
mod read;

use std::fmt;

use tgw_contract::colour::{ColourKey, Prefix};
use tgw_contract::Role;
use tgw_wire::ethernet::Mac;

use crate::blacklist::Rule;
use crate::board::{Board, Standing};
use crate::fast::Fast;
use crate::hash::Map;
use crate::Nanos;

pub(crate) use listener::{Backend, Chooser, Dispatch, Health, Listener, ServerId};

pub(crate) use protection::{Protection, SynPolicy};

/// One thing that is wrong with the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as in `clb.vips[0].listeners[1].port`.
    pub path: String,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// The tables are wrong; nothing of them was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(out, "{separator}{}: expected {}, found {}", problem.path, problem.expected, problem.found)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

pub use encap::Encap;

/// One port of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub index: u16,
    /// Its own address.
    pub mac: Mac,
    /// The router behind it; `None` while it is not known: nothing can be sent there.
    pub next_hop_mac: Option<Mac>,
    /// Largest packet behind the Ethernet header [bytes].
    pub mtu: u16,
    /// Addresses of the host's own stack, mapped: their frames are not ours.
    pub host_addresses: Vec<u128>,
}

/// Where a tunnel ends, and how to wrap for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address, mapped.
    pub address: u128,
    /// How to wrap.
    pub encap: Encap,
    /// Names the real server (GRE key, VXLAN or Geneve VNI, GUE group identifier). Without one its host's address does, and
    /// on the host the VIP.
    pub key: Option<u32>,
}

/// One public address.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) vip_id: u32,
    pub(crate) public: u128,
    pub(crate) private: u128,
    pub(crate) service: u128,
}

/// What an EIP node knows.
#[derive(Debug, Default)]
pub(crate) struct EipTables {
    pub(crate) bindings: Vec<Binding>,
    pub(crate) by_public: Map<u128, u32>,
    pub(crate) by_private: Map<u128, u32>,
}

/// How a real server is told a client's address, besides by the packets' source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientAddress {
    #[default]
    AsSource,
    /// In a TCP option of the first packets.
    Toa,
    /// In a PROXY header (version 2) in front of the first bytes.
    Proxy,
}

/// A virtual address, as an LD sees it.
#[derive(Debug)]
pub(crate) struct Vip {
    pub(crate) id: u32,
    pub(crate) address: u128,
    pub(crate) new_flows_per_s: Option<u32>,
    pub(crate) protection: Protection,
}

/// What an LD knows.
#[derive(Debug)]
pub(crate) struct ClbTables {
    pub(crate) reply_to: Endpoint,
    /// `None`: nobody is blacklisted.
    pub(crate) blacklist: Option<Rule>,
    pub(crate) vips: Vec<Vip>,
    pub(crate) by_address: Map<u128, u32>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) by_service: Map<u64, u32>,
    /// What health checks have found.
    pub(crate) board: Board,
    /// Whether any listener has its packets dispatched by anything but the tuple.
    pub(crate) steers: bool,
    /// Whether any listener keeps clients at their server.
    pub(crate) has_affinity: bool,
}

impl ClbTables {
    pub(crate) fn vip(&self, address: u128) -> Option<u32> {
        self.by_address.get(&address).copied()
    }

    /// Whether the VIP of this address ever answers SYNs with cookies; `None` without one.
    pub(crate) fn has_cookies(&self, address: u128) -> Option<bool> {
        self.vips.get(self.vip(address)? as usize).map(|vip| vip.protection.has_cookies())
    }

    pub(crate) fn listener(&self, vip: u32, protocol: u8, port: u16) -> Option<&Listener> {
        self.listeners.get(self.place(vip, protocol, port)? as usize)
    }

    /// Whether a real server of the listener at this place is up, as far as is known.
    pub(crate) fn is_up(&self, listener: u32, server: u32) -> bool {
        let listener = self.listeners.get(listener as usize);
        listener.is_none_or(|listener| listener.place(server).is_none_or(|place| listener.is_up(&self.board, place)))
    }

    /// The place of a listener.
    pub(crate) fn place(&self, vip: u32, protocol: u8, port: u16) -> Option<u32> {
        self.by_service.get(&service_key(vip, protocol, port)).copied()
    }

    /// Every listener: place of its VIP, protocol, port, its own place.
    pub(crate) fn services(&self) -> impl Iterator<Item = (u32, u8, u16, u32)> + '_ {
        self.by_service.iter().map(|(key, place)| ((key >> 32) as u32, (key >> 16) as u8, *key as u16, *place))
    }

    /// Where the records of each listener's real servers begin, see `meters`.
    pub(crate) fn first_records(&self) -> Vec<u32> {
        let mut first = 0;
        let begins = |listener: &Listener| {
            let here = first;
            first += listener.backends.len() as u32;
            here
        };
        self.listeners.iter().map(begins).collect()
    }

    /// The listener of the same name in other tables: same address, protocol and port.
    pub(crate) fn same_listener(&self, other: &Self, listener: &Listener) -> Option<&Listener> {
        let vip = self.vip(other.vips.get(listener.vip as usize)?.address)?;
        self.listener(vip, listener.protocol, listener.port)
    }

    /// Let the board know what those before knew. A server that stands in a listener that was there before, and was not in
    /// it, has come at `now`; one whose listener is new with it has been there as far as anybody can say (its VIP has moved
    /// here, and its connections must find it).
    pub(crate) fn succeed(&self, before: Option<&Self>, now: Nanos) {
        for listener in self.listeners.iter().filter(|listener| listener.slots.is_some()) {
            let old = before.and_then(|before| Some((before, before.same_listener(self, listener)?)));
            for (place, backend) in listener.backends.iter().enumerate() {
                let Some(slot) = listener.slot(place) else { continue };
                let standing = match old.map(|(before, old)| (before, old, old.place(backend.id))) {
                    None => Standing::EVER,
                    Some((_, _, None)) => Standing { up: true, since: now },
                    Some((before, old, Some(place))) => {
                        old.slot(place).map_or(Standing::EVER, |slot| before.board.standing(slot))
                    }
                };
                // Without checks nobody would ever bring it up again.
                let standing = if listener.health.is_some() || standing.up { standing } else { Standing::EVER };
                self.board.settle(slot, standing);
            }
        }
    }
}

fn service_key(vip: u32, protocol: u8, port: u16) -> u64 {
    u64::from(vip) << 32 | u64::from(protocol) << 16 | u64::from(port)
}

/// A real server, as its host sees it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: u32,
    pub(crate) port: u16,
    pub(crate) mac: Mac,
    /// Names it in the tunnel; without one its VIPs do.
    pub(crate) key: Option<u32>,
    pub(crate) vips: Vec<ServerVip>,
}

/// A VIP that a real server answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerVip {
    pub(crate) address: u128,
    pub(crate) id: u32,
    /// Replies go straight to the EIP nodes.
    pub(crate) direct: bool,
}

impl Server {
    pub(crate) fn vip(&self, address: u128) -> Option<&ServerVip> {
        self.vips.iter().find(|vip| vip.address == address)
    }
}

/// What a vSwitch knows.
#[derive(Debug, Default)]
pub(crate) struct VswitchTables {
    pub(crate) servers: Vec<Server>,
    pub(crate) by_id: Map<u32, u32>,
    pub(crate) by_key: Map<u32, u32>,
    /// Servers without a key, by the VIPs that no other such server has.
    pub(crate) by_vip: Map<u128, u32>,
    /// Where replies in direct return go.
    pub(crate) reply_to: Option<Endpoint>,
}

impl VswitchTables {
    pub(crate) fn server(&self, id: u32) -> Option<&Server> {
        self.servers.get(*self.by_id.get(&id)? as usize)
    }

    /// The server that a tunnel names: by its key, or by the VIP when it has none.
    pub(crate) fn named(&self, key: Option<u32>, vip: u128) -> Option<&Server> {
        let place = match key {
            Some(key) => self.by_key.get(&key),
            None => self.by_vip.get(&vip),
        };
        self.servers.get(*place? as usize)
    }
}

#[derive(Debug)]
pub(crate) enum Section {
    Eip(EipTables),
    Clb(ClbTables),
    Vswitch(VswitchTables),
}

/// The port towards the fabric.
pub(crate) const FABRIC: u16 = 0;
/// An EIP node's port towards clients.
pub(crate) const EDGE: u16 = 1;

/// What health checks have found of a real server, for one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHealth {
    /// Id of the VIP.
    pub vip_id: u32,
    /// Id of the real server.
    pub server_id: u32,
    /// TCP port of the listener.
    pub port: u16,
    /// Whether it gets connections.
    pub up: bool,
    /// Since when [ns since 1970]; 0: as long as this node has known it.
    pub since_ns: Nanos,
}

/// The tables.
#[derive(Debug)]
pub struct Tables {
    pub(crate) epoch: u64,
    pub(crate) role: Role,
    pub(crate) ports: Vec<Port>,
    /// Place in `ports` by number.
    pub(crate) port_places: Map<u32, u32>,
    pub(crate) local: u128,
    pub(crate) encap: Encap,
    pub(crate) key: ColourKey,
    pub(crate) reserved: Vec<Prefix>,
    pub(crate) section: Section,
    /// Made of all the others.
    pub(crate) fast: Fast,
}

impl Tables {
    /// Check the tables in `text` for a node of this role. `ConfigError` with everything that is wrong.
    pub fn from_json(text: &str, role: Role) -> Result<Self, ConfigError> {
        let mut tables = check::tables(text, role)?;
        tables.fast = Fast::of(&tables);
        Ok(tables)
    }

    /// Their epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What health checks have found of the real servers whose listeners check them, by VIP and port; empty for a node
    /// that is no LD.
    #[must_use]
    pub fn health(&self) -> Vec<ServerHealth> {
        let Section::Clb(clb) = &self.section else { return Vec::new() };
        let checked = clb.listeners.iter().filter(|listener| listener.health.is_some());
        checked
            .flat_map(|listener| {
                let vip_id = clb.vips.get(listener.vip as usize).map_or(0, |vip| vip.id);
                listener.backends.iter().enumerate().map(move |(place, backend)| {
                    let standing = listener.slot(place).map_or(Standing::EVER, |slot| clb.board.standing(slot));
                    let Standing { up, since: since_ns } = standing;
                    ServerHealth { vip_id, server_id: backend.id, port: listener.port, up, since_ns }
                })
            })
            .collect()
    }

    /// The ports.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// One port.
    #[must_use]
    pub fn port(&self, index: u16) -> Option<&Port> {
        // Ports are few and mostly stand at their own number.
        match self.ports.get(usize::from(index)) {
            Some(port) if port.index == index => Some(port),
            _ => self.ports.get(*self.port_places.get(&u32::from(index))? as usize),
        }
    }

    /// Whether an address (mapped) is one that probes come from.
    pub(crate) fn is_reserved(&self, address: u128) -> bool {
        self.reserved.iter().any(|prefix| prefix.contains(address))
    }
}
