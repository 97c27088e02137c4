//! What a node is told before it has tables: who it is, where its taps go, which interfaces are its ports.

use std::hash::{BuildHasher, Hasher, RandomState};

use serde::Deserialize;
use tgw_contract::Role;
use tgw_forward::{ConfigError, Problem};

/// How a port reaches the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// AF_XDP where it works, AF_PACKET otherwise.
    Auto,
    /// AF_XDP sockets on a Linux interface.
    AfXdp,
    /// Packet sockets on a Linux interface.
    AfPacket,
}

/// One port of the node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its number in the tables; 0 is the fabric.
    pub index: u16,
    /// Name of the interface.
    pub interface: String,
    /// How it is opened.
    #[serde(default = "auto")]
    pub kind: Kind,
}

/// The node's own configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the node.
    pub name: String,
    /// "eip", "clb" or "vswitch".
    pub role: String,
    /// 32 hex digits, new at each start.
    pub boot_id: String,
    /// Directory of the taps; none: taps in memory.
    pub tap_dir: Option<std::path::PathBuf>,
    /// Records in a tap, a power of two.
    #[serde(default = "tap_capacity")]
    pub tap_capacity: u64,
    /// Workers; a CLB has its dispatchers besides. None: 2 for a CLB, 1 for the others.
    pub workers: Option<u16>,
    /// Dispatchers of a CLB, each of which receives and hands over to every worker. None: 1. With 0, a single worker
    /// receives by itself and runs to completion. Other roles have none.
    pub dispatchers: Option<u16>,
    /// Connections in a worker's flow table.
    #[serde(default = "flow_capacity")]
    pub flow_capacity: usize,
    /// Frames in the ring from the dispatcher to a worker.
    #[serde(default = "ring_capacity")]
    pub ring_capacity: usize,
    /// Seed of the hashes of the flow table. Left out of the JSON form: another secret each time.
    #[serde(default = "random_seed")]
    pub seed: u64,
    /// The ports.
    #[serde(default)]
    pub ports: Vec<Port>,
}

fn auto() -> Kind {
    Kind::Auto
}
fn tap_capacity() -> u64 {
    65_536
}
fn flow_capacity() -> usize {
    65_536
}
fn ring_capacity() -> usize {
    1024
}
fn random_seed() -> u64 {
    // The standard library's maps are keyed from the system's randomness.
    RandomState::new().build_hasher().finish()
}

/// What a wrong value gets: where it stands, what is expected there, what was found.
pub(crate) fn problem(path: &str, expected: &str, found: impl ToString) -> ConfigError {
    ConfigError { problems: vec![Problem { path: path.into(), expected: expected.into(), found: found.to_string() }] }
}

/// Dispatchers of a CLB: more than the queues of most devices.
const MOST_DISPATCHERS: u16 = 16;

/// Checked parts of a configuration.
pub(crate) struct Checked {
    pub(crate) role: Role,
    pub(crate) boot_id: [u8; 16],
    pub(crate) workers: u16,
    pub(crate) dispatchers: u16,
}

impl Config {
    /// Read the JSON form. `ConfigError` names the place.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        serde_json::from_str(text).map_err(|error| problem("", "the configuration of a node", error))
    }

    pub(crate) fn check(&self) -> Result<Checked, ConfigError> {
        let role = role(&self.role)?;
        let workers = self.workers.unwrap_or(if role == Role::Clb { 2 } else { 1 });
        // Replies and requests of one connection come in by different interfaces, whose kernels' hashes do not agree:
        // several vSwitch workers would not find what another has learned.
        let most = if role == Role::Vswitch { 1 } else { 64 };
        if workers == 0 || workers > most {
            return Err(problem("workers", &format!("1 to {most} for the role {}", role.name()), workers));
        }
        let dispatchers = self.dispatchers.unwrap_or(u16::from(role == Role::Clb));
        let most = if role == Role::Clb { MOST_DISPATCHERS } else { 0 };
        if dispatchers > most {
            return Err(problem("dispatchers", &format!("0 to {most} for the role {}", role.name()), dispatchers));
        }
        if role == Role::Clb && dispatchers == 0 && workers > 1 {
            // Requests and replies of a connection come in different tunnels, which a device spreads as it likes.
            return Err(problem("dispatchers", "at least 1 for more than one worker", dispatchers));
        }
        // It begins the names of the taps.
        if !(1..=64).contains(&self.name.len()) || self.name.contains(['/', '\0']) {
            return Err(problem("name", "1 to 64 bytes without a slash", &self.name));
        }
        if !self.tap_capacity.is_power_of_two() || self.tap_capacity > 1 << 24 {
            return Err(problem("tap_capacity", "a power of two up to 2^24", self.tap_capacity));
        }
        if !(1..=1 << 16).contains(&self.ring_capacity) {
            return Err(problem("ring_capacity", "1 to 65536", self.ring_capacity));
        }
        if !(1..=1 << 30).contains(&self.flow_capacity) {
            return Err(problem("flow_capacity", "1 to 2^30", self.flow_capacity));
        }
        for (at, port) in self.ports.iter().enumerate() {
            if self.ports[..at].iter().any(|other| other.index == port.index) {
                return Err(problem(&format!("ports[{at}].index"), "a number used once", port.index));
            }
        }
        Ok(Checked { role, boot_id: boot_id(&self.boot_id)?, workers, dispatchers })
    }
}

/// The role of this name.
pub(crate) fn role(name: &str) -> Result<Role, ConfigError> {
    let found = Role::ALL.into_iter().find(|role| role.name() == name);
    found.ok_or_else(|| problem("role", "eip, clb or vswitch", name))
}

fn boot_id(text: &str) -> Result<[u8; 16], ConfigError> {
    let wrong = || problem("boot_id", "32 hex digits", text);
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let value = u128::from_str_radix(text, 16).map_err(|_| wrong())?;
    Ok(value.to_be_bytes())
}
