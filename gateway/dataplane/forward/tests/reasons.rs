//! Every drop reason that a pipeline can give, with packets that cause it. A reason without one fails.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::{
    frame, frame_to, icmp, ip, isn, node, node_with, octets, plan, send, tunnel, udp, unreachable, Plan, Result, Tcp,
    EDGE_MAC, MAC,
};
use tgw_contract::colour::{mapped, probe_id};
use tgw_contract::{DropReason, Hop, Role, Verdict};
use tgw_forward::{pipeline, Fault, FaultKind, Faults, Options, Pipeline};
use tgw_wire::ethernet::Mac;
use tgw_wire::tcp::{ACK, FIN, PSH, RST, SYN, URG};

/// What only the runtime around a pipeline can cause; gateway/dataplane/node tests them.
const OF_THE_RUNTIME: [DropReason; 3] = [DropReason::RingFull, DropReason::DeviceFull, DropReason::ShuttingDown];

/// The packets and results behind one reason: (hop, result).
type Cases = Vec<(Hop, Result)>;

fn four() -> Plan {
    plan(4, 4, "gre")
}

fn client_syn(p: &Plan) -> Tcp<'static> {
    Tcp::new((p.client, 4000), (p.public, 80), SYN)
}

/// A request as the EIP node sends it to the LD.
fn to_ld(p: &Plan, inner: &[u8]) -> Vec<u8> {
    frame(&tunnel(p.eip, p.service, p.encap, None, inner))
}

fn to_host(p: &Plan, key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    frame(&tunnel(p.ld, p.host, p.encap, key, inner))
}

fn reply_to_ld(p: &Plan, key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    frame(&tunnel(p.host, p.ld, p.encap, key, inner))
}

fn reply_to_eip(p: &Plan, inner: &[u8]) -> Vec<u8> {
    frame(&tunnel(p.ld, p.anycast, p.encap, None, inner))
}

fn private_syn(p: &Plan) -> Vec<u8> {
    Tcp::new((p.client, 4000), (p.private, 80), SYN).ip()
}

fn answer(p: &Plan) -> Vec<u8> {
    Tcp::new((p.private, 80), (p.client, 4000), SYN | ACK).ip()
}

fn eip_in(p: &Plan, bytes: &[u8]) -> (Hop, Result) {
    (Hop::EipIn, send(&mut *p.eip(), 1, bytes))
}

fn clb_in(p: &Plan, bytes: &[u8]) -> (Hop, Result) {
    (Hop::ClbIn, send(&mut *p.clb(), 0, bytes))
}

fn vsw_in(p: &Plan, bytes: &[u8]) -> (Hop, Result) {
    (Hop::VswIn, send(&mut *p.vswitch(), 0, bytes))
}

/// A request to the LD out of anything in UDP.
fn in_udp(p: &Plan, port: u16, payload: &[u8]) -> Vec<u8> {
    frame(&udp((p.eip, 50_000), (p.service, port), payload, false))
}

fn with_fault(mut node: Box<dyn Pipeline>, kind: FaultKind) -> Box<dyn Pipeline> {
    node.set_faults(Faults::new([Fault { kind, probability: 1.0, seed: 1 }]));
    node
}

/// Change bytes of an IP packet and make its header checksum right again.
fn altered(mut packet: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut packet);
    packet[10..12].fill(0);
    let checksum = tgw_wire::checksum::Sum::new().bytes(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// An LD with more said of its VIP.
fn protected(p: &Plan, more: serde_json::Value) -> Box<dyn Pipeline> {
    node(Role::Clb, &p.protected_tables(more))
}

fn coloured_syn(p: &Plan) -> Vec<u8> {
    to_ld(p, &Tcp { seq: isn(5), ..Tcp::new((p.prober, 4000), (p.private, 80), SYN) }.ip())
}

fn cases(reason: DropReason) -> Cases {
    let p = four();
    let six = plan(6, 6, "gre");
    let syn = client_syn(&p).ip();
    match reason {
        DropReason::PacketLimit => {
            let mut clb = protected(&p, json!({"packets_per_s": 2}));
            (0..2).for_each(|_| assert_eq!(send(&mut *clb, 0, &to_ld(&p, &private_syn(&p))).port(), 0));
            let datagram = to_ld(&p, &udp((p.client, 9), (p.private, 53), b"x", true));
            vec![(Hop::ClbIn, send(&mut *clb, 0, &datagram)), (Hop::ClbIn, send(&mut *clb, 0, &coloured_syn(&p)))]
        }
        DropReason::ByteLimit => {
            let mut clb = protected(&p, json!({"bytes_per_s": 1}));
            // A burst is the largest packet at least.
            let big = to_ld(&p, &Tcp { payload: &[7; 1460], ..Tcp::new((p.client, 1), (p.private, 80), ACK) }.ip());
            (0..43).for_each(|_| assert_eq!(send(&mut *clb, 0, &big).port(), 0));
            vec![(Hop::ClbIn, send(&mut *clb, 0, &big))]
        }
        DropReason::SourceDenied => {
            let lists = |field: &str, prefix: &str| {
                let mut tables = p.clb_tables();
                tables["clb"]["source_lists"] = json!({"some": [prefix]});
                tables["clb"]["vips"][0][field] = json!("some");
                node(Role::Clb, &tables)
            };
            let mut both = [lists("deny", "192.0.2.0/24"), lists("allow", "203.0.113.0/24")];
            let mut others = [lists("deny", "203.0.113.0/24"), lists("allow", "192.0.2.9/32")];
            for clb in &mut others {
                assert_eq!(send(&mut **clb, 0, &to_ld(&p, &private_syn(&p))).port(), 0);
            }
            for clb in &mut both {
                assert_eq!(send(&mut **clb, 0, &coloured_syn(&p)).port(), 0, "a probe is ours");
            }
            both.iter_mut().map(|clb| (Hop::ClbIn, send(&mut **clb, 0, &to_ld(&p, &private_syn(&p))))).collect()
        }
        DropReason::Blacklisted => {
            let mut tables = p.clb_tables();
            tables["clb"]["blacklist"] = json!({"events": 3, "window_s": 10, "ttl_s": 60});
            let mut clb = node(Role::Clb, &tables);
            let closed = to_ld(&p, &Tcp::new((p.client, 4000), (p.private, 81), SYN).ip());
            (0..3).for_each(|_| assert_eq!(send(&mut *clb, 0, &closed).reason(), DropReason::NoListener));
            let datagram = to_ld(&p, &udp((p.client, 9), (p.private, 53), b"x", true));
            let requests = [to_ld(&p, &private_syn(&p)), datagram, closed];
            requests.iter().map(|bytes| (Hop::ClbIn, send(&mut *clb, 0, bytes))).collect()
        }
        DropReason::SynAnswered => {
            let mut clb = protected(&p, json!({"syn_cookies": "always"}));
            let mut flooded = protected(&p, json!({"syn_cookies": "flood", "flood_gate_per_s": 1}));
            let syn = |port| to_ld(&p, &Tcp::new((p.client, port), (p.private, 80), SYN).ip());
            (1..9).for_each(|port| assert_eq!(send(&mut *flooded, 0, &syn(port)).port(), 0));
            assert_eq!(send(&mut *clb, 0, &coloured_syn(&p)).port(), 0, "a probe goes through");
            vec![(Hop::ClbIn, send(&mut *clb, 0, &syn(1))), (Hop::ClbIn, send(&mut *flooded, 0, &syn(9)))]
        }
        DropReason::SynCookieBad => {
            let mut clb = protected(&p, json!({"syn_cookies": "always"}));
            let made_up = |flags| to_ld(&p, &Tcp { ack: 77, ..Tcp::new((p.client, 1), (p.private, 80), flags) }.ip());
            [ACK, ACK | FIN, RST, SYN | ACK].map(|flags| (Hop::ClbIn, send(&mut *clb, 0, &made_up(flags)))).into()
        }
        DropReason::HandshakePending => {
            let mut clb = protected(&p, json!({"syn_cookies": "always"}));
            let answer = send(&mut *clb, 0, &to_ld(&p, &private_syn(&p)));
            let (_, _, _, answer) = support::untunnel(&answer.frame);
            let cookie = u32::from_be_bytes(answer[24..28].try_into().unwrap());
            let ack = Tcp { seq: 1001, ack: cookie + 1, ..Tcp::new((p.client, 4000), (p.private, 80), ACK) };
            assert_eq!(send(&mut *clb, 0, &to_ld(&p, &ack.ip())).port(), 0);
            let data = Tcp { payload: b"early", ..ack };
            let stale = Tcp { seq: 5, ack: 9, ..Tcp::new((p.private, 80), (p.client, 4000), ACK) };
            let other = Tcp { ack: 9, flags: SYN | ACK, ..stale };
            let mut reply = |tcp: Tcp<'_>| (Hop::ClbOut, send(&mut *clb, 0, &reply_to_ld(&p, Some(77), &tcp.ip())));
            let replies = [reply(stale), reply(other)];
            let mut cases: Cases = vec![(Hop::ClbIn, send(&mut *clb, 0, &to_ld(&p, &data.ip())))];
            cases.extend(replies);
            cases
        }
        DropReason::BadTcpFlags => {
            let with = |flags| frame_to(EDGE_MAC, &Tcp::new((p.client, 4000), (p.public, 80), flags).ip());
            let reply = Tcp::new((p.private, 80), (p.client, 4000), SYN | FIN).ip();
            let request = Tcp::new((p.client, 4000), (p.private, 80), 0).ip();
            let wrong = [0, 0xC0, SYN | FIN, SYN | RST, FIN | RST | ACK, FIN, PSH, URG, FIN | PSH | URG];
            let mut cases: Cases = wrong.iter().map(|flags| eip_in(&p, &with(*flags))).collect();
            cases.extend([
                clb_in(&p, &to_ld(&p, &request)),
                vsw_in(&p, &to_host(&p, Some(77), &request)),
                (Hop::VswOut, send(&mut *p.vswitch(), 1, &frame_to(EDGE_MAC, &reply))),
                (Hop::ClbOut, send(&mut *p.clb(), 0, &reply_to_ld(&p, Some(77), &reply))),
                (Hop::EipOut, send(&mut *p.eip(), 0, &reply_to_eip(&p, &reply))),
            ]);
            cases
        }
        DropReason::MalformedGre => {
            let spoilt = |bytes: Vec<u8>, at: usize, bits: u8| {
                let mut bytes = bytes;
                bytes[at] ^= bits;
                bytes
            };
            let (request, keyed) = (to_ld(&p, &private_syn(&p)), to_host(&p, Some(77), &private_syn(&p)));
            let summed = support::packet(ip(p.eip), ip(p.service), 47, 64, &[0x80, 0, 8, 0, 1, 2, 0, 0, 0x45]);
            let cut = support::packet(ip(p.eip), ip(p.service), 47, 64, &[0x20, 0, 8, 0, 0]);
            let in_udp = tunnel(p.eip, p.service, "gre_udp", None, &private_syn(&p));
            vec![
                clb_in(&p, &spoilt(request.clone(), 35, 1)),
                clb_in(&p, &spoilt(request, 34, 8)),
                clb_in(&p, &frame(&summed)),
                clb_in(&p, &frame(&cut)),
                clb_in(&p, &spoilt(frame(&in_udp), 43, 1)),
                vsw_in(&p, &spoilt(keyed, 35, 7)),
                (Hop::ClbOut, send(&mut *p.clb(), 0, &spoilt(reply_to_ld(&p, Some(77), &answer(&p)), 35, 0x80))),
                (Hop::EipOut, send(&mut *p.eip(), 0, &spoilt(reply_to_eip(&p, &answer(&p)), 34, 4))),
            ]
        }
        DropReason::MalformedVxlan => {
            let vx = plan(4, 4, "vxlan");
            let spoilt = |bytes: Vec<u8>, at: usize, bits: u8| {
                let mut bytes = bytes;
                bytes[at] ^= bits;
                bytes
            };
            let request = to_ld(&vx, &private_syn(&vx));
            vec![
                clb_in(&vx, &spoilt(request.clone(), 42, 8)),
                clb_in(&vx, &spoilt(request.clone(), 42, 0x80)),
                clb_in(&vx, &spoilt(request, 45, 1)),
                clb_in(&vx, &in_udp(&vx, 4789, &[8, 0, 0, 0, 0, 0, 0])),
                vsw_in(&vx, &spoilt(to_host(&vx, Some(77), &private_syn(&vx)), 49, 1)),
                (Hop::ClbOut, send(&mut *vx.clb(), 0, &spoilt(reply_to_ld(&vx, Some(77), &answer(&vx)), 44, 1))),
                (Hop::EipOut, send(&mut *vx.eip(), 0, &spoilt(reply_to_eip(&vx, &answer(&vx)), 43, 1))),
            ]
        }
        DropReason::BadLength => {
            let question = udp((p.client, 9), (p.public, 53), b"four", true);
            let private = udp((p.client, 9), (p.private, 53), b"four", true);
            let longer = |bytes: &[u8]| altered(bytes.to_vec(), |b| b[25] += 1);
            let shorter = |bytes: &[u8]| altered(bytes.to_vec(), |b| b[25] -= 1);
            let cut = |bytes: &[u8], length: u8| altered(bytes[..length.into()].to_vec(), |b| b[3] = length);
            let offset = altered(syn.clone(), |b| b[32] = 0x60);
            let mut outer = to_ld(&plan(4, 4, "geneve"), &private);
            outer[39] -= 1;
            vec![
                eip_in(&p, &frame_to(EDGE_MAC, &longer(&question))),
                eip_in(&p, &frame_to(EDGE_MAC, &shorter(&question))),
                eip_in(&p, &frame_to(EDGE_MAC, &altered(question.clone(), |b| b[25] = 7))),
                eip_in(&p, &frame_to(EDGE_MAC, &cut(&question, 27))),
                eip_in(&p, &frame_to(EDGE_MAC, &cut(&syn, 39))),
                eip_in(&p, &frame_to(EDGE_MAC, &offset)),
                clb_in(&p, &to_ld(&p, &longer(&private))),
                clb_in(&p, &outer),
                vsw_in(&p, &to_host(&p, Some(77), &shorter(&private))),
            ]
        }
        DropReason::MalformedQuic => {
            let mut tables = p.clb_tables();
            let listener = &mut tables["clb"]["vips"][0]["listeners"][1];
            listener["dispatch"] = json!("quic");
            listener["quic_server_id"] = json!({"offset": 1, "length": 2});
            let quic = |datagram: &[u8]| {
                let packet = udp((p.client, 4000), (p.private, 53), datagram, true);
                (Hop::ClbIn, send(&mut *node(Role::Clb, &tables), 0, &to_ld(&p, &packet)))
            };
            let unfixed = [0x80, 0, 0, 0, 1, 1, 9, 0, 7];
            let long_id = [&[0xC0, 0, 0, 0, 1, 21][..], &[7; 30]].concat();
            let cut = [0xC0, 0x6B, 0x33, 0x43, 0xCF, 8, 1, 2, 3];
            vec![quic(&[]), quic(&unfixed), quic(&long_id), quic(&cut), quic(&[0x40, 1, 2])]
        }
        DropReason::HealthAnswer => {
            let answered = |src: (&'static str, u16), dst: (&'static str, u16), flags| {
                let packet = Tcp::new(src, dst, flags).ip();
                (Hop::ClbOut, send(&mut *p.clb(), 0, &reply_to_ld(&p, Some(77), &packet)))
            };
            let about = unreachable(p.private, p.ld, &Tcp::new((p.ld, 62_000), (p.private, 80), SYN).ip());
            vec![
                answered((p.private, 80), (p.ld, 62_000), SYN | ACK),
                answered((p.private, 80), (p.ld, 62_000), RST | ACK),
                answered((p.private, 80), (p.ld, 62_000), ACK),
                answered((p.private, 81), (p.ld, 62_000), SYN | ACK),
                (Hop::ClbOut, send(&mut *p.clb(), 0, &reply_to_ld(&p, Some(77), &about))),
            ]
        }
        DropReason::MalformedFrame => {
            let cut = frame_to(EDGE_MAC, &syn);
            let six_syn = client_syn(&six).ip();
            let mapped_source = {
                let mut packet = six_syn.clone();
                packet[8..24].copy_from_slice(&octets("192.0.2.1"));
                packet
            };
            vec![
                eip_in(&p, &cut[..13]),
                eip_in(&p, &cut[..30]),
                eip_in(&p, &cut[..40]),
                eip_in(&six, &frame_to(EDGE_MAC, &mapped_source)),
                eip_in(&p, &frame_to(EDGE_MAC, &altered(syn.clone(), |b| b[32] = 0x40))),
                clb_in(&p, &to_ld(&p, &private_syn(&p)[..30])),
                vsw_in(&p, &frame(&tunnel(p.ld, p.host, "gre", Some(77), &private_syn(&p))[..27])),
            ]
        }
        DropReason::UnsupportedProtocol => {
            let ping = icmp(p.client, p.public, (8, 0), (128, 0), b"ping");
            let sctp = altered(syn.clone(), |b| b[9] = 132);
            let mut tagged = frame_to(EDGE_MAC, &syn);
            tagged[12..14].copy_from_slice(&[0x81, 0]);
            let ping_us = icmp(p.router, p.ld, (8, 0), (128, 0), b"ping");
            vec![
                eip_in(&p, &frame_to(EDGE_MAC, &ping)),
                eip_in(&p, &frame_to(EDGE_MAC, &sctp)),
                eip_in(&p, &tagged),
                clb_in(&p, &to_ld(&p, &icmp(p.client, p.private, (8, 0), (128, 0), b"ping"))),
                (Hop::ClbOut, send(&mut *p.clb(), 0, &frame(&ping_us))),
            ]
        }
        DropReason::NoVip => {
            let stranger = Tcp::new((p.client, 4000), ("203.0.113.99", 80), SYN).ip();
            let private = Tcp::new((p.client, 4000), ("10.100.0.99", 80), SYN).ip();
            let reply = Tcp::new(("10.100.0.99", 80), (p.client, 4000), SYN | ACK).ip();
            vec![
                eip_in(&p, &frame_to(EDGE_MAC, &stranger)),
                clb_in(&p, &to_ld(&p, &private)),
                vsw_in(&p, &to_host(&p, Some(77), &private)),
                (Hop::VswOut, send(&mut *p.vswitch(), 1, &frame_to(EDGE_MAC, &reply))),
                (Hop::ClbOut, send(&mut *p.clb(), 0, &reply_to_ld(&p, Some(77), &reply))),
                (Hop::EipOut, send(&mut *p.eip(), 0, &reply_to_eip(&p, &reply))),
                (Hop::ClbIn, {
                    let mut node = with_fault(p.clb(), FaultKind::VipMissing { vip_id: 1 });
                    send(&mut *node, 0, &to_ld(&p, &private_syn(&p)))
                }),
            ]
        }
        DropReason::NoListener => {
            let closed = Tcp::new((p.client, 4000), (p.private, 81), SYN).ip();
            let wrong = udp((p.client, 4000), (p.private, 80), b"x", true);
            vec![clb_in(&p, &to_ld(&p, &closed)), clb_in(&p, &to_ld(&p, &wrong))]
        }
        DropReason::NoBackend => {
            let mut none = p.clb_tables();
            none["clb"]["vips"][0]["listeners"][0]["backends"] = json!([]);
            let mut drained = p.clb_tables();
            drained["clb"]["vips"][0]["listeners"][0]["backends"][0]["weight"] = json!(0);
            let request = to_ld(&p, &private_syn(&p));
            vec![
                (Hop::ClbIn, send(&mut *node(Role::Clb, &none), 0, &request)),
                (Hop::ClbIn, send(&mut *node(Role::Clb, &drained), 0, &request)),
                vsw_in(&p, &to_host(&p, Some(78), &private_syn(&p))),
            ]
        }
        DropReason::FlowLimit => {
            let mut tables = p.clb_tables();
            tables["clb"]["vips"][0]["new_flows_per_s"] = json!(2);
            let mut clb = node(Role::Clb, &tables);
            let syn = |port| to_ld(&p, &Tcp::new((p.client, port), (p.private, 80), SYN).ip());
            for port in 1..=2 {
                assert_eq!(send(&mut *clb, 0, &syn(port)).port(), 0);
            }
            let over = send(&mut *clb, 0, &syn(3));
            assert_eq!(send(&mut *clb, 0, &syn(1)).port(), 0, "a known flow is not limited");
            let datagram = to_ld(&p, &udp((p.client, 9), (p.private, 53), b"x", true));
            vec![(Hop::ClbIn, over), (Hop::ClbIn, send(&mut *clb, 0, &datagram))]
        }
        DropReason::ConnTableFull => {
            let options = Options { flow_capacity: 8, ..Options::default() };
            let mut clb = node_with(Role::Clb, &p.clb_tables(), options);
            let mut vswitch = node_with(Role::Vswitch, &p.vswitch_tables(), options);
            let mut fill = |port, flags| {
                let packet = Tcp::new((p.client, port), (p.private, 80), flags).ip();
                (send(&mut *clb, 0, &to_ld(&p, &packet)), send(&mut *vswitch, 0, &to_host(&p, Some(77), &packet)))
            };
            for port in 1..=8 {
                for flags in [SYN, ACK] {
                    let (one, other) = fill(port, flags);
                    assert_eq!((one.port(), other.port()), (0, 1));
                }
            }
            // Half-open flows would have made room.
            let (one, other) = fill(9, SYN);
            let old = to_ld(&p, &Tcp::new((p.client, 10), (p.private, 80), ACK).ip());
            assert_eq!(send(&mut *clb, 0, &old).port(), 0, "a connection from elsewhere needs no state");
            vec![(Hop::ClbIn, one), (Hop::VswIn, other)]
        }
        DropReason::TunnelEncapFail => {
            let mut clb = with_fault(p.clb(), FaultKind::EncapFail);
            let mut eip = with_fault(p.eip(), FaultKind::EncapFail);
            // A request from an LD that has only an IPv6 address: this host has no end point to answer from.
            let mut vswitch = p.vswitch();
            let alien = frame(&tunnel("fd03::11", "fd03::101", "gre", Some(77), &private_syn(&p)));
            assert_eq!(send(&mut *vswitch, 0, &alien).port(), 1);
            vec![
                (Hop::ClbIn, send(&mut *clb, 0, &to_ld(&p, &private_syn(&p)))),
                (Hop::EipIn, send(&mut *eip, 1, &frame_to(EDGE_MAC, &syn))),
                (Hop::VswOut, send(&mut *vswitch, 1, &frame_to(EDGE_MAC, &answer(&p)))),
            ]
        }
        DropReason::TunnelDecapFail => {
            let mut sequenced = to_ld(&p, &private_syn(&p));
            sequenced[34] |= 0x10;
            let mut bridged = to_ld(&p, &private_syn(&p));
            bridged[36..38].copy_from_slice(&[0x65, 0x58]);
            let plain = Tcp::new((p.router, 1), (p.anycast, 80), SYN).ip();
            vec![
                clb_in(&p, &sequenced),
                clb_in(&p, &bridged),
                vsw_in(&p, &to_host(&p, None, &private_syn(&p))),
                (Hop::ClbOut, send(&mut *p.clb(), 0, &reply_to_ld(&p, None, &answer(&p)))),
                (Hop::EipOut, send(&mut *p.eip(), 0, &frame(&plain))),
                clb_in(&p, &frame(&udp((p.router, 4789), (p.service, 4790), b"no tunnel port", true))),
                // GUE: a control message, an unknown flag, no IP inside; Geneve: a control packet, a critical option.
                clb_in(&p, &in_udp(&p, 6080, &[0x20, 4, 0, 0])),
                clb_in(&p, &in_udp(&p, 6080, &[0, 4, 0x40, 0])),
                clb_in(&p, &in_udp(&p, 6080, &[0, 6, 0, 0])),
                clb_in(&p, &in_udp(&p, 6081, &[0, 0x80, 8, 0, 0, 0, 0, 0])),
                clb_in(&p, &in_udp(&p, 6081, &[1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0])),
                clb_in(&p, &in_udp(&p, 6081, &[0, 0, 8, 6, 0, 0, 0, 0])),
            ]
        }
        DropReason::NoRoute => {
            let mut tables = p.clb_tables();
            tables["ports"][0]["next_hop_mac"] = json!(null);
            let lost = tunnel(p.eip, p.service, "gre", None, &private_syn(&p));
            vec![
                (Hop::ClbIn, send(&mut *node(Role::Clb, &tables), 0, &to_ld(&p, &private_syn(&p)))),
                (Hop::EipIn, send(&mut *p.eip(), 0, &frame(&unreachable(p.router, p.eip, &lost)))),
                (Hop::EipIn, send(&mut *p.eip(), 0, &frame(&icmp(p.router, p.eip, (11, 0), (3, 0), &lost)))),
            ]
        }
        DropReason::MtuExceeded => {
            let big = |source, target| Tcp { payload: &[7; 1700], ..Tcp::new(source, target, ACK) }.ip();
            let request = big((p.client, 4000), (p.private, 80));
            let lost = tunnel(p.ld, p.host, "gre", Some(77), &private_syn(&p));
            vec![
                eip_in(&p, &frame_to(EDGE_MAC, &big((p.client, 4000), (p.public, 80)))),
                clb_in(&p, &to_ld(&p, &request)),
                vsw_in(&p, &to_host(&p, Some(77), &request)),
                (Hop::EipOut, send(&mut *p.eip(), 0, &reply_to_eip(&p, &big((p.private, 80), (p.client, 4000))))),
                (Hop::ClbIn, send(&mut *p.clb(), 0, &frame(&icmp(p.router, p.ld, (3, 4), (2, 0), &lost)))),
            ]
        }
        DropReason::TtlExpired => {
            let last = |src, dst| Tcp { ttl: 1, ..Tcp::new(src, dst, ACK) }.ip();
            let (request, reply) = (last((p.client, 4), (p.private, 80)), last((p.private, 80), (p.client, 4)));
            let none = altered(syn.clone(), |b| b[8] = 0);
            let mut vswitch = p.vswitch();
            let known = Tcp::new((p.client, 4), (p.private, 80), SYN).ip();
            assert_eq!(send(&mut *vswitch, 0, &to_host(&p, Some(77), &known)).port(), 1);
            vec![
                eip_in(&p, &frame_to(EDGE_MAC, &last((p.client, 4), (p.public, 80)))),
                eip_in(&p, &frame_to(EDGE_MAC, &none)),
                clb_in(&p, &to_ld(&p, &request)),
                vsw_in(&p, &to_host(&p, Some(77), &request)),
                (Hop::VswOut, send(&mut *vswitch, 1, &frame_to(EDGE_MAC, &reply))),
                (Hop::ClbOut, send(&mut *p.clb(), 0, &reply_to_ld(&p, Some(77), &reply))),
                (Hop::EipOut, send(&mut *p.eip(), 0, &reply_to_eip(&p, &reply))),
            ]
        }
        DropReason::BadChecksum => {
            let mut wrong = syn.clone();
            wrong[10] ^= 1;
            let mut inner = private_syn(&p);
            inner[10] ^= 1;
            let mut quoted = answer(&p);
            quoted[10] ^= 1;
            let mut error = unreachable(p.client, p.public, &answer(&p));
            error[23] ^= 1;
            let without = udp((six.client, 9), (six.public, 53), b"x", false);
            let unsummed = |port| frame(&udp((six.eip, 50_000), (six.service, port), &[0, 4, 8, 0, 0, 0, 0, 0], false));
            vec![
                eip_in(&p, &frame_to(EDGE_MAC, &wrong)),
                clb_in(&p, &to_ld(&p, &inner)),
                eip_in(&p, &frame_to(EDGE_MAC, &unreachable(p.client, p.public, &quoted))),
                eip_in(&p, &frame_to(EDGE_MAC, &error)),
                eip_in(&six, &frame_to(EDGE_MAC, &without)),
                clb_in(&six, &unsummed(4754)),
                clb_in(&six, &unsummed(6080)),
                clb_in(&six, &unsummed(6081)),
                (Hop::ClbOut, {
                    let mut complaint = unreachable(p.router, p.ld, &to_ld(&p, &inner)[14..]);
                    complaint[23] ^= 1;
                    send(&mut *p.clb(), 0, &frame(&complaint))
                }),
            ]
        }
        DropReason::Fragment => {
            let later = |src, dst| altered(Tcp::new(src, dst, ACK).ip(), |b| (b[6], b[7]) = (0, 9));
            let (client, private) = ((p.client, 4000), (p.private, 80));
            let outer = |bytes: Vec<u8>| frame(&altered(bytes[14..].to_vec(), |b| b[6] = 0x20));
            // TCP: the first part cut within its header, a later one that would overwrite its flags; ICMP: any part.
            let tiny = altered(syn[..36].to_vec(), |b| (b[3], b[6]) = (36, 0x20));
            let overwriting = altered(syn.clone(), |b| (b[6], b[7]) = (0, 1));
            let message = altered(unreachable(p.client, p.public, &answer(&p)), |b| b[6] = 0x20);
            let about_later = unreachable(p.client, p.public, &later((p.public, 80), client));
            let six_message = support::packet(ip(six.client), ip(six.public), 44, 64, &[58, 0, 0, 9, 0, 0, 0, 1]);
            let mut vswitch = p.vswitch();
            assert_eq!(send(&mut *vswitch, 0, &to_host(&p, Some(77), &private_syn(&p))).port(), 1);
            vec![
                eip_in(&p, &frame_to(EDGE_MAC, &tiny)),
                eip_in(&p, &frame_to(EDGE_MAC, &overwriting)),
                eip_in(&p, &frame_to(EDGE_MAC, &message)),
                eip_in(&p, &frame_to(EDGE_MAC, &about_later)),
                eip_in(&six, &frame_to(EDGE_MAC, &six_message)),
                clb_in(&p, &to_ld(&p, &later(client, private))),
                (Hop::ClbOut, send(&mut *p.clb(), 0, &reply_to_ld(&p, Some(77), &later(private, client)))),
                (Hop::VswOut, send(&mut *vswitch, 1, &frame_to(EDGE_MAC, &later(private, client)))),
                clb_in(&p, &outer(to_ld(&p, &private_syn(&p)))),
                vsw_in(&p, &outer(to_host(&p, Some(77), &private_syn(&p)))),
                (Hop::EipOut, send(&mut *p.eip(), 0, &outer(reply_to_eip(&p, &answer(&p))))),
            ]
        }
        DropReason::NoFlow => {
            let strange_key = Tcp::new((p.private, 80), (p.client, 4000), ACK).ip();
            let about_nothing = unreachable(p.private, p.client, &private_syn(&p));
            let elsewhere = unreachable(p.client, p.private, &Tcp::new(("10.100.0.9", 80), (p.client, 1), ACK).ip());
            vec![
                (Hop::ClbOut, send(&mut *p.clb(), 0, &reply_to_ld(&p, Some(78), &strange_key))),
                (Hop::ClbOut, send(&mut *p.clb(), 0, &reply_to_ld(&p, Some(77), &about_nothing))),
                (Hop::VswOut, send(&mut *p.vswitch(), 1, &frame_to(EDGE_MAC, &answer(&p)))),
                (Hop::VswOut, send(&mut *p.vswitch(), 1, &frame_to(EDGE_MAC, &about_nothing))),
                clb_in(&p, &to_ld(&p, &elsewhere)),
            ]
        }
        DropReason::NotOurs => {
            let mut arp = frame_to(EDGE_MAC, &syn);
            arp[12..14].copy_from_slice(&[8, 6]);
            let bgp = Tcp::new(("10.1.3.1", 40_000), ("10.1.3.2", 179), SYN).ip();
            let link_local = icmp("fe80::1", "fe80::2", (0, 0), (135, 0), &[0; 16]);
            vec![
                eip_in(&p, &frame_to(MAC, &syn)),
                eip_in(&p, &frame_to(Mac([0xFF; 6]), &syn)),
                eip_in(&p, &frame_to(Mac([0x33, 0x33, 0, 0, 0, 1]), &syn)),
                eip_in(&p, &arp),
                eip_in(&p, &frame_to(EDGE_MAC, &bgp)),
                eip_in(&six, &frame_to(EDGE_MAC, &link_local)),
                clb_in(&p, &frame(&udp(("10.2.3.1", 1), ("10.2.3.2", 3784), b"BFD", true))),
            ]
        }
        DropReason::InjectedLoss => {
            let mut node = with_fault(p.eip(), FaultKind::LossVisible);
            vec![(Hop::EipIn, send(&mut *node, 1, &frame_to(EDGE_MAC, &syn)))]
        }
        DropReason::NoConfig => {
            let unknown_port = send(&mut *p.eip(), 9, &frame_to(EDGE_MAC, &syn));
            vec![(Hop::EipIn, unknown_port)]
        }
        DropReason::RingFull | DropReason::DeviceFull | DropReason::ShuttingDown => Vec::new(),
    }
}

#[test]
fn every_reason_has_a_packet_that_causes_it() {
    for reason in DropReason::ALL {
        let cases = cases(reason);
        assert_eq!(cases.is_empty(), OF_THE_RUNTIME.contains(&reason), "{}", reason.name());
        for (number, (hop, result)) in cases.iter().enumerate() {
            let name = format!("{} case {number}", reason.name());
            assert_eq!(result.reason(), reason, "{name}");
            if !reason.is_recorded() {
                assert!(result.points.is_empty(), "{name}");
                continue;
            }
            let [point] = &result.points[..] else { panic!("{name}: {} points", result.points.len()) };
            assert_eq!((point.kind, point.reason), (2, reason.number()), "{name}");
            assert_eq!(point.verdict, Verdict::Dropped.number(), "{name}");
            assert_eq!(point.hop, hop.number(), "{name}");
            assert_eq!(point.direction, hop.direction().number(), "{name}");
        }
    }
}

#[test]
fn without_tables_everything_is_dropped() {
    for role in Role::ALL {
        let mut node = pipeline(role, 0, &Options::default());
        let result = send(&mut *node, 0, &frame(b"whatever it is, there are no tables for it"));
        assert_eq!(result.reason(), DropReason::NoConfig);
    }
}

#[test]
fn a_drop_tells_what_could_be_read() {
    let p = four();
    let number = isn(5);
    let probe = probe_id(mapped(ip(p.prober)), 4000, number);
    let syn = Tcp { seq: number, ..Tcp::new((p.prober, 4000), (p.private, 81), SYN) }.ip();
    let point = clb_in(&p, &to_ld(&p, &syn)).1.points[0];
    assert_eq!(point.probe_id, probe);
    assert_eq!((point.src_addr, point.dst_addr), (octets(p.prober), octets(p.private)));
    assert_eq!((point.src_port, point.dst_port, point.tcp_seq), (4000, 81, number));
    assert_eq!((point.outer_src, point.outer_dst), (octets(p.eip), [0; 16]));
    assert_eq!((point.vip_id, point.protocol, point.tcp_flags), (1, 6, SYN));
    assert_eq!(usize::from(point.frame_len), to_ld(&p, &syn).len());
}

/// The fabric gives a tunnel packet back: the probe inside died here, of this end point.
#[test]
fn an_unreachable_tunnel_end_names_the_probe_that_died() {
    for p in support::plans() {
        let number = isn(6);
        let probe = probe_id(mapped(ip(p.prober)), 4000, number);
        let syn = Tcp { seq: number, ..Tcp::new((p.prober, 4000), (p.private, 80), SYN) }.ip();
        let from_ld = tunnel(p.ld, p.host, p.encap, p.key, &syn);
        let answer = Tcp { ack: number.wrapping_add(1), ..Tcp::new((p.private, 80), (p.prober, 4000), SYN | ACK) }.ip();
        let from_host = tunnel(p.host, p.ld, p.encap, p.key, &answer);
        let outward = tunnel(p.ld, p.anycast, p.encap, None, &answer);
        let cases = [
            (p.clb(), &from_ld, p.ld, Hop::ClbIn, p.host),
            (p.clb(), &outward, p.ld, Hop::ClbOut, p.anycast),
            (p.vswitch(), &from_host, p.host, Hop::VswOut, p.ld),
        ];
        for (mut node, lost, own, hop, unreachable_end) in cases {
            let result = send(&mut *node, 0, &frame(&unreachable(p.router, own, lost)));
            assert_eq!(result.reason(), DropReason::NoRoute);
            let point = result.points[0];
            assert_eq!((point.hop, point.probe_id), (hop.number(), probe), "{p:?}");
            assert_eq!(point.outer_dst, octets(unreachable_end));
            // A short quote tells the end point at least.
            let header = if ip(own).is_ipv4() { 20 } else { 40 };
            let result = send(&mut *node, 0, &frame(&unreachable(p.router, own, &lost[..header + 8])));
            assert_eq!(result.reason(), DropReason::NoRoute);
            assert_eq!((result.points[0].probe_id, result.points[0].outer_dst), (0, octets(unreachable_end)));
        }
        // What this node did not send is not its loss.
        let alien = tunnel(p.host, p.anycast, p.encap, p.key, &syn);
        let result = send(&mut *p.clb(), 0, &frame(&unreachable(p.router, p.ld, &alien)));
        assert_eq!(result.reason(), DropReason::UnsupportedProtocol);
    }
}

#[test]
fn a_silent_loss_is_counted_and_not_told() {
    let p = four();
    let mut node = with_fault(p.eip(), FaultKind::LossSilent);
    let result = send(&mut *node, 1, &frame_to(EDGE_MAC, &client_syn(&p).ip()));
    assert_eq!((result.reason(), result.points.len()), (DropReason::InjectedLoss, 0));
    // The host's own frames are not the lab's to lose.
    let result = send(&mut *node, 1, &frame_to(MAC, &client_syn(&p).ip()));
    assert_eq!(result.reason(), DropReason::NotOurs);
}

#[test]
fn reply_loss_spares_requests() {
    let p = four();
    let mut clb = with_fault(p.clb(), FaultKind::ReplyLoss);
    assert_eq!(send(&mut *clb, 0, &to_ld(&p, &private_syn(&p))).port(), 0);
    let result = send(&mut *clb, 0, &reply_to_ld(&p, Some(77), &answer(&p)));
    assert_eq!((result.reason(), result.points.len()), (DropReason::InjectedLoss, 0));
}

#[test]
fn a_hidden_vip_hides_no_other() {
    let p = four();
    let mut clb = with_fault(p.clb(), FaultKind::VipMissing { vip_id: 2 });
    assert_eq!(send(&mut *clb, 0, &to_ld(&p, &private_syn(&p))).port(), 0);
}

/// A reset that nobody knows goes on to where its connection would be, and leaves nothing behind.
#[test]
fn a_reset_enters_no_flow() {
    let p = four();
    let reset = Tcp::new((p.client, 4000), (p.private, 80), RST).ip();
    let (mut clb, mut vswitch) = (p.clb(), p.vswitch());
    assert_eq!(send(&mut *clb, 0, &to_ld(&p, &reset)).port(), 0);
    assert_eq!(send(&mut *vswitch, 0, &to_host(&p, Some(77), &reset)).port(), 1);
    assert_eq!((clb.counters().created, vswitch.counters().created), (0, 0));
}
