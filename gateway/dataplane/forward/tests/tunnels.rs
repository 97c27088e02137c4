//! What tunnels may look like besides as we write them; end points without keys; replies that skip the LD.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{json, Value};
use support::region::{routed, Region};
use support::{
    frame, frame_to, ip, node, octets, open, packet, plan, plans, send, tunnel, udp, unreachable, untunnel, verify,
    Plan, Tcp, EDGE_MAC,
};
use tgw_contract::{DropReason, Role};
use tgw_wire::tcp::{ACK, FIN, SYN};

#[test]
fn other_writings_of_the_same_tunnel_are_read() {
    for inner in [4u8, 6] {
        let p = plan(inner, 4, "gue");
        let syn = Tcp::new((p.client, 4000), (p.private, 80), SYN).ip();
        let ethertype = if inner == 4 { [8, 0] } else { [0x86, 0xDD] };
        let framed = [&[0; 12][..], &ethertype, &syn].concat();
        let in_udp = |port, payload: &[u8], sum| udp((p.eip, 50_000), (p.service, port), payload, sum);
        let geneve = |options: &[u8], protocol: [u8; 2], payload: &[u8]| {
            let head = [options.len() as u8 / 4, 0, protocol[0], protocol[1], 0, 0, 0, 0xFF];
            in_udp(6081, &[&head[..], options, payload].concat(), true)
        };
        let writings = [
            in_udp(6080, &syn, false), // GUE, variant 1
            in_udp(6080, &syn, true),
            in_udp(6080, &[&[1, if inner == 4 { 4 } else { 41 }, 0, 0, 9, 9, 9, 9][..], &syn].concat(), true),
            geneve(&[], ethertype, &syn),
            geneve(&[], [0x65, 0x58], &framed),
            geneve(&[1, 2, 3, 1, 0, 0, 0, 0], ethertype, &syn),
            in_udp(4754, &[&[0, 0, ethertype[0], ethertype[1]][..], &syn].concat(), true),
            packet(ip(p.eip), ip(p.service), if inner == 4 { 4 } else { 41 }, 64, &syn),
        ];
        for (number, writing) in writings.iter().enumerate() {
            let result = send(&mut *p.clb(), 0, &frame(writing));
            assert_eq!(untunnel(&result.frame).3, open_aged(&syn), "{number}");
            // A wrong checksum of the tunnel's own is not let through.
            if writing[9] == 17 && writing[26..28] != [0, 0] {
                let mut wrong = writing.clone();
                *wrong.last_mut().unwrap() ^= 1;
                assert_eq!(send(&mut *p.clb(), 0, &frame(&wrong)).reason(), DropReason::BadChecksum, "{number}");
            }
        }
    }
}

/// The packet with one hop less to live.
fn open_aged(whole: &[u8]) -> Vec<u8> {
    let (src, dst, number, payload) = open(whole);
    packet(src, dst, number, 63, &payload)
}

/// Two servers without keys: on two hosts the LD tells them apart by the host, on one host the vSwitch does by the VIP.
#[test]
fn without_keys_addresses_tell() {
    for encap in ["ipip", "gue"] {
        let p = Plan { key: None, ..plan(4, 4, encap) };
        let mut tables = p.clb_tables();
        let server = |id: u32, host: &str| json!({"id": id, "tunnel": host, "encap": encap});
        tables["clb"]["vips"][0]["listeners"][0]["backends"] = json!([server(1, "10.3.1.1"), server(2, "10.3.1.2")]);
        let mut clb = node(Role::Clb, &tables);
        let syn = |port| Tcp::new((p.client, port), (p.private, 80), SYN).ip();
        let answer = |port, flags| Tcp::new((p.private, 80), (p.client, port), flags).ip();
        let mut used = std::collections::HashSet::new();
        for port in 1..20 {
            let sent = send(&mut *clb, 0, &frame(&tunnel(p.eip, p.service, encap, None, &syn(port))));
            let (_, host, key, _) = untunnel(&sent.frame);
            assert_eq!(key, None);
            let other = if host == ip("10.3.1.1") { "10.3.1.2" } else { "10.3.1.1" };
            let from = |host: &str| frame(&tunnel(host, p.ld, encap, None, &answer(port, SYN | ACK)));
            assert_eq!(send(&mut *clb, 0, &from(other)).reason(), DropReason::NoFlow);
            assert_eq!(send(&mut *clb, 0, &from(&host.to_string())).port(), 0);
            used.insert(host);
        }
        assert_eq!(used.len(), 2);
        // An LD without the flow takes the server by its host.
        let restarted =
            send(&mut *node(Role::Clb, &tables), 0, &frame(&tunnel("10.3.1.2", p.ld, encap, None, &answer(9, ACK))));
        assert_eq!(restarted.port(), 0);

        let mut tables = p.vswitch_tables();
        tables["ports"].as_array_mut().unwrap().push(json!({"index": 2, "mac": "02:00:00:00:00:22", "mtu": 1500}));
        tables["vswitch"]["servers"].as_array_mut().unwrap().push(json!({
            "id": 6, "key": null, "port": 2, "mac": "02:00:00:00:00:88", "vips": [{"id": 2, "address": "10.100.0.2"}]}));
        let mut vswitch = node(Role::Vswitch, &tables);
        for (vip, port) in [(p.private, 1), ("10.100.0.2", 2)] {
            let syn = Tcp::new((p.client, 4000), (vip, 80), SYN).ip();
            let request = frame(&tunnel(p.ld, p.host, encap, None, &syn));
            assert_eq!(send(&mut *vswitch, 0, &request).port(), port);
            let mac = if port == 1 { EDGE_MAC } else { "02:00:00:00:00:22".parse().unwrap() };
            let reply = Tcp::new((vip, 80), (p.client, 4000), SYN | ACK).ip();
            let sent = send(&mut *vswitch, port, &frame_to(mac, &reply));
            assert_eq!(untunnel(&sent.frame), (ip(p.host), ip(p.ld), None, open_aged(&reply)));
        }
        let stranger = Tcp::new((p.client, 4000), ("10.100.0.3", 80), SYN).ip();
        let result = send(&mut *vswitch, 0, &frame(&tunnel(p.ld, p.host, encap, None, &stranger)));
        assert_eq!(result.reason(), DropReason::NoBackend);
    }
}

fn direct(p: &Plan) -> Value {
    let mut tables = p.vswitch_tables();
    tables["vswitch"]["reply_to"] = json!(p.anycast);
    // The fabric's tunnel need not be the host's.
    tables["vswitch"]["reply_encap"] = json!(if p.encap == "gre" { "vxlan" } else { "gre" });
    tables["vswitch"]["servers"][0]["vips"][0]["mode"] = json!("dsr");
    tables
}

#[test]
fn replies_in_direct_return_skip_the_ld() {
    for p in plans() {
        let mut region = Region::new(p);
        region.vswitch = node(Role::Vswitch, &direct(&p));
        for (flags, back) in [(SYN, SYN | ACK), (ACK, ACK), (FIN | ACK, FIN | ACK)] {
            region.request(&Tcp::new((p.client, 4000), (p.public, 80), flags).ip());
            let reply = Tcp::new((p.private, 80), (p.client, 4000), back).ip();
            let one = send(&mut *region.vswitch, 1, &frame_to(EDGE_MAC, &reply));
            let (src, dst, key, _) = untunnel(&one.frame);
            assert_eq!((src, dst, key.unwrap_or(0)), (ip(p.host), ip(p.anycast), 0), "{p:?}");
            let two = send(&mut *region.eip, 0, &routed(&one));
            assert_eq!(two.port(), 1);
            let expected = Tcp { ttl: 62, ..Tcp::new((p.public, 80), (p.client, 4000), back) }.ip();
            assert_eq!(two.frame[14..], expected);
        }
        // Errors about requests go the same way; what no client asked for goes nowhere.
        let about = Tcp::new((p.client, 4000), (p.private, 80), ACK).ip();
        let one = send(&mut *region.vswitch, 1, &frame_to(EDGE_MAC, &unreachable(p.private, p.client, &about)));
        let two = send(&mut *region.eip, 0, &routed(&one));
        assert_eq!(verify(&two.frame[14..]), (ip(p.public), ip(p.client)));
        // A request too big for the server's port: the client is told on the same way.
        let big = Tcp { payload: &[7; 1500], ..Tcp::new((p.client, 4000), (p.private, 80), ACK) }.ip();
        let one = send(&mut *region.vswitch, 0, &frame(&tunnel(p.ld, p.host, p.encap, p.key, &big)));
        assert_eq!(one.reason(), DropReason::MtuExceeded);
        assert_eq!(untunnel(&one.frame).1, ip(p.anycast));
        assert_eq!(send(&mut *region.eip, 0, &routed(&one)).port(), 1);
        let unasked = Tcp::new((p.private, 80), (p.client, 4001), SYN | ACK).ip();
        assert_eq!(send(&mut *region.vswitch, 1, &frame_to(EDGE_MAC, &unasked)).reason(), DropReason::NoFlow);
        assert_eq!(region.clb.counters().created, 1);
    }
}

/// What an LD asks on its own account, as in a health check, is answered to that LD also in direct return.
#[test]
fn a_health_check_in_direct_return_is_answered_to_the_ld() {
    let p = plan(4, 4, "gre");
    let mut vswitch = node(Role::Vswitch, &direct(&p));
    for (client, home) in [(p.ld, p.ld), (p.client, p.anycast)] {
        let check = Tcp::new((client, 61_000), (p.private, 80), SYN).ip();
        assert_eq!(send(&mut *vswitch, 0, &frame(&tunnel(p.ld, p.host, p.encap, p.key, &check))).port(), 1);
        let answer = Tcp::new((p.private, 80), (client, 61_000), SYN | ACK).ip();
        let sent = send(&mut *vswitch, 1, &frame_to(EDGE_MAC, &answer));
        assert_eq!(untunnel(&sent.frame).1, ip(home));
    }
}

/// The fabric's complaint about a direct reply still names what died.
#[test]
fn a_lost_direct_reply_is_told() {
    let p = plan(6, 4, "geneve");
    let mut vswitch = node(Role::Vswitch, &direct(&p));
    let answer = Tcp::new((p.private, 80), (p.client, 4000), SYN | ACK).ip();
    let lost = tunnel(p.host, p.anycast, "gre", None, &answer);
    let result = send(&mut *vswitch, 0, &frame(&unreachable(p.router, p.host, &lost)));
    assert_eq!(result.reason(), DropReason::NoRoute);
    assert_eq!((result.points[0].outer_dst, result.points[0].src_addr), (octets(p.anycast), octets(p.private)));
}
