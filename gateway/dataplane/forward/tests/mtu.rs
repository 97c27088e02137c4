//! Packets that do not fit: their senders are told what does, over every family and encapsulation and from every node.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::IpAddr;

use support::region::{routed, to_router, to_server, Region};
use support::{
    fragments, frame, frame_to, icmp, ip, node, open, plan, plans, pseudo, send, send_at, tables, tunnel, untunnel,
    Plan, Result, Tcp, EDGE_MAC, NOW,
};
use tgw_contract::{DropReason, Role};
use tgw_forward::Outcome;
use tgw_wire::checksum::Sum;
use tgw_wire::tcp::{ACK, SYN};

const HUGE: usize = 1800;

/// A segment that makes a packet of `length` bytes.
fn sized(src: (&str, u16), dst: (&str, u16), length: usize) -> Vec<u8> {
    let header = if ip(src.0).is_ipv4() { 40 } else { 60 };
    Tcp { payload: &vec![7; length - header], ..Tcp::new(src, dst, ACK) }.ip()
}

fn answer_port(result: &Result) -> u16 {
    match result.outcome {
        Outcome::Answer { port, reason: DropReason::MtuExceeded } => port,
        other => panic!("{other:?}"),
    }
}

/// Check a "too big" to the last checksum: (source, destination, the MTU it names, quoted source and destination).
fn too_big(packet: &[u8]) -> (IpAddr, IpAddr, usize, (IpAddr, IpAddr)) {
    let (src, dst, number, message) = open(packet);
    let quoted = &message[8..];
    assert!(packet.len() <= if src.is_ipv4() { 576 } else { 1280 });
    if src.is_ipv4() {
        assert_eq!((number, message[0], message[1]), (1, 3, 4));
        assert!(Sum::new().bytes(&message).is_right());
        let view = tgw_wire::ipv4::Packet::new_quoted(quoted).unwrap();
        assert!(view.verify_checksum());
        let mtu = u16::from_be_bytes([message[6], message[7]]);
        (src, dst, mtu.into(), (view.src().into(), view.dst().into()))
    } else {
        assert_eq!((number, message[0], message[1]), (58, 2, 0));
        assert!(pseudo(src, dst, 58, message.len()).bytes(&message).is_right());
        let view = tgw_wire::ipv6::Packet::new_quoted(quoted).unwrap();
        let mtu = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
        (src, dst, mtu as usize, (view.src().into(), view.dst().into()))
    }
}

fn to_ld(p: &Plan, inner: &[u8]) -> Vec<u8> {
    frame(&tunnel(p.eip, p.service, p.encap, None, inner))
}

#[test]
fn an_eip_node_tells_the_client() {
    for p in plans() {
        let (client, public) = ((p.client, 4000), (p.public, 80));
        let mut eip = p.eip();
        let result = send(&mut *eip, 1, &frame_to(EDGE_MAC, &sized(client, public, HUGE)));
        assert_eq!(answer_port(&result), 1);
        let (src, dst, mtu, quoted) = too_big(&to_router(&result));
        assert_eq!((src, dst, quoted), (ip(p.public), ip(p.client), (ip(p.client), ip(p.public))), "{p:?}");
        // What it names fits, to the byte.
        let fits = send(&mut *eip, 1, &frame_to(EDGE_MAC, &sized(client, public, mtu)));
        assert_eq!((fits.port(), fits.frame.len()), (0, 1700 + 14));
        let over = send(&mut *eip, 1, &frame_to(EDGE_MAC, &sized(client, public, mtu + 1)));
        assert_eq!(too_big(&to_router(&over)).2, mtu);
        assert_eq!(over.points.len(), 1, "one Drop Point");
    }
}

#[test]
fn an_ld_tells_the_client_through_the_eip_nodes() {
    for p in plans() {
        let mut region = Region::new(p);
        let request = sized((p.client, 4000), (p.private, 80), HUGE);
        let result = send(&mut *region.clb, 0, &to_ld(&p, &request));
        assert_eq!(answer_port(&result), 0);
        let (src, dst, mtu, _) = too_big(&region.reply_after_ld(&result).0);
        assert_eq!((src, dst), (ip(p.public), ip(p.client)), "{p:?}");
        let fits = send(&mut *region.clb, 0, &to_ld(&p, &sized((p.client, 4000), (p.private, 80), mtu)));
        assert_eq!((fits.port(), fits.frame.len()), (0, 1700 + 14));
    }
}

#[test]
fn a_vswitch_tells_the_client_through_its_ld() {
    for p in plans() {
        let mut region = Region::new(p);
        region.request(&Tcp::new((p.client, 4000), (p.public, 80), SYN).ip());
        let request = sized((p.client, 4000), (p.private, 80), 1501);
        let result = send(&mut *region.vswitch, 0, &frame(&tunnel(p.ld, p.host, p.encap, p.key, &request)));
        assert_eq!(answer_port(&result), 0);
        let (left, _) = region.after_host(&result);
        let (src, dst, mtu, quoted) = too_big(&left);
        assert_eq!((src, dst, mtu), (ip(p.public), ip(p.client), 1500), "{p:?}");
        assert_eq!(quoted, (ip(p.client), ip(p.public)), "the client knows only the public address");
    }
}

#[test]
fn replies_that_do_not_fit_are_told_to_the_real_server() {
    for p in plans() {
        let mut region = Region::new(p);
        region.request(&Tcp::new((p.client, 4000), (p.public, 80), SYN).ip());
        let reply = sized((p.private, 80), (p.client, 4000), HUGE);
        let check = |packet: &[u8]| {
            let (src, dst, mtu, quoted) = too_big(packet);
            assert_eq!((src, dst, quoted), (ip(p.client), ip(p.private), (ip(p.private), ip(p.client))), "{p:?}");
            mtu
        };
        let from_vswitch = send(&mut *region.vswitch, 1, &frame_to(EDGE_MAC, &reply));
        assert_eq!(answer_port(&from_vswitch), 1);
        let mtu = check(&to_server(&from_vswitch));
        let fits = send(&mut *region.vswitch, 1, &frame_to(EDGE_MAC, &sized((p.private, 80), (p.client, 4000), mtu)));
        assert_eq!((fits.port(), fits.frame.len()), (0, 1700 + 14));

        let at_ld = send(&mut *region.clb, 0, &frame(&tunnel(p.host, p.ld, p.encap, p.key, &reply)));
        assert_eq!(answer_port(&at_ld), 0);
        check(&region.after_ld(&at_ld).0);

        let smaller = sized((p.private, 80), (p.client, 4000), 1501);
        let at_eip = send(&mut *region.eip, 0, &frame(&tunnel(p.ld, p.anycast, p.encap, None, &smaller)));
        assert_eq!(answer_port(&at_eip), 0);
        assert_eq!(check(&region.after_eip(&at_eip).0), 1500);
    }
}

#[test]
fn some_are_not_answered() {
    let p = plan(4, 4, "gre");
    let six = plan(6, 4, "gre");
    let (client, public) = ((p.client, 4000), (p.public, 80));
    let mut eip = p.eip();
    let mut silent = |packet: &[u8]| {
        let result = send(&mut *eip, 1, &frame_to(EDGE_MAC, packet));
        assert_eq!(result.outcome, Outcome::Drop(DropReason::MtuExceeded));
    };
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut packet = sized(client, public, HUGE);
        change(&mut packet);
        packet[10..12].fill(0);
        let checksum = Sum::new().bytes(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    };
    silent(&changed(|b| b[6] = 0)); // it may be cut up: by others
    silent(&changed(|b| (b[6], b[7]) = (0x40, 20))); // a later fragment
    silent(&icmp(p.client, p.public, (3, 3), (1, 4), &sized(public, client, HUGE)));
    for source in ["224.0.0.5", "255.255.255.255", "127.0.0.1", "0.1.2.3", "169.254.7.7"] {
        silent(&sized((source, 4000), public, HUGE));
    }
    let mut eip = six.eip();
    for source in ["ff02::1", "::1", "::", "fe80::7"] {
        let result = send(&mut *eip, 1, &frame_to(EDGE_MAC, &sized((source, 4000), (six.public, 80), HUGE)));
        assert_eq!(result.outcome, Outcome::Drop(DropReason::MtuExceeded), "{source}");
    }
    // A first fragment is one that its sender can be told of.
    let whole = sized((six.client, 4000), (six.public, 80), 4000);
    let first = &fragments(&whole, 9, 1760)[0];
    assert_eq!(answer_port(&send(&mut *six.eip(), 1, &frame_to(EDGE_MAC, first))), 1);
}

#[test]
fn answers_are_limited() {
    let p = plan(4, 4, "gre");
    let mut eip = p.eip();
    let packet = frame_to(EDGE_MAC, &sized((p.client, 4000), (p.public, 80), HUGE));
    let mut answers = |now: u64, packets: usize| {
        (0..packets).filter(|_| matches!(send_at(now, &mut *eip, 1, &packet).outcome, Outcome::Answer { .. })).count()
    };
    assert_eq!(answers(NOW, 1500), 1000);
    assert_eq!(answers(NOW + 100_000_000, 500), 100);
}

/// A router on the client's side wants smaller packets: of many servers, the one that sent is told, also after the
/// tables have changed, and however little is quoted.
#[test]
fn the_right_real_server_is_told() {
    for p in plans() {
        let with_servers = |ids: std::ops::RangeInclusive<u32>| {
            let mut all = p.clb_tables();
            let host = |id: u32| if ip(p.host).is_ipv4() { format!("10.3.1.{id}") } else { format!("fd03::1:{id}") };
            let key = |id: u32| p.key.map(|_| 100 + id);
            let backends: Vec<_> = ids
                .map(|id| serde_json::json!({"id": id, "tunnel": host(id), "key": key(id), "encap": p.encap}))
                .collect();
            all["clb"]["vips"][0]["listeners"][0]["backends"] = serde_json::json!(backends);
            all["clb"]["vips"][0]["listeners"][1]["backends"] = serde_json::json!([]);
            all
        };
        let mut clb = node(Role::Clb, &with_servers(1..=3));
        let router = if ip(p.client).is_ipv4() { "192.0.2.254" } else { "2001:db8:c::fe" };
        let header = if ip(p.client).is_ipv4() { 20 } else { 40 };
        let chosen: Vec<_> = (1..=30)
            .map(|port| {
                untunnel(&send(&mut *clb, 0, &to_ld(&p, &Tcp::new((p.client, port), (p.private, 80), SYN).ip())).frame)
            })
            .collect();
        clb.set_tables(tables(&with_servers(1..=9), Role::Clb));
        for (port, (_, host, key, _)) in (1..=30).zip(&chosen) {
            let reply = Tcp { payload: &[5; 100], ..Tcp::new((p.public, 80), (p.client, port), ACK) }.ip();
            for quoted in [&reply[..], &reply[..header + 8]] {
                let error = icmp(router, p.public, (3, 4), (2, 0), quoted);
                let one = send(&mut *p.eip(), 1, &frame_to(EDGE_MAC, &error));
                let two = send(&mut *clb, 0, &routed(&one));
                let (_, to, named, inner) = untunnel(&two.frame);
                assert_eq!((&to, &named), (host, key), "{p:?}");
                let (_, dst, mtu, quoted) = too_big(&inner);
                assert_eq!((dst, mtu, quoted), (ip(p.private), 1400, (ip(p.private), ip(p.client))));
            }
        }
        assert!((1..30).any(|at| chosen[at].1 != chosen[0].1), "more than one server");
    }
}
