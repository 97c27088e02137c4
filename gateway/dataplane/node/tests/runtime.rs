//! The threads of a node on devices in memory: the account, the order, the drops that the runtime itself makes.
//!
//! The pipeline here is a plain one, so that the runtime is tested for what it does with any pipeline: it forwards each
//! frame by the port it came in by, and drops those whose last byte says so.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tgw_contract::{Counter, DropReason, Point, Role};
use tgw_device::{Memory, Wire};
use tgw_forward::{Faults, FlowCounters, Frame, Nanos, Observer, Outcome, Pipeline, Tables};
use tgw_node::{Config, DeviceSet, Fault, FaultKind, Node, NodeError};
use tgw_tap::Reader;

const DROP_ME: u8 = 0xDD;
const COLOURED: u64 = 77;

struct Plain;

impl Pipeline for Plain {
    fn process(&mut self, _: Nanos, frames: &mut [Frame], outcomes: &mut [Outcome], observer: &mut dyn Observer) {
        for (frame, outcome) in frames.iter().zip(outcomes) {
            let dropped = frame.bytes().last() == Some(&DROP_ME);
            *outcome = if dropped { Outcome::Drop(DropReason::NoVip) } else { Outcome::Forward { port: frame.port } };
            observer.point(&Point {
                kind: if dropped { 2 } else { 1 },
                probe_id: COLOURED,
                ts_ns: frame.rx_ns,
                ..Point::default()
            });
        }
    }
    fn set_tables(&mut self, _: Arc<Tables>) {}
    fn counters(&self) -> FlowCounters {
        FlowCounters::default()
    }
    fn set_faults(&mut self, _: Faults) {}
    fn idle(&mut self, _: Nanos) {}
}

/// A node on one port in memory, its far end, and its taps.
struct Bench {
    node: Node,
    wire: Wire,
    _directory: tempfile::TempDir,
}

fn tables(role: Role, epoch: u64) -> String {
    let section = match role {
        Role::Eip => r#""eip": {"anycast": "10.3.255.1", "bindings": []}"#,
        Role::Clb => r#""clb": {"reply_to": "10.3.255.1", "reply_encap": "gre", "vips": []}"#,
        Role::Vswitch => r#""vswitch": {"servers": []}"#,
    };
    format!(
        r#"{{"epoch": {epoch}, "node": "n", "role": "{}",
            "tunnel": {{"local": "10.3.0.11", "encap": "gre"}},
            "probe": {{"reserved": ["198.18.0.0/16"], "key": "000102030405060708090a0b0c0d0e0f"}},
            {section}, "routes": [], "edge_routes": [],
            "ports": [{{"index": 0, "interface": "fabric0", "mac": "02:00:00:00:00:01",
                        "next_hop_mac": "02:00:00:00:00:02", "mtu": 1600, "host_addresses": []}},
                       {{"index": 1, "interface": "edge0", "mac": "02:00:00:00:01:01",
                        "next_hop_mac": "02:00:00:00:01:02", "mtu": 1500, "host_addresses": []}}]}}"#,
        role.name()
    )
}

fn config(role: Role, directory: &Path, workers: u16, ring: usize) -> Config {
    let text = format!(
        r#"{{"name": "n", "role": "{}", "boot_id": "00112233445566778899aabbccddeeff", "tap_dir": "{}",
            "tap_capacity": 65536, "workers": {workers}, "ring_capacity": {ring}}}"#,
        role.name(),
        directory.display()
    );
    Config::from_json(&text).unwrap()
}

fn bench(role: Role, workers: u16, ring: usize) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let config = config(role, directory.path(), workers, ring);
    bench_with(config, directory, &[]).0
}

/// The node, and the wires of as many more dispatchers as `more` has.
fn bench_with(config: Config, directory: tempfile::TempDir, more: &[()]) -> (Bench, Vec<Wire>) {
    let mut node = Node::new(config).unwrap();
    let (device, wire) = Memory::new(0, 100_000);
    let mut sets: Vec<DeviceSet> = vec![vec![Box::new(device)]];
    let mut wires = Vec::new();
    for () in more {
        let (device, wire) = Memory::new(0, 100_000);
        sets.push(vec![Box::new(device)]);
        wires.push(wire);
    }
    // The workers of a CLB send by themselves: here onto the same wire.
    sets.extend((sets.len()..node.taps()).map(|_| vec![Box::new(wire.sender(0)) as Box<dyn tgw_device::Device>]));
    node.start_on(sets, &|_| Box::new(Plain)).unwrap();
    (Bench { node, wire, _directory: directory }, wires)
}

impl Bench {
    fn readers(&self) -> Vec<Reader> {
        let mut readers: Vec<Reader> = self.node.tap_paths().iter().map(|path| Reader::open(path).unwrap()).collect();
        readers.sort_by_key(|reader| reader.header().worker);
        readers
    }

    fn count(&self, worker: u16, counter: Counter) -> u64 {
        self.node.counters().iter().find(|one| one.worker == worker).unwrap().counters.get(counter)
    }

    fn drops(&self, worker: u16, reason: DropReason) -> u64 {
        self.node.counters().iter().find(|one| one.worker == worker).unwrap().counters.drops(reason)
    }

    fn total(&self, reason: DropReason) -> u64 {
        self.node.counters().iter().map(|one| one.counters.drops(reason)).sum()
    }

    /// frames in = frames out + drops, at every tap.
    fn balance(&self) {
        for one in self.node.counters() {
            let (taken, left) = (one.counters.get(Counter::FramesIn), one.counters.get(Counter::FramesOut));
            assert_eq!(taken, left + one.counters.all_drops(), "worker {}", one.worker);
        }
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// A UDP packet inside GRE, of a flow, with its number in the payload.
fn tunnelled(flow: u16, number: u32) -> Vec<u8> {
    fn ipv4(protocol: u8, source: [u8; 4], target: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let total = (20 + payload.len()) as u16;
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header.extend(source);
        header.extend(target);
        let sum: u32 = header.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
        let folded = (sum & 0xFFFF) + (sum >> 16);
        header[10..12].copy_from_slice(&(!((folded & 0xFFFF) + (folded >> 16)) as u16).to_be_bytes());
        header.extend_from_slice(payload);
        header
    }
    let mut udp = Vec::new();
    for field in [1000 + flow, 80, 8 + 4, 0] {
        udp.extend(field.to_be_bytes());
    }
    udp.extend(number.to_be_bytes());
    let inner = ipv4(17, [192, 0, 2, (flow % 200) as u8], [10, 100, 0, 1], &udp);
    let gre = [&[0, 0, 0x08, 0x00], &inner[..]].concat();
    let outer = ipv4(47, [10, 3, 0, 1], [10, 4, 0, 1], &gre);
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], &outer[..]].concat()
}

#[test]
fn a_run_to_completion_worker_accounts_for_every_frame() {
    let mut bench = bench(Role::Eip, 1, 64);
    assert_eq!(bench.node.apply(&tables(Role::Eip, 5)).unwrap(), 5);
    for n in 0..1000u32 {
        bench.wire.put(&[1, 2, 3, if n % 10 == 0 { DROP_ME } else { 0 }]);
    }
    until("1000 frames", || bench.count(0, Counter::FramesIn) == 1000);
    bench.node.stop();
    assert_eq!(bench.wire.take().len(), 900);
    assert_eq!((bench.count(0, Counter::FramesOut), bench.drops(0, DropReason::NoVip)), (900, 100));
    assert_eq!((bench.count(0, Counter::BytesIn), bench.count(0, Counter::BytesOut)), (4000, 3600));
    assert_eq!((bench.count(0, Counter::TracePoints), bench.count(0, Counter::DropPoints)), (900, 100));
    assert_eq!(bench.count(0, Counter::Epoch), 5);
    bench.balance();
    let mut reader = bench.readers().remove(0);
    let points = reader.points();
    assert_eq!(points.len(), 1000);
    assert!(points.iter().all(|point| point.residence_ns > 0 && now() - point.ts_ns < 20_000_000_000));
    assert!(reader.state().closed && reader.state().lost == 0);
}

#[test]
fn no_config_until_there_are_tables_and_none_is_refused() {
    let mut bench = bench(Role::Eip, 1, 64);
    (0..10).for_each(|_| bench.wire.put(&[1; 60]));
    until("10 drops", || bench.drops(0, DropReason::NoConfig) == 10);
    bench.node.apply(&tables(Role::Eip, 1)).unwrap();
    bench.wire.put(&[1; 60]);
    until("a frame", || bench.count(0, Counter::FramesOut) == 1);
    bench.node.stop();
    bench.balance();
    let points = bench.readers()[0].points();
    assert_eq!(points.iter().filter(|p| p.reason == DropReason::NoConfig.number() && p.kind == 2).count(), 10);
}

#[test]
fn a_device_that_takes_nothing_is_device_full() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::new(config(Role::Eip, directory.path(), 1, 64)).unwrap();
    let (device, wire) = Memory::new(0, 1000);
    node.apply(&tables(Role::Eip, 1)).unwrap();
    (0..300).for_each(|_| wire.put(&[1; 60]));
    wire.set_room(100);
    node.start_on(vec![vec![Box::new(device)]], &|_| Box::new(Plain)).unwrap();
    let mut bench = Bench { node, wire, _directory: directory };
    until("300 frames", || bench.count(0, Counter::FramesIn) == 300);
    bench.node.stop();
    assert_eq!((bench.count(0, Counter::FramesOut), bench.drops(0, DropReason::DeviceFull)), (100, 200));
    bench.balance();
}

#[test]
fn a_port_that_is_not_there_is_no_route() {
    struct Elsewhere;
    impl Pipeline for Elsewhere {
        fn process(&mut self, _: Nanos, _: &mut [Frame], outcomes: &mut [Outcome], _: &mut dyn Observer) {
            outcomes.fill(Outcome::Forward { port: 9 });
        }
        fn set_tables(&mut self, _: Arc<Tables>) {}
        fn counters(&self) -> FlowCounters {
            FlowCounters { created: 3, expired: 1, active: 2 }
        }
        fn set_faults(&mut self, _: Faults) {}
        fn idle(&mut self, _: Nanos) {}
    }
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::new(config(Role::Eip, directory.path(), 1, 64)).unwrap();
    let (device, wire) = Memory::new(0, 1000);
    node.apply(&tables(Role::Eip, 1)).unwrap();
    node.start_on(vec![vec![Box::new(device)]], &|_| Box::new(Elsewhere)).unwrap();
    let bench = Bench { node, wire, _directory: directory };
    bench.wire.put(&[1; 60]);
    until("a drop", || bench.drops(0, DropReason::NoRoute) == 1);
    until("the flows", || bench.count(0, Counter::FlowsActive) == 2 && bench.count(0, Counter::FlowsCreated) == 3);
    bench.balance();
}

#[test]
fn each_flow_keeps_its_order_through_dispatcher_and_workers() {
    let mut bench = bench(Role::Clb, 2, 4096);
    bench.node.apply(&tables(Role::Clb, 1)).unwrap();
    for number in 0..200 {
        for flow in 0..16 {
            bench.wire.put(&tunnelled(flow, number));
        }
    }
    until("3200 frames", || bench.count(1, Counter::FramesIn) + bench.count(2, Counter::FramesIn) == 3200);
    bench.node.stop();
    bench.balance();
    assert_eq!(bench.count(0, Counter::FramesOut), bench.count(0, Counter::HandedOver));
    assert_eq!(bench.count(0, Counter::HandedOver), 3200);
    assert!(bench.count(1, Counter::FramesIn) > 0 && bench.count(2, Counter::FramesIn) > 0, "both workers work");
    let out = bench.wire.take();
    assert_eq!(out.len(), 3200);
    let number = |frame: &Vec<u8>| u32::from_be_bytes(*frame.last_chunk().unwrap());
    for flow in 0..16 {
        let marks = tunnelled(flow, 0);
        let of_flow = out.iter().filter(|frame| frame[..frame.len() - 4] == marks[..marks.len() - 4]);
        assert!(of_flow.map(number).eq(0..200), "flow {flow}");
    }
}

#[test]
fn each_of_many_dispatchers_reaches_every_worker() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { dispatchers: Some(3), ..config(Role::Clb, directory.path(), 2, 4096) };
    let (mut bench, others) = bench_with(config, directory, &[(), ()]);
    assert_eq!(bench.node.taps(), 5);
    bench.node.apply(&tables(Role::Clb, 1)).unwrap();
    for number in 0..100 {
        for flow in 0..16 {
            for wire in [&bench.wire, &others[0], &others[1]] {
                wire.put(&tunnelled(flow, number));
            }
        }
    }
    until("4800 frames", || bench.count(3, Counter::FramesIn) + bench.count(4, Counter::FramesIn) == 4800);
    bench.node.stop();
    bench.balance();
    assert!((0..3).all(|number| bench.count(number, Counter::HandedOver) == 1600));
    assert!(bench.count(3, Counter::FramesIn) > 0 && bench.count(4, Counter::FramesIn) > 0, "both workers work");
    assert_eq!(bench.wire.take().len(), 4800);
}

#[test]
fn without_a_dispatcher_an_ld_runs_to_completion() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { dispatchers: Some(0), ..config(Role::Clb, directory.path(), 1, 64) };
    let (mut bench, _) = bench_with(config, directory, &[]);
    assert_eq!(bench.node.taps(), 1);
    bench.node.apply(&tables(Role::Clb, 1)).unwrap();
    (0..100).for_each(|number| {
        bench.wire.put(&tunnelled(1, number));
    });
    until("100 frames", || bench.count(0, Counter::FramesIn) == 100);
    bench.node.stop();
    bench.balance();
    assert_eq!((bench.wire.take().len(), bench.count(0, Counter::HandedOver)), (100, 0));
}

#[test]
fn a_ring_whose_worker_is_stuck_is_ring_full() {
    let mut bench = bench(Role::Clb, 1, 8);
    bench.node.apply(&tables(Role::Clb, 1)).unwrap();
    bench.node.inject(Fault { kind: FaultKind::StuckWorker, probability: 1.0, seed: 0, worker: Some(1) });
    let heart = |worker: usize| bench.readers()[worker].state().heartbeat_ns;
    until("the worker to stick", || now().saturating_sub(heart(1)) > 300_000_000);
    assert!(now().saturating_sub(heart(0)) < 200_000_000, "the dispatcher's heart goes on");
    (0..100).for_each(|n| bench.wire.put(&tunnelled(1, n)));
    until("100 frames", || bench.count(0, Counter::FramesIn) == 100);
    assert_eq!((bench.drops(0, DropReason::RingFull), bench.count(0, Counter::HandedOver)), (92, 8));
    match bench.node.apply(&tables(Role::Clb, 2)) {
        Err(NodeError::Behind { workers, .. }) => assert_eq!(workers, [1]),
        other => panic!("a stuck worker took tables: {other:?}"),
    }
    bench.node.clear_faults();
    until("the worker to go on", || bench.count(1, Counter::FramesOut) == 8);
    bench.node.apply(&tables(Role::Clb, 2)).unwrap();
    bench.balance();
    let refused = bench.readers()[0].points();
    assert!(refused.iter().all(|p| p.kind == 2 && p.reason == DropReason::RingFull.number()));
    assert_eq!(refused.len(), 92);
    bench.node.stop();
}

#[test]
fn what_is_held_at_the_end_is_shutting_down() {
    for (role, workers) in [(Role::Eip, 1), (Role::Clb, 1)] {
        let mut bench = bench(role, workers, 1024);
        bench.node.apply(&tables(role, 1)).unwrap();
        let delay = FaultKind::Delay { delay_us: 30_000_000 };
        bench.node.inject(Fault { kind: delay, probability: 1.0, seed: 0, worker: None });
        std::thread::sleep(Duration::from_millis(100)); // the workers have heard of it
        (0..50).for_each(|n| bench.wire.put(&tunnelled(1, n)));
        until("the frames to be taken", || bench.wire.waiting() == 0);
        std::thread::sleep(Duration::from_millis(50)); // ... and to be on their way
        let start = Instant::now();
        bench.node.stop();
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(bench.total(DropReason::ShuttingDown), 50, "{role:?}");
        assert!(bench.wire.take().is_empty());
        bench.balance();
        assert!(bench.readers().iter().all(|reader| reader.state().closed));
    }
}

#[test]
fn a_stuck_worker_does_not_hold_up_the_stop() {
    let mut bench = bench(Role::Clb, 2, 64);
    bench.node.apply(&tables(Role::Clb, 1)).unwrap();
    bench.node.inject(Fault { kind: FaultKind::StuckWorker, probability: 1.0, seed: 0, worker: None });
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    bench.node.stop();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn a_delayed_frame_stays_that_long_and_leaves() {
    let mut bench = bench(Role::Eip, 1, 64);
    bench.node.apply(&tables(Role::Eip, 1)).unwrap();
    bench.node.inject(Fault { kind: FaultKind::Delay { delay_us: 5000 }, probability: 1.0, seed: 0, worker: None });
    std::thread::sleep(Duration::from_millis(100));
    (0..20).for_each(|_| bench.wire.put(&[1; 60]));
    until("20 frames", || bench.count(0, Counter::FramesOut) == 20);
    bench.node.stop();
    let points = bench.readers()[0].points();
    assert_eq!(points.len(), 20);
    assert!(points.iter().all(|point| point.residence_ns >= 5_000_000), "{points:?}");
}

#[test]
fn an_idle_heart_beats_every_100_ms() {
    let bench = bench(Role::Clb, 2, 64);
    let readers = bench.readers();
    let mut worst = 0;
    let end = now() + 1_000_000_000;
    while now() < end {
        worst = worst.max(readers.iter().map(|r| now().saturating_sub(r.state().heartbeat_ns)).max().unwrap());
        std::thread::sleep(Duration::from_millis(3));
    }
    // A busy machine may take its time to wake a thread; the contract's 100 ms are the node's own doing.
    assert!(worst < 250_000_000, "{worst}");
    assert!(bench.node.is_running());
}

#[test]
fn a_configuration_that_cannot_work_names_the_place() {
    let directory = tempfile::tempdir().unwrap();
    let problem = |config: Config| Node::new(config).err().unwrap().problems.remove(0).path;
    let good = || config(Role::Eip, directory.path(), 1, 64);
    assert_eq!(problem(Config { role: "router".into(), ..good() }), "role");
    assert_eq!(problem(Config { boot_id: "12".into(), ..good() }), "boot_id");
    assert_eq!(problem(Config { tap_capacity: 1000, ..good() }), "tap_capacity");
    assert_eq!(problem(config(Role::Vswitch, directory.path(), 2, 64)), "workers");
    assert_eq!(problem(config(Role::Eip, directory.path(), 0, 64)), "workers");
    let clb = |dispatchers, workers| Config { dispatchers, ..config(Role::Clb, directory.path(), workers, 64) };
    assert_eq!(problem(clb(Some(0), 2)), "dispatchers");
    assert_eq!(problem(clb(Some(17), 2)), "dispatchers");
    assert_eq!(problem(Config { dispatchers: Some(1), ..good() }), "dispatchers");
    let twice = r#"{"name": "n", "role": "eip", "boot_id": "00112233445566778899aabbccddeeff",
        "ports": [{"index": 1, "interface": "a"}, {"index": 1, "interface": "b"}]}"#;
    assert_eq!(problem(Config::from_json(twice).unwrap()), "ports[1].index");
    assert!(Config::from_json(r#"{"name": "n", "colour": "red"}"#).is_err());
}
