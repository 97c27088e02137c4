//! The account: frames that went in = frames that came out + drops by reason.
//!
//! Whole nodes (dispatcher, rings, workers, taps) of every role, address family and encapsulation get good frames and
//! mutated ones. What goes in and what comes out is counted here, outside of the node; drops are the node's own counters.

use std::collections::BTreeMap;

use serde_json::{json, Value};
use tgw_contract::{Counter, DropReason, Role};
use tgw_node::{Config, Inline};
use tgw_wire::checksum::Sum;

use crate::random::Random;
use crate::support::{plans, seeds::seeds, Plan, EDGE_MAC, MAC, NOW};
use crate::Failure;

/// Frames given to a node at once.
const BURST: usize = 256;
/// Time from burst to burst [ns]: flows come and go.
const TICK: u64 = 10_000_000;

/// Totals over all nodes.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) frames_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) drops: BTreeMap<&'static str, u64>,
}

impl Account {
    pub(crate) fn all_drops(&self) -> u64 {
        self.drops.values().sum()
    }

    /// Frames that nobody can account for, or that were counted twice.
    pub(crate) fn difference(&self) -> i128 {
        i128::from(self.frames_in) - i128::from(self.frames_out) - i128::from(self.all_drops())
    }

    pub(crate) fn document(&self) -> Value {
        json!({
            "frames_in": self.frames_in,
            "frames_out": self.frames_out,
            "drops": self.all_drops(),
            "drops_by_reason": self.drops,
            "difference": self.difference() as i64,
        })
    }
}

/// Send about `frames` frames through nodes of all roles; `progress` hears how many went in.
pub(crate) fn run(frames: u64, mut progress: impl FnMut(u64)) -> Result<Account, Failure> {
    let plans = plans();
    let kinds: Vec<Kind> = plans.iter().enumerate().flat_map(|(number, plan)| kinds(number, plan)).collect();
    let share = frames.div_ceil(kinds.len() as u64);
    let mut account = Account::default();
    let mut random = Random::new(0xACC0);
    for kind in &kinds {
        node(kind, share, &mut random, &mut account)?;
        progress(account.frames_in);
    }
    Ok(account)
}

/// A kind of node: its role, its region and its tables.
struct Kind<'a> {
    role: Role,
    plan: &'a Plan,
    tables: Value,
}

/// All that one region has; its LDs plain and with what listeners may ask for, guarded, and balanced.
fn kinds(number: usize, plan: &Plan) -> Vec<Kind<'_>> {
    let (extra, vswitch) = plan.with_extras(number);
    let clbs = [extra, plan.clb_tables(), plan.guarded_tables(), plan.balanced_clb_tables()];
    let mut tables = vec![(Role::Eip, plan.eip_tables()), (Role::Vswitch, vswitch)];
    tables.extend(clbs.map(|tables| (Role::Clb, tables)));
    tables.into_iter().map(|(role, tables)| Kind { role, plan, tables }).collect()
}

fn make(Kind { role, tables, .. }: &Kind<'_>) -> Result<Inline, Failure> {
    let config = json!({"name": "exact", "role": role.name(), "boot_id": "0".repeat(32), "tap_capacity": 1024,
                        "workers": 2, "flow_capacity": 1024});
    let mut node = Inline::new(&Config::from_json(&config.to_string())?, std::process::id(), NOW)?;
    node.apply(&tables.to_string())?;
    Ok(node)
}

fn node(kind: &Kind<'_>, share: u64, random: &mut Random, account: &mut Account) -> Result<(), Failure> {
    let mut node = make(kind)?;
    let seeds = seeds(kind.plan);
    let mut taken = Vec::new();
    for (port, bytes) in &seeds {
        // Another node each time: what one frame leaves behind does not decide about the next.
        if !make(kind)?.process([(*port, bytes.as_slice())], NOW).is_empty() {
            taken.push((*port, bytes.clone()));
        }
    }
    let mut burst = vec![(0u16, Vec::new()); BURST];
    let mut now = NOW;
    let mut left = share;
    while left > 0 {
        let count = left.min(BURST as u64) as usize;
        for (port, bytes) in &mut burst[..count] {
            // Mostly what the node takes; some of what is for others.
            let from = if random.below(4) == 0 || taken.is_empty() { &seeds } else { &taken };
            *port = generate(random, from, bytes);
        }
        let out = node.process(burst[..count].iter().map(|(port, bytes)| (*port, bytes.as_slice())), now);
        account.frames_in += count as u64;
        account.frames_out += out.len() as u64;
        left -= count as u64;
        now += TICK;
        // Heartbeats, sweeps, and what a node sends of its own accord.
        node.beat(now);
    }
    account.frames_out += node.process([], now).len() as u64;
    for worker in node.counters() {
        // What a node says of its own accord came out, but never went in.
        account.frames_out -= worker.counters.get(Counter::Generated);
        for reason in DropReason::ALL {
            let drops = worker.counters.drops(reason);
            if drops > 0 {
                *account.drops.entry(reason.name()).or_default() += drops;
            }
        }
    }
    Ok(())
}

/// A frame into `bytes`, and the port it comes in by: a third as they should be (other ports, so other flows), the others
/// spoilt up to three times, or random behind a header that gets them through the door.
fn generate(random: &mut Random, seeds: &[(u16, Vec<u8>)], bytes: &mut Vec<u8>) -> u16 {
    bytes.clear();
    let kind = random.below(12);
    if kind == 0 {
        let port = random.below(2) as u16;
        bytes.extend_from_slice(&if port == 0 { MAC } else { EDGE_MAC }.0);
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(if random.below(2) == 0 { &[8, 0, 0x45] } else { &[0x86, 0xDD, 0x60] });
        let length = random.below(200);
        bytes.extend((0..length).map(|_| random.next() as u8));
        return port;
    }
    let (port, seed) = &seeds[random.below(seeds.len())];
    bytes.extend_from_slice(seed);
    let spoils = if kind < 5 { 0 } else { 1 + random.below(3) };
    if let Some(at) = client_port(bytes) {
        let low = random.next() as u8;
        bytes[at] = low;
    }
    for _ in 0..spoils {
        spoil(random, bytes);
    }
    // Behind a wrong checksum nothing else would be looked at.
    if random.below(2) == 0 {
        [14, 38, 42].iter().for_each(|at| repair(bytes, *at));
    }
    *port
}

/// Make the checksum of the IPv4 header at a place right, if one is there.
fn repair(bytes: &mut [u8], at: usize) {
    if let Some(header) = bytes.get_mut(at..at + 20).filter(|header| header[0] == 0x45) {
        header[10..12].fill(0);
        let checksum = Sum::new().bytes(header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// The low byte of port 4000, which the seeds' clients have.
fn client_port(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == 4000u16.to_be_bytes()).map(|at| at + 1)
}

fn spoil(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(10) {
        0..=5 => bytes[at] ^= 1 << random.below(8),
        6 => bytes[at] = [0, 0xFF][random.below(2)],
        7 => bytes.truncate(at),
        8 => {
            let value = random.next() as u8;
            bytes.insert(at, value);
        }
        _ => {
            bytes.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_exact_and_many_reasons_occur() {
        let account = run(50_000, |_| {}).unwrap();
        assert!(account.frames_in >= 50_000);
        assert_eq!(account.difference(), 0);
        assert!(account.frames_out > account.frames_in / 20, "{}", account.frames_out);
        assert!(account.drops.len() >= 10, "{:?}", account.drops);
    }

    #[test]
    fn a_lost_frame_shows() {
        let mut account = Account { frames_in: 10, frames_out: 7, drops: BTreeMap::from([("NO_VIP", 3)]) };
        assert_eq!(account.difference(), 0);
        account.frames_out -= 1;
        assert_eq!(account.difference(), 1);
        assert_eq!(account.document()["difference"], 1);
    }
}
