//! Packets in parts: all of them to the same worker, LD and real server, and back.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use support::region::{routed, Region};
use support::{
    fragments, frame, frame_to, ip, node, open, plan, plans, reassembled, send, send_at, tunnel, udp, untunnel, verify,
    Plan, Tcp, EDGE_MAC, NOW,
};
use tgw_contract::{DropReason, Role};
use tgw_forward::{Dispatcher, Frame};
use tgw_wire::tcp::{ACK, SYN};

fn question(p: &Plan, port: u16, payload: &[u8]) -> Vec<u8> {
    udp((p.client, port), (p.public, 53), payload, true)
}

#[test]
fn a_datagram_in_parts_goes_all_the_way_and_its_answer_back() {
    for p in plans() {
        let mut region = Region::new(p);
        let body: Vec<u8> = (0..=255).cycle().take(3001).collect();
        let parts = fragments(&question(&p, 4000, &body), 0x0102_0304, 1200);
        assert_eq!(parts.len(), 3);
        let arrived: Vec<Vec<u8>> = parts.iter().map(|part| region.forth(part).0).collect();
        let whole = reassembled(&arrived);
        assert_eq!(verify(&whole), (ip(p.client), ip(p.private)), "{p:?}");
        assert_eq!(open(&whole).3[8..], body);
        // The answer's parts, the last before the middle one.
        let parts = fragments(&udp((p.private, 53), (p.client, 4000), &body, true), 9, 1400);
        let mut left: Vec<Vec<u8>> = [0, 2, 1].map(|at| region.back(&parts[at]).0).to_vec();
        left.swap(1, 2);
        let whole = reassembled(&left);
        assert_eq!(verify(&whole), (ip(p.public), ip(p.client)), "{p:?}");
        assert_eq!(open(&whole).3[8..], body);
        for node in [&region.clb, &region.vswitch] {
            assert_eq!(node.counters().created, 1);
        }
    }
}

#[test]
fn a_segment_in_parts_belongs_to_its_connection() {
    for p in plans() {
        let mut region = Region::new(p);
        region.request(&Tcp::new((p.client, 4000), (p.public, 80), SYN).ip());
        let segment = Tcp { payload: &[9; 1000], ..Tcp::new((p.client, 4000), (p.public, 80), ACK) }.ip();
        let arrived: Vec<Vec<u8>> = fragments(&segment, 5, 512).iter().map(|part| region.forth(part).0).collect();
        verify(&reassembled(&arrived));
        assert_eq!(region.clb.counters().created, 1);
    }
}

/// The fabric spreads tunnels by their outer headers: the parts of a packet must look alike.
#[test]
fn parts_take_one_path() {
    for p in plans() {
        let parts = fragments(&question(&p, 4000, &[1; 2000]), 7, 800);
        let mut eip = p.eip();
        let (is_udp, is_v4) = (!matches!(p.encap, "gre" | "ipip"), ip(p.eip).is_ipv4());
        // Flow label, addresses and ports.
        let ports = |at: usize| if is_udp { at..at + 4 } else { at..at };
        let spread = |sent: &[u8]| match is_v4 {
            true => [&sent[26..34], &sent[ports(34)]].concat(),
            false => [&sent[15..18], &sent[22..54], &sent[ports(54)]].concat(),
        };
        let outers: Vec<Vec<u8>> =
            parts.iter().map(|part| spread(&send(&mut *eip, 1, &frame_to(EDGE_MAC, part)).frame)).collect();
        assert!(outers.iter().all(|outer| *outer == outers[0]), "{p:?}");
        let another = spread(&send(&mut *eip, 1, &frame_to(EDGE_MAC, &question(&p, 4000, &[]))).frame);
        assert_eq!(another != outers[0], is_udp || !is_v4, "what is whole goes by its ports");
    }
}

#[test]
fn the_worker_of_a_connection_gets_its_fragments() {
    for p in plans() {
        let mut dispatcher = Dispatcher::default();
        let mut workers = [0; 8];
        for port in 1..200 {
            let whole = question(&p, port, &[2; 1500]);
            let load = |inner: &[u8]| {
                let mut frame_in = Frame::default();
                assert!(frame_in.load(0, NOW, &frame(&tunnel(p.eip, p.service, p.encap, None, inner))));
                frame_in
            };
            let expected = dispatcher.classify(&load(&whole), 8);
            for part in fragments(&whole, port.into(), 512) {
                assert_eq!(dispatcher.classify(&load(&part), 8), expected, "{p:?}");
            }
            workers[expected] += 1;
        }
        assert!(workers.iter().all(|count| *count > 0), "{workers:?}");
    }
}

fn many_servers(p: &Plan) -> serde_json::Value {
    let mut tables = p.clb_tables();
    let backends: Vec<_> = (1..=8)
        .map(|id| serde_json::json!({"id": id, "tunnel": format!("10.3.1.{id}"), "key": 100 + id, "encap": p.encap}))
        .collect();
    for listener in tables["clb"]["vips"][0]["listeners"].as_array_mut().unwrap() {
        listener["backends"] = serde_json::json!(backends);
    }
    tables
}

#[test]
fn what_is_forgotten_or_known_of_another_is_dropped() {
    let p = plan(4, 4, "gre");
    let mut clb = node(Role::Clb, &many_servers(&p));
    let send_part = |clb: &mut dyn tgw_forward::Pipeline, now, part: &[u8]| {
        send_at(now, clb, 0, &frame(&tunnel(p.eip, p.service, "gre", None, part)))
    };
    let whole = udp((p.client, 4000), (p.private, 53), &[3; 1500], true);
    let parts = fragments(&whole, 7, 512);
    assert_eq!(send_part(&mut *clb, NOW, &parts[1]).reason(), DropReason::Fragment, "before its first");
    assert_eq!(send_part(&mut *clb, NOW, &parts[0]).port(), 0);
    assert_eq!(send_part(&mut *clb, NOW + 14_000_000_000, &parts[1]).port(), 0);
    let other = fragments(&whole, 8, 512);
    assert_eq!(send_part(&mut *clb, NOW, &other[1]).reason(), DropReason::Fragment, "of another packet");
    assert_eq!(send_part(&mut *clb, NOW + 15_000_000_000, &parts[2]).reason(), DropReason::Fragment, "too late");
    // A server cannot slip parts into another one's answers.
    let answer = udp((p.private, 53), (p.client, 4000), &[3; 1500], true);
    let owner = untunnel(&send_part(&mut *clb, NOW, &whole).frame).2.unwrap();
    let parts = fragments(&answer, 7, 512);
    let from = |key: u32, part: &[u8]| frame(&tunnel(p.host, p.ld, "gre", Some(key), part));
    assert_eq!(send(&mut *clb, 0, &from(owner, &parts[0])).port(), 0);
    assert_eq!(send(&mut *clb, 0, &from(owner, &parts[1])).port(), 0);
    assert_eq!(
        send(&mut *clb, 0, &from(if owner == 101 { 102 } else { 101 }, &parts[2])).reason(),
        DropReason::Fragment
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Parts of many packets, mixed, with what the network loses: each part that comes behind its first goes to the server
    /// that the first went to, and no other does.
    #[test]
    fn parts_follow_their_first(
        packets in prop::collection::vec((1u16..500, 0u32..6, 8usize..64), 1..24),
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..120),
    ) {
        let p = plan(4, 4, "gre");
        let mut eip = p.eip();
        let mut clb = node(Role::Clb, &many_servers(&p));
        let cut: Vec<Vec<Vec<u8>>> = packets
            .iter()
            .map(|(port, ident, size)| fragments(&question(&p, *port, &[4; 600]), *ident, size * 8))
            .collect();
        // What the last first part with this identification decided.
        let mut firsts = std::collections::HashMap::new();
        for (packet, part) in order {
            let number = packet.index(cut.len());
            let ident = packets[number].1;
            let at = part.index(cut[number].len());
            let one = send(&mut *eip, 1, &frame_to(EDGE_MAC, &cut[number][at]));
            let two = send(&mut *clb, 0, &routed(&one));
            if at == 0 {
                firsts.insert(ident, untunnel(&two.frame).1);
            } else {
                match firsts.get(&ident) {
                    Some(host) => prop_assert_eq!(untunnel(&two.frame).1, *host),
                    None => prop_assert_eq!(two.reason(), DropReason::Fragment),
                }
            }
        }
    }
}
