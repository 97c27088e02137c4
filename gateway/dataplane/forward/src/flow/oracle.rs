//! The flow table against a plain map, for both families.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// Even numbers are of IPv4, odd ones of IPv6.
fn tuple(n: u32) -> Tuple {
    let prefix = if n.is_multiple_of(2) { 0xFFFF_0000_0000 } else { 0xFD00 << 112 };
    Tuple { src: prefix | u128::from(n) << 7, dst: prefix | 9, src_port: n as u16, dst_port: 80, protocol: 6 }
}

fn insert(table: &mut FlowTable, n: u32, value: u32, timeout: u16) -> Result<Found, Full> {
    let hash = table.hash(&tuple(n));
    table.insert(hash, &tuple(n), 2, value, timeout)
}

fn value(table: &mut FlowTable, n: u32) -> Option<u32> {
    let hash = table.hash(&tuple(n));
    table.find(hash, &tuple(n)).map(|found| table.value(found))
}

#[test]
fn a_leap_in_time_ends_every_flow() {
    let mut table = FlowTable::new(100, 1);
    table.advance(1000);
    assert!(insert(&mut table, 1, 1, MAX_TIMEOUT).is_ok());
    table.advance(1000 + 65_536);
    assert_eq!(value(&mut table, 1), None);
    assert_eq!(table.counters().active, 0);
    table.advance(5); // the clock was set back: nothing dies of it
    assert!(insert(&mut table, 1, 2, 10).is_ok());
    assert_eq!(value(&mut table, 1), Some(2));
}

/// Otherwise no flow would die until the clock is where it once was, and the table would fill.
#[test]
fn a_clock_that_was_set_back_goes_on_from_there() {
    let mut table = FlowTable::new(100, 1);
    table.advance(1_000_000);
    assert!(insert(&mut table, 1, 1, 20).is_ok());
    table.advance(1_000_010);
    table.advance(900_000);
    assert_eq!(value(&mut table, 1), Some(1), "no time has passed");
    assert!(insert(&mut table, 2, 2, 30).is_ok());
    table.advance(900_009);
    assert_eq!(value(&mut table, 1), Some(1));
    table.advance(900_010);
    assert_eq!(value(&mut table, 1), None);
    assert_eq!(value(&mut table, 2), Some(2));
    table.advance(900_030);
    assert_eq!(value(&mut table, 2), None);
}

#[test]
fn the_sweep_frees_what_nobody_asks_for() {
    let mut table = FlowTable::new(2000, 1);
    for n in 0..1000 {
        assert!(insert(&mut table, n, 0, if n / 2 % 2 == 0 { 10 } else { 1000 }).is_ok());
    }
    table.advance(10);
    for _ in 0..32 {
        table.sweep(32);
    }
    assert_eq!(table.counters(), crate::FlowCounters { created: 1000, expired: 500, active: 500 });
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32, u16),
    Find(u32),
    Set(u32, u16),
    Advance(u16),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0u32..400;
    let step = prop_oneof![
        6 => (n.clone(), 1u16..200).prop_map(|(n, t)| Step::Insert(n, t)),
        4 => n.clone().prop_map(Step::Find),
        2 => (n, 1u16..200).prop_map(|(n, t)| Step::Set(n, t)),
        1 => prop_oneof![1u16..30, 1u16..30000].prop_map(Step::Advance),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 1..600)
}

proptest! {
    #[test]
    fn as_a_plain_map(steps in steps(), seed in any::<u64>(), start in 0u64..200_000) {
        let mut table = FlowTable::new(128, seed);
        let mut oracle: HashMap<u32, (u32, u8, u64)> = HashMap::new();
        let (mut now, mut serial) = (start, 0u32);
        table.advance(now);
        for step in steps {
            serial += 1;
            oracle.retain(|_, (_, _, deadline)| *deadline > now);
            match step {
                Step::Insert(n, timeout) => {
                    let hash = table.hash(&tuple(n));
                    if table.find(hash, &tuple(n)).is_none() {
                        prop_assert!(!oracle.contains_key(&n));
                        match table.insert(hash, &tuple(n), 3, serial, timeout) {
                            Ok(_) => { oracle.insert(n, (serial, 3, now + u64::from(timeout))); }
                            // Entries that nobody looked at may still hold dead flows; else it must be truly full.
                            Err(Full) => prop_assert!(table.counters().active > 45),
                        }
                    } else {
                        prop_assert!(oracle.contains_key(&n));
                    }
                }
                Step::Find(n) => {
                    let hash = table.hash(&tuple(n));
                    let found = table.find(hash, &tuple(n)).map(|f| (table.value(f), table.state(f)));
                    prop_assert_eq!(found, oracle.get(&n).map(|(value, state, _)| (*value, *state)));
                }
                Step::Set(n, timeout) => {
                    let hash = table.hash(&tuple(n));
                    if let Some(found) = table.find(hash, &tuple(n)) {
                        table.set(found, 4, serial, timeout);
                        oracle.insert(n, (serial, 4, now + u64::from(timeout)));
                    }
                }
                Step::Advance(seconds) => {
                    now += u64::from(seconds);
                    table.advance(now);
                }
                Step::Sweep => table.sweep(1),
            }
            let flows = table.counters();
            prop_assert_eq!(flows.created, flows.expired + flows.active);
        }
        table.sweep(1);
        oracle.retain(|_, (_, _, deadline)| *deadline > now);
        prop_assert_eq!(table.counters().active, oracle.len() as u64);
    }
}
