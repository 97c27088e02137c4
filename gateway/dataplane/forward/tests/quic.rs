//! QUIC listeners: where a connection goes by its connection id, and which worker has it; and the other ways of dispatch.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::{HashMap, HashSet};

use serde_json::{json, Value};
use support::{
    fragments, frame, icmp, node, plan, plans, send, tables, tunnel, udp, unreachable, untunnel, Plan, Tcp, NOW,
};
use tgw_contract::{DropReason, Role};
use tgw_forward::{Dispatcher, Frame, Outcome, Pipeline};
use tgw_wire::quic::{Kind, Repr, VERSION_1, VERSION_2};
use tgw_wire::tcp::{ACK, SYN};

const WORKERS: usize = 8;

/// A UDP listener on port 443 with these fields, of eight real servers, whose ids are 1 to 8.
fn quic_tables(p: &Plan, fields: Value) -> Value {
    let mut tables = p.clb_tables();
    let backend = |id: u32| json!({"id": id, "tunnel": p.host, "key": 100 + id, "encap": p.encap, "weight": 100});
    let mut listener = json!({"protocol": "udp", "port": 443, "backends": (1..=8).map(backend).collect::<Vec<_>>()});
    for (key, value) in fields.as_object().unwrap() {
        listener[key] = value.clone();
    }
    tables["clb"]["vips"][0]["listeners"] = json!([listener]);
    tables
}

fn encoded() -> Value {
    json!({"dispatch": "quic", "quic_server_id": {"offset": 1, "length": 2}})
}

fn load(bytes: &[u8]) -> Frame {
    let mut frame = Frame::default();
    assert!(frame.load(0, NOW, bytes));
    frame
}

struct Ld {
    p: Plan,
    clb: Box<dyn Pipeline>,
    dispatcher: Dispatcher,
}

impl Ld {
    fn new(fields: Value) -> Self {
        let p = plan(4, 4, "gre");
        let value = quic_tables(&p, fields);
        let mut dispatcher = Dispatcher::default();
        dispatcher.set_tables(tables(&value, Role::Clb));
        Self { p, clb: node(Role::Clb, &value), dispatcher }
    }

    fn frame(&self, port: u16, datagram: &[u8]) -> Vec<u8> {
        let packet = udp((self.p.client, port), (self.p.private, 443), datagram, true);
        frame(&tunnel(self.p.eip, self.p.service, "gre", None, &packet))
    }

    fn worker(&mut self, port: u16, datagram: &[u8]) -> usize {
        let bytes = self.frame(port, datagram);
        self.dispatcher.classify(&load(&bytes), WORKERS)
    }

    /// The id of the server that it goes to.
    fn server(&mut self, port: u16, datagram: &[u8]) -> Result<u32, DropReason> {
        let bytes = self.frame(port, datagram);
        let result = send(&mut *self.clb, 0, &bytes);
        match result.outcome {
            Outcome::Forward { .. } => Ok(untunnel(&result.frame).2.unwrap() - 100),
            Outcome::Drop(reason) | Outcome::Answer { reason, .. } => Err(reason),
        }
    }
}

fn long(kind: Kind, version: u32, dcid: &[u8]) -> Vec<u8> {
    let repr = Repr { kind, version, dcid, scid: &[0xAA; 4] };
    let mut bytes = vec![0x55; repr.len() + 40];
    repr.emit(&mut bytes).unwrap();
    bytes
}

fn short(dcid: &[u8]) -> Vec<u8> {
    [&[0x41][..], dcid, &[0x77; 30]].concat()
}

/// A connection id that the real server `id` has made.
fn made_by(id: u16, nonce: u8) -> Vec<u8> {
    [&[nonce][..], &id.to_be_bytes(), &[nonce; 5]].concat()
}

#[test]
fn a_servers_id_leads_to_it_from_anywhere_without_state() {
    let mut ld = Ld::new(encoded());
    for id in 1..=8 {
        let mut workers = HashSet::new();
        for nonce in 1..20u8 {
            let dcid = made_by(id, nonce);
            let packets = [
                short(&dcid),
                long(Kind::Handshake, VERSION_1, &dcid),
                long(Kind::Handshake, VERSION_2, &dcid),
                long(Kind::Initial, VERSION_1, &dcid),
            ];
            for packet in packets {
                // Each from another port, as if the client had moved.
                let port = 2000 + u16::from(nonce) * 7;
                assert_eq!(ld.server(port, &packet), Ok(u32::from(id)));
                workers.insert(ld.worker(port, &packet));
            }
        }
        assert_eq!(workers.len(), 1, "a connection that moves stays with its worker");
    }
    assert_eq!(ld.clb.counters().created, 0);
}

#[test]
fn first_packets_of_a_connection_meet_by_the_id_that_the_client_made_up() {
    let mut ld = Ld::new(encoded());
    let (mut servers, mut workers) = (HashSet::new(), HashSet::new());
    for nonce in 100..160 {
        let dcid = [0xF0, 0xFF, nonce, 4, 5, 6, 7, nonce];
        let packets = [
            long(Kind::Initial, VERSION_1, &dcid),
            long(Kind::ZeroRtt, VERSION_1, &dcid),
            long(Kind::Initial, VERSION_2, &dcid),
            long(Kind::Unknown, 0x1A2A_3A4A, &dcid),
        ];
        let mut here = HashSet::new();
        for (packet, port) in packets.iter().zip(3000..) {
            here.insert((ld.server(port + u16::from(nonce) * 8, packet).unwrap(), ld.worker(port, packet)));
        }
        assert_eq!(here.len(), 1, "{here:?}");
        servers.extend(here.iter().map(|(server, _)| *server));
        workers.extend(here.iter().map(|(_, worker)| *worker));
    }
    assert_eq!((servers.len(), workers.len()), (8, WORKERS));
}

/// What no id leads anywhere goes by its addresses and ports, and to the server that its flow knows.
#[test]
fn the_first_fragment_of_a_datagram_goes_by_its_id_and_the_others_follow() {
    let mut ld = Ld::new(encoded());
    let datagram = [short(&made_by(3, 9)), vec![7; 600]].concat();
    let whole = udp((ld.p.client, 4000), (ld.p.private, 443), &datagram, true);
    let worker = ld.worker(4000, &datagram);
    for part in fragments(&whole, 9, 400) {
        let bytes = frame(&tunnel(ld.p.eip, ld.p.service, ld.p.encap, None, &part));
        assert_eq!(ld.dispatcher.classify(&load(&bytes), WORKERS), worker);
        let result = send(&mut *ld.clb, 0, &bytes);
        assert_eq!((result.port(), untunnel(&result.frame).2), (0, Some(103)));
    }
}

#[test]
fn what_says_nothing_falls_back_to_the_tuple() {
    for fields in [encoded(), json!({"dispatch": "quic"})] {
        let without_ids = fields.get("quic_server_id").is_none();
        let mut ld = Ld::new(fields);
        let mut plain = Ld::new(json!({}));
        let mut spread = HashMap::new();
        for port in 1000..1200 {
            let strange = [0xF0, 0xFF, 0xEE, 4, 5, 6, 7, 8];
            let expected = (plain.server(port, b"x").unwrap(), plain.worker(port, b"x"));
            for packet in
                [short(&strange), long(Kind::Handshake, VERSION_1, &strange), long(Kind::Retry, VERSION_2, &[])]
            {
                assert_eq!((ld.server(port, &packet).unwrap(), ld.worker(port, &packet)), expected);
            }
            if without_ids {
                let initial = long(Kind::Initial, VERSION_1, &strange);
                assert_eq!((ld.server(port, &initial).unwrap(), ld.worker(port, &initial)), expected);
            }
            *spread.entry(expected).or_insert(0) += 1;
        }
        assert!(spread.len() > 30, "{spread:?}");
    }
}

/// A server that answers with ids of its own that say nothing keeps its connections all the same: its first reply enters the
/// flow at the worker that everything but the first packets goes to.
#[test]
fn the_reply_enters_the_flow_where_later_packets_look_for_it() {
    let mut ld = Ld::new(encoded());
    let value = quic_tables(&ld.p, encoded());
    let mut workers: Vec<Box<dyn Pipeline>> = (0..WORKERS).map(|_| node(Role::Clb, &value)).collect();
    for port in 1000..1100 {
        let first = long(Kind::Initial, VERSION_1, &[0xF0, 0xFF, port as u8, 1, 2, 3, 4, 5]);
        let bytes = ld.frame(port, &first);
        let at = ld.worker(port, &first);
        let key = untunnel(&send(&mut *workers[at], 0, &bytes).frame).2.unwrap();
        let answer = udp((ld.p.private, 443), (ld.p.client, port), &long(Kind::Initial, VERSION_1, &[0xAA; 4]), true);
        let reply = frame(&tunnel(ld.p.host, ld.p.ld, "gre", Some(key), &answer));
        let at = ld.dispatcher.classify(&load(&reply), WORKERS);
        assert_eq!(send(&mut *workers[at], 0, &reply).port(), 0);
        for later in [short(&[0xFF; 8]), long(Kind::Handshake, VERSION_1, &[0xFF; 8])] {
            let bytes = ld.frame(port, &later);
            assert_eq!(ld.worker(port, &later), at);
            assert_eq!(untunnel(&send(&mut *workers[at], 0, &bytes).frame).2, Some(key));
        }
    }
}

/// Anyone can write a server's id into a first packet: limits hold for it too, and not for what goes on.
#[test]
fn a_servers_id_is_no_way_around_a_limit() {
    let mut ld = Ld::new(encoded());
    let mut limited = quic_tables(&ld.p, encoded());
    limited["clb"]["vips"][0]["new_flows_per_s"] = json!(5);
    ld.clb = node(Role::Clb, &limited);
    let first = long(Kind::Initial, VERSION_1, &made_by(3, 1));
    let passed: Vec<_> = (1000..1200).filter(|port| ld.server(*port, &first) == Ok(3)).collect();
    assert_eq!(passed.len(), 5);
    assert_eq!(ld.server(1199, &first), Err(DropReason::FlowLimit));
    assert_eq!(ld.server(passed[0], &first), Ok(3), "it is in");
    assert!((1000..1200).all(|port| ld.server(port, &short(&made_by(3, 1))) == Ok(3)));
}

#[test]
fn negotiation_and_unknown_versions_pass() {
    let mut ld = Ld::new(encoded());
    let mut unfixed = long(Kind::Unknown, 0x1A2A_3A4A, &[9; 64]);
    unfixed[0] = 0x80;
    for packet in [long(Kind::VersionNegotiation, 0, &[9; 255]), unfixed, long(Kind::Unknown, 0xFF00_001D, &[])] {
        assert!(ld.server(1, &packet).is_ok());
    }
}

/// Both directions of a connection, and the errors about it, by every way of dispatch.
#[test]
fn by_address_pair_all_connections_of_a_client_meet() {
    for p in plans() {
        for (fields, by_pair) in
            [(json!({"dispatch": "ip_pair"}), true), (json!({"affinity_s": 60}), true), (json!({}), false)]
        {
            let mut value = p.clb_tables();
            let listener = &mut value["clb"]["vips"][0]["listeners"][0];
            for (key, field) in fields.as_object().unwrap() {
                listener[key] = field.clone();
            }
            let mut dispatcher = Dispatcher::default();
            dispatcher.set_tables(tables(&value, Role::Clb));
            let mut used = HashSet::new();
            for port in 1..100 {
                let (client, private) = ((p.client, port), (p.private, 80));
                let out = Tcp::new(client, private, SYN).ip();
                let back = Tcp::new(private, client, SYN | ACK).ip();
                let frames = [
                    frame(&tunnel(p.eip, p.service, p.encap, None, &out)),
                    frame(&tunnel(p.host, p.ld, p.encap, Some(77), &back)),
                    frame(&tunnel(p.eip, p.service, p.encap, None, &icmp(p.client, p.private, (3, 4), (2, 0), &back))),
                    frame(&tunnel(p.host, p.ld, p.encap, Some(77), &unreachable(p.private, p.client, &out))),
                ];
                let workers: HashSet<usize> =
                    frames.iter().map(|bytes| dispatcher.classify(&load(bytes), WORKERS)).collect();
                assert_eq!(workers.len(), 1, "{p:?} {fields}");
                used.extend(workers);
            }
            assert_eq!(used.len(), if by_pair { 1 } else { WORKERS }, "{fields}");
            // Other clients are elsewhere, and other listeners of the VIP go their own way.
            let other = |n: u16| Tcp::new((p.client, n), (p.private, 81), SYN).ip();
            let elsewhere: HashSet<usize> = (1..100)
                .map(|n| {
                    dispatcher.classify(&load(&frame(&tunnel(p.eip, p.service, p.encap, None, &other(n)))), WORKERS)
                })
                .collect();
            assert_eq!(elsewhere.len(), WORKERS);
        }
    }
}
