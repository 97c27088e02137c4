//! How a listener balances: what may stand in its fields, and what goes together.

use tgw_wire::protocol;
use tgw_wire::quic::MAX_CID_LEN;

use super::check::is_v4;
use super::read::{number, Place, Reader};
use super::{Backend, Dispatch, Health, ServerId};
use crate::flow::MAX_TIMEOUT;
use crate::Nanos;

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;
/// A worker that has nothing to do looks up 13 times a second.
const SHORTEST_INTERVAL_MS: u64 = 100;
const SHORTEST_TIMEOUT_MS: u64 = 50;
const LONGEST_INTERVAL_MS: u64 = 3_600_000;
const MOST_IN_A_ROW: u64 = 100;
const LONGEST_SLOW_START_S: u64 = 86_400;

/// Which algorithm chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Balance {
    Maglev,
    Rendezvous,
}

pub(super) struct Policy {
    pub(super) balance: Balance,
    pub(super) dispatch: Dispatch,
    pub(super) affinity_s: Option<u16>,
    pub(super) slow_start: Option<Nanos>,
    pub(super) health: Option<Health>,
}

/// Read a listener's policy. `addresses`: the VIP's and the LD's own, which checks come from.
pub(super) fn read(
    reader: &mut Reader,
    place: &Place<'_>,
    protocol: Option<u8>,
    addresses: Option<(u128, u128)>,
    backends: &[Backend],
) -> Policy {
    let balance =
        reader.optional(&place.field("balance"), "\"maglev\" or \"rendezvous\"", |value| match value.as_str() {
            Some("maglev") => Some(Balance::Maglev),
            Some("rendezvous") => Some(Balance::Rendezvous),
            _ => None,
        });
    let affinity_at = place.field("affinity_s");
    let affinity_s = seconds(reader, &affinity_at, u64::from(MAX_TIMEOUT)).map(|seconds| seconds as u16);
    let slow_start = seconds(reader, &place.field("slow_start_s"), LONGEST_SLOW_START_S);
    let mut dispatch = dispatch(reader, place, protocol, backends);
    if affinity_s.is_some() {
        if matches!(dispatch, Dispatch::Quic(_)) {
            reader.problem(
                &affinity_at.path,
                "null where dispatch is \"quic\": ids say where a connection belongs",
                affinity_at.found(),
            );
        }
        // What a worker remembers of a client must be asked of that worker.
        dispatch = Dispatch::IpPair;
    }
    Policy {
        balance: balance.unwrap_or(Balance::Maglev),
        dispatch,
        affinity_s,
        slow_start: slow_start.map(|seconds| seconds * SECOND),
        health: health(reader, &place.field("health"), protocol, addresses),
    }
}

fn seconds(reader: &mut Reader, place: &Place<'_>, most: u64) -> Option<u64> {
    reader.optional(place, &format!("null or a whole number from 1 to {most}"), |value| number(value, 1, most))
}

fn dispatch(reader: &mut Reader, place: &Place<'_>, protocol: Option<u8>, backends: &[Backend]) -> Dispatch {
    let at = place.field("dispatch");
    let dispatch = reader.optional(&at, "\"tuple\", \"ip_pair\" or \"quic\"", |value| match value.as_str() {
        Some("tuple") => Some(Dispatch::Tuple),
        Some("ip_pair") => Some(Dispatch::IpPair),
        Some("quic") => Some(Dispatch::Quic(None)),
        _ => None,
    });
    let dispatch = dispatch.unwrap_or_default();
    let id_at = place.field("quic_server_id");
    if !matches!(dispatch, Dispatch::Quic(_)) {
        if !id_at.is_absent() {
            reader.problem(&id_at.path, "null unless dispatch is \"quic\"", id_at.found());
        }
        return dispatch;
    }
    if protocol.is_some_and(|protocol| protocol != protocol::UDP) {
        reader.problem(&at.path, "\"tuple\" or \"ip_pair\" where protocol is not \"udp\"", at.found());
    }
    if id_at.is_absent() || !reader.object(&id_at) {
        return dispatch;
    }
    let length_at = id_at.field("length");
    let offset = reader.number(&id_at.field("offset"), 0, MAX_CID_LEN as u64 - 1);
    let length = reader.number(&length_at, 1, 4);
    let (Some(offset), Some(length)) = (offset, length) else { return dispatch };
    if offset + length > MAX_CID_LEN as u64 {
        let expected = format!("at most {}: a connection id has {MAX_CID_LEN} bytes", MAX_CID_LEN as u64 - offset);
        reader.problem(&length_at.path, expected, length.to_string());
    }
    if let Some(backend) = backends.iter().find(|backend| u64::from(backend.id) >> (8 * length) != 0) {
        let expected = format!("bytes enough for the id {} of a backend", backend.id);
        reader.problem(&length_at.path, expected, length.to_string());
    }
    Dispatch::Quic(Some(ServerId { offset: offset as u8, length: length as u8 }))
}

fn health(
    reader: &mut Reader,
    place: &Place<'_>,
    protocol: Option<u8>,
    addresses: Option<(u128, u128)>,
) -> Option<Health> {
    if place.is_absent() {
        return None;
    }
    if protocol == Some(protocol::UDP) {
        reader.problem(&place.path, "null where protocol is \"udp\": a check opens a TCP connection", place.found());
        return None;
    }
    if addresses.is_some_and(|(vip, local)| is_v4(vip) != is_v4(local)) {
        let expected = "null where address and tunnel.local are not both IPv4 or both IPv6: a check goes from the one to the other";
        reader.problem(&place.path, expected, place.found());
        return None;
    }
    if !reader.object(place) {
        return None;
    }
    let interval = reader.number(&place.field("interval_ms"), SHORTEST_INTERVAL_MS, LONGEST_INTERVAL_MS);
    let longest = interval.unwrap_or(LONGEST_INTERVAL_MS);
    let timeout = reader.number(&place.field("timeout_ms"), SHORTEST_TIMEOUT_MS, longest);
    let rise = reader.number(&place.field("rise"), 1, MOST_IN_A_ROW);
    let fall = reader.number(&place.field("fall"), 1, MOST_IN_A_ROW);
    Some(Health {
        interval: interval? * MILLISECOND,
        timeout: timeout? * MILLISECOND,
        rise: rise? as u16,
        fall: fall? as u16,
    })
}
