//! Listeners that tell their real servers a client's address: by the TOA option, or by a PROXY header.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{json, Value};
use support::{
    fragments, frame, icmp, ip, node, node_with, open, plan, reassembled, send, send_at, tunnel, untunnel, verify,
    Plan, Result, Tcp, NOW,
};
use tgw_contract::{DropReason, Role};
use tgw_forward::{Options, Outcome, Pipeline};
use tgw_wire::tcp::{self, ACK, FIN, PSH, RST, SYN};

fn tables(p: &Plan, how: &str, mtu: u32) -> Value {
    let mut tables = p.clb_tables();
    tables["clb"]["vips"][0]["listeners"][0]["client_address"] = json!(how);
    tables["ports"][0]["mtu"] = json!(mtu);
    tables
}

fn request(clb: &mut dyn Pipeline, p: &Plan, inner: &[u8]) -> Result {
    send(clb, 0, &frame(&tunnel(p.eip, p.service, p.encap, None, inner)))
}

fn reply(clb: &mut dyn Pipeline, p: &Plan, inner: &[u8]) -> Result {
    send(clb, 0, &frame(&tunnel(p.host, p.ld, p.encap, p.key, inner)))
}

/// The segment inside a tunnel packet, its checksums verified.
fn segment(result: &Result) -> Vec<u8> {
    let (_, _, _, inner) = untunnel(&result.frame);
    verify(&inner);
    open(&inner).3
}

fn toa_of(p: &Plan, port: u16) -> Vec<u8> {
    let mut option = match ip(p.client) {
        std::net::IpAddr::V4(_) => vec![254, 8],
        std::net::IpAddr::V6(_) => vec![253, 20],
    };
    option.extend_from_slice(&port.to_be_bytes());
    match ip(p.client) {
        std::net::IpAddr::V4(address) => option.extend_from_slice(&address.octets()),
        std::net::IpAddr::V6(address) => option.extend_from_slice(&address.octets()),
    }
    option
}

const MSS: [u8; 4] = [2, 4, 5, 0xB4];

#[test]
fn toa_is_in_the_packets_that_open_a_connection() {
    for inner in [4, 6] {
        let p = plan(inner, 4, "ipip");
        let mut clb = node(Role::Clb, &tables(&p, "toa", 1700));
        let mut sent = |flags, options: &[u8], payload: &[u8]| {
            let packet = Tcp { options, payload, ..Tcp::new((p.client, 4000), (p.private, 80), flags) }.ip();
            segment(&request(&mut *clb, &p, &packet))
        };
        let option = toa_of(&p, 4000);
        let end = 20 + option.len();
        for syn in [sent(SYN, &MSS, b""), sent(SYN, &MSS, b"")] {
            assert_eq!((&syn[20..end], &syn[end..]), (&option[..], &MSS[..]));
            assert_eq!(usize::from(syn[12] >> 4) * 4, syn.len());
        }
        let ack = sent(ACK, b"", b"");
        assert_eq!(ack[20..], option);
        let data = sent(ACK | PSH, b"", b"GET");
        assert_eq!(data[20..], *b"GET", "not in an established connection");
        // An answer to the client is none of its business.
        let answer = Tcp { options: &MSS, ..Tcp::new((p.private, 80), (p.client, 4000), SYN | ACK) }.ip();
        assert_eq!(segment(&reply(&mut *clb, &p, &answer))[20..], MSS);
    }
}

#[test]
fn toa_with_the_first_data_when_that_comes_first() {
    let p = plan(4, 6, "geneve");
    let mut clb = node(Role::Clb, &tables(&p, "toa", 1700));
    request(&mut *clb, &p, &Tcp::new((p.client, 4000), (p.private, 80), SYN).ip());
    let data = Tcp { payload: b"odd", ..Tcp::new((p.client, 4000), (p.private, 80), ACK) }.ip();
    let seen = segment(&request(&mut *clb, &p, &data));
    assert_eq!((&seen[20..28], &seen[28..]), (&toa_of(&p, 4000)[..], &b"odd"[..]));
}

#[test]
fn toa_stays_away_where_there_is_no_room() {
    let p = plan(4, 4, "gre");
    let mut clb = node(Role::Clb, &tables(&p, "toa", 700));
    let mut sent = |port, options: &[u8], length: usize| {
        let payload = vec![1; length];
        let packet = Tcp { options, payload: &payload, ..Tcp::new((p.client, port), (p.private, 80), SYN) }.ip();
        let result = request(&mut *clb, &p, &packet);
        assert_eq!(result.port(), 0);
        segment(&result).len() - 20 - length
    };
    assert_eq!((sent(1, &[1; 32], 0), sent(2, &[1; 36], 0), sent(3, &[1; 40], 0)), (40, 36, 40));
    // 700 - 28 of tunnel - 40 of headers
    assert_eq!((sent(4, b"", 624), sent(5, b"", 625), sent(6, b"", 632)), (8, 0, 0));
}

/// A client that writes the option itself would claim to be another.
#[test]
fn a_made_up_option_is_taken_out() {
    let p = plan(4, 4, "gre");
    let mut clb = node(Role::Clb, &tables(&p, "toa", 1700));
    let mut sent = |port: u16, options: &[u8]| {
        let packet = Tcp { options, ..Tcp::new((p.client, port), (p.private, 80), SYN) }.ip();
        segment(&request(&mut *clb, &p, &packet))[20..].to_vec()
    };
    let lie = [1, 254, 8, 0, 1, 9, 9, 9, 9, 253, 3, 7];
    assert_eq!(sent(1, &lie), [&toa_of(&p, 1)[..], &[1; 12]].concat());
    let full = [&[2, 4, 5, 0xB4][..], &[254, 36], &[0xFF; 34]].concat();
    assert_eq!(sent(2, &full), [&MSS[..], &[1; 36]].concat());
    // Options that end, and ones that run over.
    assert_eq!(sent(3, &[0, 254, 8, 1])[8..], [0, 254, 8, 1]);
    assert_eq!(sent(4, &[1, 1, 254, 8])[8..], [1; 4]);
    assert_eq!(sent(5, &[2, 0, 254, 8])[8..], [2, 0, 254, 8], "nobody reads on behind this");
}

/// In a first fragment, behind a shut flood gate, and in a connection that comes over from another LD.
#[test]
fn a_made_up_option_is_taken_out_wherever_the_server_may_read_it() {
    let p = plan(4, 4, "gre");
    let mut tables = tables(&p, "toa", 1700);
    let lie = [254, 8, 0, 80, 9, 9, 9, 9];
    let nothing = [1; 8];
    let packet = |port, flags, payload: &[u8]| {
        Tcp { options: &lie, payload, ..Tcp::new((p.client, port), (p.private, 80), flags) }.ip()
    };
    let parts = fragments(&packet(4000, SYN, &[7; 32]), 7, 32);
    let first = request(&mut *node(Role::Clb, &tables), &p, &parts[0]);
    let whole = reassembled(&[untunnel(&first.frame).3, parts[1].clone()]);
    verify(&whole);
    assert_eq!(open(&whole).3[20..28], nothing);

    let expected = [&toa_of(&p, 4001)[..], &nothing].concat();
    let mut clb = node(Role::Clb, &tables);
    for _ in 0..2 {
        let stray = segment(&request(&mut *clb, &p, &packet(4001, ACK, b"GET")));
        assert_eq!(stray[20..], [&expected[..], b"GET"].concat(), "while the server has not answered");
    }

    tables["clb"]["vips"][0]["flood_gate_per_s"] = json!(1);
    let mut clb = node(Role::Clb, &tables);
    for port in 100..200 {
        request(&mut *clb, &p, &Tcp::new((p.client, port), (p.private, 80), SYN).ip());
    }
    for flags in [SYN, ACK] {
        assert_eq!(segment(&request(&mut *clb, &p, &packet(4001, flags, b"")))[20..], expected);
    }
}

fn header_of(p: &Plan, port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match (ip(p.client), ip(p.private)) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            header.extend_from_slice(&[0x11, 0, 12]);
            header.extend_from_slice(&src.octets());
            header.extend_from_slice(&dst.octets());
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            header.extend_from_slice(&[0x21, 0, 36]);
            header.extend_from_slice(&src.octets());
            header.extend_from_slice(&dst.octets());
        }
        _ => unreachable!(),
    }
    header.extend_from_slice(&port.to_be_bytes());
    header.extend_from_slice(&80u16.to_be_bytes());
    header
}

/// What may happen to a packet in the simulation below.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client's next data, so many bytes at most.
    Next(usize),
    /// Its oldest data once more.
    Again(usize),
    /// An acknowledgement without data.
    Bare,
    /// The server says what it has.
    Answer,
}

fn steps() -> impl Strategy<Value = (Step, bool, bool)> {
    let step = prop_oneof![
        3 => (1usize..=1432).prop_map(Step::Next),
        2 => Just(Step::Next(1432)),
        3 => (1usize..=1432).prop_map(Step::Again),
        1 => Just(Step::Bare),
        4 => Just(Step::Answer),
    ];
    // Lost on the way, and how the options lie.
    (step, any::<bool>(), any::<bool>())
}

/// A client and a server with the plainest TCP that there is, and the LD between them.
struct Pair {
    p: Plan,
    clb: Box<dyn Pipeline>,
    /// Sequence number of the client's first byte.
    first: u32,
    data: Vec<u8>,
    acknowledged: usize,
    next: usize,
    /// What the server has got, by place in the stream.
    stream: Vec<u8>,
    early: BTreeMap<usize, Vec<u8>>,
}

const SERVER_ISN: u32 = 77_000;

impl Pair {
    fn new(p: Plan, first: u32, length: usize) -> Self {
        let mut clb = node(Role::Clb, &tables(&p, "proxy_v2", 1500));
        let data: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
        let (client, server) = ((p.client, 4000), (p.private, 80));
        let syn = Tcp { seq: first.wrapping_sub(1), options: &MSS, ..Tcp::new(client, server, SYN) }.ip();
        let seen = segment(&request(&mut *clb, &p, &syn));
        assert_eq!((&seen[4..8], &seen[20..]), (&first.wrapping_sub(1).to_be_bytes()[..], &MSS[..]));
        let answer = Tcp { seq: SERVER_ISN, ack: first, ..Tcp::new(server, client, SYN | ACK) }.ip();
        assert_eq!(segment(&reply(&mut *clb, &p, &answer))[8..12], first.to_be_bytes());
        let (acknowledged, next, stream, early) = (0, 0, Vec::new(), BTreeMap::new());
        Self { p, clb, first, data, acknowledged, next, stream, early }
    }

    fn send(&mut self, at: usize, length: usize, flags: u8, lost: bool) {
        let p = self.p;
        let end = self.data.len().min(at + length);
        assert!(end - at <= self.most());
        let packet = Tcp {
            seq: self.first.wrapping_add(at as u32),
            ack: SERVER_ISN + 1,
            payload: &self.data[at..end],
            ..Tcp::new((p.client, 4000), (p.private, 80), flags)
        };
        let result = request(&mut *self.clb, &p, &packet.ip());
        assert!(result.frame.len() <= 1500 + 14);
        let segment = segment(&result);
        if lost {
            return;
        }
        let view = tcp::Packet::new_checked(&segment).unwrap();
        let place = view.seq().wrapping_sub(self.first) as usize;
        let payload = view.payload();
        if place > self.stream.len() {
            self.early.insert(place, payload.to_vec());
        } else if let Some(new) = payload.get(self.stream.len() - place..) {
            self.stream.extend_from_slice(new);
        }
        while let Some((place, payload)) = self.early.pop_first() {
            match payload.get(self.stream.len().saturating_sub(place)..) {
                _ if place > self.stream.len() => {
                    self.early.insert(place, payload);
                    break;
                }
                Some(new) => self.stream.extend_from_slice(new),
                None => {}
            }
        }
    }

    fn answer(&mut self, lost: bool, odd: bool) {
        let p = self.p;
        let number = |place: usize| self.first.wrapping_add(place as u32).to_be_bytes();
        let mut options = Vec::new();
        if let Some((place, payload)) = self.early.first_key_value() {
            let block = [&[5, 10][..], &number(*place), &number(place + payload.len())].concat();
            options = if odd { [&[1][..], &block, &[1]].concat() } else { [&[1, 1][..], &block].concat() };
        }
        let packet = Tcp {
            seq: SERVER_ISN + 1,
            ack: self.first.wrapping_add(self.stream.len() as u32),
            options: &options,
            payload: b"!",
            ..Tcp::new((p.private, 80), (p.client, 4000), ACK)
        };
        let segment = segment(&reply(&mut *self.clb, &p, &packet.ip()));
        let view = tcp::Packet::new_checked(&segment).unwrap();
        assert_eq!((view.seq(), view.payload()), (SERVER_ISN + 1, &b"!"[..]));
        let place = view.ack().wrapping_sub(self.first) as usize;
        let header = header_of(&p, 4000).len();
        assert_eq!(place, self.stream.len().saturating_sub(header), "what the client takes for acknowledged");
        if let Some((early, payload)) = self.early.first_key_value() {
            let at = if odd { 23 } else { 24 };
            let edge = |at: usize| {
                u32::from_be_bytes(segment[at..at + 4].try_into().unwrap()).wrapping_sub(self.first) as usize
            };
            let expected = (early.saturating_sub(header), (early + payload.len()).saturating_sub(header));
            assert_eq!((edge(at), edge(at + 4)), expected);
        }
        if !lost {
            self.acknowledged = self.acknowledged.max(place);
            self.next = self.next.max(place);
        }
    }

    /// Bytes that fit into one packet, without a header.
    fn most(&self) -> usize {
        if ip(self.p.client).is_ipv4() {
            1432
        } else {
            1412
        }
    }

    fn step(&mut self, step: Step, lost: bool, odd: bool) {
        match step {
            Step::Next(length) => {
                let end = self.data.len().min(self.next + length.min(self.most()));
                self.send(self.next, end - self.next, ACK, lost);
                self.next = end;
            }
            Step::Again(length) => self.send(self.acknowledged, length.min(self.most()), ACK, lost),
            Step::Bare => self.send(self.next, 0, ACK, lost),
            Step::Answer => self.answer(lost, odd),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever is lost, repeated and cut: the server reads the header once, then what the client sent; the client sees
    /// its own numbers.
    #[test]
    fn a_proxied_connection_is_whole(
        inner in prop_oneof![Just(4u8), Just(6)],
        first in prop_oneof![any::<u32>(), Just(u32::MAX - 20), Just(0)],
        length in 0usize..6000,
        steps in prop::collection::vec(steps(), 0..40),
    ) {
        // Room for 1472 bytes of IPv4: the largest segment and a header do not fit together.
        let p = Plan { key: Some(77), ..plan(inner, 4, "gre") };
        let mut pair = Pair::new(p, first, length);
        for (step, lost, odd) in steps {
            pair.step(step, lost, odd);
        }
        for _ in 0..40 {
            pair.send(pair.acknowledged, 1400, ACK, false);
            pair.answer(false, false);
        }
        let expected = [header_of(&p, 4000), pair.data.clone()].concat();
        prop_assert!(pair.stream == expected, "{} of {} bytes", pair.stream.len(), expected.len());
        prop_assert_eq!(pair.acknowledged, pair.data.len());
        prop_assert_eq!(pair.clb.counters().created, 1);
    }
}

#[test]
fn data_in_a_syn_and_a_fin_without_data() {
    let p = plan(4, 4, "gre");
    let mut clb = node(Role::Clb, &tables(&p, "proxy_v2", 1500));
    let header = header_of(&p, 4000);
    let (client, server) = ((p.client, 4000), (p.private, 80));
    let mut sent = |flags, seq, payload: &[u8]| {
        let seen = segment(&request(&mut *clb, &p, &Tcp { seq, payload, ..Tcp::new(client, server, flags) }.ip()));
        (u32::from_be_bytes(seen[4..8].try_into().unwrap()), seen[13], seen[20..].to_vec())
    };
    assert_eq!(sent(SYN, 99, b"early"), (99, SYN, [&header[..], b"early"].concat()));
    assert_eq!(sent(RST, 100, b""), (100, RST, vec![]), "nothing was sent yet but the SYN");
    assert_eq!(sent(SYN, 99, b""), (99, SYN, vec![]));
    assert_eq!(sent(FIN | ACK, 100, b""), (100, FIN | ACK, header.clone()));
    assert_eq!(sent(FIN | ACK, 100, b""), (100, FIN | ACK, header.clone()), "until the server has it");
    assert_eq!(sent(ACK, 101, b""), (129, ACK, vec![]));
    assert_eq!(sent(RST | ACK, 100, b""), (128, RST | ACK, vec![]));
    let answer = |ack| Tcp { ack, ..Tcp::new(server, client, FIN | ACK) }.ip();
    assert_eq!(segment(&reply(&mut *clb, &p, &answer(129)))[8..12], 101u32.to_be_bytes());
}

/// A SYN that somebody makes up must not move the numbers of a connection that lives; one after its end may.
#[test]
fn another_syn_moves_nothing_while_the_connection_lives() {
    let p = plan(4, 4, "gre");
    let mut pair = Pair::new(p, 5000, 300);
    pair.send(0, 100, ACK, false);
    pair.answer(false, false);
    let syn = Tcp { seq: 900_000, ..Tcp::new((p.client, 4000), (p.private, 80), SYN) }.ip();
    assert_eq!(segment(&request(&mut *pair.clb, &p, &syn))[4..8], 900_000u32.to_be_bytes());
    pair.send(100, 100, ACK, false);
    pair.answer(false, true);
    assert_eq!(pair.acknowledged, 200);
    let reset = Tcp { seq: 5200, ..Tcp::new((p.client, 4000), (p.private, 80), RST) }.ip();
    assert_eq!(segment(&request(&mut *pair.clb, &p, &reset))[4..8], 5228u32.to_be_bytes());
    request(&mut *pair.clb, &p, &syn);
    let first = Tcp { seq: 900_001, ..Tcp::new((p.client, 4000), (p.private, 80), ACK) }.ip();
    assert_eq!(segment(&request(&mut *pair.clb, &p, &first))[20..], header_of(&p, 4000));
}

/// With and without the gate, with the header on its way and with the header taken, with one end closed.
#[test]
fn a_flood_of_syns_takes_no_place_of_a_proxied_connection() {
    for (gated, last) in [(false, None), (true, None), (false, Some(ACK)), (false, Some(FIN | ACK))] {
        let p = plan(4, 4, "gre");
        let mut tables = tables(&p, "proxy_v2", 1500);
        if gated {
            tables["clb"]["vips"][0]["flood_gate_per_s"] = json!(100);
        }
        let options = Options { flow_capacity: 1024, seed: 5, workers: 1, ..Options::default() };
        let mut clb = node_with(Role::Clb, &tables, options);
        let mut now = NOW;
        let to = |clb: &mut dyn Pipeline, now: u64, packet: &Tcp<'_>| {
            send_at(now, clb, 0, &frame(&tunnel(p.eip, p.service, p.encap, None, &packet.ip()))).outcome
        };
        let back = |clb: &mut dyn Pipeline, now: u64, port: u16, ack: u32, flags: u8| {
            let packet = Tcp { ack, ..Tcp::new((p.private, 80), (p.client, port), flags) };
            send_at(now, clb, 0, &frame(&tunnel(p.host, p.ld, p.encap, p.key, &packet.ip()))).outcome
        };
        let forwarded = Outcome::Forward { port: 0 };
        for port in 1000..1200 {
            now += 20_000_000;
            let syn = Tcp::new((p.client, port), (p.private, 80), SYN);
            assert_eq!(to(&mut *clb, now, &syn), forwarded);
            assert_eq!(back(&mut *clb, now, port, 1001, SYN | ACK), forwarded);
            assert_eq!(to(&mut *clb, now, &Tcp { seq: 1001, flags: ACK, payload: b"GET", ..syn }), forwarded);
            if let Some(flags) = last {
                assert_eq!(back(&mut *clb, now, port, 1001 + 28 + 3, flags), forwarded);
            }
        }
        for n in 0..4096 {
            let source = format!("100.64.{}.{}", n / 256, n % 256);
            to(&mut *clb, now, &Tcp::new((&source, 5), (p.private, 80), SYN));
        }
        for port in 1000..1200 {
            assert_eq!(back(&mut *clb, now, port, 1001 + 28 + 3, ACK), forwarded, "{gated} {last:?} {port}");
        }
        // Whoever comes after the flood finds a place.
        now += 10_000_000_000;
        let syn = Tcp::new((p.client, 9), (p.private, 80), SYN);
        assert_eq!(to(&mut *clb, now, &syn), forwarded);
        assert_eq!(back(&mut *clb, now, 9, 1001, SYN | ACK), forwarded);
    }
}

#[test]
fn a_proxied_connection_from_elsewhere_cannot_go_on() {
    let p = plan(4, 4, "gre");
    let mut clb = node(Role::Clb, &tables(&p, "proxy_v2", 1500));
    let (client, server) = ((p.client, 4000), (p.private, 80));
    assert_eq!(request(&mut *clb, &p, &Tcp::new(client, server, ACK).ip()).reason(), DropReason::NoFlow);
    assert_eq!(reply(&mut *clb, &p, &Tcp::new(server, client, ACK).ip()).reason(), DropReason::NoFlow);
    assert_eq!(request(&mut *clb, &p, &Tcp::new(client, server, RST).ip()).port(), 0, "but it can end");
}

/// The client would not know the numbers that an error on the server's side quotes.
#[test]
fn an_icmp_error_about_a_proxied_packet_quotes_what_the_client_sent() {
    for inner in [4, 6] {
        let p = plan(inner, 4, "gre");
        let mut pair = Pair::new(p, 5000, 300);
        pair.send(0, 100, ACK, false);
        pair.answer(false, false);
        let header = header_of(&p, 4000).len() as u32;
        for (quoted_seq, expected) in [(5000, 5000), (5100 + header, 5100)] {
            let lost = Tcp { seq: quoted_seq, ..Tcp::new((p.client, 4000), (p.private, 80), ACK) }.ip();
            let length = if inner == 4 { 28 } else { 48 };
            let error = icmp(p.private, p.client, (3, 1), (1, 3), &lost[..length]);
            let result = reply(&mut *pair.clb, &p, &error);
            assert_eq!(result.port(), 0);
            let (src, dst, number, message) = open(&untunnel(&result.frame).3);
            let sum = if inner == 4 { Default::default() } else { support::pseudo(src, dst, number, message.len()) };
            assert!(sum.bytes(&message).is_right());
            assert_eq!(message[length..length + 8][4..8], u32::to_be_bytes(expected)[..]);
        }
    }
}
