//! The XDP program: which frames of an interface the node sees, and which its host's own stack.
//!
//! To the host: what is not IPv4 or IPv6 (ARP), what is sent to a group or to a link-local address (neighbour discovery,
//! routing protocols), and what is sent to an address of the host's own (BGP, BFD, ping) unless it is tunnel traffic: GRE,
//! IPIP, UDP to a tunnel's port, and ICMP errors about such packets. Everything else goes to the socket of the queue it
//! came by; without one, to the host.
//!
//! Written as eBPF instructions, so that building and running take no C compiler. `decide` in the tests says the same in
//! Rust, and the kernel's verdicts are compared with it.

use std::os::fd::RawFd;

use super::assembler::{wire, Assembler, Helper, If, Instruction, Width, R};

/// The maps that the program looks into, by descriptor.
#[derive(Clone, Copy)]
pub(crate) struct Maps {
    /// Queue -> socket.
    pub(crate) sockets: RawFd,
    /// The host's own addresses, 16 bytes each (IPv4 mapped).
    pub(crate) hosts: RawFd,
}

/// UDP ports of tunnels: VXLAN, Geneve, GUE, GRE-in-UDP.
pub(crate) const TUNNEL_PORTS: [u16; 4] = [4789, 6081, 6080, 4754];
/// IP protocols of tunnels: GRE, IPv4 and IPv6 in IP.
pub(crate) const TUNNEL_PROTOCOLS: [u8; 3] = [47, 4, 41];
/// ICMP errors: unreachable, source quench, time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 4] = [3, 4, 11, 12];

/// Verdict: to the host's stack.
pub(crate) const PASS: i32 = 2;

// Lengths of headers.
const ETHERNET: i32 = 14;
const IPV4: i32 = 20;
const IPV6: i32 = 40;
const ICMP_HEADER: i32 = 8;
const UDP: i32 = 17;
const ICMP: i32 = 1;
const ICMP6: i32 = 58;
const LAST_ICMP6_ERROR: i32 = 4;
/// Where the address that is looked up lies on the stack.
const KEY: i32 = -16;

/// Places in the program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    V4,
    V6,
    Icmp,
    Quoted,
    Icmp6,
    Ports,
    Node,
    Host,
}

/// The program; `unclaimed` is its verdict on a frame for the node whose queue has no socket.
pub(crate) fn assemble(maps: Maps, unclaimed: i32) -> Vec<Instruction> {
    let mut a = Assembler::new();
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index.
    a.copy(R::Context, R::R1);
    a.load(Width::Word, R::Start, R::Context, 0);
    a.load(Width::Word, R::End, R::Context, 4);
    a.need(R::Start, ETHERNET, Label::Node);
    a.load(Width::Byte, R::R3, R::Start, 0);
    a.jump(If::Bits, R::R3, 1, Label::Host); // a group's MAC
    a.load(Width::Half, R::R3, R::Start, 12);
    a.jump(If::Equal, R::R3, wire(0x0800), Label::V4);
    a.jump(If::Equal, R::R3, wire(0x86DD), Label::V6);
    a.goto(Label::Host);
    ipv4(&mut a, maps);
    ipv6(&mut a, maps);
    quoted(&mut a);
    // The ports behind `Place`.
    a.label(Label::Ports);
    a.need(R::Place, 4, Label::Host);
    a.load(Width::Half, R::R3, R::Place, 2);
    for port in TUNNEL_PORTS {
        a.jump(If::Equal, R::R3, wire(port), Label::Node);
    }
    a.label(Label::Host);
    a.set(R::R0, PASS);
    a.exit();
    a.label(Label::Node);
    a.map(R::R1, maps.sockets);
    a.load(Width::Word, R::R2, R::Context, 16);
    a.set(R::R3, unclaimed);
    a.call(Helper::RedirectMap);
    a.exit();
    a.finish()
}

fn ipv4(a: &mut Assembler<Label>, maps: Maps) {
    const TARGET: i32 = ETHERNET + 16;
    a.label(Label::V4);
    a.need(R::Start, ETHERNET + IPV4, Label::Node); // what is cut off is the node's to count
    a.load(Width::Half, R::R3, R::Start, TARGET);
    a.jump(If::Equal, R::R3, wire(0xA9FE), Label::Host); // 169.254/16
    a.load(Width::Byte, R::R3, R::Start, TARGET);
    a.and(R::R3, 0xF0);
    a.jump(If::Equal, R::R3, 0xE0, Label::Host); // 224/4
    a.load(Width::Word, R::R3, R::Start, TARGET);
    a.jump_word(If::Equal, R::R3, -1, Label::Host); // 255.255.255.255
    a.store_value(Width::Double, R::Stack, KEY, 0);
    a.store_value(Width::Word, R::Stack, KEY + 8, i32::from_ne_bytes([0, 0, 0xFF, 0xFF]));
    a.store(Width::Word, R::Stack, KEY + 12, R::R3);
    lookup(a, maps);
    a.copy(R::Place, R::Start);
    a.add(R::Place, ETHERNET);
    header_length(a);
    a.load(Width::Byte, R::R3, R::Start, ETHERNET + 9);
    tunnels(a);
    // Later fragments have no ports: to the host, as the node puts no outer fragments together.
    a.load(Width::Half, R::R4, R::Start, ETHERNET + 6);
    a.and(R::R4, wire(0x1FFF));
    a.jump(If::NotEqual, R::R4, 0, Label::Host);
    a.jump(If::Equal, R::R3, UDP, Label::Ports);
    a.jump(If::Equal, R::R3, ICMP, Label::Icmp);
    a.goto(Label::Host);
}

fn ipv6(a: &mut Assembler<Label>, maps: Maps) {
    const TARGET: i32 = ETHERNET + 24;
    a.label(Label::V6);
    a.need(R::Start, ETHERNET + IPV6, Label::Node);
    a.load(Width::Byte, R::R3, R::Start, TARGET);
    a.jump(If::Equal, R::R3, 0xFF, Label::Host); // ff00::/8
    a.load(Width::Half, R::R3, R::Start, TARGET);
    a.and(R::R3, wire(0xFFC0));
    a.jump(If::Equal, R::R3, wire(0xFE80), Label::Host); // fe80::/10
    for word in (0..16).step_by(4) {
        a.load(Width::Word, R::R3, R::Start, TARGET + word);
        a.store(Width::Word, R::Stack, KEY + word, R::R3);
    }
    lookup(a, maps);
    a.copy(R::Place, R::Start);
    a.add(R::Place, ETHERNET + IPV6);
    a.load(Width::Byte, R::R3, R::Start, ETHERNET + 6);
    tunnels(a);
    a.jump(If::Equal, R::R3, UDP, Label::Ports);
    a.jump(If::Equal, R::R3, ICMP6, Label::Icmp6);
    a.goto(Label::Host);
}

/// ICMP errors quote the packet that they are about: the node's, when that one was in a tunnel.
fn quoted(a: &mut Assembler<Label>) {
    a.label(Label::Icmp);
    a.need(R::Place, ICMP_HEADER + IPV4, Label::Host);
    a.load(Width::Byte, R::R3, R::Place, 0);
    for error in ICMP_ERRORS {
        a.jump(If::Equal, R::R3, i32::from(error), Label::Quoted);
    }
    a.goto(Label::Host);
    a.label(Label::Quoted);
    a.load(Width::Byte, R::R3, R::Place, ICMP_HEADER + 9);
    tunnels(a);
    a.jump(If::NotEqual, R::R3, UDP, Label::Host);
    a.add(R::Place, ICMP_HEADER);
    header_length(a);
    a.goto(Label::Ports);

    a.label(Label::Icmp6);
    a.need(R::Place, ICMP_HEADER + IPV6, Label::Host);
    a.load(Width::Byte, R::R3, R::Place, 0);
    a.jump(If::Equal, R::R3, 0, Label::Host);
    a.jump(If::Above, R::R3, LAST_ICMP6_ERROR, Label::Host);
    a.load(Width::Byte, R::R3, R::Place, ICMP_HEADER + 6);
    tunnels(a);
    a.jump(If::NotEqual, R::R3, UDP, Label::Host);
    a.add(R::Place, ICMP_HEADER + IPV6);
    a.goto(Label::Ports);
}

/// To the node, unless the key on the stack is one of the host's addresses.
fn lookup(a: &mut Assembler<Label>, maps: Maps) {
    a.map(R::R1, maps.hosts);
    a.copy(R::R2, R::Stack);
    a.add(R::R2, KEY);
    a.call(Helper::Lookup);
    a.jump(If::Equal, R::R0, 0, Label::Node);
}

/// To the node, when the protocol in R3 is a tunnel's.
fn tunnels(a: &mut Assembler<Label>) {
    for protocol in TUNNEL_PROTOCOLS {
        a.jump(If::Equal, R::R3, i32::from(protocol), Label::Node);
    }
}

/// Move `Place` from an IPv4 header to behind it.
fn header_length(a: &mut Assembler<Label>) {
    a.load(Width::Byte, R::R4, R::Place, 0);
    a.and(R::R4, 0x0F);
    a.shift_left(R::R4, 2);
    a.jump(If::Below, R::R4, IPV4, Label::Host);
    a.add_register(R::Place, R::R4);
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::os::fd::OwnedFd;
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::super::bpf;
    use super::*;

    const DROP: i32 = 1;
    const HOST4: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 2);
    const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 2);

    /// What `assemble` says, in Rust: whether the frame is the node's.
    fn decide(frame: &[u8]) -> bool {
        let Some(ip) = frame.get(14..) else { return true };
        if frame[0] & 1 != 0 {
            return false;
        }
        match [frame[12], frame[13]] {
            [0x08, 0x00] => {
                let Some(target) = ip.get(16..20).map(|bytes| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap()))
                else {
                    return true;
                };
                if target.is_multicast() || target.is_broadcast() || target.is_link_local() {
                    return false;
                }
                if target != HOST4 {
                    return true;
                }
                let length = usize::from(ip[0] & 15) * 4;
                if length < 20 {
                    return false;
                }
                let first = u16::from_be_bytes([ip[6], ip[7]]) & 0x1FFF == 0;
                let payload = ip.get(length..).unwrap_or_default();
                TUNNEL_PROTOCOLS.contains(&ip[9])
                    || first && ip[9] == 17 && is_tunnel_port(payload)
                    || first && ip[9] == 1 && payload.len() >= 28 && ICMP_ERRORS.contains(&payload[0]) && {
                        let length = usize::from(payload[8] & 15) * 4;
                        let ports = payload.get(8 + length..).unwrap_or_default();
                        TUNNEL_PROTOCOLS.contains(&payload[17])
                            || payload[17] == 17 && length >= 20 && is_tunnel_port(ports)
                    }
            }
            [0x86, 0xDD] => {
                let Some(target) = ip.get(24..40).map(|bytes| Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()))
                else {
                    return true;
                };
                if target.is_multicast() || target.is_unicast_link_local() {
                    return false;
                }
                let payload = &ip[40..];
                // A mapped address on the wire counts as the IPv4 address that it maps, here as in the pipelines.
                !(target == HOST6 || target == HOST4.to_ipv6_mapped())
                    || TUNNEL_PROTOCOLS.contains(&ip[6])
                    || ip[6] == 17 && is_tunnel_port(payload)
                    || ip[6] == 58 && payload.len() >= 48 && (1..=4).contains(&payload[0]) && {
                        let next = payload[14];
                        TUNNEL_PROTOCOLS.contains(&next) || next == 17 && is_tunnel_port(&payload[48..])
                    }
            }
            _ => false,
        }
    }

    fn is_tunnel_port(udp: &[u8]) -> bool {
        udp.get(2..4).is_some_and(|port| TUNNEL_PORTS.contains(&u16::from_be_bytes([port[0], port[1]])))
    }

    /// The program in the kernel, with two addresses of the host and no sockets: it drops what it would redirect.
    struct Loaded {
        program: OwnedFd,
        _maps: [OwnedFd; 2],
    }

    fn loaded() -> Option<&'static Loaded> {
        static LOADED: OnceLock<Option<Loaded>> = OnceLock::new();
        let make = || {
            let maps = [bpf::socket_map(4).ok()?, bpf::address_set(16).ok()?];
            for address in [HOST4.to_ipv6_mapped(), HOST6] {
                bpf::add_address(&maps[1], address.octets()).unwrap();
            }
            let program = bpf::load(&assemble(bpf::maps(&maps[0], &maps[1]), DROP)).unwrap();
            Some(Loaded { program, _maps: maps })
        };
        let loaded = LOADED.get_or_init(make).as_ref();
        if loaded.is_none() {
            eprintln!("skipped: bpf(2) needs root");
        }
        loaded
    }

    fn is_for_node(loaded: &Loaded, frame: &[u8]) -> bool {
        match bpf::tests::run(&loaded.program, frame).unwrap() {
            verdict if verdict == DROP as u32 => true,
            verdict if verdict == PASS as u32 => false,
            other => panic!("verdict {other}"),
        }
    }

    fn v4(protocol: u8, options: usize, target: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x45 + (options / 4) as u8, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1];
        ip.extend(target.octets());
        ip.resize(20 + options, 0);
        ip.extend(payload);
        ip
    }

    fn v6(next: u8, target: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        ip.extend(Ipv6Addr::LOCALHOST.octets());
        ip.extend(target.octets());
        ip.extend(payload);
        ip
    }

    fn ethernet(first: u8, kind: u16, ip: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(kind.to_be_bytes());
        frame.extend(ip);
        frame
    }

    fn udp(port: u16) -> Vec<u8> {
        [&[0x13, 0x88][..], &port.to_be_bytes(), &[0, 8, 0, 0]].concat()
    }

    #[test]
    fn what_belongs_to_whom() {
        let other4 = Ipv4Addr::new(203, 0, 113, 1);
        let other6: Ipv6Addr = "2001:db8::99".parse().unwrap();
        let icmp = |kind: u8, quoted: &[u8]| [&[kind, 4, 0, 0, 0, 0, 0, 0][..], quoted].concat();
        let frames4 = [
            (true, v4(6, 0, other4, &[0; 20])),
            (true, v4(47, 0, other4, &[0; 20])),
            (false, v4(6, 0, HOST4, &[0; 20])),           // BGP
            (false, v4(17, 0, HOST4, &udp(3784))),        // BFD
            (false, v4(1, 0, HOST4, &icmp(8, &[0; 40]))), // ping
            (true, v4(47, 0, HOST4, &[0; 20])),           // GRE
            (true, v4(41, 8, HOST4, &[0; 20])),           // IPv6 in IP, with options
            (true, v4(17, 0, HOST4, &udp(4789))),         // VXLAN
            (true, v4(17, 40, HOST4, &udp(4754))),        // GRE in UDP, with options
            (false, v4(17, 40, HOST4, &udp(4789)[..3])),  // cut off
            (true, v4(1, 0, HOST4, &icmp(3, &v4(47, 0, other4, &[0; 8])))),
            (true, v4(1, 0, HOST4, &icmp(11, &v4(17, 4, other4, &udp(6080))))),
            (false, v4(1, 0, HOST4, &icmp(3, &v4(6, 0, other4, &[0; 8])))), // too big, about BGP
            (false, v4(1, 0, HOST4, &icmp(3, &v4(17, 0, other4, &udp(53))))),
            (false, v4(17, 0, Ipv4Addr::new(224, 0, 0, 5), &udp(4789))),
            (false, v4(17, 0, Ipv4Addr::BROADCAST, &udp(67))),
            (false, v4(17, 0, Ipv4Addr::new(169, 254, 1, 1), &udp(4789))),
            (true, vec![0x45; 19]), // cut off: the node counts it
        ];
        let frames6 = [
            (true, v6(6, other6, &[0; 20])),
            (false, v6(6, HOST6, &[0; 20])),
            (false, v6(58, HOST6, &icmp(135, &[0; 20]))), // neighbour solicitation
            (false, v6(58, "fe80::1".parse().unwrap(), &icmp(136, &[0; 20]))),
            (false, v6(58, "ff02::1:ff00:2".parse().unwrap(), &icmp(135, &[0; 20]))),
            (true, v6(47, HOST6, &[0; 20])),
            (true, v6(17, HOST6, &udp(6081))),
            (true, v6(58, HOST6, &icmp(2, &v6(4, other6, &[0; 8])))),
            (true, v6(58, HOST6, &icmp(2, &v6(17, other6, &udp(6081))))),
            (false, v6(58, HOST6, &icmp(2, &v6(6, other6, &[0; 8])))),
            (true, vec![0x60; 39]),
        ];
        let mut frames = vec![
            (false, ethernet(2, 0x0806, &[0; 28])),                       // ARP
            (false, ethernet(0xFF, 0x0800, &v4(6, 0, other4, &[0; 20]))), // broadcast
            (false, ethernet(2, 0x8100, &v4(6, 0, other4, &[0; 20]))),    // a VLAN's
        ];
        frames.extend(frames4.into_iter().map(|(node, ip)| (node, ethernet(2, 0x0800, &ip))));
        frames.extend(frames6.into_iter().map(|(node, ip)| (node, ethernet(2, 0x86DD, &ip))));
        for (node, frame) in &frames {
            assert_eq!(decide(frame), *node, "{frame:02x?}");
        }
        let Some(loaded) = loaded() else { return };
        for (node, frame) in &frames {
            assert_eq!(is_for_node(loaded, frame), *node, "{frame:02x?}");
        }
    }

    /// Frames near the program's decisions: each field from few values, cut anywhere.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let protocol = || prop::sample::select(vec![1u8, 4, 6, 17, 41, 47, 58]);
        let port = || prop::sample::select(vec![53u16, 4789, 6081, 6080, 4754, 0xB512]).prop_map(udp);
        let kind = prop::sample::select(vec![0u8, 1, 2, 3, 4, 5, 8, 11, 12, 128, 135]);
        let target4 = prop_oneof![
            4 => Just(HOST4),
            1 => prop::sample::select(vec![[10, 2, 1, 3], [169, 254, 0, 1], [230, 1, 1, 1], [255; 4]]).prop_map(Ipv4Addr::from),
        ];
        let target6 = prop_oneof![
            4 => Just(HOST6),
            1 => prop::sample::select(vec!["fe80::1", "febf::1", "fec0::1", "ff02::1", "::ffff:10.2.1.2", "::1"])
                .prop_map(|text| text.parse().unwrap()),
        ];
        let inner = (protocol(), 0..11usize, port(), any::<bool>()).prop_map(|(protocol, words, port, four)| {
            let target = Ipv4Addr::new(192, 0, 2, 9);
            if four {
                v4(protocol, 4 * words, target, &port)
            } else {
                v6(protocol, target.to_ipv6_mapped(), &port)
            }
        });
        let icmp = (kind, inner).prop_map(|(kind, inner)| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &inner].concat());
        let payload = prop_oneof![port(), icmp];
        let packet4 = (protocol(), 0..11usize, target4, payload.clone())
            .prop_map(|(protocol, words, target, payload)| (0x0800, v4(protocol, 4 * words, target, &payload)));
        let packet6 =
            (protocol(), target6, payload).prop_map(|(next, target, payload)| (0x86DD, v6(next, target, &payload)));
        let first = prop_oneof![9 => Just(2u8), 1 => Just(3)];
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
        let cut = prop_oneof![2 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
        (first, prop_oneof![packet4, packet6], changes, cut).prop_map(|(first, (kind, ip), changes, cut)| {
            let mut frame = ethernet(first, kind, &ip);
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            let length = cut.map_or(frame.len(), |cut| 14 + cut.index(frame.len() - 13));
            frame.truncate(length);
            frame
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]
        #[test]
        fn the_kernel_decides_as_the_oracle_does(frame in frames()) {
            if let Some(loaded) = loaded() {
                prop_assert_eq!(is_for_node(loaded, &frame), decide(&frame), "{:02x?}", frame);
            }
        }
    }
}
