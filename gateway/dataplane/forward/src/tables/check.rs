//! From the JSON that control sends to the tables: what may stand where.

use std::hash::Hash;
use std::sync::Arc;

use serde_json::Value;
use tgw_contract::colour::{ColourKey, Prefix};
use tgw_contract::Role;
use tgw_wire::ethernet::{self, Mac};
use tgw_wire::protocol;

use super::policy::{self, Balance};
use super::protection::{self, SourceLists};
use super::read::{address, number, Place, Reader};
use super::{
    service_key, Backend, Binding, Chooser, ClbTables, ClientAddress, ConfigError, Dispatch, EipTables, Encap,
    Endpoint, Listener, Port, Problem, Section, Server, ServerVip, Tables, Vip, VswitchTables, EDGE, FABRIC,
};
use crate::board::Board;
use crate::fast::Fast;
use crate::frame::{DEFAULT_CAPACITY, HEADROOM};
use crate::hash::Map;
use crate::maglev::Maglev;
use crate::rendezvous::Rendezvous;

const ID: u64 = u32::MAX as u64;
const SMALLEST_MTU: u64 = 576;
/// What a frame's buffer holds: a longer frame would be cut at its receipt and blamed on its sender.
const LARGEST_MTU: u64 = (DEFAULT_CAPACITY - HEADROOM - ethernet::HEADER_LEN) as u64;
const LARGEST_WEIGHT: u64 = 1000;
/// Backends of a listener; the largest Maglev table has room for their shares.
const MOST_BACKENDS: usize = 1024;

pub(super) fn tables(text: &str, role: Role) -> Result<Tables, ConfigError> {
    let whole: Value = serde_json::from_str(text).map_err(|error| ConfigError {
        problems: vec![Problem {
            path: format!("line {} column {}", error.line(), error.column()),
            expected: "JSON".to_owned(),
            found: error.to_string(),
        }],
    })?;
    let mut reader = Reader::default();
    let tables = read(&mut reader, &Place { value: Some(&whole), path: String::new() }, role);
    match tables {
        Some(tables) if reader.problems.is_empty() => Ok(tables),
        _ => Err(ConfigError { problems: reader.problems }),
    }
}

fn read(reader: &mut Reader, top: &Place<'_>, role: Role) -> Option<Tables> {
    if !reader.object(top) {
        return None;
    }
    let epoch = reader.number(&top.field("epoch"), 1, u64::MAX);
    reader.read(&top.field("role"), &format!("{:?}, the role of this node", role.name()), |value| {
        (value.as_str() == Some(role.name())).then_some(())
    });
    let tunnel = top.field("tunnel");
    let local = reader.address(&tunnel.field("local"));
    let encap = encap(reader, &tunnel.field("encap"));
    let probe = top.field("probe");
    let key = reader.read(&probe.field("key"), "32 hex digits", |value| value.as_str().and_then(ColourKey::from_hex));
    let mut reserved = Vec::new();
    for place in reader.list(&probe.field("reserved")) {
        reserved.extend(
            reader.read(&place, "an address prefix such as 198.18.0.0/16", |value| {
                value.as_str().and_then(Prefix::parse)
            }),
        );
    }
    let ports = ports(reader, &top.field("ports"), role);
    let section = top.field(role.name());
    let section = match role {
        Role::Eip => Section::Eip(eip(reader, &section, local)),
        Role::Clb => Section::Clb(clb(reader, &section, local)?),
        Role::Vswitch => Section::Vswitch(vswitch(reader, &section, &ports, local, encap)),
    };
    let port_places = ports.iter().zip(0..).map(|(port, place)| (u32::from(port.index), place)).collect();
    Some(Tables {
        epoch: epoch?,
        role,
        ports,
        port_places,
        local: local?,
        encap: encap?,
        key: key?,
        reserved,
        section,
        fast: Fast::default(),
    })
}

fn encap(reader: &mut Reader, place: &Place<'_>) -> Option<Encap> {
    let names: Vec<String> = Encap::ALL.iter().map(|encap| format!("{:?}", encap.name())).collect();
    let expected = format!("one of {}", names.join(", "));
    reader.read(place, &expected, |value| value.as_str().and_then(Encap::from_name))
}

/// The key of a real server in tunnels of this kind: `Some(None)` without one, where the kind allows it.
fn key(reader: &mut Reader, place: &Place<'_>, encap: Option<Encap>) -> Option<Option<u32>> {
    match encap {
        Some(encap) if encap.may_be_keyless() && place.is_absent() => Some(None),
        Some(encap) => match encap.largest_key() {
            Some(most) => reader.number(place, 1, u64::from(most)).map(|key| Some(key as u32)),
            None => reader.read(place, &format!("null: {} carries no key", encap.name()), |_| None),
        },
        None => reader.number(place, 1, ID).map(|key| Some(key as u32)),
    }
}

/// Whether the replies of a VIP go straight to the EIP nodes.
fn is_direct(reader: &mut Reader, place: &Place<'_>) -> bool {
    let mode = reader.optional(place, "\"tunnel\" or \"dsr\"", |value| match value.as_str() {
        Some("tunnel") => Some(false),
        Some("dsr") => Some(true),
        _ => None,
    });
    mode.unwrap_or(false)
}

fn mac(value: &Value) -> Option<Mac> {
    value.as_str()?.parse().ok().filter(|mac: &Mac| !mac.is_group() && mac.0 != [0; 6])
}

const MAC: &str = "a unicast MAC address such as 02:00:00:00:00:01";

fn ports(reader: &mut Reader, place: &Place<'_>, role: Role) -> Vec<Port> {
    let mut ports = Vec::new();
    let mut seen = Map::default();
    for place in reader.list(place) {
        let at = place.field("index");
        let index = reader.number(&at, 0, u64::from(u16::MAX) - 1).map(|index| index as u16);
        once(reader, &mut seen, &at, index);
        let own = reader.read(&place.field("mac"), MAC, mac);
        let next_hop_mac = reader.optional(&place.field("next_hop_mac"), MAC, mac);
        let mtu = reader.number(&place.field("mtu"), SMALLEST_MTU, LARGEST_MTU).map(|mtu| mtu as u16);
        let host = place.field("host_addresses");
        let mut host_addresses = Vec::new();
        if !host.is_absent() {
            for place in reader.list(&host) {
                host_addresses.extend(reader.address(&place));
            }
        }
        if let (Some(index), Some(mac), Some(mtu)) = (index, own, mtu) {
            ports.push(Port { index, mac, next_hop_mac, mtu, host_addresses });
        }
    }
    let needed: &[u16] = if role == Role::Eip { &[FABRIC, EDGE] } else { &[FABRIC] };
    for index in needed {
        if !seen.contains_key(index) {
            reader.problem(&place.path, format!("a port with index {index}"), "none");
        }
    }
    ports
}

/// A problem when `key` stands somewhere else already.
fn once<K: Hash + Eq>(reader: &mut Reader, seen: &mut Map<K, String>, place: &Place<'_>, key: Option<K>) {
    let Some(key) = key else { return };
    match seen.get(&key) {
        Some(first) => {
            let found = place.value.map_or_else(String::new, Value::to_string);
            reader.problem(&place.path, format!("another value than {first}"), found);
        }
        None => {
            seen.insert(key, place.path.clone());
        }
    }
}

/// IPv4 and IPv6 are not mixed where one packet must carry both.
fn family(reader: &mut Reader, place: &Place<'_>, address: Option<u128>, other: Option<u128>, what: &str) {
    let (Some(address), Some(other)) = (address, other) else { return };
    if is_v4(address) != is_v4(other) {
        let version = if is_v4(other) { 4 } else { 6 };
        let found = place.value.map_or_else(String::new, Value::to_string);
        reader.problem(&place.path, format!("an IPv{version} address, as {what} is"), found);
    }
}

pub(super) fn is_v4(address: u128) -> bool {
    address >> 32 == 0xFFFF
}

fn eip(reader: &mut Reader, place: &Place<'_>, local: Option<u128>) -> EipTables {
    let mut tables = EipTables::default();
    let (mut ids, mut publics, mut privates) = (Map::default(), Map::default(), Map::default());
    reader.address(&place.field("anycast"));
    for place in reader.list(&place.field("bindings")) {
        let (id_at, public_at) = (place.field("vip_id"), place.field("public"));
        let (private_at, service_at) = (place.field("private"), place.field("service"));
        let vip_id = reader.number(&id_at, 1, ID);
        let public = reader.address(&public_at);
        let private = reader.address(&private_at);
        let service = reader.address(&service_at);
        once(reader, &mut ids, &id_at, vip_id);
        once(reader, &mut publics, &public_at, public);
        once(reader, &mut privates, &private_at, private);
        family(reader, &private_at, private, public, "the public one");
        family(reader, &service_at, service, local, "tunnel.local");
        if let (Some(vip_id), Some(public), Some(private), Some(service)) = (vip_id, public, private, service) {
            let index = tables.bindings.len() as u32;
            tables.by_public.insert(public, index);
            tables.by_private.insert(private, index);
            tables.bindings.push(Binding { vip_id: vip_id as u32, public, private, service });
        }
    }
    tables
}

/// Real servers that were seen, with what was said of them, what chooses among them, and how many slots of the board are
/// taken.
#[derive(Default)]
struct Pool {
    endpoints: Map<u32, (Endpoint, String)>,
    choosers: Map<(Balance, Vec<u64>), Option<Chooser>>,
    slots: usize,
}

fn clb(reader: &mut Reader, place: &Place<'_>, local: Option<u128>) -> Option<ClbTables> {
    let reply_at = place.field("reply_to");
    let reply_to = reader.address(&reply_at);
    family(reader, &reply_at, reply_to, local, "tunnel.local");
    let reply_encap = encap(reader, &place.field("reply_encap"));
    let lists = SourceLists::read(reader, &place.field("source_lists"));
    let blacklist = protection::blacklist(reader, &place.field("blacklist"));
    let (mut vips, mut by_address) = (Vec::new(), Map::default());
    let (mut listeners, mut by_service) = (Vec::new(), Map::default());
    let (mut ids, mut addresses, mut pool) = (Map::default(), Map::default(), Pool::default());
    for place in reader.list(&place.field("vips")) {
        let (id_at, address_at) = (place.field("id"), place.field("address"));
        let id = reader.number(&id_at, 1, ID);
        let address = reader.address(&address_at);
        once(reader, &mut ids, &id_at, id);
        once(reader, &mut addresses, &address_at, address);
        reader.address(&place.field("service"));
        let limit =
            reader.optional(&place.field("new_flows_per_s"), "null or a whole number from 1 to 4294967295", |value| {
                number(value, 1, ID)
            });
        let protection = protection::of_vip(reader, &place, &lists);
        let direct = is_direct(reader, &place.field("mode"));
        let vip = vips.len() as u32;
        let mut seen = Map::default();
        for place in reader.list(&place.field("listeners")) {
            let listener = listener(reader, &place, (vip, address), local, direct, &mut pool);
            let service = listener.as_ref().map(|listener| (listener.protocol, listener.port));
            let tells = listener.as_ref().is_some_and(|listener| listener.client_address != ClientAddress::AsSource);
            if tells && protection.has_cookies() {
                // The LD's own SYN to the server carries no client address.
                let at = place.field("client_address");
                reader.problem(&at.path, "null, as syn_cookies of the VIP is not \"never\"", at.found());
            }
            once(reader, &mut seen, &place.field("port"), service);
            if let Some(listener) = listener {
                by_service.insert(service_key(vip, listener.protocol, listener.port), listeners.len() as u32);
                listeners.push(listener);
            }
        }
        if let (Some(id), Some(address)) = (id, address) {
            by_address.insert(address, vip);
            vips.push(Vip { id: id as u32, address, new_flows_per_s: limit.map(|limit| limit as u32), protection });
        }
    }
    let reply_to = Endpoint { address: reply_to?, encap: reply_encap?, key: None };
    let steers = listeners.iter().any(|listener| listener.dispatch != Dispatch::Tuple);
    let has_affinity = listeners.iter().any(|listener| listener.affinity_s.is_some());
    let board = Board::new(pool.slots);
    Some(ClbTables { reply_to, blacklist, vips, by_address, listeners, by_service, board, steers, has_affinity })
}

/// A listener of the VIP at this place, with this address.
fn listener(
    reader: &mut Reader,
    place: &Place<'_>,
    (vip, address): (u32, Option<u128>),
    local: Option<u128>,
    direct: bool,
    pool: &mut Pool,
) -> Option<Listener> {
    let protocol = reader.read(&place.field("protocol"), "\"tcp\" or \"udp\"", |value| match value.as_str() {
        Some("tcp") => Some(protocol::TCP),
        Some("udp") => Some(protocol::UDP),
        _ => None,
    });
    let port = reader.number(&place.field("port"), 1, 65_535).map(|port| port as u16);
    let backends_at = place.field("backends");
    let places = reader.list(&backends_at);
    if places.len() > MOST_BACKENDS {
        reader.problem(&backends_at.path, format!("at most {MOST_BACKENDS} backends"), places.len().to_string());
    }
    let (mut seen, mut names) = (Map::default(), Map::default());
    let mut backends = Vec::new();
    for place in places {
        let Some(backend) = backend(reader, &place, local, pool) else { continue };
        if !seen.contains_key(&backend.id) {
            // A reply must tell which of them sent it: see `Outer::is_from`.
            let key = backend.endpoint.key;
            let (name, field) = if key.is_some() { (0, "key") } else { (backend.endpoint.address, "tunnel") };
            once(reader, &mut names, &place.field(field), Some((key, name)));
        }
        once(reader, &mut seen, &place.field("id"), Some(backend.id));
        backends.push(backend);
    }
    backends.sort_by_key(|backend| backend.id);
    let client_address = client_address(reader, &place.field("client_address"), protocol, direct);
    let policy = policy::read(reader, place, protocol, address.zip(local), &backends);
    let chooser = pool.chooser(policy.balance, &backends);
    let mut listener = Listener {
        vip,
        protocol: protocol?,
        port: port?,
        client_address,
        backends,
        chooser,
        dispatch: policy.dispatch,
        affinity_s: policy.affinity_s,
        slow_start: policy.slow_start,
        health: policy.health,
        slots: None,
    };
    if listener.health.is_some() || listener.slow_start.is_some() {
        listener.slots = Some(pool.slots);
        pool.slots += listener.backends.len();
    }
    Some(listener)
}

fn client_address(reader: &mut Reader, place: &Place<'_>, protocol: Option<u8>, direct: bool) -> ClientAddress {
    let expected = "null, \"toa\" or \"proxy_v2\"";
    let how = reader.optional(place, expected, |value| match value.as_str() {
        Some("toa") => Some(ClientAddress::Toa),
        Some("proxy_v2") => Some(ClientAddress::Proxy),
        _ => None,
    });
    if how.is_some() && protocol == Some(protocol::UDP) {
        reader.problem(&place.path, "null: only TCP can carry it", "a UDP listener");
    }
    if how == Some(ClientAddress::Proxy) && direct {
        // Replies must pass the LD that shifted the sequence numbers.
        reader.problem(&place.path, "mode \"tunnel\" of the VIP", "mode \"dsr\"");
    }
    how.unwrap_or_default()
}

fn backend(reader: &mut Reader, place: &Place<'_>, local: Option<u128>, pool: &mut Pool) -> Option<Backend> {
    let (id_at, tunnel_at, key_at) = (place.field("id"), place.field("tunnel"), place.field("key"));
    let id = reader.number(&id_at, 1, ID);
    let tunnel = reader.address(&tunnel_at);
    family(reader, &tunnel_at, tunnel, local, "tunnel.local");
    let encap = encap(reader, &place.field("encap"));
    let key = key(reader, &key_at, encap);
    let weight = reader
        .optional(&place.field("weight"), "a whole number from 0 to 1000", |value| number(value, 0, LARGEST_WEIGHT));
    let id = id? as u32;
    let endpoint = Endpoint { address: tunnel?, encap: encap?, key: key? };
    match pool.endpoints.get(&id) {
        Some((known, first)) if *known != endpoint => {
            let expected = format!("tunnel, key and encap of server {id} as at {first}");
            reader.problem(&place.path, expected, place.value.map_or_else(String::new, Value::to_string));
        }
        Some(_) => {}
        None => {
            pool.endpoints.insert(id, (endpoint, place.path.clone()));
        }
    }
    Some(Backend { id, weight: weight.unwrap_or(100) as u32, endpoint })
}

impl Pool {
    /// Listeners with the same servers and weights share one table, in whatever order they name them.
    fn chooser(&mut self, balance: Balance, backends: &[Backend]) -> Option<Chooser> {
        let name: Vec<u64> = backends.iter().map(|b| u64::from(b.id) << 32 | u64::from(b.weight)).collect();
        let make = || {
            let servers: Vec<(u32, u32)> = backends.iter().map(|b| (b.id, b.weight)).collect();
            match balance {
                Balance::Maglev => Maglev::new(&servers).map(Arc::new).map(Chooser::Maglev),
                Balance::Rendezvous => Rendezvous::new(&servers).map(Arc::new).map(Chooser::Rendezvous),
            }
        };
        self.choosers.entry((balance, name)).or_insert_with(make).clone()
    }
}

fn vswitch(
    reader: &mut Reader,
    place: &Place<'_>,
    ports: &[Port],
    local: Option<u128>,
    encap: Option<Encap>,
) -> VswitchTables {
    let mut tables = VswitchTables { reply_to: reply_to(reader, place, local), ..VswitchTables::default() };
    let (mut ids, mut keys, mut keyless) = (Map::default(), Map::default(), Map::default());
    for place in reader.list(&place.field("servers")) {
        let (id_at, key_at, port_at) = (place.field("id"), place.field("key"), place.field("port"));
        let id = reader.number(&id_at, 1, ID);
        let key = key(reader, &key_at, encap);
        once(reader, &mut ids, &id_at, id);
        once(reader, &mut keys, &key_at, key.flatten());
        let port = reader.read(&port_at, "the index of one of this node's ports, not 0", |value| {
            number(value, 1, u64::from(u16::MAX)).filter(|&port| ports.iter().any(|p| u64::from(p.index) == port))
        });
        let mac = reader.read(&place.field("mac"), MAC, mac);
        let mut seen = Map::default();
        let mut vips = Vec::new();
        for place in reader.list(&place.field("vips")) {
            let vip_id = reader.number(&place.field("id"), 1, ID);
            let at = place.field("address");
            let vip = reader.read(&at, "an IPv4 or IPv6 unicast address", address);
            once(reader, &mut seen, &at, vip);
            if key == Some(None) {
                // Nothing else tells two servers apart.
                once(reader, &mut keyless, &at, vip);
            }
            let mode_at = place.field("mode");
            let direct = is_direct(reader, &mode_at);
            if direct && tables.reply_to.is_none() {
                reader.problem(&mode_at.path, "vswitch.reply_to and reply_encap beside a VIP in mode \"dsr\"", "none");
            }
            vips.extend(vip.zip(vip_id).map(|(address, id)| ServerVip { address, id: id as u32, direct }));
        }
        if let (Some(id), Some(key), Some(port), Some(mac)) = (id, key, port, mac) {
            let place = tables.servers.len() as u32;
            tables.by_id.insert(id as u32, place);
            match key {
                Some(key) => {
                    tables.by_key.insert(key, place);
                }
                None => tables.by_vip.extend(vips.iter().map(|vip| (vip.address, place))),
            }
            tables.servers.push(Server { id: id as u32, port: port as u16, mac, key, vips });
        }
    }
    tables
}

/// Where a vSwitch sends replies in direct return; nothing when no VIP asks for it.
fn reply_to(reader: &mut Reader, place: &Place<'_>, local: Option<u128>) -> Option<Endpoint> {
    let (address_at, encap_at) = (place.field("reply_to"), place.field("reply_encap"));
    if address_at.is_absent() && encap_at.is_absent() {
        return None;
    }
    let address = reader.address(&address_at);
    family(reader, &address_at, address, local, "tunnel.local");
    let encap = encap(reader, &encap_at);
    Some(Endpoint { address: address?, encap: encap?, key: None })
}
