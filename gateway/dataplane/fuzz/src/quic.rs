//! Any datagram at a QUIC listener: where it goes is what its connection id says, from whatever port it comes.

use std::sync::{Arc, OnceLock};

use serde_json::json;
use tgw_contract::{DropReason, Role};
use tgw_forward::{Dispatcher, Frame, Options, Outcome, Tables};
use tgw_wire::quic::{Kind, Packet, Repr};

use crate::support::{self, frame, plan, tunnel, udp, untunnel, Plan, NOW};

const WORKERS: usize = 7;
/// Ids of real servers are 1 to this, in these bytes of a connection id that they make.
const SERVERS: u32 = 8;
const SERVER_ID: std::ops::Range<usize> = 1..3;
/// What fits through the tunnel.
const LIMIT: usize = 1200;

/// With ids of real servers in connection ids, and without.
fn tables(p: &Plan, with_ids: bool) -> Arc<Tables> {
    let backend = |id| json!({"id": id, "tunnel": p.host, "key": 100 + id, "encap": p.encap, "weight": 100});
    let backends: Vec<_> = (1..=SERVERS).map(backend).collect();
    let mut listener = json!({"protocol": "udp", "port": 443, "backends": backends, "dispatch": "quic"});
    if with_ids {
        listener["quic_server_id"] = json!({"offset": SERVER_ID.start, "length": SERVER_ID.len()});
    }
    let mut tables = p.clb_tables();
    tables["clb"]["vips"][0]["listeners"] = json!([listener]);
    support::tables(&tables, Role::Clb)
}

/// Check a datagram, after a byte of which the lowest bit says whether real servers write their ids.
pub fn check(data: &[u8]) {
    static TABLES: OnceLock<[Arc<Tables>; 2]> = OnceLock::new();
    let [choice, datagram @ ..] = data else { return };
    let with_ids = choice & 1 != 0;
    let datagram = &datagram[..datagram.len().min(LIMIT)];
    views(datagram);
    let p = plan(4, 4, "gre");
    let both = TABLES.get_or_init(|| [tables(&p, false), tables(&p, true)]);
    let tables = &both[usize::from(with_ids)];
    let mut dispatcher = Dispatcher::default();
    dispatcher.set_tables(Arc::clone(tables));
    let options = Options { flow_capacity: 64, seed: 5, workers: 1, ..Options::default() };
    let mut node = tgw_forward::pipeline(Role::Clb, 0, &options);
    node.set_tables(Arc::clone(tables));

    let (expected, by_id) = expected(datagram, with_ids);
    let mut workers = Vec::new();
    for port in [4000, 4001, 60_000] {
        let packet = udp((p.client, port), (p.private, 443), datagram, true);
        let bytes = frame(&tunnel(p.eip, p.service, p.encap, None, &packet));
        let mut loaded = Frame::with_capacity(4096);
        assert!(loaded.load(0, NOW, &bytes));
        workers.push(dispatcher.classify(&loaded, WORKERS));
        let result = support::send(&mut *node, 0, &bytes);
        match (expected, result.outcome) {
            (Err(expected), Outcome::Drop(reason)) => assert_eq!(reason, expected),
            (Ok(server), Outcome::Forward { .. }) => {
                let key = untunnel(&result.frame).2.expect("a key");
                assert!((101..=100 + SERVERS).contains(&key));
                assert!(server.is_none_or(|id| key == 100 + id), "{server:?}, {key}");
            }
            (expected, outcome) => panic!("{expected:?}, {outcome:?}"),
        }
    }
    assert!(workers.iter().all(|&worker| worker < WORKERS && (!by_id || worker == workers[0])), "{workers:?}");
}

/// Why it is dropped, or which real server it names; and whether its id alone decides about the worker.
fn expected(datagram: &[u8], with_ids: bool) -> (Result<Option<u32>, DropReason>, bool) {
    let Ok(view) = Packet::new_checked(datagram) else { return (Err(DropReason::MalformedQuic), false) };
    if !with_ids {
        return (Ok(None), false);
    }
    let id = if view.is_long() { view.dcid() } else { view.short_rest() };
    let named = id.get(SERVER_ID).map(|id| u32::from(id[0]) << 8 | u32::from(id[1]));
    match named {
        Some(server) if (1..=SERVERS).contains(&server) => (Ok(Some(server)), true),
        None if !view.is_long() => (Err(DropReason::MalformedQuic), false),
        _ => (Ok(None), matches!(view.kind(), Kind::Initial | Kind::ZeroRtt | Kind::Unknown) && !id.is_empty()),
    }
}

/// Nothing is read that is not there, and what was read can be written.
fn views(datagram: &[u8]) {
    let view = Packet::new_unchecked(datagram);
    let _ = (view.kind(), view.dcid(), view.scid(), view.short_rest(), view.version(), view.to_string());
    let Ok(view) = Packet::new_checked(datagram) else { return };
    if !view.is_long() {
        assert_eq!((view.kind(), view.short_rest().len()), (Kind::Short, datagram.len() - 1));
        return;
    }
    let repr = Repr { kind: view.kind(), version: view.version(), dcid: view.dcid(), scid: view.scid() };
    assert!(repr.len() <= datagram.len());
    let mut again = vec![0; repr.len()];
    repr.emit(&mut again).expect("it has been read");
    assert_eq!(again[1..], datagram[1..again.len()]);
    assert_eq!(Packet::new_unchecked(&again[..]).kind(), view.kind());
}
