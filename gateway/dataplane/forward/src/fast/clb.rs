//! The straight way through an LD: packets of flows it knows, both directions.

use tgw_wire::{protocol, tcp};

use super::numbers::Numbers;
use super::read::{glance, inner, outer};
use super::servers::Servers;
use super::template::Template;
use super::Door;
use crate::connection::{self, Sender};
use crate::flow::{FlowTable, Key};
use crate::hash::Map;
use crate::meters::Sheet;
use crate::packet::is_v4;
use crate::tables::{ClbTables, Listener, Tables, FABRIC};
use crate::Frame;

/// What an LD's tables say of ordinary packets.
#[derive(Debug)]
pub(crate) struct FastClb {
    door: Door,
    local: u32,
    /// By (address, protocol, port): place of the listener, place of the VIP.
    services: Numbers,
    servers: Servers,
    reply: Template,
}

/// What is known of a packet on its straight way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClbLane {
    hash: u64,
    /// Where its flow most likely lies.
    bucket: u32,
    /// In the direction of requests.
    key: Key,
    tunnel_key: u32,
    /// Where the packet begins in its frame, and its length.
    at: u16,
    len: u16,
    flags: u8,
    tos: u8,
    is_reply: bool,
}

impl ClbLane {
    /// The mapped address of the VIP that it is to or from.
    pub(crate) const fn vip_address(&self) -> u128 {
        0xFFFF_0000_0000 | self.key.dst as u128
    }
}

const fn service(address: u32, port: u16, protocol: u8) -> u64 {
    (address as u64) << 32 | (port as u64) << 16 | protocol as u64
}

impl FastClb {
    /// Of these tables; `None` when no packet can be ordinary under them.
    pub(super) fn of(tables: &Tables, clb: &ClbTables) -> Option<Self> {
        let port = tables.port(FABRIC)?;
        let reply = Template::new(tables.local, &clb.reply_to, port)?;
        let mut services = Vec::new();
        let addresses: Map<u32, u128> = clb.by_address.iter().map(|(&address, &vip)| (vip, address)).collect();
        for (vip, protocol, port, listener) in clb.services() {
            // Packets to a VIP that is guarded, and to a listener that learns from them, are looked at more closely.
            let is_guarded = clb.vips.get(vip as usize).is_none_or(|vip| vip.protection.looks_at_packets());
            let learns = clb.listeners.get(listener as usize).is_none_or(Listener::looks_at_packets);
            let address = addresses.get(&vip).filter(|&&address| is_v4(address) && !is_guarded && !learns);
            if let Some(&address) = address {
                services.push((service(address as u32, port, protocol), [listener, vip]));
            }
        }
        let mut servers = Vec::new();
        for ((listener, first), place) in clb.listeners.iter().zip(clb.first_records()).zip(0..) {
            for (backend, record) in listener.backends.iter().zip(first..) {
                if let Some(template) = Template::new(tables.local, &backend.endpoint, port) {
                    servers.push(template.of_server(backend.id, place, record));
                }
            }
        }
        Some(Self {
            door: Door::of(tables, port),
            local: tables.local as u32,
            services: Numbers::new(&services),
            servers: Servers::new(&servers),
            reply,
        })
    }

    /// Read a frame; false when it is not ordinary. Asks for the cache lines that the lookups will read.
    #[inline(always)]
    pub(crate) fn read(&self, flows: &FlowTable, frame: &Frame, lane: &mut ClbLane, prefetch: bool) -> bool {
        let Some(read) = self.read_headers(frame) else { return false };
        *lane = read;
        lane.hash = flows.narrow.hash(&lane.key);
        if prefetch {
            flows.narrow.prefetch(lane.hash);
            self.services.prefetch(service(lane.key.dst, lane.key.ports as u16, lane.key.protocol));
        }
        true
    }

    /// Ask for what a packet that comes alone will need, before anything of it is checked: there is no other packet to
    /// pass the time with.
    pub(crate) fn glance(&self, flows: &FlowTable, frame: &Frame) {
        let Some(seen) = glance(frame.bytes()) else { return };
        let (client, here, ports) = if seen.outer_dst == self.local {
            (seen.dst, seen.src, seen.ports.rotate_left(16))
        } else {
            (seen.src, seen.dst, seen.ports)
        };
        let key = Key { src: client, dst: here, ports, protocol: seen.protocol };
        flows.narrow.prefetch(flows.narrow.hash(&key));
        self.services.prefetch(service(here, ports as u16, seen.protocol));
    }

    #[inline(always)]
    fn read_headers(&self, frame: &Frame) -> Option<ClbLane> {
        if frame.port != FABRIC {
            return None;
        }
        let bytes = frame.bytes();
        let outer = outer(bytes, &self.door)?;
        let packet = inner(bytes, outer.at, outer.end)?;
        // What opens or closes a connection takes the general way; so does a probe, which leaves a trace.
        if packet.protocol == protocol::TCP && packet.flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 {
            return None;
        }
        let is_reply = outer.dst == self.local;
        let (client, here, ports) = if is_reply {
            (packet.dst, packet.src, packet.ports.rotate_left(16))
        } else {
            (packet.src, packet.dst, packet.ports)
        };
        // What is for the node itself answers a health check.
        if client == self.local || self.door.is_reserved(client) || is_reply && outer.key.is_none() {
            return None;
        }
        Some(ClbLane {
            hash: 0,
            bucket: 0,
            key: Key { src: client, dst: here, ports, protocol: packet.protocol },
            tunnel_key: outer.key.unwrap_or(0),
            at: outer.at as u16,
            len: packet.len,
            flags: packet.flags,
            tos: packet.tos,
            is_reply,
        })
    }

    /// Send the packet on as its flow says. `None`, and nothing has changed, when there is more to it.
    #[inline(always)]
    pub(crate) fn run(
        &self,
        clb: &ClbTables,
        flows: &mut FlowTable,
        sheet: &Sheet,
        frame: &mut Frame,
        lane: &ClbLane,
    ) -> Option<u16> {
        let [listener, _] = self.services.get(service(lane.key.dst, lane.key.ports as u16, lane.key.protocol))?;
        let hit = flows.narrow.find_near(lane.bucket, lane.hash, &lane.key)?;
        let (state, value) = (flows.narrow.state(hit), flows.narrow.value(hit));
        let (server, record) = self.servers.get(listener, value)?;
        // One that is down has its flows chosen anew.
        if clb.board.any_down() && !clb.is_up(listener, value) {
            return None;
        }
        let (to, from) = if lane.is_reply { (&self.reply, Sender::Server) } else { (server, Sender::Client) };
        if lane.is_reply && server.key() != lane.tunnel_key {
            return None;
        }
        if !to.fits(lane.len) {
            return None;
        }
        age(to.wrap(frame, usize::from(lane.at), lane.len, lane.tos)?)?;
        let state = if connection::is_settled(state) {
            state
        } else {
            connection::next(state, lane.key.protocol, lane.flags, from)
        };
        flows.narrow.set(hit, state, value, connection::timeout(state));
        if let Some(record) = sheet.record(record) {
            if lane.is_reply {
                record.reply(usize::from(lane.len));
            } else {
                record.request(usize::from(lane.len));
            }
        }
        Some(to.port)
    }

    /// Whether the table knows the packet's flow.
    #[inline]
    pub(crate) fn finds(&self, flows: &mut FlowTable, lane: &ClbLane) -> bool {
        flows.narrow.find_near(lane.bucket, lane.hash, &lane.key).is_some()
    }

    /// Once the first bucket has come: ask for the real server that it names, or for the second bucket.
    #[inline]
    pub(crate) fn look_again(&self, flows: &FlowTable, lane: &mut ClbLane) {
        let (bucket, server) = flows.narrow.glimpse(lane.hash);
        lane.bucket = bucket;
        self.servers.prefetch(server);
    }
}

/// One hop less to live, for an IPv4 packet that has one to spare.
#[inline(always)]
fn age(packet: &mut [u8]) -> Option<()> {
    let ip = packet.first_chunk_mut::<20>()?;
    // RFC 1624: the word that holds the TTL falls by 0x100, so the checksum rises by as much, with end-around carry.
    let sum = u32::from(!u16::from_be_bytes([ip[10], ip[11]])) + 0xFEFF;
    let checksum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
    ip[8] -= 1;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}
