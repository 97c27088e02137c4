//! Packets all the way: client, EIP, LD, vSwitch, real server and back, over every family and encapsulation.
#![allow(clippy::unwrap_used)]

mod support;

use support::region::{routed, Region};
use support::{
    frame, frame_to, icmp, ip, isn, octets, open, plans, send, udp, unreachable, untunnel, verify, Tcp, EDGE_MAC,
};
use tgw_contract::colour::{mapped, probe_id};
use tgw_contract::{Hop, Point, Verdict};
use tgw_wire::tcp::{ACK, FIN, PSH, RST, SYN};

fn ttl(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 {
        packet[8]
    } else {
        packet[7]
    }
}

#[test]
fn a_tcp_connection() {
    for plan in plans() {
        let mut region = Region::new(plan);
        let client = (plan.client, 40_000);
        let (public, private) = ((plan.public, 80), (plan.private, 80));
        for (flags, payload) in [(SYN, &b""[..]), (ACK, b""), (ACK | PSH, b"GET / HTTP/1.1\r\n\r\n"), (FIN | ACK, b"")]
        {
            let packet = Tcp { payload, ..Tcp::new(client, public, flags) }.ip();
            let (arrived, points) = region.request(&packet);
            assert_eq!(verify(&arrived), (ip(plan.client), ip(plan.private)), "{plan:?}");
            assert_eq!(ttl(&arrived), 61);
            let expected = Tcp { payload, ttl: 61, ..Tcp::new(client, private, flags) }.ip();
            assert_eq!(arrived, expected, "{plan:?}: nothing else changed");
            assert!(points.is_empty(), "no colour, no trace");

            let answer = Tcp { payload, ..Tcp::new(private, client, flags | ACK) }.ip();
            let (left, points) = region.reply(&answer);
            let expected = Tcp { payload, ttl: 61, ..Tcp::new(public, client, flags | ACK) }.ip();
            assert_eq!(left, expected, "{plan:?}");
            assert!(points.is_empty());
        }
        for node in [&region.clb, &region.vswitch] {
            assert_eq!((node.counters().created, node.counters().active), (1, 1));
        }
    }
}

#[test]
fn datagrams_with_and_without_a_checksum() {
    for plan in plans() {
        for with_checksum in [true, false] {
            if !with_checksum && ip(plan.client).is_ipv6() {
                continue; // IPv6 wants one
            }
            let mut region = Region::new(plan);
            let packet = udp((plan.client, 5353), (plan.public, 53), b"odd", with_checksum);
            let (arrived, _) = region.request(&packet);
            let (_, _, _, payload) = open(&arrived);
            assert_eq!(payload[6..8] != [0, 0], with_checksum);
            let (left, _) = region.reply(&udp((plan.private, 53), (plan.client, 5353), b"answer", with_checksum));
            assert_eq!(verify(&left), (ip(plan.public), ip(plan.client)));
        }
    }
}

#[test]
fn icmp_errors_find_their_flow_both_ways() {
    for plan in plans() {
        let mut region = Region::new(plan);
        let (client, private) = ((plan.client, 5353), (plan.private, 53));
        let (asked, _) = region.request(&udp(client, (plan.public, 53), b"question", true));
        // The server's host has nobody at that port.
        let (left, _) = region.reply(&unreachable(plan.private, plan.client, &asked));
        assert_eq!(verify(&left), (ip(plan.public), ip(plan.client)));
        let (_, _, _, message) = open(&left);
        let (src, dst, _, _) = open(&message[8..]);
        assert_eq!((src, dst), (ip(plan.client), ip(plan.public)), "the client knows only the public address");

        // A router on the client's side wants smaller packets.
        let (answer, _) = region.reply(&udp(private, client, &[7; 200], true));
        let router = if ip(plan.client).is_ipv4() { "192.0.2.254" } else { "2001:db8:c::fe" };
        for quoted in [&answer[..], &Tcp::new((plan.public, 80), (plan.client, 999), ACK).ip()] {
            let (arrived, _) = region.request(&icmp(router, plan.public, (3, 4), (2, 0), quoted));
            assert_eq!(verify(&arrived), (ip(router), ip(plan.private)));
            let (_, _, _, message) = open(&arrived);
            let (src, dst, _, _) = open(&message[8..]);
            assert_eq!((src, dst), (ip(plan.private), ip(plan.client)));
            assert_eq!(message[6..8], 1400u16.to_be_bytes(), "the MTU stays");
        }
    }
}

/// A router may quote as little as eight bytes behind the IP header: the TCP checksum is not among them.
#[test]
fn a_short_quote() {
    for plan in plans() {
        let mut region = Region::new(plan);
        region.request(&Tcp::new((plan.client, 999), (plan.public, 80), SYN).ip());
        let answer = Tcp::new((plan.public, 80), (plan.client, 999), SYN | ACK).ip();
        let header = if ip(plan.client).is_ipv4() { 20 } else { 40 };
        let error = icmp(plan.client, plan.public, (3, 1), (1, 3), &answer[..header + 8]);
        let one = send(&mut *region.eip, 1, &frame_to(EDGE_MAC, &error));
        let (_, _, _, inner) = untunnel(&one.frame);
        let (src, dst, number, message) = open(&inner);
        let sum = if number == 1 { Default::default() } else { support::pseudo(src, dst, 58, message.len()) };
        assert!(sum.bytes(&message).is_right());
        assert_eq!(message.len(), 8 + header + 8);
        if header == 20 {
            assert!(tgw_wire::ipv4::Packet::new_quoted(&message[8..]).unwrap().verify_checksum());
        }
        let two = send(&mut *region.clb, 0, &routed(&one));
        assert_eq!(send(&mut *region.vswitch, 0, &routed(&two)).port(), 1);
    }
}

fn check(point: &Point, hop: Hop, probe: u64, src: &str, dst: &str, outer: (&str, &str)) {
    assert_eq!((point.kind, point.verdict, point.reason), (1, Verdict::Forwarded.number(), 0));
    assert_eq!((point.hop, point.direction), (hop.number(), hop.direction().number()), "{hop:?}");
    assert_eq!(point.probe_id, probe, "{hop:?}");
    assert_eq!((point.src_addr, point.dst_addr), (octets(src), octets(dst)), "{hop:?}");
    assert_eq!((point.outer_src, point.outer_dst), (outer_octets(outer.0), outer_octets(outer.1)), "{hop:?}");
    assert_eq!((point.vip_id, point.ts_ns), (1, support::NOW));
    let server = if matches!(hop, Hop::EipIn | Hop::EipOut) { 0 } else { 5 };
    assert_eq!(point.server_id, server, "{hop:?}");
    assert_eq!((point.protocol, point.ip_version), (6, if ip(src).is_ipv4() { 4 } else { 6 }));
}

fn outer_octets(address: &str) -> [u8; 16] {
    if address.is_empty() {
        [0; 16]
    } else {
        octets(address)
    }
}

#[test]
fn a_probe_leaves_a_trace_at_every_hop() {
    for plan in plans() {
        let mut region = Region::new(plan);
        let isn = isn(77);
        let probe = probe_id(mapped(ip(plan.prober)), 40_001, isn);
        let (prober, private) = ((plan.prober, 40_001), (plan.private, 80));
        let syn = Tcp { seq: isn, ..Tcp::new(prober, (plan.public, 80), SYN) };
        let reset = Tcp { seq: isn.wrapping_add(1), ..Tcp::new(prober, (plan.public, 80), RST) };
        let answer = Tcp { seq: 9, ack: isn.wrapping_add(1), ..Tcp::new(private, prober, SYN | ACK) };
        let trace_in = |points: &[Point], flags: u8, seq: u32| {
            let [eip, clb, vsw] = points else { panic!("{} points", points.len()) };
            check(eip, Hop::EipIn, probe, plan.prober, plan.private, ("", plan.service));
            check(clb, Hop::ClbIn, probe, plan.prober, plan.private, (plan.eip, plan.host));
            check(vsw, Hop::VswIn, probe, plan.prober, plan.private, (plan.ld, ""));
            for point in points {
                assert_eq!((point.tcp_flags, point.tcp_seq, point.tcp_ack), (flags, seq, 0));
                assert_eq!((point.src_port, point.dst_port), (40_001, 80));
            }
            assert_eq!(usize::from(eip.frame_len), 14 + syn.ip().len());
        };
        let (_, points) = region.request(&syn.ip());
        trace_in(&points, SYN, isn);
        let (_, points) = region.reply(&answer.ip());
        let [vsw, clb, eip] = &points[..] else { panic!("{} points", points.len()) };
        check(vsw, Hop::VswOut, probe, plan.private, plan.prober, ("", plan.ld));
        check(clb, Hop::ClbOut, probe, plan.private, plan.prober, (plan.host, plan.anycast));
        check(eip, Hop::EipOut, probe, plan.public, plan.prober, (plan.ld, ""));
        assert_eq!((eip.tcp_flags, eip.tcp_seq, eip.tcp_ack), (SYN | ACK, 9, isn.wrapping_add(1)));
        let (_, points) = region.request(&reset.ip());
        trace_in(&points, RST, isn.wrapping_add(1));

        // A closed port answers with a reset.
        let mut region = Region::new(plan);
        region.request(&syn.ip());
        let refusal = Tcp { seq: 0, flags: RST | ACK, ..answer };
        assert_eq!(region.reply(&refusal.ip()).1.iter().filter(|point| point.probe_id == probe).count(), 3);
    }
}

#[test]
fn a_wrong_cookie_or_another_source_is_no_probe() {
    let plan = support::plan(4, 4, "gre");
    let mut region = Region::new(plan);
    let wrong = Tcp { seq: isn(77) ^ 1, ..Tcp::new((plan.prober, 40_001), (plan.public, 80), SYN) };
    assert!(region.request(&wrong.ip()).1.is_empty());
    let other = Tcp { seq: isn(77), ..Tcp::new((plan.client, 40_001), (plan.public, 80), SYN) };
    assert!(region.request(&other.ip()).1.is_empty());
    let stale = Tcp { seq: isn(77), ..Tcp::new((plan.prober, 40_001), (plan.public, 80), SYN) };
    let late = support::NOW + 200_000_000_000;
    let result = support::send_at(late, &mut *region.eip, 1, &frame_to(EDGE_MAC, &stale.ip()));
    assert!(result.points.is_empty());
}

/// A client may claim any source address, another VIP's too: the answer must not be taken for a request to that VIP.
#[test]
fn an_answer_to_an_address_that_is_a_vip_is_an_answer() {
    let plan = support::plan(4, 4, "gre");
    let other = "10.100.0.2";
    let mut tables = plan.clb_tables();
    let mut second = tables["clb"]["vips"][0].clone();
    (second["id"], second["address"]) = (2.into(), other.into());
    tables["clb"]["vips"].as_array_mut().unwrap().push(second);
    let mut clb = support::node(tgw_contract::Role::Clb, &tables);
    let (claimed, vip) = ((other, 80), (plan.private, 80));
    let syn = support::tunnel(plan.eip, plan.service, "gre", None, &Tcp::new(claimed, vip, SYN).ip());
    assert_eq!(send(&mut *clb, 0, &frame(&syn)).port(), 0);
    let answer = support::tunnel(plan.host, plan.ld, "gre", Some(77), &Tcp::new(vip, claimed, SYN | ACK).ip());
    let (src, dst, key, _) = untunnel(&send(&mut *clb, 0, &frame(&answer)).frame);
    assert_eq!((src, dst, key), (ip(plan.ld), ip(plan.anycast), None));
    assert_eq!(clb.counters().created, 1, "no flow of the other VIP");
}
