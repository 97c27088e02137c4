//! The engine's account against a plain count, whatever pipeline and outlet do.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use tgw_contract::{Counter, DropReason, Point, Role};
use tgw_forward::{Faults, FlowCounters, Frame, Nanos, Observer, Outcome, Pipeline, Tables};
use tgw_node::{Engine, Outlet};
use tgw_tap::{Header, Writer};

const PORTS: u16 = 3;
/// Where every other answer goes; the rest goes nowhere.
const ANSWERS: u16 = 9;

/// Does with each frame what its first byte says: a port (the last one is not there), or a drop.
struct Told;

fn told(frame: &[u8]) -> Outcome {
    match frame.first() {
        Some(&byte) if u16::from(byte) <= PORTS => Outcome::Forward { port: byte.into() },
        Some(&byte @ 30..) => {
            Outcome::Answer { port: [PORTS, ANSWERS][usize::from(byte % 2)], reason: DropReason::MtuExceeded }
        }
        Some(&byte) => Outcome::Drop(DropReason::ALL[usize::from(byte) % DropReason::ALL.len()]),
        None => Outcome::Drop(DropReason::MalformedFrame),
    }
}

impl Pipeline for Told {
    fn process(&mut self, _: Nanos, frames: &mut [Frame], outcomes: &mut [Outcome], observer: &mut dyn Observer) {
        for (frame, outcome) in frames.iter_mut().zip(outcomes) {
            *outcome = told(frame.bytes());
            if let Outcome::Forward { .. } = outcome {
                observer.point(&Point { kind: 1, probe_id: 1, ts_ns: frame.rx_ns, ..Point::default() });
                frame.prepend(4); // what leaves is longer than what came
            }
        }
    }
    fn set_tables(&mut self, _: Arc<Tables>) {}
    fn counters(&self) -> FlowCounters {
        FlowCounters::default()
    }
    fn set_faults(&mut self, _: Faults) {}
    fn idle(&mut self, _: Nanos) {}
}

/// Takes every frame whose last byte is even.
#[derive(Default)]
struct Picky {
    taken: HashMap<u16, Vec<Vec<u8>>>,
}

impl Outlet for Picky {
    fn send(&mut self, _: Nanos, port: u16, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) -> bool {
        if port >= PORTS && port != ANSWERS {
            return false;
        }
        for &index in chosen {
            let bytes = frames[index].bytes();
            if bytes.last().is_some_and(|byte| byte % 2 == 0) {
                self.taken.entry(port).or_default().push(bytes.to_vec());
            } else {
                refused.push(index);
            }
        }
        true
    }
}

fn tables() -> Arc<Tables> {
    let text = r#"{"epoch": 1, "node": "n", "role": "eip", "tunnel": {"local": "10.3.0.11", "encap": "gre"},
        "probe": {"reserved": ["198.18.0.0/16"], "key": "000102030405060708090a0b0c0d0e0f"},
        "eip": {"anycast": "10.3.255.1", "bindings": []}, "routes": [], "edge_routes": [],
        "ports": [{"index": 0, "interface": "fabric0", "mac": "02:00:00:00:00:01",
                   "next_hop_mac": "02:00:00:00:00:02", "mtu": 1600, "host_addresses": []},
                  {"index": 1, "interface": "edge0", "mac": "02:00:00:00:01:01",
                   "next_hop_mac": "02:00:00:00:01:02", "mtu": 1500, "host_addresses": []}]}"#;
    Arc::new(Tables::from_json(text, Role::Eip).unwrap())
}

fn engine() -> Engine {
    let header =
        Header { node: "n".into(), role: 1, worker: 0, boot_id: [7; 16], capacity: 1024, pid: 1, created_ns: 1 };
    Engine::new(Role::Eip, Box::new(Told), Writer::anonymous(header).unwrap())
}

proptest! {
    #[test]
    fn every_frame_is_out_or_dropped_for_one_reason(
        batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(0u8..40, 0..20), 0..150), 0..6),
        without_tables in 0usize..3,
    ) {
        let mut engine = engine();
        let counters = engine.tap().counters();
        let mut outlet = Picky::default();
        let mut expected: HashMap<DropReason, u64> = HashMap::new();
        let mut left: HashMap<u16, Vec<Vec<u8>>> = HashMap::new();
        let (mut taken, mut bytes, mut answers) = (0u64, 0u64, [0u64; 2]);
        for (turn, batch) in batches.iter().enumerate() {
            if turn == without_tables {
                engine.set_tables(tables());
            }
            let mut frames: Vec<Frame> = batch.iter().map(|bytes| {
                let mut frame = Frame::default();
                assert!(frame.load(0, 5, bytes));
                frame
            }).collect();
            engine.process(10, &mut frames, &mut outlet);
            engine.publish(11);
            for frame in batch {
                taken += 1;
                bytes += frame.len() as u64;
                let died = match told(frame) {
                    _ if turn < without_tables => Some(DropReason::NoConfig),
                    Outcome::Drop(reason) => Some(reason),
                    Outcome::Answer { port, reason } => {
                        let even = frame.last().is_some_and(|byte| byte % 2 == 0);
                        answers[usize::from(even && port == ANSWERS)] += 1;
                        Some(reason)
                    }
                    Outcome::Forward { port } if port >= PORTS => Some(DropReason::NoRoute),
                    Outcome::Forward { .. } if frame.last().is_none_or(|byte| byte % 2 == 1) => Some(DropReason::DeviceFull),
                    Outcome::Forward { port } => {
                        left.entry(port).or_default().push(frame.clone());
                        None
                    }
                };
                if let Some(reason) = died {
                    *expected.entry(reason).or_default() += 1;
                }
            }
            for reason in DropReason::ALL {
                prop_assert_eq!(counters.drops(reason), expected.get(&reason).copied().unwrap_or(0), "{:?}", reason);
            }
            let out: u64 = left.values().map(|frames| frames.len() as u64).sum();
            prop_assert_eq!(counters.get(Counter::FramesIn), taken);
            prop_assert_eq!(counters.get(Counter::BytesIn), bytes);
            prop_assert_eq!(counters.get(Counter::FramesOut), out);
            prop_assert_eq!(taken, out + counters.all_drops());
            prop_assert_eq!([counters.get(Counter::GeneratedLost), counters.get(Counter::Generated)], answers);
            let out_bytes: usize = left.values().flatten().map(|frame| frame.len() + 4).sum();
            prop_assert_eq!(counters.get(Counter::BytesOut), out_bytes as u64);
        }
        // Each port got its frames in the order in which they came.
        for (port, frames) in &left {
            let sent: Vec<&[u8]> = outlet.taken[port].iter().map(|frame| &frame[4..]).collect();
            prop_assert_eq!(&sent, frames);
        }
    }
}
