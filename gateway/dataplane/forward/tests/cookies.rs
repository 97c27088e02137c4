//! Whole connections that begin with a SYN cookie: client, EIP, LD, vSwitch, real server and back.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::HashMap;

use serde_json::json;
use support::peer::{read, Peer, State};
use support::{
    frame, frame_to, icmp, ip, isn, node, node_with, plan, send_at, udp, untunnel, Plan, Tcp, EDGE_MAC, NOW,
};
use tgw_contract::{DropReason, Role};
use tgw_forward::{Frame, Options, Outcome, Pipeline};
use tgw_wire::tcp::{ACK, FIN, RST, SYN};

const SECOND: u64 = 1_000_000_000;

/// Where a packet comes out.
#[derive(Debug)]
enum Out {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

struct Region {
    plan: Plan,
    now: u64,
    eip: Box<dyn Pipeline>,
    clb: Box<dyn Pipeline>,
    vswitch: Box<dyn Pipeline>,
    drops: HashMap<&'static str, u32>,
}

impl Region {
    fn new(plan: Plan, cookies: &str) -> Self {
        let more = json!({"syn_cookies": cookies, "flood_gate_per_s": 100});
        let clb = node(Role::Clb, &plan.protected_tables(more));
        Self { plan, now: NOW, eip: plan.eip(), clb, vswitch: plan.vswitch(), drops: HashMap::new() }
    }

    fn client_sends(&mut self, packet: &[u8]) -> Vec<Out> {
        let one = send_at(self.now, &mut *self.eip, 1, &frame_to(EDGE_MAC, packet));
        assert_eq!(one.port(), 0);
        self.at_ld(&one.frame)
    }

    fn server_sends(&mut self, packet: &[u8]) -> Vec<Out> {
        let one = send_at(self.now, &mut *self.vswitch, 1, &frame_to(EDGE_MAC, packet));
        match one.outcome {
            Outcome::Forward { .. } => self.at_ld(&one.frame),
            Outcome::Drop(reason) | Outcome::Answer { reason, .. } => panic!("{}", reason.name()),
        }
    }

    /// What the LD makes of a frame of its router, and what it sends of its own.
    fn at_ld(&mut self, bytes: &[u8]) -> Vec<Out> {
        let result = send_at(self.now, &mut *self.clb, 0, &frame(&bytes[14..]));
        let left = match result.outcome {
            Outcome::Forward { port: 0 } => Some(result.frame),
            Outcome::Answer { port: 0, reason } => {
                *self.drops.entry(reason.name()).or_default() += 1;
                Some(result.frame)
            }
            Outcome::Drop(reason) => {
                *self.drops.entry(reason.name()).or_default() += 1;
                None
            }
            other => panic!("{other:?}"),
        };
        let mut out: Vec<Out> = left.into_iter().map(|bytes| self.beyond_ld(&bytes)).collect();
        out.extend(self.own());
        out
    }

    fn own(&mut self) -> Vec<Out> {
        let mut frame = Frame::default();
        let mut out = Vec::new();
        while let Some(port) = self.clb.emit(self.now, &mut frame) {
            assert_eq!(port, 0);
            let bytes = frame.bytes().to_vec();
            out.push(self.beyond_ld(&bytes));
        }
        out
    }

    fn beyond_ld(&mut self, bytes: &[u8]) -> Out {
        let (src, dst, key, _) = untunnel(bytes);
        assert_eq!(src, ip(self.plan.ld));
        if dst == ip(self.plan.host) {
            assert_eq!(key, self.plan.key);
            let result = send_at(self.now, &mut *self.vswitch, 0, &frame(&bytes[14..]));
            assert_eq!(result.port(), 1);
            Out::Server(result.frame[14..].to_vec())
        } else {
            assert_eq!(dst, ip(self.plan.anycast));
            let result = send_at(self.now, &mut *self.eip, 0, &frame(&bytes[14..]));
            assert_eq!(result.port(), 1);
            Out::Client(result.frame[14..].to_vec())
        }
    }

    fn drops(&self, reason: DropReason) -> u32 {
        self.drops.get(reason.name()).copied().unwrap_or(0)
    }

    /// Put the client's SYN through; the cookie that came back.
    fn cookie(&mut self, client: &mut Peer) -> Vec<u8> {
        let syn = client.connect(self.now);
        let [Out::Client(answer)] = &self.client_sends(&syn)[..] else { panic!("no answer") };
        answer.clone()
    }
}

fn client(plan: &Plan, payload: usize) -> Peer {
    Peer::new((plan.client, 40_000), (plan.public, 80), 0xFFFF_FF00, bytes(payload, 1))
}

fn server(plan: &Plan, payload: usize) -> Peer {
    Peer::new((plan.private, 80), (plan.client, 40_000), 0x8000_0000, bytes(payload, 2))
}

fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 + n / 251 * seed) as u8).collect()
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Run a connection until both ends are done: `lost` in a hundred packets vanish on each way, others come late.
fn run(region: &mut Region, client: &mut Peer, server: &mut Peer, lost: u64, seed: u64) {
    let mut dice = seed;
    let mut flying: Vec<(u64, bool, Vec<u8>)> = Vec::new();
    let first = client.connect(region.now);
    let end = region.now + 200 * SECOND;
    let mut to_gateway = vec![(true, first)];
    while !(client.is_done() && server.is_done()) {
        assert!(region.now < end, "not done: {:?} {:?} {:?}", client.state, server.state, region.drops);
        to_gateway.extend(client.tick(region.now).into_iter().map(|packet| (true, packet)));
        to_gateway.extend(server.tick(region.now).into_iter().map(|packet| (false, packet)));
        let mut out = region.own();
        for (of_client, packet) in to_gateway.drain(..) {
            if random(&mut dice) % 100 < lost {
                continue;
            }
            out.extend(if of_client { region.client_sends(&packet) } else { region.server_sends(&packet) });
        }
        for out in out {
            if random(&mut dice) % 100 < lost {
                continue;
            }
            let late = if lost > 0 { random(&mut dice) % 30 * 1_000_000 } else { 0 };
            flying.push(match out {
                Out::Client(packet) => (region.now + late, true, packet),
                Out::Server(packet) => (region.now + late, false, packet),
            });
        }
        region.now += 1_000_000;
        let (arrived, still): (Vec<_>, Vec<_>) = flying.into_iter().partition(|(at, ..)| *at <= region.now);
        flying = still;
        for (_, at_client, packet) in arrived {
            if at_client {
                to_gateway.extend(client.take(region.now, &packet).into_iter().map(|packet| (true, packet)));
            } else {
                to_gateway.extend(server.take(region.now, &packet).into_iter().map(|packet| (false, packet)));
            }
        }
    }
}

#[test]
fn a_connection_through_a_cookie() {
    for plan in support::plans() {
        let mut region = Region::new(plan, "always");
        let (mut client, mut server) = (client(&plan, 30_000), server(&plan, 50_000));
        let start = region.now;
        run(&mut region, &mut client, &mut server, 0, 1);
        assert!(server.received == bytes(30_000, 1) && client.received == bytes(50_000, 2), "{plan:?}");
        assert_ne!(client.other_isn, server.isn, "the client knows the cookie");
        assert_eq!(server.other_isn, client.isn, "the server knows the client's own number");
        assert_eq!((client.mss, server.mss), if ip(plan.client).is_ipv4() { (1460, 1460) } else { (1440, 1440) });
        assert_eq!(region.drops, HashMap::from([("SYN_ANSWERED", 1)]), "nothing else was lost");
        assert!(region.now - start < SECOND / 5, "and nobody had to wait for a timer");
        assert_eq!((region.clb.counters().created, region.clb.counters().active), (1, 1));
    }
}

/// Segments lost, late and out of order on all ways: handshakes are repeated, selective acknowledgements translated.
#[test]
fn a_connection_through_a_cookie_over_a_bad_line() {
    let (mut sacked, mut pending) = (0, 0);
    for seed in 0..30 {
        let plan = plan(if seed % 2 == 0 { 4 } else { 6 }, 4, "gre");
        let mut region = Region::new(plan, "always");
        let (mut client, mut server) = (client(&plan, 20_000), server(&plan, 40_000));
        run(&mut region, &mut client, &mut server, 10, seed);
        assert!(server.received == bytes(20_000, 1) && client.received == bytes(40_000, 2), "{seed}");
        sacked += server.sacked;
        pending += region.drops(DropReason::HandshakePending);
        let known = ["SYN_ANSWERED", "HANDSHAKE_PENDING", "SYN_COOKIE_BAD"];
        assert!(region.drops.keys().all(|reason| known.contains(reason)), "{:?}", region.drops);
    }
    assert!(sacked > 50, "{sacked} selective acknowledgements");
    assert!(pending > 0);
}

#[test]
fn a_server_that_refuses_resets_the_client() {
    let plan = plan(4, 4, "gre");
    let mut region = Region::new(plan, "always");
    let mut client = client(&plan, 10);
    let answer = region.cookie(&mut client);
    let ack = client.take(region.now, &answer).remove(0);
    let [Out::Server(syn)] = &region.client_sends(&ack)[..] else { panic!() };
    let syn = read(syn);
    assert_eq!((syn.flags, syn.seq, syn.mss, syn.sack_permitted), (SYN, client.isn, Some(1460), true));
    let refusal =
        Tcp { seq: 0, ack: syn.seq.wrapping_add(1), ..Tcp::new((plan.private, 80), (plan.client, 40_000), RST | ACK) };
    let [Out::Client(reset)] = &region.server_sends(&refusal.ip())[..] else { panic!() };
    client.take(region.now, reset);
    assert_eq!(client.state, State::Reset);
    // The port may come back at once.
    region.now += SECOND;
    let mut again = Peer::new((plan.client, 40_000), (plan.public, 80), 5, Vec::new());
    let answer = region.cookie(&mut again);
    let ack = again.take(region.now, &answer).remove(0);
    assert!(matches!(region.client_sends(&ack)[..], [Out::Server(_)]));
}

#[test]
fn a_server_that_is_silent_is_asked_again_and_then_given_up() {
    let plan = plan(4, 4, "gre");
    let mut region = Region::new(plan, "always");
    let mut client = client(&plan, 10);
    let answer = region.cookie(&mut client);
    assert_eq!(read(&answer).window, 0, "the client waits for its server's window");
    let ack = client.take(region.now, &answer).remove(0);
    let [Out::Server(first)] = &region.client_sends(&ack)[..] else { panic!() };
    for _ in 0..4 {
        assert!(region.own().is_empty());
        region.now += SECOND;
        let own = region.own();
        let [Out::Server(again)] = &own[..] else { panic!("{own:?}") };
        assert_eq!(again, first);
    }
    region.now += SECOND;
    let [Out::Client(reset)] = &region.own()[..] else { panic!() };
    client.take(region.now, reset);
    assert_eq!(client.state, State::Reset);
    region.now += 100 * SECOND;
    assert!(region.own().is_empty());
}

#[test]
fn a_client_that_gives_up_meanwhile_resets_the_server() {
    let plan = plan(4, 4, "gre");
    let mut region = Region::new(plan, "always");
    let (mut client, mut server) = (client(&plan, 10), server(&plan, 10));
    let answer = region.cookie(&mut client);
    let ack = client.take(region.now, &answer).remove(0);
    let [Out::Server(syn)] = &region.client_sends(&ack)[..] else { panic!() };
    server.take(region.now, syn);
    let [Out::Server(reset)] = &region.client_sends(&client.reset())[..] else { panic!() };
    server.take(region.now, reset);
    assert_eq!(server.state, State::Reset);
    // One that does not know the numbers ends nothing.
    let mut region = Region::new(plan, "always");
    let mut client = self::client(&plan, 10);
    let answer = region.cookie(&mut client);
    let ack = client.take(region.now, &answer).remove(0);
    region.client_sends(&ack);
    let forged = Tcp { seq: 4, ..Tcp::new((plan.client, 40_000), (plan.public, 80), RST) };
    assert!(region.client_sends(&forged.ip()).is_empty());
    assert_eq!(region.drops(DropReason::HandshakePending), 1);
}

/// Resets go both ways in the other end's numbers.
#[test]
fn resets_of_an_open_connection() {
    for of_client in [true, false] {
        let plan = plan(4, 4, "gre");
        let mut region = Region::new(plan, "always");
        let (mut client, mut server) = (client(&plan, 0), server(&plan, 0));
        open(&mut region, &mut client, &mut server);
        if of_client {
            let [Out::Server(reset)] = &region.client_sends(&client.reset())[..] else { panic!() };
            server.take(region.now, reset);
        } else {
            let [Out::Client(reset)] = &region.server_sends(&server.reset())[..] else { panic!() };
            client.take(region.now, reset);
        }
        assert_eq!((client.state, server.state), (State::Reset, State::Reset));
    }
}

/// The handshake alone; segments after it are lost.
fn open(region: &mut Region, client: &mut Peer, server: &mut Peer) {
    (client.closes, server.closes) = (false, false);
    let answer = region.cookie(client);
    let ack = client.take(region.now, &answer).remove(0);
    let [Out::Server(syn)] = &region.client_sends(&ack)[..] else { panic!() };
    let syn_ack = server.take(region.now, syn).remove(0);
    let [Out::Server(ack), Out::Client(window)] = &region.server_sends(&syn_ack)[..] else { panic!() };
    server.take(region.now, ack);
    client.take(region.now, window);
    assert_eq!((client.state, server.state), (State::Established, State::Established));
}

/// A router on the client's side quotes what the client would have got; the server must find it its own.
#[test]
fn an_icmp_error_quotes_the_servers_number() {
    for plan in [plan(4, 4, "gre"), plan(6, 4, "gre")] {
        let mut region = Region::new(plan, "always");
        let (mut client, mut server) = (client(&plan, 0), server(&plan, 0));
        open(&mut region, &mut client, &mut server);
        let reply = Tcp {
            seq: server.isn.wrapping_add(1),
            payload: b"data",
            ..Tcp::new((plan.private, 80), (plan.client, 40_000), ACK)
        };
        let [Out::Client(seen)] = &region.server_sends(&reply.ip())[..] else { panic!() };
        assert_eq!(read(seen).seq, client.other_isn.wrapping_add(1));
        let router = if ip(plan.client).is_ipv4() { "192.0.2.254" } else { "2001:db8:c::fe" };
        let [Out::Server(error)] = &region.client_sends(&icmp(router, plan.public, (3, 4), (2, 0), seen))[..] else {
            panic!()
        };
        let header = if ip(plan.client).is_ipv4() { 20 } else { 40 };
        let seq = u32::from_be_bytes(error[2 * header + 12..2 * header + 16].try_into().unwrap());
        assert_eq!(seq, server.isn.wrapping_add(1));
        // The error's own checksum; the quoted TCP checksum is nobody's business any more.
        let (src, dst, number, message) = support::open(error);
        let sum = if number == 1 { Default::default() } else { support::pseudo(src, dst, 58, message.len()) };
        assert!(sum.bytes(&message).is_right());
    }
}

#[test]
fn datagrams_and_probes_go_through() {
    let plan = plan(4, 4, "gre");
    let mut region = Region::new(plan, "always");
    let asked = udp((plan.client, 5353), (plan.public, 53), b"question", true);
    assert!(matches!(region.client_sends(&asked)[..], [Out::Server(_)]));
    let answered = udp((plan.private, 53), (plan.client, 5353), b"answer", true);
    assert!(matches!(region.server_sends(&answered)[..], [Out::Client(_)]));
    let number = isn(7);
    let probe = |flags| {
        Tcp {
            seq: number.wrapping_add(u32::from(flags == RST)),
            ..Tcp::new((plan.prober, 9), (plan.public, 80), flags)
        }
        .ip()
    };
    let [Out::Server(syn)] = &region.client_sends(&probe(SYN))[..] else { panic!() };
    assert_eq!(read(syn).seq, number);
    let answer =
        Tcp { seq: 4, ack: number.wrapping_add(1), ..Tcp::new((plan.private, 80), (plan.prober, 9), SYN | ACK) };
    let [Out::Client(answer)] = &region.server_sends(&answer.ip())[..] else { panic!() };
    assert_eq!(read(answer).seq, 4);
    assert!(matches!(region.client_sends(&probe(RST))[..], [Out::Server(_)]));
    assert!(region.drops.is_empty());
    // The prober's address alone is no colour.
    let plain = Tcp { seq: number ^ 1, ..Tcp::new((plan.prober, 10), (plan.public, 80), SYN) }.ip();
    assert!(matches!(region.client_sends(&plain)[..], [Out::Client(_)]));
}

/// The fabric moves the acknowledgement to another LD of the region: it opens the connection all the same.
#[test]
fn any_ld_takes_the_cookie_of_any_other() {
    let plan = plan(4, 4, "gre");
    let mut region = Region::new(plan, "always");
    let mut client = client(&plan, 10);
    let answer = region.cookie(&mut client);
    let ack = client.take(region.now, &answer).remove(0);
    let tables = plan.protected_tables(json!({"syn_cookies": "always"}));
    region.clb = node_with(Role::Clb, &tables, Options { seed: 99, ..Options::default() });
    region.now += 100 * SECOND;
    assert!(matches!(region.client_sends(&ack)[..], [Out::Server(_)]));
    // But not later than that.
    region.clb = node_with(Role::Clb, &tables, Options { seed: 98, ..Options::default() });
    region.now += 100 * SECOND;
    assert!(region.client_sends(&ack).is_empty());
    assert_eq!(region.drops(DropReason::SynCookieBad), 1);
}

/// In a flood alone: before and after it connections go to their servers as ever, and those of the flood live on.
#[test]
fn cookies_in_a_flood_alone() {
    let plan = plan(4, 4, "gre");
    let mut region = Region::new(plan, "flood");
    let syn = |port| Tcp::new((plan.client, port), (plan.public, 80), SYN).ip();
    assert!(matches!(region.client_sends(&syn(1))[..], [Out::Server(_)]));
    (2..500).for_each(|port| {
        region.client_sends(&syn(port));
    });
    assert!(region.drops(DropReason::SynAnswered) > 400);
    let (mut client, mut server) = (client(&plan, 100), server(&plan, 100));
    let answer = region.cookie(&mut client);
    // The flood ends before the client has answered.
    region.now += 10 * SECOND;
    assert!(matches!(region.client_sends(&syn(501))[..], [Out::Server(_)]));
    let ack = client.take(region.now, &answer).remove(0);
    let [Out::Server(second)] = &region.client_sends(&ack)[..] else { panic!() };
    let syn_ack = server.take(region.now, second).remove(0);
    assert_eq!(region.server_sends(&syn_ack).len(), 2);
    // A connection that another LD had goes on.
    let moved = Tcp { seq: 9, ack: 9, ..Tcp::new((plan.client, 502), (plan.public, 80), ACK) };
    assert!(matches!(region.client_sends(&moved.ip())[..], [Out::Server(_)]));
}

/// The flow's entry is lost (evicted, or its time was up): the connection keeps its server and its numbers.
#[test]
fn the_splice_outlives_the_flow() {
    let plan = plan(4, 4, "gre");
    let mut region = Region::new(plan, "always");
    let (mut client, mut server) = (client(&plan, 0), server(&plan, 0));
    open(&mut region, &mut client, &mut server);
    // Half-closed: the flow may be silent for two minutes, like the splice; then both are gone.
    let fin = Tcp {
        seq: client.isn.wrapping_add(1),
        ack: client.other_isn.wrapping_add(1),
        ..Tcp::new((plan.client, 40_000), (plan.public, 80), FIN | ACK)
    };
    region.now += 100 * SECOND;
    let [Out::Server(seen)] = &region.client_sends(&fin.ip())[..] else { panic!() };
    assert_eq!(read(seen).ack, server.isn.wrapping_add(1));
    region.now += 119 * SECOND;
    assert!(matches!(region.client_sends(&fin.ip())[..], [Out::Server(_)]));
    region.now += 121 * SECOND;
    assert!(region.client_sends(&fin.ip()).is_empty());
    assert_eq!(region.drops(DropReason::SynCookieBad), 1);
}

/// More clients than a worker can splice: the rest is told so, nobody is mistaken for another.
#[test]
fn a_full_table_says_so() {
    let plan = plan(4, 4, "gre");
    let mut region = Region::new(plan, "always");
    region.clb = node_with(
        Role::Clb,
        &plan.protected_tables(json!({"syn_cookies": "always"})),
        Options { flow_capacity: 64, ..Options::default() },
    );
    let mut opened = 0;
    for port in 1..200 {
        let mut client = Peer::new((plan.client, port), (plan.public, 80), u32::from(port), Vec::new());
        let answer = region.cookie(&mut client);
        let ack = client.take(region.now, &answer).remove(0);
        opened += region.client_sends(&ack).len();
    }
    let refused = region.drops(DropReason::ConnTableFull) as usize;
    assert_eq!(opened + refused, 199);
    assert!((16..=32).contains(&opened), "{opened}");
}
