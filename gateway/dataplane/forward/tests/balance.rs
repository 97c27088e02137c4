//! Which real server a connection goes to, over its life and over changes of the tables; which worker handles it.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::{json, Value};
use support::{
    frame, frame_to, icmp, node, node_with, plan, plans, send, send_at, tables, tunnel, udp, unreachable, untunnel,
    Plan, Tcp, EDGE_MAC, NOW,
};
use tgw_contract::{DropReason, Role};
use tgw_forward::{describe, Dispatcher, Frame, Options, Pipeline};
use tgw_wire::tcp::{ACK, FIN, RST, SYN};

const SECOND: u64 = 1_000_000_000;

/// Tables of an LD with real servers by (id, weight), each on a host of its own.
fn clb_tables(servers: &[(u32, u32)]) -> Value {
    let p = plan(4, 4, "gre");
    let mut tables = p.clb_tables();
    let backends: Vec<Value> = servers
        .iter()
        .map(|(id, weight)| json!({"id": id, "tunnel": host(*id), "key": 100 + id, "encap": "gre", "weight": weight}))
        .collect();
    for listener in tables["clb"]["vips"][0]["listeners"].as_array_mut().unwrap() {
        listener["backends"] = json!(backends);
    }
    tables
}

fn host(id: u32) -> String {
    format!("10.3.1.{id}")
}

fn with_epoch(mut tables: Value, epoch: u64) -> Value {
    tables["epoch"] = json!(epoch);
    tables
}

fn request(p: &Plan, port: u16, flags: u8) -> Vec<u8> {
    let packet = Tcp::new((p.client, port), (p.private, 80), flags).ip();
    frame(&tunnel(p.eip, p.service, "gre", None, &packet))
}

/// The host that a request of this client port is sent to.
fn chosen(clb: &mut dyn Pipeline, port: u16, flags: u8) -> IpAddr {
    chosen_at(NOW, clb, port, flags)
}

fn chosen_at(now: u64, clb: &mut dyn Pipeline, port: u16, flags: u8) -> IpAddr {
    let result = send_at(now, clb, 0, &request(&plan(4, 4, "gre"), port, flags));
    assert_eq!(result.port(), 0);
    untunnel(&result.frame).1
}

fn reply_of(p: &Plan, id: u32, port: u16, flags: u8) -> Vec<u8> {
    let packet = Tcp::new((p.private, 80), (p.client, port), flags).ip();
    frame(&tunnel(&host(id), p.ld, "gre", Some(100 + id), &packet))
}

#[test]
fn new_connections_spread_by_weight() {
    let mut clb = node(Role::Clb, &clb_tables(&[(1, 100), (2, 200), (3, 100)]));
    let mut shares: HashMap<IpAddr, u32> = HashMap::new();
    for port in 1..=1000 {
        *shares.entry(chosen(&mut *clb, port, SYN)).or_default() += 1;
    }
    assert_eq!(shares.len(), 3);
    let double = shares[&host(2).parse::<IpAddr>().unwrap()];
    assert!((420..580).contains(&double), "{shares:?}");
}

/// Cold migration: another cluster, which has never seen the connection, sends it to the same server.
#[test]
fn every_ld_makes_the_same_choice() {
    let servers = [(1, 100), (2, 50), (3, 100), (4, 70)];
    let backward: Vec<_> = servers.iter().rev().copied().collect();
    let mut one = node_with(Role::Clb, &clb_tables(&servers), Options { seed: 1, ..Options::default() });
    let mut other = node_with(Role::Clb, &clb_tables(&backward), Options { seed: 2, ..Options::default() });
    for port in 1..=500 {
        assert_eq!(chosen(&mut *one, port, SYN), chosen(&mut *other, port, ACK));
    }
    assert_eq!((one.counters().created, other.counters().created), (500, 500));
}

#[test]
fn connections_stay_when_servers_come_and_only_the_lost_ones_move() {
    let mut clb = node(Role::Clb, &clb_tables(&[(1, 100), (2, 100), (3, 100)]));
    let before: Vec<IpAddr> = (1..=300).map(|port| chosen(&mut *clb, port, SYN)).collect();
    clb.set_tables(tables(&with_epoch(clb_tables(&[(1, 100), (2, 100), (3, 100), (4, 100)]), 8), Role::Clb));
    let more: Vec<IpAddr> = (1..=300).map(|port| chosen(&mut *clb, port, ACK)).collect();
    assert_eq!(before, more);
    // Drained: no new connections, but the old ones stay.
    clb.set_tables(tables(&with_epoch(clb_tables(&[(1, 0), (2, 100), (3, 100), (4, 100)]), 9), Role::Clb));
    let drained: Vec<IpAddr> = (1..=300).map(|port| chosen(&mut *clb, port, ACK)).collect();
    assert_eq!(before, drained);
    let gone: IpAddr = host(1).parse().unwrap();
    assert!((1001..1300).all(|port| chosen(&mut *clb, port, SYN) != gone));
    // Removed: its connections are chosen anew, the others stay.
    clb.set_tables(tables(&with_epoch(clb_tables(&[(2, 100), (3, 100), (4, 100)]), 10), Role::Clb));
    for (port, old) in (1..=300).zip(before) {
        let now = chosen(&mut *clb, port, ACK);
        assert!(now != gone && (old == gone || now == old));
    }
}

#[test]
fn a_port_that_comes_back_is_a_new_connection() {
    let mut clb = node(Role::Clb, &clb_tables(&[(1, 100), (2, 100), (3, 100)]));
    let port = (1..200).find(|port| chosen(&mut *clb, *port, SYN) == host(1).parse::<IpAddr>().unwrap()).unwrap();
    chosen(&mut *clb, port, RST);
    clb.set_tables(tables(&with_epoch(clb_tables(&[(1, 0), (2, 100), (3, 100)]), 8), Role::Clb));
    assert_ne!(chosen(&mut *clb, port, SYN), host(1).parse::<IpAddr>().unwrap(), "not the drained one again");
}

#[test]
fn flows_expire_by_their_state() {
    for (packets, seconds) in [(&[SYN][..], 30), (&[SYN, ACK], 900), (&[SYN, ACK, FIN | ACK], 120), (&[SYN, RST], 10)] {
        let mut clb = node(Role::Clb, &clb_tables(&[(1, 100)]));
        for flags in packets {
            chosen(&mut *clb, 1, *flags);
        }
        let count = |clb: &mut dyn Pipeline, second: u64| {
            (0..32).for_each(|_| clb.idle(NOW + second * SECOND));
            clb.counters().active
        };
        assert_eq!(count(&mut *clb, seconds - 1), 1, "{packets:?}");
        assert_eq!(count(&mut *clb, seconds + 1), 0, "{packets:?}");
        assert_eq!(clb.counters().expired, 1);
    }
}

/// The limit is per VIP and second; each worker has its share; a change of the tables refills nothing.
#[test]
fn the_limit_of_new_connections() {
    let limited = |rate: u32, epoch: u64| {
        let mut tables = with_epoch(clb_tables(&[(1, 100)]), epoch);
        tables["clb"]["vips"][0]["new_flows_per_s"] = json!(rate);
        tables
    };
    let options = Options { flow_capacity: 4096, workers: 2, ..Options::default() };
    let mut clb = node_with(Role::Clb, &limited(100, 7), options);
    let p = plan(4, 4, "gre");
    let passed = |clb: &mut dyn Pipeline, now: u64, ports: std::ops::Range<u16>| {
        ports.filter(|port| send_at(now, clb, 0, &request(&p, *port, SYN)).points.is_empty()).count()
    };
    let first = passed(&mut *clb, NOW, 0..1);
    assert_eq!(first, 1);
    // The bucket was full when the tables came, long before NOW: a burst of one second's share.
    assert_eq!(passed(&mut *clb, NOW, 1..200), 49);
    clb.set_tables(tables(&limited(100, 8), Role::Clb));
    assert_eq!(passed(&mut *clb, NOW, 200..300), 0);
    assert_eq!(passed(&mut *clb, NOW + SECOND / 10, 300..400), 5);
}

#[test]
fn a_restarted_ld_takes_replies_of_old_connections_up() {
    let p = plan(4, 4, "gre");
    let mut clb = node(Role::Clb, &clb_tables(&[(1, 100), (2, 100)]));
    assert_eq!(send(&mut *clb, 0, &reply_of(&p, 2, 9, ACK)).port(), 0);
    assert_eq!(clb.counters().active, 1);
    assert_eq!(chosen(&mut *clb, 9, ACK), host(2).parse::<IpAddr>().unwrap(), "the client's packets follow");
    // What ends a connection, or answers a SYN that is not known of, passes without taking a place.
    for flags in [SYN | ACK, RST, RST | ACK] {
        assert_eq!(send(&mut *clb, 0, &reply_of(&p, 2, 10, flags)).port(), 0, "{flags:#x}");
    }
    assert_eq!(clb.counters().created, 1);
    assert_eq!(send(&mut *clb, 0, &reply_of(&p, 3, 10, ACK)).reason(), DropReason::NoFlow, "no server of the VIP");
}

#[test]
fn another_server_cannot_answer_for_a_flow() {
    let p = plan(4, 4, "gre");
    let mut clb = node(Role::Clb, &clb_tables(&[(1, 100), (2, 100)]));
    let owner = if chosen(&mut *clb, 1, SYN) == host(1).parse::<IpAddr>().unwrap() { 1 } else { 2 };
    assert_eq!(send(&mut *clb, 0, &reply_of(&p, owner, 1, SYN | ACK)).port(), 0);
    assert_eq!(send(&mut *clb, 0, &reply_of(&p, 3 - owner, 1, SYN | ACK)).reason(), DropReason::NoFlow);
}

/// The replies of a flow go to the LD that sent last.
#[test]
fn a_host_learns_the_ld_anew_with_every_packet() {
    let p = plan(4, 4, "gre");
    let mut vswitch = p.vswitch();
    let answer = frame_to(EDGE_MAC, &Tcp::new((p.private, 80), (p.client, 9), ACK).ip());
    for (ld, flags) in [("10.3.0.11", SYN), ("10.3.0.12", ACK), ("10.3.0.11", ACK)] {
        let packet = Tcp::new((p.client, 9), (p.private, 80), flags).ip();
        assert_eq!(send(&mut *vswitch, 0, &frame(&tunnel(ld, p.host, "gre", Some(77), &packet))).port(), 1);
        let reply = send(&mut *vswitch, 1, &answer);
        assert_eq!(untunnel(&reply.frame).1, ld.parse::<IpAddr>().unwrap());
    }
    assert_eq!(vswitch.counters().created, 1);
}

/// Padding behind the packet, as short Ethernet frames carry it, does not travel on.
#[test]
fn padding_is_cut() {
    let p = plan(4, 4, "gre");
    let syn = Tcp::new((p.client, 9), (p.public, 80), SYN).ip();
    let mut padded = frame_to(EDGE_MAC, &syn);
    padded.resize(60, 0xEE);
    let result = send(&mut *p.eip(), 1, &padded);
    let (_, _, _, inner) = untunnel(&result.frame);
    assert_eq!(inner.len(), syn.len());
    support::verify(&inner);
}

fn load(bytes: &[u8]) -> Frame {
    let mut frame = Frame::default();
    assert!(frame.load(0, NOW, bytes));
    frame
}

#[test]
fn a_connection_and_its_errors_stay_with_one_worker() {
    let mut dispatcher = Dispatcher::default();
    for p in plans() {
        let mut used = [false; 3];
        for port in 1..100 {
            let (client, private) = ((p.client, port), (p.private, 80));
            let out = Tcp::new(client, private, SYN).ip();
            let back = Tcp::new(private, client, SYN | ACK).ip();
            let frames = [
                frame(&tunnel(p.eip, p.service, p.encap, None, &out)),
                frame(&tunnel(p.host, p.ld, p.encap, p.key, &back)),
                frame(&tunnel(p.eip, p.service, p.encap, None, &icmp(p.client, p.private, (3, 4), (2, 0), &back))),
                frame(&tunnel(p.host, p.ld, p.encap, p.key, &unreachable(p.private, p.client, &out))),
                frame_to(EDGE_MAC, &back),
                frame_to(EDGE_MAC, &unreachable(p.private, p.client, &out)),
            ];
            let workers: Vec<usize> = frames.iter().map(|bytes| dispatcher.classify(&load(bytes), 3)).collect();
            assert!(workers.iter().all(|worker| *worker == workers[0]), "{p:?} {workers:?}");
            used[workers[0]] = true;
            assert_eq!(dispatcher.classify(&load(&frames[0]), 1), 0);
        }
        assert_eq!(used, [true; 3]);
    }
    assert_eq!(dispatcher.classify(&load(b"nonsense"), 8), 0);
    assert_eq!(dispatcher.classify(&load(&[]), 8), 0);
}

#[test]
fn the_runtime_can_describe_what_it_drops() {
    let p = plan(4, 4, "gre");
    let number = support::isn(3);
    let syn = Tcp { seq: number, ..Tcp::new((p.prober, 9), (p.private, 80), SYN) }.ip();
    let bytes = frame(&tunnel(p.eip, p.service, "gre", None, &syn));
    let clb = tables(&p.clb_tables(), Role::Clb);
    let point = describe(&load(&bytes), Role::Clb, Some(&clb));
    assert_eq!((point.vip_id, point.src_port, point.kind, point.reason), (1, 9, 0, 0));
    assert_eq!(point.probe_id as u32, number);
    assert_eq!(point.hop, tgw_contract::Hop::ClbIn.number());
    let bare = describe(&load(&bytes), Role::Clb, None);
    assert_eq!((bare.vip_id, bare.probe_id, bare.dst_port, bare.outer_src), (0, 0, 80, support::octets(p.eip)));
    assert_eq!(describe(&load(&[1, 2]), Role::Eip, None).frame_len, 2);
    let vswitch = tables(&p.vswitch_tables(), Role::Vswitch);
    let eip = tables(&p.eip_tables(), Role::Eip);
    assert_eq!(describe(&load(&bytes), Role::Vswitch, Some(&vswitch)).vip_id, 1);
    let mut plain = Frame::default();
    assert!(plain.load(1, NOW, &frame_to(EDGE_MAC, &udp((p.client, 1), (p.public, 53), b"", true))));
    assert_eq!(describe(&plain, Role::Eip, Some(&eip)).vip_id, 1);
}
