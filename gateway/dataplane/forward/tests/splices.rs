//! What becomes of a connection that began with a SYN cookie when something around it changes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{json, Value};
use support::{frame, node, open, plan, send_at, tunnel, untunnel, Plan, Result, Tcp, NOW};
use tgw_contract::Role;
use tgw_forward::{Frame, Outcome, Pipeline};
use tgw_wire::tcp::{ACK, PSH, RST, SYN};

const SECOND: u64 = 1_000_000_000;
/// The sequence number of the real server's SYN.
const ISN: u32 = 0x8000_0000;

struct Ld {
    p: Plan,
    tables: Value,
    clb: Box<dyn Pipeline>,
    now: u64,
    /// The number that the client was told instead.
    cookie: u32,
}

impl Ld {
    fn new(p: Plan, tables: Value) -> Self {
        Self { p, clb: node(Role::Clb, &tables), tables, now: NOW, cookie: 0 }
    }

    fn request(&mut self, packet: &Tcp<'_>) -> Result {
        let bytes = frame(&tunnel(self.p.eip, self.p.service, self.p.encap, None, &packet.ip()));
        send_at(self.now, &mut *self.clb, 0, &bytes)
    }

    /// Of the real server on this host, whose tunnel has this key.
    fn reply(&mut self, (host, key): (&str, Option<u32>), packet: &Tcp<'_>) -> Result {
        let bytes = frame(&tunnel(host, self.p.ld, self.p.encap, key, &packet.ip()));
        send_at(self.now, &mut *self.clb, 0, &bytes)
    }

    fn set_cookies(&mut self, epoch: u64, cookies: &str) {
        self.tables["epoch"] = json!(epoch);
        self.tables["clb"]["vips"][0]["syn_cookies"] = json!(cookies);
        self.clb.set_tables(support::tables(&self.tables, Role::Clb));
    }

    /// Frames of its own that it has to send.
    fn own(&mut self) -> Vec<Vec<u8>> {
        let mut frame = Frame::default();
        std::iter::from_fn(|| self.clb.emit(self.now, &mut frame).map(|_| frame.bytes().to_vec())).collect()
    }

    /// A client that has got a cookie acknowledges it; the key of the tunnel that its SYN to the server goes by.
    fn knock(&mut self, port: u16) -> Option<u32> {
        let answer = self.request(&Tcp::new((self.p.client, port), (self.p.private, 80), SYN));
        assert!(matches!(answer.outcome, Outcome::Answer { .. }), "{:?}", answer.outcome);
        self.cookie = number(&segment(&answer.frame), 4);
        let ack = self.client(port, b"");
        untunnel(&self.request(&ack).frame).2
    }

    /// The first packet after the client's SYN.
    fn client<'a>(&self, port: u16, payload: &'a [u8]) -> Tcp<'a> {
        let ack = self.cookie.wrapping_add(1);
        Tcp { seq: 1001, ack, payload, ..Tcp::new((self.p.client, port), (self.p.private, 80), ACK | PSH) }
    }

    /// Its server, too, takes the connection.
    fn accept(&mut self, port: u16, server: (&str, Option<u32>)) {
        let answer = Tcp { seq: ISN, ack: 1001, ..Tcp::new((self.p.private, 80), (self.p.client, port), SYN | ACK) };
        self.reply(server, &answer).port();
        self.own(); // the window
    }
}

/// The segment in a tunnel.
fn segment(frame: &[u8]) -> Vec<u8> {
    open(&untunnel(frame).3).3
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn a_server_is_told_what_is_too_big_in_its_own_numbers() {
    let p = plan(6, 4, "gre");
    let mut tables = p.protected_tables(json!({"syn_cookies": "always"}));
    tables["ports"][0]["mtu"] = json!(1400);
    let mut ld = Ld::new(p, tables);
    ld.knock(4000);
    ld.accept(4000, (p.host, p.key));
    let seq = ISN.wrapping_add(1);
    let large = Tcp { seq, ack: 1001, payload: &[1; 1390], ..Tcp::new((p.private, 80), (p.client, 4000), ACK) };
    let answer = ld.reply((p.host, p.key), &large);
    assert!(matches!(answer.outcome, Outcome::Answer { .. }), "{:?}", answer.outcome);
    assert_eq!(number(&segment(&answer.frame), 8 + 40 + 4), seq);
    // The client, too, is shown what it sent.
    let large = ld.client(4000, &[1; 1390]);
    let answer = ld.request(&large);
    assert!(matches!(answer.outcome, Outcome::Answer { .. }), "{:?}", answer.outcome);
    assert_eq!(segment(&answer.frame)[8 + 40..][..20], open(&large.ip()).3[..20]);
}

/// Of two servers, the one that has the connection stops answering checks: the other resets the client.
#[test]
fn a_connection_ends_with_its_server() {
    let p = plan(4, 4, "gre");
    let mut tables = p.protected_tables(json!({"syn_cookies": "always"}));
    let backend =
        |id: u32| json!({"id": id, "tunnel": format!("10.3.1.{id}"), "key": id, "encap": "gre", "weight": 100});
    tables["clb"]["vips"][0]["listeners"].as_array_mut().unwrap().truncate(1);
    let listener = &mut tables["clb"]["vips"][0]["listeners"][0];
    listener["backends"] = json!([backend(5), backend(6)]);
    listener["health"] = json!({"interval_ms": 1000, "timeout_ms": 500, "rise": 1, "fall": 1});
    let mut ld = Ld::new(p, tables);
    let key = ld.knock(4000);
    ld.accept(4000, (&format!("10.3.1.{}", key.unwrap()), key));
    let (mut other, mut other_host) = (None, String::new());
    for _ in 0..60 {
        ld.now += SECOND / 10;
        for check in ld.own() {
            let (_, host, to, inner) = untunnel(&check);
            let syn = open(&inner).3;
            let port = u16::from_be_bytes([syn[0], syn[1]]);
            if to != key {
                (other, other_host) = (to, host.to_string());
                let ack = number(&syn, 4).wrapping_add(1);
                let answer = Tcp { ack, ..Tcp::new((p.private, 80), (p.ld, port), SYN | ACK) };
                ld.reply((&other_host, other), &answer);
            }
        }
    }
    let data = ld.client(4000, b"GET");
    let moved = ld.request(&data);
    assert_eq!(untunnel(&moved.frame).2, other);
    let expected = number(&segment(&moved.frame), 8);
    assert_eq!(expected, ld.cookie.wrapping_add(1));
    let reset = Tcp { seq: expected, ..Tcp::new((p.private, 80), (p.client, 4000), RST) };
    let reset = ld.reply((&other_host, other), &reset);
    assert_eq!(reset.port(), 0);
    assert_eq!(number(&segment(&reset.frame), 4), expected);
}

#[test]
fn a_clock_that_is_set_back_keeps_nobody_waiting() {
    let p = plan(4, 4, "gre");
    let sent = |back: u64| {
        let mut ld = Ld::new(p, p.protected_tables(json!({"syn_cookies": "always"})));
        ld.knock(4000);
        ld.now -= back;
        ld.knock(4001);
        let each = (0..20).map(|_| {
            ld.now += SECOND;
            ld.own().len()
        });
        each.collect::<Vec<_>>()
    };
    let usual = sent(0);
    assert_eq!(usual.iter().sum::<usize>(), 10, "four more SYNs each, and a reset");
    assert_eq!(sent(3600 * SECOND), usual);
}

/// Cookies are switched off: what began with one goes on, the rest soon goes the straight way again.
#[test]
fn a_connection_goes_on_when_its_vip_has_no_cookies_any_more() {
    for version in [4, 6] {
        let p = plan(version, 4, "gre");
        let mut ld = Ld::new(p, p.protected_tables(json!({"syn_cookies": "always"})));
        ld.knock(4000);
        ld.accept(4000, (p.host, p.key));
        for (epoch, cookies) in [(8, "never"), (9, "never"), (10, "always"), (11, "never")] {
            ld.set_cookies(epoch, cookies);
            let data = ld.client(4000, b"GET");
            assert_eq!(number(&segment(&ld.request(&data).frame), 8), ISN.wrapping_add(1), "{epoch}");
            let seq = ISN.wrapping_add(1);
            let answer = Tcp { seq, ack: 1004, ..Tcp::new((p.private, 80), (p.client, 4000), ACK) };
            let seen = ld.reply((p.host, p.key), &answer);
            assert_eq!(number(&segment(&seen.frame), 4), ld.cookie.wrapping_add(1), "{epoch}");
            // Any number of sweeps finds it there still.
            (0..100).for_each(|_| ld.clb.idle(ld.now));
        }
        // A new connection has no part in it.
        let syn = ld.request(&Tcp::new((p.client, 4001), (p.private, 80), SYN));
        assert_eq!(syn.port(), 0);
        // Long silent, it is over.
        ld.now += 1000 * SECOND;
        (0..100).for_each(|_| ld.clb.idle(ld.now));
        let stray = ld.client(4000, b"GET");
        assert_eq!(number(&segment(&ld.request(&stray).frame), 8), ld.cookie.wrapping_add(1));
    }
}
