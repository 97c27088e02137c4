//! The flow table against a plain map, driven by any bytes: for the fuzz target, and where Miri watches.

use std::collections::HashMap;

use super::{FlowTable, Found};
use crate::hash::Tuple;

/// Few enough tuples for the table to fill, more than it holds.
const TUPLES: u16 = 512;
const CAPACITY: usize = 64;
/// So many flows there must be before one is refused: IPv6 has room for two fifths of the capacity, in buckets that may fill
/// before all do.
const LEAST: u64 = 16;
/// A state that is never evicted.
const STATE: u8 = 2;

/// Even numbers are of IPv4, odd ones of IPv6.
fn tuple(n: u16) -> Tuple {
    let prefix = if n.is_multiple_of(2) { 0xFFFF_0000_0000 } else { 0xFD00 << 112 };
    Tuple { src: prefix | u128::from(n) << 7, dst: prefix | 9, src_port: n, dst_port: 80, protocol: 6 }
}

/// A step is four bytes: what, which flow (two), and how long [s]. The first byte of all is the seed.
pub(crate) fn run(data: &[u8]) {
    let Some((seed, steps)) = data.split_first() else { return };
    let mut table = FlowTable::new(CAPACITY, u64::from(*seed));
    // Values and deadlines.
    let mut oracle: HashMap<u16, (u32, u64)> = HashMap::new();
    let mut now = 1000;
    table.advance(now);
    for (serial, [what, high, low, time]) in steps.as_chunks::<4>().0.iter().enumerate() {
        let (serial, time) = (serial as u32, u16::from(*time).max(1));
        let n = u16::from_be_bytes([*high, *low]) % TUPLES;
        let hash = table.hash(&tuple(n));
        let found = table.find(hash, &tuple(n));
        let known = oracle.get(&n).map(|(value, _)| *value);
        assert_eq!(found.map(|found| seen(&table, found)), known.map(|value| (STATE, value)), "flow {n}");
        match (what % 8, found) {
            (0..=3, None) => match table.insert(hash, &tuple(n), STATE, serial, time) {
                Ok(found) => {
                    assert_eq!(seen(&table, found), (STATE, serial));
                    oracle.insert(n, (serial, now + u64::from(time)));
                }
                Err(_) => assert!(table.counters().active >= LEAST, "refused while there was room"),
            },
            (0..=3, Some(found)) => {
                table.set(found, STATE, serial, time);
                oracle.insert(n, (serial, now + u64::from(time)));
            }
            (4, Some(found)) => {
                table.remove(found);
                oracle.remove(&n);
            }
            (5, _) => {
                now += u64::from(time);
                table.advance(now);
            }
            (6, _) => table.sweep(4),
            (7, _) => table.use_tags(time.is_multiple_of(2)),
            _ => {}
        }
        oracle.retain(|_, (_, deadline)| *deadline > now);
        let flows = table.counters();
        assert_eq!(flows.created, flows.expired + flows.active);
        assert!(flows.active >= oracle.len() as u64);
    }
    table.sweep(1);
    assert_eq!(table.counters().active, oracle.len() as u64);
}

fn seen(table: &FlowTable, found: Found) -> (u8, u32) {
    (table.state(found), table.value(found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_steps_do_what_a_map_does(data in prop::collection::vec(any::<u8>(), 0..3000)) {
            super::run(&data);
        }
    }
}
