//! Tables of a node under load, and the frames of its flows.

use std::net::Ipv4Addr;

use serde_json::{json, Value};
use tgw_contract::Role;
use tgw_forward::Frame;
use tgw_wire::checksum::Sum;
use tgw_wire::tcp::{ACK, PSH, SYN};

use crate::support::{frame_to, plan, tunnel, Plan, Tcp, EDGE_MAC, MAC, NOW};
use crate::Failure;

/// Virtual addresses of an LD, and real servers behind each.
const VIPS: usize = 64;
const BACKENDS: usize = 16;
/// Real servers of a host, each with a VIP and a port of its own.
const SERVERS: usize = 16;
/// Bindings of an EIP node, unless a case is about many.
const BINDINGS: usize = 1024;

/// Who sends to whom, and at which node we look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    EipRequest,
    EipReply,
    ClbRequest,
    ClbReply,
    VswitchRequest,
    VswitchReply,
}

impl Direction {
    pub(crate) const ALL: [Self; 6] =
        [Self::EipRequest, Self::EipReply, Self::ClbRequest, Self::ClbReply, Self::VswitchRequest, Self::VswitchReply];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EipRequest => "eip.request",
            Self::EipReply => "eip.reply",
            Self::ClbRequest => "clb.request",
            Self::ClbReply => "clb.reply",
            Self::VswitchRequest => "vswitch.request",
            Self::VswitchReply => "vswitch.reply",
        }
    }

    pub(crate) const fn role(self) -> Role {
        match self {
            Self::EipRequest | Self::EipReply => Role::Eip,
            Self::ClbRequest | Self::ClbReply => Role::Clb,
            Self::VswitchRequest | Self::VswitchReply => Role::Vswitch,
        }
    }

    /// The packets that make the flows that these packets belong to.
    pub(crate) const fn request(self) -> Self {
        match self {
            Self::EipRequest | Self::EipReply => Self::EipRequest,
            Self::ClbRequest | Self::ClbReply => Self::ClbRequest,
            Self::VswitchRequest | Self::VswitchReply => Self::VswitchRequest,
        }
    }

    const fn is_request(self) -> bool {
        matches!(self, Self::EipRequest | Self::ClbRequest | Self::VswitchRequest)
    }
}

/// What a packet does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// SYN.
    Open,
    /// ACK with data.
    Data,
}

fn private(vip: usize) -> u32 {
    u32::from(Ipv4Addr::new(10, 100, 0, 1)) + vip as u32
}

fn public(vip: usize) -> u32 {
    u32::from(Ipv4Addr::new(100, 64, 0, 1)) + vip as u32
}

fn service(vip: usize) -> u32 {
    u32::from(Ipv4Addr::new(10, 4, 0, 1)) + vip as u32
}

fn text(address: u32) -> String {
    Ipv4Addr::from(address).to_string()
}

fn region() -> Plan {
    plan(4, 4, "gre")
}

fn addresses(role: Role, flows: usize, rules: usize) -> usize {
    match role {
        Role::Eip => rules.max(flows.min(BINDINGS)),
        Role::Clb => flows.min(VIPS),
        Role::Vswitch => flows.min(SERVERS),
    }
}

/// The tables of a node for so many flows, and at least `rules` bindings if it is an EIP node.
pub(crate) fn tables(role: Role, flows: usize, rules: usize) -> Value {
    let region = region();
    let count = addresses(role, flows, rules);
    match role {
        Role::Eip => {
            let mut tables = region.eip_tables();
            let binding = |vip| json!({"vip_id": vip + 1, "public": text(public(vip)), "private": text(private(vip)), "service": text(service(vip))});
            tables["eip"]["bindings"] = (0..count).map(binding).collect();
            tables
        }
        Role::Clb => {
            let mut tables = region.clb_tables();
            let backend = |id: usize| {
                let host = u32::from(Ipv4Addr::new(10, 3, 16, 0)) + id as u32;
                json!({"id": id, "tunnel": text(host), "key": id, "encap": "gre", "weight": 100})
            };
            let vip = |vip: usize| {
                let backends: Vec<Value> = (0..BACKENDS).map(|n| backend(vip * BACKENDS + n + 1)).collect();
                json!({"id": vip + 1, "address": text(private(vip)), "service": text(service(vip)), "new_flows_per_s": null,
                       "listeners": [{"protocol": "tcp", "port": 80, "backends": backends}]})
            };
            tables["clb"]["vips"] = (0..count).map(vip).collect();
            tables
        }
        Role::Vswitch => {
            let mut tables = region.vswitch_tables();
            let fabric = tables["ports"][0].clone();
            let port = |server: usize| {
                json!({"index": server + 1, "interface": format!("srv{}", server + 1), "mac": EDGE_MAC.to_string(),
                       "mtu": 1500, "host_addresses": []})
            };
            tables["ports"] = std::iter::once(fabric).chain((0..count).map(port)).collect();
            let server = |server: usize| {
                json!({"id": server + 1, "key": server + 1, "port": server + 1, "mac": format!("02:00:00:00:01:{server:02x}"),
                       "vips": [{"id": server + 1, "address": text(private(server))}]})
            };
            tables["vswitch"] = json!({"servers": (0..count).map(server).collect::<Vec<_>>()});
            tables
        }
    }
}

/// Frames of one direction and size: a template, and what differs from flow to flow.
pub(crate) struct Traffic {
    pub(crate) direction: Direction,
    template: Vec<u8>,
    /// Where the inner packet starts.
    pub(crate) inner: usize,
    addresses: usize,
    /// Sums of the headers without what differs.
    outer_sum: Sum,
    inner_sum: Sum,
    tcp_sum: Sum,
    /// Keys of the real servers that an LD has chosen, by flow.
    pub(crate) keys: Vec<u32>,
}

impl Traffic {
    /// `size` is that of the inner IP packets: at least 40 bytes.
    pub(crate) fn new(direction: Direction, flows: usize, rules: usize, size: usize) -> Result<Self, Failure> {
        let region = region();
        let payload = vec![0x5A; size.checked_sub(40).ok_or("no room for the headers")?];
        // All that differs is zero here: addresses, ports, flags and checksums.
        let packet = Tcp { payload: &payload, ..Tcp::new(("0.0.0.0", 0), ("0.0.0.0", 0), 0) }.ip();
        let (mac, outer, inner) = match direction {
            Direction::EipRequest | Direction::VswitchReply => (EDGE_MAC, packet.clone(), 14),
            Direction::EipReply => (MAC, tunnel(region.ld, region.anycast, "gre", None, &packet), 14 + 24),
            Direction::ClbRequest => (MAC, tunnel(region.eip, "0.0.0.0", "gre", None, &packet), 14 + 24),
            Direction::ClbReply => (MAC, tunnel(region.host, region.ld, "gre", Some(0), &packet), 14 + 28),
            Direction::VswitchRequest => (MAC, tunnel(region.ld, region.host, "gre", Some(0), &packet), 14 + 28),
        };
        let mut template = frame_to(mac, &outer);
        template[14 + 10..14 + 12].fill(0);
        let (ip, tcp) = (inner, inner + 20);
        template[ip + 10..ip + 12].fill(0);
        template[tcp + 16..tcp + 18].fill(0);
        let pseudo = Sum::pseudo_v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, 6, size - 20);
        Ok(Self {
            direction,
            inner,
            addresses: addresses(direction.role(), flows, rules),
            outer_sum: Sum::new().bytes(&template[14..34]),
            inner_sum: Sum::new().bytes(&template[ip..tcp]),
            tcp_sum: pseudo.bytes(&template[tcp..]),
            template,
            keys: Vec::new(),
        })
    }

    /// Put the packet of a flow into a frame buffer.
    #[inline(never)]
    pub(crate) fn load(&self, frame: &mut Frame, flow: usize, step: Step) -> Result<(), Failure> {
        let vip = flow % self.addresses;
        let client = u32::from(Ipv4Addr::new(11, 0, 0, 0)) + flow as u32;
        let client_port = 1024 + ((flow as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u16 % 60_000;
        let here =
            if self.direction.role() == Role::Eip && self.direction.is_request() { public(vip) } else { private(vip) };
        let is_request = self.direction.is_request();
        let (src, dst) = if is_request { (client, here) } else { (here, client) };
        let (src_port, dst_port) = if is_request { (client_port, 80) } else { (80, client_port) };
        let port = if self.direction == Direction::VswitchReply { vip as u16 + 1 } else { u16::from(self.inner == 14) };
        if !frame.load(port, NOW, &self.template) {
            return Err("a frame does not fit its buffer".into());
        }
        let bytes = frame.bytes_mut();
        let flags = if step == Step::Open { SYN } else { ACK | PSH };
        let (src, dst) = (src.to_be_bytes(), dst.to_be_bytes());
        let ip = &mut bytes[self.inner..];
        ip[12..16].copy_from_slice(&src);
        ip[16..20].copy_from_slice(&dst);
        ip[20..22].copy_from_slice(&src_port.to_be_bytes());
        ip[22..24].copy_from_slice(&dst_port.to_be_bytes());
        ip[33] = flags;
        ip[10..12].copy_from_slice(&self.inner_sum.bytes(&src).bytes(&dst).checksum().to_be_bytes());
        let tcp = self.tcp_sum.bytes(&src).bytes(&dst).word(src_port).word(dst_port).word(u16::from(flags));
        ip[36..38].copy_from_slice(&tcp.checksum().to_be_bytes());
        match self.direction {
            Direction::ClbRequest => {
                let to = service(vip).to_be_bytes();
                bytes[30..34].copy_from_slice(&to);
                bytes[24..26].copy_from_slice(&self.outer_sum.bytes(&to).checksum().to_be_bytes());
            }
            Direction::EipReply | Direction::ClbReply | Direction::VswitchRequest => {
                bytes[24..26].copy_from_slice(&self.outer_sum.checksum().to_be_bytes());
            }
            Direction::EipRequest | Direction::VswitchReply => {}
        }
        match self.direction {
            Direction::ClbReply => {
                let key = self.keys.get(flow).ok_or("a flow without a real server")?;
                bytes[38..42].copy_from_slice(&key.to_be_bytes());
            }
            Direction::VswitchRequest => bytes[38..42].copy_from_slice(&(vip as u32 + 1).to_be_bytes()),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::{open, untunnel, verify};

    #[test]
    fn frames_are_whole_packets_with_right_checksums() {
        for direction in Direction::ALL {
            for size in [64, 512] {
                let mut traffic = Traffic::new(direction, 1000, 0, size).unwrap();
                traffic.keys = (1..=1000).collect();
                for flow in [0, 1, 7, 999] {
                    let mut frame = Frame::default();
                    traffic.load(&mut frame, flow, Step::Data).unwrap();
                    let bytes = frame.bytes();
                    let inner = if traffic.inner == 14 { bytes[14..].to_vec() } else { untunnel(bytes).3 };
                    assert_eq!(inner.len(), size, "{direction:?}");
                    verify(&inner);
                    assert_eq!(open(&inner).3[13], ACK | PSH);
                }
            }
        }
    }
}
