//! A frame that its pipeline sent on and its port did not take: the record says that it died here, and whose it was.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use tgw_contract::colour::{epoch_of, mapped, probe_id, ColourKey};
use tgw_contract::{Counter, DropReason, Hop, Point, Role, Verdict};
use tgw_forward::{pipeline, Frame, Nanos, Options, Tables};
use tgw_node::{Engine, Outlet};
use tgw_tap::{Header, Reader, Writer};

const NOW: u64 = 1_700_000_000_000_000_000;
const KEY: &str = "000102030405060708090a0b0c0d0e0f";
const FABRIC_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PROBER: [u8; 4] = [198, 18, 0, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 1];
const PUBLIC: [u8; 4] = [203, 0, 113, 1];
const PRIVATE: [u8; 4] = [10, 100, 0, 1];

/// Takes nothing, or has no port at all.
struct Wall {
    is_there: bool,
}

impl Outlet for Wall {
    fn send(&mut self, _: Nanos, _: u16, _: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) -> bool {
        refused.extend_from_slice(chosen);
        self.is_there
    }
}

fn ipv4(protocol: u8, source: [u8; 4], target: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    header.extend(source);
    header.extend(target);
    let sum: u32 = header.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    header[10..12].copy_from_slice(&(!((folded & 0xFFFF) + (folded >> 16)) as u16).to_be_bytes());
    header.extend_from_slice(payload);
    header
}

/// A TCP segment in IPv4; nobody on the way verifies its checksum.
fn tcp(source: ([u8; 4], u16), target: ([u8; 4], u16), seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut segment = [source.1.to_be_bytes(), target.1.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 4, 0, 0, 0, 0, 0]);
    ipv4(6, source.0, target.0, &segment)
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    [&FABRIC_MAC[..], &OTHER_MAC, &[8, 0], packet].concat()
}

fn gre(target: [u8; 4], inner: &[u8]) -> Vec<u8> {
    ethernet(&ipv4(47, [10, 3, 0, 99], target, &[&[0, 0, 8, 0], inner].concat()))
}

fn gre_keyed(target: [u8; 4], key: u32, inner: &[u8]) -> Vec<u8> {
    ethernet(&ipv4(47, [10, 3, 0, 99], target, &[&[0x20, 0, 8, 0], &key.to_be_bytes()[..], inner].concat()))
}

fn engine(role: Role) -> (Engine, Reader) {
    let section = match role {
        Role::Eip => {
            r#""eip": {"anycast": "10.3.255.1", "bindings": [
            {"vip_id": 7, "public": "203.0.113.1", "private": "10.100.0.1", "service": "10.4.0.1"}]}"#
        }
        Role::Clb => {
            r#""clb": {"reply_to": "10.3.255.1", "reply_encap": "vxlan", "vips": [
            {"id": 7, "address": "10.100.0.1", "service": "10.4.0.1", "new_flows_per_s": null, "listeners": [
            {"protocol": "tcp", "port": 80, "backends": [
            {"id": 5, "tunnel": "10.3.1.1", "key": 77, "encap": "gre", "weight": 100}]}]}]}"#
        }
        Role::Vswitch => {
            r#""vswitch": {"servers": [
            {"id": 5, "key": 77, "port": 1, "mac": "02:00:00:00:00:77", "vips": [{"id": 7, "address": "10.100.0.1"}]}]}"#
        }
    };
    let text = format!(
        r#"{{"epoch": 1, "node": "n", "role": "{}", "tunnel": {{"local": "10.3.0.11", "encap": "gre"}},
        "probe": {{"reserved": ["198.18.0.0/16"], "key": "{KEY}"}}, {section},
        "ports": [{{"index": 0, "mac": "02:00:00:00:00:01", "next_hop_mac": "02:00:00:00:00:02", "mtu": 1600}},
                  {{"index": 1, "mac": "02:00:00:00:00:01", "next_hop_mac": "02:00:00:00:00:02", "mtu": 1500}}]}}"#,
        role.name()
    );
    let header = Header {
        node: "n".into(),
        role: u32::from(role.number()),
        worker: 0,
        boot_id: [7; 16],
        capacity: 64,
        pid: 1,
        created_ns: 1,
    };
    let tap = Writer::anonymous(header).unwrap();
    let reader = tap.reader();
    let mut engine = Engine::new(role, pipeline(role, 0, &Options::default()), tap);
    engine.set_tables(Arc::new(Tables::from_json(&text, role).unwrap()));
    (engine, reader)
}

fn through(engine: &mut Engine, wall: &mut Wall, port: u16, bytes: &[u8]) {
    let mut frame = Frame::default();
    assert!(frame.load(port, NOW, bytes));
    engine.process(NOW, std::slice::from_mut(&mut frame), wall);
    engine.publish(NOW + 1);
}

/// The one record of what was sent last.
fn last(reader: &mut Reader) -> Point {
    let points = reader.points();
    let [point] = &points[..] else { panic!("one record expected: {points:?}") };
    *point
}

fn v4(address: [u8; 4]) -> [u8; 16] {
    mapped(address.into()).to_be_bytes()
}

#[test]
fn a_probe_that_no_port_took_is_a_drop_at_this_node_and_no_trace() {
    let isn = ColourKey::from_hex(KEY).unwrap().cookie(9, epoch_of(NOW));
    let probe = probe_id(mapped(PROBER.into()), 4000, isn);
    let syn = |target| tcp((PROBER, 4000), (target, 80), isn, 0, 0x02);
    let answer = tcp((PRIVATE, 80), (PROBER, 4000), 5, isn.wrapping_add(1), 0x12);
    let host = [10, 3, 0, 11];
    // (role, port, what opens the flow, the frame, where it is counted)
    let cases = [
        (Role::Eip, 1, None, ethernet(&syn(PUBLIC)), Hop::EipIn),
        (Role::Eip, 0, None, gre([10, 3, 255, 1], &answer), Hop::EipOut),
        (Role::Clb, 0, None, gre([10, 4, 0, 1], &syn(PRIVATE)), Hop::ClbIn),
        (Role::Clb, 0, Some(gre([10, 4, 0, 1], &syn(PRIVATE))), gre_keyed(host, 77, &answer), Hop::ClbOut),
        (Role::Vswitch, 0, None, gre_keyed(host, 77, &syn(PRIVATE)), Hop::VswIn),
        (Role::Vswitch, 1, Some(gre_keyed(host, 77, &syn(PRIVATE))), ethernet(&answer), Hop::VswOut),
    ];
    for (role, port, opening, bytes, hop) in cases {
        for (is_there, reason) in [(true, DropReason::DeviceFull), (false, DropReason::NoRoute)] {
            let (mut engine, mut reader) = engine(role);
            let mut wall = Wall { is_there };
            if let Some(opening) = &opening {
                through(&mut engine, &mut wall, 0, opening);
                reader.points();
            }
            through(&mut engine, &mut wall, port, &bytes);
            let point = last(&mut reader);
            assert_eq!((point.kind, point.reason), (2, reason.number()), "{hop:?}");
            assert_eq!((point.verdict, point.hop), (Verdict::Dropped.number(), hop.number()), "{hop:?}");
            assert_eq!((point.probe_id, point.vip_id, point.ts_ns), (probe, 7, NOW), "{hop:?}");
            let counters = engine.tap().counters();
            assert_eq!((counters.get(Counter::FramesOut), counters.drops(reason)), (0, counters.all_drops()));
        }
    }
}

#[test]
fn a_packet_without_a_colour_is_named_by_its_addresses() {
    for (port, bytes, hop, src, dst) in [
        (1, ethernet(&tcp((CLIENT, 999), (PUBLIC, 80), 1, 0, 0x02)), Hop::EipIn, CLIENT, PRIVATE),
        (0, gre([10, 3, 255, 1], &tcp((PRIVATE, 80), (CLIENT, 999), 1, 1, 0x12)), Hop::EipOut, PUBLIC, CLIENT),
    ] {
        let (mut engine, mut reader) = engine(Role::Eip);
        through(&mut engine, &mut Wall { is_there: true }, port, &bytes);
        let point = last(&mut reader);
        assert_eq!((point.kind, point.reason, point.hop), (2, DropReason::DeviceFull.number(), hop.number()));
        assert_eq!((point.probe_id, point.vip_id), (0, 7), "{hop:?}");
        assert_eq!((point.src_addr, point.dst_addr), (v4(src), v4(dst)), "{hop:?}: as it was to leave");
        assert_eq!((point.tcp_seq, point.protocol), (1, 6));
    }
}
