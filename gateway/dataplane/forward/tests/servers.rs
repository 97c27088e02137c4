//! Which real servers get connections: those that are up, in proportion, and every known flow stays where it is.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{json, Value};
use support::{
    frame, node, node_with, plan, plans, send_at, tables, tunnel, udp, unreachable, untunnel, verify, Plan, Tcp, NOW,
};
use tgw_contract::{DropReason, Role};
use tgw_forward::{Frame, Options, Outcome, Pipeline};
use tgw_wire::tcp::{self, ACK, RST, SYN};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// An LD, the real servers that it is told of, and which of them are alive.
struct World {
    p: Plan,
    clb: Box<dyn Pipeline>,
    now: u64,
    epoch: u64,
    listener: Value,
    servers: BTreeMap<u32, u32>,
    dead: HashSet<u32>,
    /// Resets that each server got for its answers to checks.
    resets: HashMap<u32, usize>,
    checks: usize,
}

fn host(id: u32) -> String {
    format!("10.3.{}.{}", 1 + id / 256, id % 256)
}

fn id_of(address: IpAddr) -> u32 {
    let IpAddr::V4(v4) = address else { panic!("{address}") };
    let [.., high, low] = v4.octets();
    u32::from(high - 1) * 256 + u32::from(low)
}

impl World {
    /// A TCP listener on port 80 with these fields, and the servers by (id, weight).
    fn new(listener: Value, servers: &[(u32, u32)]) -> Self {
        Self::sized(listener, servers, 65_536)
    }

    /// The same with a flow table for so many connections.
    fn sized(listener: Value, servers: &[(u32, u32)], flow_capacity: usize) -> Self {
        let p = plan(4, 4, "gre");
        let servers = servers.iter().copied().collect();
        let mut world = Self {
            p,
            clb: node(Role::Clb, &p.clb_tables()),
            now: NOW,
            epoch: 10,
            listener,
            servers,
            dead: HashSet::new(),
            resets: HashMap::new(),
            checks: 0,
        };
        world.clb = node_with(Role::Clb, &world.tables(), Options { flow_capacity, seed: 5, ..Options::default() });
        world
    }

    fn tables(&self) -> Value {
        let backend = |(id, weight): (&u32, &u32)| json!({"id": id, "tunnel": host(*id), "key": 100 + id, "encap": "gre", "weight": weight});
        let backends: Vec<Value> = self.servers.iter().map(backend).collect();
        let mut tables = self.p.clb_tables();
        tables["epoch"] = json!(self.epoch);
        let listener = &mut tables["clb"]["vips"][0]["listeners"][0];
        for (key, value) in self.listener.as_object().unwrap() {
            listener[key] = value.clone();
        }
        listener["backends"] = json!(backends);
        let vip = tables["clb"]["vips"][0].clone();
        tables["clb"]["vips"] = json!([{"id": 1, "address": vip["address"], "service": vip["service"],
                                        "listeners": [vip["listeners"][0]]}]);
        tables
    }

    fn apply(&mut self) {
        self.epoch += 1;
        self.clb.idle(self.now);
        self.clb.set_tables(tables(&self.tables(), Role::Clb));
    }

    fn wait(&mut self, ns: u64) {
        self.now += ns;
        self.clb.idle(self.now);
    }

    /// What a client's packet ends as: the server that it goes to.
    fn send(&mut self, packet: &[u8]) -> Result<u32, DropReason> {
        let bytes = frame(&tunnel(self.p.eip, self.p.service, "gre", None, packet));
        let result = send_at(self.now, &mut *self.clb, 0, &bytes);
        match result.outcome {
            Outcome::Forward { .. } => Ok(id_of(untunnel(&result.frame).1)),
            Outcome::Drop(reason) | Outcome::Answer { reason, .. } => Err(reason),
        }
    }

    fn tcp(&mut self, client: (&str, u16), flags: u8) -> u32 {
        self.send(&Tcp::new(client, (self.p.private, 80), flags).ip()).unwrap()
    }

    fn port(&mut self, port: u16, flags: u8) -> u32 {
        self.tcp((self.p.client, port), flags)
    }

    /// Let time pass in steps, with every check answered by the servers that are alive.
    fn run(&mut self, ns: u64) {
        let until = self.now + ns;
        while self.now < until {
            self.now += (20 * MS).min(until - self.now);
            self.answer_checks();
        }
    }

    fn answer_checks(&mut self) {
        let mut room = Frame::default();
        while let Some(port) = self.clb.emit(self.now, &mut room) {
            assert_eq!(port, 0);
            self.checks += 1;
            let (_, to, key, syn) = untunnel(room.bytes());
            let id = id_of(to);
            assert_eq!(key, Some(100 + id));
            if self.dead.contains(&id) {
                continue;
            }
            let view = tcp::Packet::new_checked(&syn[20..]).unwrap();
            let (client, isn) = ((self.p.ld, view.src_port()), view.seq());
            let answer = Tcp { ack: isn.wrapping_add(1), ..Tcp::new((self.p.private, 80), client, SYN | ACK) }.ip();
            let bytes = frame(&tunnel(&host(id), self.p.ld, "gre", key, &answer));
            let result = send_at(self.now, &mut *self.clb, 0, &bytes);
            let Outcome::Answer { port: 0, reason: DropReason::HealthAnswer } = result.outcome else {
                panic!("{:?}", result.outcome)
            };
            assert!(result.points.is_empty());
            let (_, to, key, reset) = untunnel(&result.frame);
            assert_eq!((id_of(to), key), (id, Some(100 + id)));
            let view = tcp::Packet::new_checked(&reset[20..]).unwrap();
            assert_eq!((view.flags(), view.seq(), view.src_port()), (RST, isn.wrapping_add(1), client.1));
            *self.resets.entry(id).or_default() += 1;
        }
    }
}

fn health() -> Value {
    json!({"interval_ms": 1000, "timeout_ms": 400, "rise": 2, "fall": 3})
}

fn equal(ids: std::ops::RangeInclusive<u32>) -> Vec<(u32, u32)> {
    ids.map(|id| (id, 100)).collect()
}

fn shares(world: &mut World, ports: std::ops::Range<u16>) -> HashMap<u32, usize> {
    let mut shares = HashMap::new();
    ports.for_each(|port| *shares.entry(world.port(port, SYN)).or_default() += 1);
    shares
}

/// A check is a request of the LD itself: it goes all the way, over every family and encapsulation, and leaves nothing open.
#[test]
fn a_check_goes_through_the_tunnel_path() {
    for p in plans().into_iter().filter(|p| support::ip(p.private).is_ipv4() == support::ip(p.ld).is_ipv4()) {
        let mut tables = p.clb_tables();
        tables["clb"]["vips"][0]["listeners"][0]["health"] = health();
        let (mut clb, mut vswitch) = (node(Role::Clb, &tables), p.vswitch());
        let mut room = Frame::default();
        let mut now = NOW;
        while clb.emit(now, &mut room).is_none() {
            now += 20 * MS;
        }
        assert!(now <= NOW + 2 * SECOND);
        let (src, dst, key, syn) = untunnel(room.bytes());
        assert_eq!((src, dst, key), (support::ip(p.ld), support::ip(p.host), p.key));
        assert_eq!(verify(&syn), (support::ip(p.ld), support::ip(p.private)));
        let arrived = send_at(now, &mut *vswitch, 0, &frame(&room.bytes()[14..]));
        assert_eq!(arrived.port(), 1, "{p:?}");
        let (.., segment) = support::open(&arrived.frame[14..]);
        let view = tcp::Packet::new_checked(&segment).unwrap();
        assert_eq!((view.flags(), view.dst_port()), (SYN, 80));
        let client = (p.ld, view.src_port());
        let answer = Tcp { ack: view.seq().wrapping_add(1), ..Tcp::new((p.private, 80), client, SYN | ACK) }.ip();
        let back = send_at(now, &mut *vswitch, 1, &support::frame_to(support::EDGE_MAC, &answer));
        assert_eq!((back.port(), untunnel(&back.frame).1), (0, support::ip(p.ld)));
        let taken = send_at(now, &mut *clb, 0, &frame(&back.frame[14..]));
        assert_eq!(taken.outcome, Outcome::Answer { port: 0, reason: DropReason::HealthAnswer });
        let reset = send_at(now, &mut *vswitch, 0, &frame(&taken.frame[14..]));
        let (.., segment) = support::open(&reset.frame[14..]);
        verify(&reset.frame[14..]);
        let view = tcp::Packet::new_checked(&segment).unwrap();
        assert_eq!(
            (view.flags(), view.seq().wrapping_sub(1)),
            (RST, tcp::Packet::new_unchecked(&syn[syn.len() - 20..]).seq())
        );
        assert_eq!(clb.counters().created, 0, "no flow of the LD's own in its table");
    }
}

#[test]
fn a_dead_server_gets_nothing_and_the_flows_of_others_stay() {
    for balance in ["maglev", "rendezvous"] {
        let mut world = World::new(json!({"balance": balance, "health": health()}), &equal(1..=5));
        world.run(3 * SECOND);
        let before: Vec<u32> = (1..=500).map(|port| world.port(port, SYN)).collect();
        (1..=500).for_each(|port| assert_eq!(world.port(port, ACK), before[usize::from(port) - 1]));
        world.dead.insert(2);
        world.run(6 * SECOND);
        let after: Vec<u32> = (1..=500).map(|port| world.port(port, ACK)).collect();
        for (old, new) in before.iter().zip(&after) {
            assert!(if *old == 2 { *new != 2 } else { old == new }, "{balance}: {old} {new}");
        }
        let lost: HashSet<u32> = before.iter().zip(&after).filter(|(old, _)| **old == 2).map(|(_, new)| *new).collect();
        assert_eq!(lost.len(), 4, "{balance}: the others share what was its");
        // What would have been chosen for the others is chosen as before.
        let mut fresh = World::new(json!({"balance": balance}), &equal(1..=5));
        for port in 1001..2000 {
            let (usual, now) = (fresh.port(port, SYN), world.port(port, SYN));
            assert!(if usual == 2 { now != 2 } else { now == usual }, "{balance}: {port} {usual} {now}");
        }
        world.dead.clear();
        world.run(4 * SECOND);
        assert_eq!(shares(&mut world, 3001..4000).len(), 5, "{balance}: it is back");
        (1..=500)
            .for_each(|port| assert_eq!(world.port(port, ACK), after[usize::from(port) - 1], "back, not back again"));
        assert!(world.checks > 50 && world.resets.len() == 5);
    }
}

#[test]
fn nearly_all_dead_and_all_dead() {
    for balance in ["maglev", "rendezvous"] {
        let mut world = World::new(json!({"balance": balance, "health": health()}), &equal(1..=64));
        let before: Vec<u32> = (1..=300).map(|port| world.port(port, SYN)).collect();
        world.dead = (1..=63).collect();
        world.run(6 * SECOND);
        assert_eq!(shares(&mut world, 1001..1200), HashMap::from([(64, 199)]), "{balance}");
        (1..=100).for_each(|port| assert_eq!(world.port(port, ACK), 64));
        // All: as if all were up. Who has a server keeps it.
        world.dead.insert(64);
        world.run(6 * SECOND);
        let mut fresh = World::new(json!({"balance": balance}), &equal(1..=64));
        for port in 2001..2300 {
            assert_eq!(world.port(port, SYN), fresh.port(port, SYN), "{balance}");
        }
        (1..=100).for_each(|port| assert_eq!(world.port(port, ACK), 64));
        (101..=300).for_each(|port| assert_eq!(world.port(port, ACK), before[usize::from(port) - 1]));
    }
}

/// A connection that stays because there is nowhere else to go stays as the connection it is.
#[test]
fn all_dead_and_connections_as_before() {
    let mut world = World::new(json!({"health": health()}), &equal(1..=4));
    let owners: Vec<u32> = (1..=100)
        .map(|port| {
            world.port(port, SYN);
            world.port(port, ACK)
        })
        .collect();
    world.dead = (1..=4).collect();
    world.run(6 * SECOND);
    (1..=100).for_each(|port| assert_eq!(world.port(port, ACK), owners[usize::from(port) - 1]));
    // Longer than one stays that nobody has confirmed.
    world.now += 40 * SECOND;
    (0..64).for_each(|_| world.clb.idle(world.now));
    assert_eq!(world.clb.counters().active, 100);
}

/// A refusal, or an error that says that nobody is there, takes a server down as silence does.
#[test]
fn refusals_and_errors_are_failures() {
    for how in ["reset", "error"] {
        let mut world = World::new(json!({"health": health()}), &equal(1..=2));
        let mut room = Frame::default();
        for _ in 0..500 {
            world.now += 20 * MS;
            while world.clb.emit(world.now, &mut room).is_some() {
                let (_, to, key, syn) = untunnel(room.bytes());
                let view = tcp::Packet::new_checked(&syn[20..]).unwrap();
                let (client, ack) = ((world.p.ld, view.src_port()), view.seq().wrapping_add(1));
                let answer = match (id_of(to), how) {
                    (1, _) => Tcp { ack, ..Tcp::new((world.p.private, 80), client, SYN | ACK) }.ip(),
                    (_, "reset") => Tcp { ack, ..Tcp::new((world.p.private, 80), client, RST | ACK) }.ip(),
                    _ => unreachable(world.p.private, world.p.ld, &syn),
                };
                let bytes = frame(&tunnel(&to.to_string(), world.p.ld, "gre", key, &answer));
                let result = send_at(world.now, &mut *world.clb, 0, &bytes);
                assert_eq!(result.reason(), DropReason::HealthAnswer);
                assert_eq!(matches!(result.outcome, Outcome::Answer { .. }), id_of(to) == 1, "{how}");
            }
        }
        assert_eq!(shares(&mut world, 1..200), HashMap::from([(1, 199)]), "{how}");
    }
}

/// Nobody but the server that was asked can answer for it.
#[test]
fn a_made_up_answer_counts_for_nothing() {
    let mut world = World::new(json!({"health": health()}), &equal(1..=2));
    let mut room = Frame::default();
    for _ in 0..500 {
        world.now += 20 * MS;
        while world.clb.emit(world.now, &mut room).is_some() {
            let (_, to, _, syn) = untunnel(room.bytes());
            let view = tcp::Packet::new_checked(&syn[20..]).unwrap();
            let (client, isn) = ((world.p.ld, view.src_port()), view.seq());
            let (ack, key) = if id_of(to) == 1 { (isn.wrapping_add(1), 101) } else { (isn.wrapping_add(2), 102) };
            let answer = |ack| Tcp { ack, ..Tcp::new((world.p.private, 80), client, SYN | ACK) }.ip();
            // The other's key with the right number, and the right key with another number.
            for (ack, key) in [(ack, key), (isn.wrapping_add(1), 101)] {
                let bytes = frame(&tunnel(&to.to_string(), world.p.ld, "gre", Some(key), &answer(ack)));
                assert_eq!(send_at(world.now, &mut *world.clb, 0, &bytes).reason(), DropReason::HealthAnswer);
            }
        }
    }
    assert_eq!(shares(&mut world, 1..200), HashMap::from([(1, 199)]));
}

#[test]
fn a_server_that_comes_starts_slowly() {
    for balance in ["maglev", "rendezvous"] {
        let mut world = World::new(json!({"balance": balance, "slow_start_s": 100}), &equal(1..=3));
        let at_first = shares(&mut world, 1..1000);
        assert!(at_first.values().all(|share| *share > 270), "not at the first tables: {at_first:?}");
        world.now += 1000 * SECOND;
        world.servers.insert(4, 100);
        world.apply();
        let mut series = Vec::new();
        for turn in 0..5u16 {
            let first = 2000 + turn * 4000;
            series.push(shares(&mut world, first..first + 4000).get(&4).copied().unwrap_or(0));
            world.wait(25 * SECOND);
        }
        // A quarter of the 4000 would be its share: of that 5 %, then up to all in four steps.
        for (share, part) in series.iter().zip([0.05, 0.29, 0.53, 0.76, 1.0]) {
            let expected = 1000.0 * part;
            assert!((*share as f64 - expected).abs() < 25.0 + expected * 0.12, "{balance}: {series:?}");
        }
        // The others' connections are chosen as without it, those that it does not take among them.
        let mut without = World::new(json!({"balance": balance}), &equal(1..=3));
        let mut with = World::new(json!({"balance": balance}), &equal(1..=4));
        world.servers.remove(&4);
        world.apply();
        world.servers.insert(4, 100);
        world.apply();
        for port in 30_001..31_000 {
            let chosen = world.port(port, SYN);
            let usual = with.port(port, SYN);
            assert!(usual == 4 || chosen == usual, "{balance}: {port}");
            if balance == "rendezvous" && chosen != 4 {
                assert_eq!(chosen, without.port(port, SYN));
            }
        }
    }
}

#[test]
fn a_server_that_comes_back_up_starts_slowly() {
    let mut world = World::new(json!({"health": health(), "slow_start_s": 60}), &equal(1..=2));
    world.dead.insert(2);
    world.run(6 * SECOND);
    assert_eq!(shares(&mut world, 1..500).get(&2), None);
    world.dead.clear();
    world.run(4 * SECOND);
    let share = shares(&mut world, 1001..3001)[&2];
    assert!((20..250).contains(&share), "{share} of 1000");
    world.run(60 * SECOND);
    let share = shares(&mut world, 4001..6001)[&2];
    assert!((880..1120).contains(&share), "{share} of 1000");
}

/// A VIP that comes here from another cluster brings its connections: its servers are not new.
#[test]
fn a_listener_that_comes_does_not_start_slowly() {
    let mut world = World::new(json!({"slow_start_s": 600}), &equal(1..=4));
    let p = world.p;
    let mut empty = p.clb_tables();
    empty["clb"]["vips"] = json!([]);
    let mut clb = node(Role::Clb, &empty);
    clb.idle(NOW);
    clb.set_tables(tables(&world.tables(), Role::Clb));
    std::mem::swap(&mut world.clb, &mut clb);
    let mut fresh = World::new(json!({}), &equal(1..=4));
    (1..1000).for_each(|port| assert_eq!(world.port(port, ACK), fresh.port(port, ACK)));
}

fn client(n: u32) -> String {
    format!("192.0.{}.{}", n / 250, 1 + n % 250)
}

fn open(world: &mut World, client: &str, port: u16) -> u32 {
    let server = world.tcp((client, port), SYN);
    assert_eq!(world.tcp((client, port), ACK), server);
    server
}

#[test]
fn a_client_stays_with_its_server_until_a_while_after_its_last_connection() {
    for balance in ["maglev", "rendezvous"] {
        let mut world = World::new(json!({"balance": balance, "affinity_s": 300}), &equal(1..=4));
        let before: Vec<u32> = (0..200).map(|n| open(&mut world, &client(n), 1000)).collect();
        assert_eq!(before.iter().collect::<HashSet<_>>().len(), 4);
        // The servers change: who has one keeps it, for all its connections.
        world.servers.extend(equal(5..=12));
        world.apply();
        for port in 1001..1004 {
            for n in 0..200 {
                assert_eq!(open(&mut world, &client(n), port), before[n as usize], "{balance}");
            }
        }
        // Each connection renews it.
        for turn in 0..4 {
            world.wait(200 * SECOND);
            (0..200).for_each(|n| assert_eq!(open(&mut world, &client(n), 2000 + turn), before[n as usize]));
        }
        // New clients use all servers; so does who was away for longer.
        world.wait(299 * SECOND);
        (0..50).for_each(|n| assert_eq!(world.tcp((&client(n), 3000), SYN), before[n as usize]));
        world.wait(302 * SECOND);
        let later: Vec<u32> = (0..200).map(|n| open(&mut world, &client(n), 4000)).collect();
        assert!(later.iter().zip(&before).filter(|(new, old)| new != old).count() > 80, "{balance}");
        for n in 200..400 {
            let server = open(&mut world, &client(n), 1);
            assert!((2..9).all(|port| world.tcp((&client(n), port), SYN) == server), "one address, one server");
        }
    }
}

#[test]
fn an_affine_client_moves_on_when_its_server_is_drained_removed_or_down() {
    for how in ["drained", "removed", "down"] {
        let mut world = World::new(json!({"affinity_s": 3000, "health": health()}), &equal(1..=4));
        world.run(2 * SECOND);
        let before: Vec<u32> = (0..200).map(|n| open(&mut world, &client(n), 1000)).collect();
        match how {
            "drained" => drop(world.servers.insert(2, 0)),
            "removed" => drop(world.servers.remove(&2)),
            _ => drop(world.dead.insert(2)),
        }
        world.apply();
        world.run(6 * SECOND);
        let after: Vec<u32> = (0..200).map(|n| open(&mut world, &client(n), 1001)).collect();
        for (old, new) in before.iter().zip(&after) {
            assert!(if *old == 2 { *new != 2 } else { old == new }, "{how}");
        }
        // The old connections of a drained server go on, and take nobody back.
        for n in 0..200 {
            let old = world.tcp((&client(n), 1000), ACK);
            assert_eq!(old == 2, how == "drained" && before[n as usize] == 2, "{how}");
            assert_eq!(open(&mut world, &client(n), 1002), after[n as usize], "{how}");
        }
        world.servers.insert(2, 100);
        world.dead.clear();
        world.apply();
        world.run(6 * SECOND);
        (0..200).for_each(|n| assert_eq!(open(&mut world, &client(n), 1003), after[n as usize], "{how}: and stays"));
    }
}

/// A flood of SYNs of made-up clients enters nobody, so it pushes nobody out.
/// The table for clients holds a quarter of what the flow table holds: without the gate the flood would fill it.
#[test]
fn a_flood_of_datagrams_crowds_no_affine_client_out() {
    let p = plan(4, 4, "gre");
    let of = |weights: [u32; 2], epoch: u64| {
        let mut tables = p.clb_tables();
        let backend = |(id, weight): (u32, u32)| json!({"id": id, "tunnel": host(id), "key": id, "encap": "gre", "weight": weight});
        let mut listener = tables["clb"]["vips"][0]["listeners"][1].clone();
        listener["affinity_s"] = json!(600);
        listener["backends"] = json!([backend((5, weights[0])), backend((6, weights[1]))]);
        tables["clb"]["vips"][0]["flood_gate_per_s"] = json!(10);
        tables["clb"]["vips"][0]["listeners"] = json!([listener]);
        tables["epoch"] = json!(epoch);
        tables
    };
    let options = Options { flow_capacity: 1000, seed: 5, workers: 1, ..Options::default() };
    let mut clb = node_with(Role::Clb, &of([100, 100], 7), options);
    let ask = |clb: &mut dyn Pipeline, now: u64, client: &str, port: u16| {
        let question = udp((client, port), (p.private, 53), b"question", true);
        untunnel(&send_at(now, clb, 0, &frame(&tunnel(p.eip, p.service, "gre", None, &question))).frame).2.unwrap()
    };
    for n in 0..5000 {
        ask(&mut *clb, NOW, &format!("100.64.{}.{}", n / 256, n % 256), 5);
    }
    let at = |n: u64| NOW + (60 + n) * SECOND;
    let homes: Vec<u32> = (0..40).map(|n| ask(&mut *clb, at(n), &format!("192.0.2.{n}"), 1000)).collect();
    clb.set_tables(support::tables(&of([1, 1000], 8), Role::Clb));
    for (n, home) in (0..).zip(homes) {
        assert_eq!(ask(&mut *clb, at(41), &format!("192.0.2.{n}"), 2000), home);
    }
}

#[test]
fn a_syn_alone_is_not_remembered_and_a_full_table_leaves_the_hash() {
    let mut world = World::sized(json!({"affinity_s": 3000}), &equal(1..=4), 4096);
    let known: Vec<u32> = (0..100).map(|n| open(&mut world, &client(n), 1)).collect();
    for n in 0..900u32 {
        let _ = world.tcp((&format!("198.51.{}.{}", n / 250, n % 250), 1), SYN);
    }
    let more: Vec<u32> = (100..200).map(|n| open(&mut world, &client(n), 1)).collect();
    world.servers.extend(equal(5..=8));
    world.apply();
    for n in 0..200 {
        let server = if n < 100 { known[n as usize] } else { more[n as usize - 100] };
        assert_eq!(world.tcp((&client(n), 2), ACK), server);
    }
    // 1024 clients fit; the others still go to one server each.
    for n in 200..1400 {
        let server = open(&mut world, &client(n), 2);
        assert_eq!(world.tcp((&client(n), 3), ACK), server);
    }
}

#[derive(Clone, Debug)]
enum Change {
    Add(u32, u32),
    Weigh(u32, u32),
    Remove(u32),
    Kill(u32),
    Revive(u32),
    Packets(u16),
    Wait,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let (id, weight) = (|| 1u32..12, || prop_oneof![Just(0u32), Just(100), 1u32..1000]);
    prop::collection::vec(
        prop_oneof![
            2 => (id(), weight()).prop_map(|(id, weight)| Change::Add(id, weight)),
            2 => (id(), weight()).prop_map(|(id, weight)| Change::Weigh(id, weight)),
            1 => id().prop_map(Change::Remove),
            1 => id().prop_map(Change::Kill),
            1 => id().prop_map(Change::Revive),
            4 => (0u16..200).prop_map(Change::Packets),
            2 => Just(Change::Wait),
        ],
        1..30,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Per-connection consistency, with a plain map as oracle: a known flow never moves while its server is in the tables and
    /// up; one whose server is gone or down moves to one that is neither, if there is one; a new one gets a server that is
    /// up and not drained.
    #[test]
    fn a_known_flow_never_moves_while_its_server_is_there_and_up(
        changes in changes(),
        rendezvous in any::<bool>(),
        affine in any::<bool>(),
        slow in any::<bool>(),
    ) {
        let listener = json!({
            "balance": if rendezvous { "rendezvous" } else { "maglev" },
            "affinity_s": affine.then_some(1000),
            "slow_start_s": slow.then_some(60),
            "health": {"interval_ms": 100, "timeout_ms": 50, "rise": 1, "fall": 1},
        });
        let mut world = World::new(listener, &equal(1..=4));
        let mut oracle: HashMap<u16, u32> = HashMap::new();
        for change in changes {
            match change {
                Change::Add(id, weight) | Change::Weigh(id, weight) => drop(world.servers.insert(id, weight)),
                Change::Remove(id) if world.servers.len() > 1 => drop(world.servers.remove(&id)),
                Change::Remove(_) => {}
                Change::Kill(id) => drop(world.dead.insert(id)),
                Change::Revive(id) => drop(world.dead.remove(&id)),
                Change::Wait => world.run(SECOND),
                Change::Packets(first) => {
                    let up = |world: &World, id: u32| world.servers.contains_key(&id) && !world.dead.contains(&id);
                    let open: HashSet<u32> = world.servers.iter().filter(|(id, weight)| **weight > 0 && up(&world, **id))
                        .map(|(id, _)| *id).collect();
                    for port in first + 1..first + 40 {
                        let flags = if oracle.contains_key(&port) { ACK } else { SYN };
                        let sent = world.send(&Tcp::new((world.p.client, port), (world.p.private, 80), flags).ip());
                        let known = oracle.get(&port).copied();
                        match (sent, known) {
                            (Ok(server), Some(known)) if up(&world, known) => prop_assert_eq!(server, known),
                            (Ok(server), _) => {
                                prop_assert!(world.servers.contains_key(&server));
                                prop_assert!(open.is_empty() || open.contains(&server), "{} of {:?}", server, open);
                                oracle.insert(port, server);
                            }
                            (Err(reason), _) => {
                                prop_assert_eq!(reason, DropReason::NoBackend);
                                prop_assert!(world.servers.values().all(|weight| *weight == 0));
                            }
                        }
                    }
                    continue;
                }
            }
            world.apply();
            // Checks come to know what is so, before anybody asks.
            world.run(SECOND);
        }
    }
}

/// A reply that comes to a worker without its flow: the tunnel's key names the server.
#[test]
fn datagrams_come_back_by_whatever_worker() {
    let p = plan(4, 4, "gre");
    let mut clb = p.clb();
    let answer = udp((p.private, 53), (p.client, 9), b"answer", true);
    let mut reply = |key| send_at(NOW, &mut *clb, 0, &frame(&tunnel(p.host, p.ld, "gre", Some(key), &answer)));
    assert_eq!(reply(78).reason(), DropReason::NoFlow);
    assert_eq!(reply(77).port(), 0);
    assert_eq!(clb.counters().created, 1);
    let request = udp((p.client, 9), (p.private, 53), b"more", true);
    assert_eq!(send_at(NOW, &mut *clb, 0, &frame(&tunnel(p.eip, p.service, "gre", None, &request))).port(), 0);
    assert_eq!(clb.counters().created, 1, "the requests find the server there");
}
