//! Nanoseconds per packet of the pipelines, in memory, on one core; JSON on standard output.
//!
//! `cargo run --release --example forward_bench [FLOWS...]` (default: 1 10000 1000000). Every packet is copied into its
//! buffer first, as a device would; that cost alone is measured too and stands beside (`load_ns`).
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Instant;

use serde_json::{json, Value};
use support::{frame, frame_to, node_with, plan, tunnel, Notes, Tcp, EDGE_MAC, NOW};
use tgw_contract::{DropReason, Role};
use tgw_forward::{Frame, Options, Outcome, Pipeline};
use tgw_wire::tcp::ACK;

const BATCH: usize = 64;
const PACKETS: usize = 2_000_000;
const ROUNDS: usize = 5;

struct Load {
    port: u16,
    length: usize,
    bytes: Vec<u8>,
}

impl Load {
    /// One packet of each flow, in an order that no prefetcher of the machine follows.
    fn new(port: u16, flows: usize, make: impl Fn(&str, u16) -> Vec<u8>) -> Self {
        let mut bytes = Vec::new();
        let mut length = 0;
        for n in 0..flows {
            let n = scatter(n, flows);
            let client = format!("192.{}.{}.{}", n >> 16 & 0xFF, n >> 8 & 0xFF, n & 0xFF);
            let packet = make(&client, 1024 + (n >> 4) as u16 % 50_000);
            length = packet.len();
            bytes.extend_from_slice(&packet);
        }
        Self { port, length, bytes }
    }

    fn fill(&self, frames: &mut [Frame], at: &mut usize) {
        for frame in frames {
            let packet = &self.bytes[*at..*at + self.length];
            assert!(frame.load(self.port, NOW, packet));
            *at = if *at + self.length == self.bytes.len() { 0 } else { *at + self.length };
        }
    }
}

fn scatter(n: usize, flows: usize) -> usize {
    // A prime that divides no number of flows in use: a permutation.
    (n * 7_368_787) % flows
}

fn run(node: &mut dyn Pipeline, load: &Load, process: bool) -> f64 {
    let mut frames: Vec<Frame> = (0..BATCH).map(|_| Frame::default()).collect();
    let mut outcomes = [Outcome::Drop(DropReason::RingFull); BATCH];
    let mut notes = Notes::default();
    let mut at = 0;
    let start = Instant::now();
    for _ in 0..PACKETS / BATCH {
        load.fill(&mut frames, &mut at);
        if process {
            node.process(NOW, &mut frames, &mut outcomes, &mut notes);
            for outcome in &outcomes {
                assert!(matches!(outcome, Outcome::Forward { .. }), "{outcome:?}");
            }
        }
        black_box(&mut frames);
    }
    start.elapsed().as_nanos() as f64 / (PACKETS / BATCH * BATCH) as f64
}

fn case(name: &str, role: Role, tables: &Value, flows: usize, load: &Load) -> Value {
    let options = Options { flow_capacity: (flows * 5 / 4).max(1024), ..Options::default() };
    let mut node = node_with(role, tables, options);
    let mut frames: Vec<Frame> = vec![Frame::default()];
    let mut at = 0;
    for _ in 0..flows {
        load.fill(&mut frames, &mut at); // every flow is known before the clock starts
        node.process(NOW, &mut frames, &mut [Outcome::Drop(DropReason::RingFull)], &mut Notes::default());
    }
    let mut whole: Vec<f64> = (0..ROUNDS).map(|_| run(&mut *node, load, true)).collect();
    let mut copies: Vec<f64> = (0..ROUNDS).map(|_| run(&mut *node, load, false)).collect();
    whole.sort_by(f64::total_cmp);
    copies.sort_by(f64::total_cmp);
    let round = |ns: f64| (ns * 10.0).round() / 10.0;
    json!({
        "case": name, "role": role.name(), "flows": flows, "frame_bytes": load.length, "mode": "batch of 64, in memory",
        "ns_per_packet": round(whole[ROUNDS / 2]), "load_ns": round(copies[ROUNDS / 2]),
        "spread": round(whole[ROUNDS - 1] - whole[0])
    })
}

fn main() {
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let all = if asked.is_empty() { vec![1, 10_000, 1_000_000] } else { asked };
    let p = plan(4, 4, "gre");
    let mut cases = Vec::new();
    for flows in all {
        let to_ld = |client: &str, port: u16| {
            let packet = Tcp::new((client, port), (p.private, 80), ACK).ip();
            frame(&tunnel(p.eip, p.service, "gre", None, &packet))
        };
        let to_eip = |client: &str, port: u16| frame_to(EDGE_MAC, &Tcp::new((client, port), (p.public, 80), ACK).ip());
        let to_host = |client: &str, port: u16| {
            let packet = Tcp::new((client, port), (p.private, 80), ACK).ip();
            frame(&tunnel(p.ld, p.host, "gre", Some(77), &packet))
        };
        let requests = Load::new(0, flows, to_ld);
        cases.push(case("clb request", Role::Clb, &p.clb_tables(), flows, &requests));
        cases.push(case("eip request", Role::Eip, &p.eip_tables(), flows, &Load::new(1, flows, to_eip)));
        let requests = Load::new(0, flows, to_host);
        cases.push(case("vswitch request", Role::Vswitch, &p.vswitch_tables(), flows, &requests));
    }
    println!("{}", json!({ "cases": cases }));
}
