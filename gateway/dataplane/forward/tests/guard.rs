//! A VIP under attack: limits, the flood gate, the blacklist, and what its established connections notice of it.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::Ipv4Addr;

use serde_json::{json, Value};
use support::{frame, isn, node, node_with, plan, send_at, tables, tunnel, udp, untunnel, Plan, Tcp, NOW};
use tgw_contract::{DropReason, Role};
use tgw_forward::{Options, Outcome, Pipeline};
use tgw_wire::tcp::{ACK, RST, SYN};

const SECOND: u64 = 1_000_000_000;

fn four() -> Plan {
    plan(4, 4, "gre")
}

fn to_ld(p: &Plan, inner: &[u8]) -> Vec<u8> {
    frame(&tunnel(p.eip, p.service, p.encap, None, inner))
}

/// Two VIPs, of which the first is protected.
fn two_vips(more: Value) -> Value {
    let p = four();
    let mut tables = p.protected_tables(more);
    let mut second = p.clb_tables()["clb"]["vips"][0].clone();
    (second["id"], second["address"]) = (2.into(), "10.100.0.2".into());
    tables["clb"]["vips"].as_array_mut().unwrap().push(second);
    tables
}

fn syn(p: &Plan, source: &str, port: u16, vip: &str) -> Vec<u8> {
    to_ld(p, &Tcp::new((source, port), (vip, 80), SYN).ip())
}

fn reason(outcome: Outcome) -> Option<DropReason> {
    match outcome {
        Outcome::Forward { .. } => None,
        Outcome::Drop(reason) | Outcome::Answer { reason, .. } => Some(reason),
    }
}

#[test]
fn a_limit_is_of_its_vip_alone_and_of_requests_alone() {
    let p = four();
    let options = Options { workers: 2, ..Options::default() };
    let mut clb = node_with(Role::Clb, &two_vips(json!({"packets_per_s": 20})), options);
    let passed = |clb: &mut dyn Pipeline, now: u64, count: usize, vip: &str| {
        let request = syn(&p, p.client, 9, vip);
        (0..count).filter(|_| reason(send_at(now, clb, 0, &request).outcome).is_none()).count()
    };
    assert_eq!(passed(&mut *clb, NOW, 50, p.private), 10, "a worker's share");
    assert_eq!(passed(&mut *clb, NOW, 50, "10.100.0.2"), 50);
    let reply = Tcp::new((p.private, 80), (p.client, 9), SYN | ACK).ip();
    let reply = frame(&tunnel(p.host, p.ld, "gre", Some(77), &reply));
    assert!((0..50).all(|_| send_at(NOW, &mut *clb, 0, &reply).port() == 0));
    // A change of the tables refills nothing; time does.
    let mut changed = two_vips(json!({"packets_per_s": 40}));
    changed["epoch"] = json!(8);
    clb.set_tables(tables(&changed, Role::Clb));
    assert_eq!(passed(&mut *clb, NOW, 50, p.private), 0);
    assert_eq!(passed(&mut *clb, NOW + SECOND / 2, 50, p.private), 10);
}

#[test]
fn bytes_are_those_of_the_clients_packets() {
    for encap in ["gre", "vxlan"] {
        let p = plan(4, 4, encap);
        let mut clb = node(Role::Clb, &p.protected_tables(json!({"bytes_per_s": 100_000})));
        let request = to_ld(&p, &Tcp { payload: &[0; 960], ..Tcp::new((p.client, 9), (p.private, 80), ACK) }.ip());
        let passed = (0..200).filter(|_| reason(send_at(NOW, &mut *clb, 0, &request).outcome).is_none()).count();
        assert_eq!(passed, 100, "1000 bytes each, whatever the tunnel");
    }
}

/// 90 % of the packets are SYNs from everywhere: established connections stay where they are, and nothing else gets in.
#[test]
fn established_flows_keep_their_service_in_a_flood() {
    let p = four();
    let mut given = p.protected_tables(json!({"flood_gate_per_s": 1000}));
    let server = |id: u32| json!({"id": id, "tunnel": format!("10.3.1.{id}"), "key": 100 + id, "encap": "gre"});
    for listener in given["clb"]["vips"][0]["listeners"].as_array_mut().unwrap() {
        listener["backends"] = json!((1..=8).map(server).collect::<Vec<_>>());
    }
    let options = Options { flow_capacity: 4096, ..Options::default() };
    let mut clb = node_with(Role::Clb, &given, options);
    let mut now = NOW;
    let request = |port: u16, flags: u8| to_ld(&p, &Tcp::new((p.client, port), (p.private, 80), flags).ip());
    let mut servers = Vec::new();
    for port in 1..=500 {
        now += SECOND / 500;
        let result = send_at(now, &mut *clb, 0, &request(port, SYN));
        servers.push(untunnel(&result.frame).1);
        send_at(now, &mut *clb, 0, &request(port, ACK));
    }
    // The real servers change, so that a connection whose flow is lost would go elsewhere.
    let mut fewer = given.clone();
    fewer["epoch"] = json!(8);
    for listener in fewer["clb"]["vips"][0]["listeners"].as_array_mut().unwrap() {
        listener["backends"].as_array_mut().unwrap().iter_mut().take(4).for_each(|server| server["weight"] = json!(0));
    }
    clb.set_tables(tables(&fewer, Role::Clb));
    let before = clb.counters();
    assert_eq!(before.active, 500);
    let mut dice = 1u64;
    let mut at_first = 0;
    for n in 0..100_000u64 {
        // 50 000 packets a second.
        now += SECOND / 50_000;
        if n % 10 == 0 {
            let port = (n / 10 % 500) as u16 + 1;
            let result = send_at(now, &mut *clb, 0, &request(port, ACK));
            assert_eq!(untunnel(&result.frame).1, servers[usize::from(port) - 1], "{n}");
        } else {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let source = Ipv4Addr::from_bits(0x0B00_0000 | (dice >> 40) as u32).to_string();
            let result = send_at(now, &mut *clb, 0, &syn(&p, &source, (dice >> 20) as u16, p.private));
            assert_eq!(result.port(), 0, "it goes on by hash alone");
        }
        if n == 1000 {
            at_first = clb.counters().active;
        }
    }
    let after = clb.counters();
    assert_eq!(after.expired, 0, "nobody was evicted");
    assert_eq!(after.active, at_first, "the table has not grown since the gate shut");
    assert!(after.active <= 500 + 260, "{after:?}");
    // After the flood new connections have a place again.
    now += SECOND;
    assert_eq!(send_at(now, &mut *clb, 0, &request(1000, SYN)).port(), 0);
    assert_eq!(clb.counters().active, after.active + 1);
}

/// A stream that began in the flood has no place; its packets alone must not keep the gate shut.
#[test]
fn what_came_in_a_flood_is_no_flood_afterwards() {
    let p = four();
    let mut clb = node(Role::Clb, &p.protected_tables(json!({"flood_gate_per_s": 100, "new_flows_per_s": 10_000})));
    let datagram = |port| to_ld(&p, &udp((p.client, port), (p.private, 53), b"x", true));
    for port in 1..1000 {
        assert_eq!(send_at(NOW, &mut *clb, 0, &datagram(port)).port(), 0);
    }
    let in_flood = clb.counters().active;
    let mut now = NOW;
    // 1000 packets a second of one stream, ten times what the gate lets in.
    for _ in 0..1000 {
        now += SECOND / 1000;
        assert_eq!(send_at(now, &mut *clb, 0, &datagram(999)).port(), 0);
    }
    assert_eq!(clb.counters().active, in_flood + 1, "it has got its place");
}

#[test]
fn a_reset_is_no_newcomer() {
    let p = four();
    let mut clb = node(Role::Clb, &p.protected_tables(json!({"flood_gate_per_s": 100})));
    for port in 1..1000 {
        let reset = to_ld(&p, &Tcp::new((p.client, port), (p.private, 80), RST).ip());
        assert_eq!(send_at(NOW, &mut *clb, 0, &reset).port(), 0);
    }
    assert_eq!(clb.counters().created, 0);
    assert_eq!(send_at(NOW, &mut *clb, 0, &syn(&p, p.client, 1, p.private)).port(), 0);
    assert_eq!(clb.counters().created, 1, "the gate is open");
}

fn with_blacklist(mut tables: Value) -> Value {
    tables["clb"]["blacklist"] = json!({"events": 5, "window_s": 10, "ttl_s": 60});
    tables
}

#[test]
fn the_blacklisted_lose_new_connections_only_and_only_for_a_while() {
    let p = four();
    let mut clb = node(Role::Clb, &with_blacklist(p.clb_tables()));
    let now = |seconds: u64| NOW + seconds * SECOND;
    let mut ask = |seconds, bytes: &[u8]| reason(send_at(now(seconds), &mut *clb, 0, bytes).outcome);
    let closed = |port| to_ld(&p, &Tcp::new((p.client, port), (p.private, 81), SYN).ip());
    assert_eq!(ask(0, &syn(&p, p.client, 1, p.private)), None);
    for port in 0..5 {
        assert_eq!(ask(1, &closed(port)), Some(DropReason::NoListener));
    }
    assert_eq!(ask(1, &syn(&p, p.client, 2, p.private)), Some(DropReason::Blacklisted));
    assert_eq!(ask(1, &closed(9)), Some(DropReason::Blacklisted));
    let going_on = to_ld(&p, &Tcp::new((p.client, 1), (p.private, 80), ACK).ip());
    assert_eq!(ask(2, &going_on), None, "a connection from before");
    assert_eq!(ask(2, &syn(&p, "192.0.2.10", 2, p.private)), None, "another client");
    assert_eq!(ask(60, &syn(&p, p.client, 3, p.private)), Some(DropReason::Blacklisted));
    assert_eq!(ask(62, &syn(&p, p.client, 3, p.private)), None);
}

#[test]
fn probes_are_never_learned() {
    let p = four();
    let mut clb = node(Role::Clb, &with_blacklist(p.clb_tables()));
    let probe = |vip_port| Tcp { seq: isn(3), ..Tcp::new((p.prober, 9), (p.private, vip_port), SYN) }.ip();
    for _ in 0..20 {
        let result = send_at(NOW, &mut *clb, 0, &to_ld(&p, &probe(81)));
        assert_eq!(result.reason(), DropReason::NoListener);
    }
    assert_eq!(send_at(NOW, &mut *clb, 0, &to_ld(&p, &probe(80))).port(), 0);
}

/// While the gate is shut connections do without state, in both directions, and take no place by the back door.
#[test]
fn a_shut_gate_stops_nobody() {
    let p = four();
    let mut clb = node_with(
        Role::Clb,
        &p.protected_tables(json!({"flood_gate_per_s": 10})),
        Options { flow_capacity: 1000, ..Options::default() },
    );
    let back = |inner: &[u8]| frame(&tunnel(p.host, p.ld, "gre", Some(77), inner));
    for n in 0..3000u16 {
        let source = format!("100.64.{}.{}", n / 256, n % 256);
        let question = to_ld(&p, &udp((&source, 5), (p.private, 53), b"question", true));
        assert_eq!(send_at(NOW, &mut *clb, 0, &question).port(), 0);
    }
    let entered = clb.counters().created;
    assert!(entered < 50, "{entered}");
    for n in 0..3000u16 {
        let source = format!("100.64.{}.{}", n / 256, n % 256);
        let answer = back(&udp((p.private, 53), (&source, 5), b"answer", true));
        assert_eq!(send_at(NOW, &mut *clb, 0, &answer).port(), 0);
    }
    let packets = [(true, SYN), (false, SYN | ACK), (true, ACK), (false, ACK), (false, RST | ACK)];
    for (is_request, flags) in packets {
        let bytes = if is_request {
            to_ld(&p, &Tcp::new((p.client, 9), (p.private, 80), flags).ip())
        } else {
            back(&Tcp::new((p.private, 80), (p.client, 9), flags).ip())
        };
        assert_eq!(send_at(NOW, &mut *clb, 0, &bytes).port(), 0, "{flags:#x}");
    }
    // A probe sees what clients see, and its answer comes home with its mark.
    let probe = Tcp { seq: isn(3), ..Tcp::new((p.prober, 9), (p.private, 80), SYN) };
    assert_eq!(send_at(NOW, &mut *clb, 0, &to_ld(&p, &probe.ip())).port(), 0);
    let answer = Tcp { ack: isn(3).wrapping_add(1), ..Tcp::new((p.private, 80), (p.prober, 9), SYN | ACK) };
    let answer = send_at(NOW, &mut *clb, 0, &back(&answer.ip()));
    assert_eq!((answer.port(), answer.points.len()), (0, 1));
    assert_eq!(clb.counters().created, entered);
}

/// What strikes the innocent in a flood is no evidence against them.
#[test]
fn limits_blacklist_nobody() {
    let p = four();
    let given = p.protected_tables(json!({"packets_per_s": 1, "new_flows_per_s": 1}));
    let mut clb = node(Role::Clb, &with_blacklist(given));
    for port in 1..100 {
        send_at(NOW, &mut *clb, 0, &syn(&p, p.client, port, p.private));
    }
    assert_eq!(send_at(NOW + 2 * SECOND, &mut *clb, 0, &syn(&p, p.client, 1000, p.private)).port(), 0);
}

/// Someone forged a client's address until it was blacklisted. Where the VIP has SYN cookies, the client can prove itself.
#[test]
fn a_cookie_lets_a_forged_client_in() {
    let p = four();
    let given = p.protected_tables(json!({"syn_cookies": "flood", "flood_gate_per_s": 100_000}));
    let mut clb = node(Role::Clb, &with_blacklist(given));
    for port in 0..5 {
        let closed = to_ld(&p, &Tcp::new((p.client, port), (p.private, 81), SYN).ip());
        assert_eq!(send_at(NOW, &mut *clb, 0, &closed).reason(), DropReason::NoListener);
    }
    let answer = send_at(NOW, &mut *clb, 0, &syn(&p, p.client, 7, p.private));
    assert_eq!(answer.reason(), DropReason::SynAnswered);
    let cookie = u32::from_be_bytes(untunnel(&answer.frame).3[24..28].try_into().unwrap());
    let forged = Tcp { seq: 1001, ack: cookie, ..Tcp::new((p.client, 7), (p.private, 80), ACK) };
    assert_eq!(send_at(NOW, &mut *clb, 0, &to_ld(&p, &forged.ip())).reason(), DropReason::Blacklisted);
    let right = Tcp { ack: cookie.wrapping_add(1), ..forged };
    assert_eq!(send_at(NOW, &mut *clb, 0, &to_ld(&p, &right.ip())).port(), 0);
    let datagram = to_ld(&p, &udp((p.client, 7), (p.private, 53), b"x", true));
    assert_eq!(send_at(NOW, &mut *clb, 0, &datagram).reason(), DropReason::Blacklisted);
}
