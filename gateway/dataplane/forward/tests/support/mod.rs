//! Packets built by hand and a small region of three nodes, for the tests of the pipelines.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod peer;
pub mod region;
pub mod seeds;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{json, Value};
use tgw_contract::colour::{epoch_of, mapped, ColourKey};
use tgw_contract::{DropReason, Point, Role};
use tgw_forward::{pipeline, Frame, Observer, Options, Outcome, Pipeline, Tables};
use tgw_wire::checksum::Sum;
use tgw_wire::ethernet::{self, Mac};
use tgw_wire::{geneve, gre, gre_udp, gue, icmpv4, icmpv6, ipip, ipv4, ipv6, protocol, tcp, udp, vxlan};

pub const NOW: u64 = 1_700_000_000_000_000_000;
pub const KEY: &str = "000102030405060708090a0b0c0d0e0f";
pub const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x10]);
pub const EDGE_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x11]);
pub const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
pub const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x77]);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn octets(text: &str) -> [u8; 16] {
    mapped(ip(text)).to_be_bytes()
}

/// The ISN of a probe that is coloured at `NOW`.
pub fn isn(nonce: u16) -> u32 {
    ColourKey::from_hex(KEY).unwrap().cookie(nonce, epoch_of(NOW))
}

/// An IP packet around `payload`.
pub fn packet(src: IpAddr, dst: IpAddr, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let payload_len = payload.len();
    let mut bytes = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut bytes = vec![0; ipv4::HEADER_LEN];
            ipv4::Repr { src, dst, protocol, ttl, tos: 0, payload_len }.emit(&mut bytes).unwrap();
            bytes
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut bytes = vec![0; ipv6::HEADER_LEN];
            let repr = ipv6::Repr { src, dst, protocol, hop_limit: ttl, traffic_class: 0, flow_label: 0, payload_len };
            repr.emit(&mut bytes).unwrap();
            bytes
        }
        _ => panic!("mixed families"),
    };
    bytes.extend_from_slice(payload);
    bytes
}

pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Sum {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Sum::pseudo_v4(src, dst, protocol, length),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Sum::pseudo_v6(src, dst, protocol, length),
        _ => panic!("mixed families"),
    }
}

/// A TCP segment to build.
#[derive(Clone, Copy)]
pub struct Tcp<'a> {
    pub src: (&'a str, u16),
    pub dst: (&'a str, u16),
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub ttl: u8,
    /// A multiple of 4 bytes.
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    pub fn new(src: (&'a str, u16), dst: (&'a str, u16), flags: u8) -> Self {
        Self { src, dst, flags, seq: 1000, ack: 0, ttl: 64, options: b"", payload: b"" }
    }

    pub fn ip(&self) -> Vec<u8> {
        let (src, dst) = (ip(self.src.0), ip(self.dst.0));
        let mut segment = vec![0; tcp::HEADER_LEN];
        let repr = tcp::Repr {
            src_port: self.src.1,
            dst_port: self.dst.1,
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            window: 1024,
        };
        repr.emit(&mut segment).unwrap();
        segment.extend_from_slice(self.options);
        segment[12] = ((segment.len() / 4) as u8) << 4;
        segment.extend_from_slice(self.payload);
        let checksum = pseudo(src, dst, protocol::TCP, segment.len()).bytes(&segment).checksum();
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        packet(src, dst, protocol::TCP, self.ttl, &segment)
    }
}

pub fn udp(src: (&str, u16), dst: (&str, u16), payload: &[u8], with_checksum: bool) -> Vec<u8> {
    let (from, to) = (ip(src.0), ip(dst.0));
    let mut datagram = vec![0; udp::HEADER_LEN];
    udp::Repr { src_port: src.1, dst_port: dst.1, payload_len: payload.len(), checksum: 0 }
        .emit(&mut datagram)
        .unwrap();
    datagram.extend_from_slice(payload);
    if with_checksum {
        let checksum = match pseudo(from, to, protocol::UDP, datagram.len()).bytes(&datagram).checksum() {
            0 => 0xFFFF,
            checksum => checksum,
        };
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
    packet(from, to, protocol::UDP, 64, &datagram)
}

/// An ICMP message: of the kind and code for IPv4 or for IPv6, as `src` is.
pub fn icmp(src: &str, dst: &str, v4: (u8, u8), v6: (u8, u8), body: &[u8]) -> Vec<u8> {
    let (from, to) = (ip(src), ip(dst));
    let mut message = vec![0; icmpv4::HEADER_LEN];
    let (number, sum) = if from.is_ipv4() {
        icmpv4::Repr { kind: v4.0, code: v4.1, rest: 1400 }.emit(&mut message).unwrap();
        message.extend_from_slice(body);
        (protocol::ICMPV4, Sum::new())
    } else {
        icmpv6::Repr { kind: v6.0, code: v6.1, rest: 1400 }.emit(&mut message).unwrap();
        message.extend_from_slice(body);
        (protocol::ICMPV6, pseudo(from, to, protocol::ICMPV6, message.len()))
    };
    let checksum = sum.bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet(from, to, number, 64, &message)
}

/// "Port unreachable" about `quoted`.
pub fn unreachable(src: &str, dst: &str, quoted: &[u8]) -> Vec<u8> {
    icmp(src, dst, (3, 3), (1, 4), quoted)
}

/// The parts of an IP packet, `size` bytes of payload each (a multiple of 8).
pub fn fragments(whole: &[u8], ident: u32, size: usize) -> Vec<Vec<u8>> {
    let (src, dst, number, payload) = open(whole);
    let last = payload.len().div_ceil(size) - 1;
    let part = |(index, bytes): (usize, &[u8])| {
        let place = (index * size) as u16;
        if src.is_ipv4() {
            let mut part = packet(src, dst, number, whole[8], bytes);
            part[4..6].copy_from_slice(&(ident as u16).to_be_bytes());
            part[6..8].copy_from_slice(&(place / 8 + if index < last { 0x2000 } else { 0 }).to_be_bytes());
            part[10..12].fill(0);
            let checksum = Sum::new().bytes(&part[..20]).checksum();
            part[10..12].copy_from_slice(&checksum.to_be_bytes());
            part
        } else {
            let [high, low] = (place | u16::from(index < last)).to_be_bytes();
            let mut body = vec![number, 0, high, low];
            body.extend_from_slice(&ident.to_be_bytes());
            body.extend_from_slice(bytes);
            packet(src, dst, 44, whole[7], &body)
        }
    };
    payload.chunks(size).enumerate().map(part).collect()
}

/// The packet that these parts make.
pub fn reassembled(parts: &[Vec<u8>]) -> Vec<u8> {
    let (src, dst, number, _) = open(&parts[0]);
    let is_v4 = src.is_ipv4();
    let payload: Vec<u8> = parts.iter().flat_map(|part| open(part).3.split_off(if is_v4 { 0 } else { 8 })).collect();
    let number = if is_v4 { number } else { parts[0][40] };
    packet(src, dst, number, parts[0][if is_v4 { 8 } else { 7 }], &payload)
}

/// An Ethernet frame around an IP packet.
pub fn frame_to(dst: Mac, ip: &[u8]) -> Vec<u8> {
    let ethertype = if ip[0] >> 4 == 4 { ethernet::IPV4 } else { ethernet::IPV6 };
    let mut bytes = vec![0; ethernet::HEADER_LEN];
    ethernet::Repr { dst, src: ROUTER, ethertype }.emit(&mut bytes).unwrap();
    bytes.extend_from_slice(ip);
    bytes
}

pub fn frame(ip: &[u8]) -> Vec<u8> {
    frame_to(MAC, ip)
}

/// An IP packet around another one, in a tunnel.
pub fn tunnel(src: &str, dst: &str, encap: &str, key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    let version = inner[0] >> 4;
    let ethertype = if version == 4 { ethernet::IPV4 } else { ethernet::IPV6 };
    let (number, port, mut header) = match encap {
        "ipip" => (ipip::protocol_of(version), 0, Vec::new()),
        "gre" | "gre_udp" => {
            let repr = gre::Repr { protocol: ethertype, key };
            let mut bytes = vec![0; repr.len()];
            repr.emit(&mut bytes).unwrap();
            (if encap == "gre" { protocol::GRE } else { protocol::UDP }, gre_udp::PORT, bytes)
        }
        "vxlan" => {
            let mut bytes = vec![0; vxlan::HEADER_LEN + ethernet::HEADER_LEN];
            vxlan::Repr { vni: key.unwrap_or(0) }.emit(&mut bytes).unwrap();
            ethernet::Repr { dst: MAC, src: ROUTER, ethertype }.emit(&mut bytes[vxlan::HEADER_LEN..]).unwrap();
            (protocol::UDP, vxlan::PORT, bytes)
        }
        "gue" => {
            let repr = gue::Repr { protocol: ipip::protocol_of(version), key };
            let mut bytes = vec![0; repr.len()];
            repr.emit(&mut bytes).unwrap();
            (protocol::UDP, gue::PORT, bytes)
        }
        "geneve" => {
            let mut bytes = vec![0; geneve::HEADER_LEN];
            geneve::Repr { protocol: ethertype, vni: key.unwrap_or(0) }.emit(&mut bytes).unwrap();
            (protocol::UDP, geneve::PORT, bytes)
        }
        other => panic!("no tunnel: {other}"),
    };
    header.extend_from_slice(inner);
    if number == protocol::UDP {
        return udp((src, 50_000), (dst, port), &header, ip(src).is_ipv6() && encap != "vxlan");
    }
    packet(ip(src), ip(dst), number, 64, &header)
}

/// What came out of a tunnel packet: (outer source, outer destination, key, inner packet). The outer header is verified.
pub fn untunnel(frame: &[u8]) -> (IpAddr, IpAddr, Option<u32>, Vec<u8>) {
    let (src, dst, number, payload) = open(&frame[14..]);
    let of_gre = |bytes: &[u8]| {
        let view = gre::Packet::new_checked(bytes).unwrap();
        (view.key(), view.payload().to_vec())
    };
    let (key, inner) = match number {
        protocol::GRE => of_gre(&payload),
        ipip::IPV4 | ipip::IPV6 => (None, payload),
        protocol::UDP => {
            let datagram = udp::Packet::new_checked(&payload).unwrap();
            assert!(datagram.src_port() >= 49_152);
            assert_eq!(datagram.length(), payload.len());
            if src.is_ipv6() && datagram.dst_port() != vxlan::PORT {
                assert!(datagram.verify_checksum(pseudo(src, dst, number, payload.len())), "the tunnel's UDP checksum");
            } else {
                assert_eq!(datagram.checksum(), 0);
            }
            match datagram.dst_port() {
                vxlan::PORT => {
                    let view = vxlan::Packet::new_checked(datagram.payload()).unwrap();
                    let link = ethernet::Packet::new_checked(view.payload()).unwrap();
                    (Some(view.vni()), link.payload().to_vec())
                }
                gre_udp::PORT => of_gre(datagram.payload()),
                gue::PORT => {
                    let view = gue::Packet::new_checked(datagram.payload()).unwrap();
                    (view.key(), view.payload().to_vec())
                }
                geneve::PORT => {
                    let view = geneve::Packet::new_checked(datagram.payload()).unwrap();
                    (Some(view.vni()), view.payload().to_vec())
                }
                other => panic!("no tunnel: port {other}"),
            }
        }
        other => panic!("no tunnel: protocol {other}"),
    };
    (src, dst, key, inner)
}

/// Addresses, protocol and payload of an IP packet, its header verified.
pub fn open(bytes: &[u8]) -> (IpAddr, IpAddr, u8, Vec<u8>) {
    if bytes[0] >> 4 == 4 {
        let view = ipv4::Packet::new_checked(bytes).unwrap();
        assert!(view.verify_checksum(), "IPv4 header checksum");
        assert_eq!(view.total_len(), bytes.len(), "no bytes behind the packet");
        (view.src().into(), view.dst().into(), view.protocol(), view.payload().to_vec())
    } else {
        let view = ipv6::Packet::new_checked(bytes).unwrap();
        assert_eq!(view.total_len(), bytes.len(), "no bytes behind the packet");
        (view.src().into(), view.dst().into(), view.next_header(), view.payload().to_vec())
    }
}

/// Check every checksum of an IP packet, and of what an ICMP error in it quotes (whole). Returns its ends.
pub fn verify(bytes: &[u8]) -> (IpAddr, IpAddr) {
    let (src, dst, number, payload) = open(bytes);
    let sum = pseudo(src, dst, number, payload.len()).bytes(&payload);
    match number {
        protocol::TCP | protocol::ICMPV6 => assert!(sum.is_right(), "transport checksum"),
        protocol::UDP => {
            let none = udp::Packet::new_checked(&payload).unwrap().checksum() == 0;
            assert!(none && src.is_ipv4() || sum.is_right(), "UDP checksum");
        }
        protocol::ICMPV4 => assert!(Sum::new().bytes(&payload).is_right(), "ICMP checksum"),
        other => panic!("protocol {other}"),
    }
    if matches!(number, protocol::ICMPV4 | protocol::ICMPV6) {
        verify(&payload[8..]);
    }
    (src, dst)
}

/// Keeps the points.
#[derive(Default)]
pub struct Notes(pub Vec<Point>);

impl Observer for Notes {
    fn point(&mut self, point: &Point) {
        self.0.push(*point);
    }
}

/// What became of one frame.
#[derive(Debug)]
pub struct Result {
    pub outcome: Outcome,
    pub frame: Vec<u8>,
    pub points: Vec<Point>,
}

impl Result {
    pub fn port(&self) -> u16 {
        match self.outcome {
            Outcome::Forward { port } => port,
            Outcome::Drop(reason) | Outcome::Answer { reason, .. } => panic!("dropped: {}", reason.name()),
        }
    }

    pub fn reason(&self) -> DropReason {
        match self.outcome {
            Outcome::Drop(reason) | Outcome::Answer { reason, .. } => reason,
            Outcome::Forward { port } => panic!("forwarded to {port}"),
        }
    }
}

pub fn send_at(now: u64, pipeline: &mut dyn Pipeline, port: u16, bytes: &[u8]) -> Result {
    let mut frame = Frame::with_capacity(4096);
    assert!(frame.load(port, now, bytes));
    let mut outcomes = [Outcome::Drop(DropReason::NoConfig)];
    let mut notes = Notes::default();
    pipeline.process(now, std::slice::from_mut(&mut frame), &mut outcomes, &mut notes);
    Result { outcome: outcomes[0], frame: frame.bytes().to_vec(), points: notes.0 }
}

pub fn send(pipeline: &mut dyn Pipeline, port: u16, bytes: &[u8]) -> Result {
    send_at(NOW, pipeline, port, bytes)
}

pub fn tables(value: &Value, role: Role) -> Arc<Tables> {
    Arc::new(Tables::from_json(&value.to_string(), role).unwrap())
}

pub fn node(role: Role, value: &Value) -> Box<dyn Pipeline> {
    node_with(role, value, Options { flow_capacity: 1024, seed: 5, workers: 1, ..Options::default() })
}

pub fn node_with(role: Role, value: &Value, options: Options) -> Box<dyn Pipeline> {
    let mut node = pipeline(role, 0, &options);
    node.set_tables(tables(value, role));
    node
}

/// Addresses of a region in one choice of families and encapsulation.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub client: &'static str,
    pub prober: &'static str,
    pub public: &'static str,
    pub private: &'static str,
    pub service: &'static str,
    pub eip: &'static str,
    pub anycast: &'static str,
    pub ld: &'static str,
    pub host: &'static str,
    pub router: &'static str,
    pub encap: &'static str,
    /// The real server's; `None` where the tunnel goes without one.
    pub key: Option<u32>,
}

pub fn plan(inner: u8, outer: u8, encap: &'static str) -> Plan {
    let (client, prober, public, private) = if inner == 4 {
        ("192.0.2.9", "198.18.1.2", "203.0.113.1", "10.100.0.1")
    } else {
        ("2001:db8:c::9", "2001:db8:18::2", "2001:db8:aa::1", "fd64::1")
    };
    let (service, eip, anycast, ld, host, router) = if outer == 4 {
        ("10.4.0.1", "10.3.0.1", "10.3.255.1", "10.3.0.11", "10.3.1.1", "10.2.0.1")
    } else {
        ("fd04::1", "fd03::1", "fd03::ffff", "fd03::11", "fd03::101", "fd02::1")
    };
    let key = if encap == "ipip" { None } else { Some(77) };
    Plan { client, prober, public, private, service, eip, anycast, ld, host, router, encap, key }
}

impl Plan {
    fn base(&self, role: &str, local: &str) -> Value {
        json!({
            "epoch": 7, "node": "n", "role": role,
            "tunnel": {"local": local, "encap": self.encap},
            "probe": {"reserved": ["198.18.0.0/16", "2001:db8:18::/48"], "key": KEY},
            "ports": [{"index": 0, "interface": "fabric0", "mac": MAC.to_string(),
                       "next_hop_mac": ROUTER.to_string(), "mtu": 1700, "host_addresses": ["10.2.3.2", "fd02::2"]}],
            "routes": [], "edge_routes": []
        })
    }

    pub fn eip_tables(&self) -> Value {
        let mut tables = self.base("eip", self.eip);
        tables["ports"].as_array_mut().unwrap().push(json!({
            "index": 1, "interface": "edge0", "mac": EDGE_MAC.to_string(),
            "next_hop_mac": ROUTER.to_string(), "mtu": 1500, "host_addresses": ["10.1.3.2"]}));
        tables["eip"] = json!({"anycast": self.anycast, "bindings": [
            {"vip_id": 1, "public": self.public, "private": self.private, "service": self.service}]});
        tables
    }

    pub fn clb_tables(&self) -> Value {
        let mut tables = self.base("clb", self.ld);
        let backends = json!([{"id": 5, "tunnel": self.host, "key": self.key, "encap": self.encap, "weight": 100}]);
        let listener = |protocol: &str, port: u16| json!({"protocol": protocol, "port": port, "backends": backends});
        tables["clb"] = json!({"reply_to": self.anycast, "reply_encap": self.encap, "vips": [
            {"id": 1, "address": self.private, "service": self.service, "new_flows_per_s": null,
             "listeners": [listener("tcp", 80), listener("udp", 53)]}]});
        tables
    }

    /// Tables of an LD with more said of its VIP.
    pub fn protected_tables(&self, more: Value) -> Value {
        let mut tables = self.clb_tables();
        for (name, value) in more.as_object().unwrap() {
            tables["clb"]["vips"][0][name] = value.clone();
        }
        tables
    }

    /// Tables of an LD with all protection at once, none of it in the way of a few packets.
    pub fn guarded_tables(&self) -> Value {
        let mut tables = self.protected_tables(json!({
            "packets_per_s": 1000, "bytes_per_s": 1_000_000, "flood_gate_per_s": 100, "syn_cookies": "always",
            "deny": "bad", "allow": "good"}));
        tables["clb"]["source_lists"] =
            json!({"bad": ["192.0.2.128/25"], "good": ["192.0.2.0/24", "2001:db8::/32", "10.0.0.0/8", "fd00::/8"]});
        tables["clb"]["blacklist"] = json!({"events": 3, "window_s": 10, "ttl_s": 60});
        tables
    }

    /// The same listeners with all that balancing can do.
    pub fn balanced_clb_tables(&self) -> Value {
        let mut tables = self.clb_tables();
        let listeners = &mut tables["clb"]["vips"][0]["listeners"];
        if ip(self.private).is_ipv4() == ip(self.ld).is_ipv4() {
            listeners[0]["health"] = json!({"interval_ms": 1000, "timeout_ms": 500, "rise": 2, "fall": 3});
        }
        (listeners[0]["balance"], listeners[0]["affinity_s"]) = (json!("rendezvous"), json!(60));
        (listeners[0]["slow_start_s"], listeners[1]["dispatch"]) = (json!(60), json!("quic"));
        listeners[1]["quic_server_id"] = json!({"offset": 1, "length": 2});
        tables
    }

    pub fn vswitch_tables(&self) -> Value {
        let mut tables = self.base("vswitch", self.host);
        tables["ports"].as_array_mut().unwrap().push(json!({
            "index": 1, "interface": "srv1", "mac": EDGE_MAC.to_string(), "mtu": 1500,
            "host_addresses": ["169.254.1.1"]}));
        tables["vswitch"] = json!({"servers": [{"id": 5, "key": self.key, "port": 1, "mac": SERVER_MAC.to_string(),
            "vips": [{"id": 1, "address": self.private}]}]});
        tables
    }

    /// Tables of LD and vSwitch with what listeners and VIPs may ask for besides, by number.
    pub fn with_extras(&self, number: usize) -> (Value, Value) {
        let (mut clb, mut vswitch) = (self.clb_tables(), self.vswitch_tables());
        clb["clb"]["vips"][0]["listeners"][0]["client_address"] =
            [json!(null), json!("toa"), json!("proxy_v2")][number % 3].clone();
        if number % 3 == 1 {
            clb["clb"]["vips"][0]["mode"] = json!("dsr");
            vswitch["vswitch"]["reply_to"] = json!(self.anycast);
            vswitch["vswitch"]["reply_encap"] = json!(self.encap);
            vswitch["vswitch"]["servers"][0]["vips"][0]["mode"] = json!("dsr");
        }
        (clb, vswitch)
    }

    pub fn eip(&self) -> Box<dyn Pipeline> {
        node(Role::Eip, &self.eip_tables())
    }

    pub fn clb(&self) -> Box<dyn Pipeline> {
        node(Role::Clb, &self.clb_tables())
    }

    pub fn vswitch(&self) -> Box<dyn Pipeline> {
        node(Role::Vswitch, &self.vswitch_tables())
    }
}

/// All combinations of inner family, outer family and encapsulation. Corpora name plans by their place.
pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for encaps in [&["gre", "vxlan"][..], &["gre_udp", "ipip", "gue", "geneve"]] {
        for inner in [4, 6] {
            for outer in [4, 6] {
                plans.extend(encaps.iter().map(|encap| plan(inner, outer, encap)));
            }
        }
    }
    for inner in [4, 6] {
        plans.extend([4, 6].map(|outer| Plan { key: None, ..plan(inner, outer, "gue") }));
    }
    plans
}
