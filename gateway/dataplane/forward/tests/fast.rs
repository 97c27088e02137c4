//! The straight way and the general way do the same to every frame, whatever comes between.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use support::{frame, frame_to, node_with, plan, tunnel, udp, Notes, Plan, Tcp, EDGE_MAC, NOW};
use tgw_contract::{DropReason, Role};
use tgw_forward::{Frame, Options, Outcome, Pipeline, Tuning};
use tgw_wire::checksum::Sum;
use tgw_wire::tcp::{ACK, FIN, PSH, RST, SYN};

/// What of an ordinary frame is changed.
#[derive(Clone, Debug)]
enum Change {
    /// Bits of one of its first bytes.
    Flip(Index, u8),
    /// A length.
    Cut(Index),
    /// Bytes behind its end, as Ethernet pads.
    Pad(u8),
    /// The hops that the inner packet has left.
    Ttl(u8),
    /// ... and its TOS.
    Tos(u8),
}

#[derive(Clone, Debug)]
struct Packet {
    kind: usize,
    client: u8,
    flags: Index,
    payload: usize,
    changes: Vec<Change>,
    /// Checksums of IPv4 headers are made right again after the changes.
    repair: bool,
}

fn packets() -> impl Strategy<Value = Packet> {
    let change = prop_oneof![
        4 => (any::<Index>(), 1u8..).prop_map(|(at, bits)| Change::Flip(at, bits)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (0u8..30).prop_map(Change::Pad),
        1 => prop_oneof![Just(0), Just(1), Just(2), any::<u8>()].prop_map(Change::Ttl),
        1 => any::<u8>().prop_map(Change::Tos),
    ];
    let changes = prop_oneof![2 => Just(Vec::new()), 3 => prop::collection::vec(change, 1..3)];
    let payload = prop_oneof![8 => 0usize..64, 1 => 1400usize..1700];
    (0usize..12, 0u8..8, any::<Index>(), payload, changes, prop::bool::weighted(0.8)).prop_map(
        |(kind, client, flags, payload, changes, repair)| Packet { kind, client, flags, payload, changes, repair },
    )
}

const FLAGS: [u8; 12] =
    [ACK, ACK, ACK | PSH, ACK, ACK | PSH, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, ACK | 0x20, SYN | FIN];

fn realize(p: &Plan, packet: &Packet) -> (u16, Vec<u8>) {
    let payload = vec![0xA5; packet.payload];
    let port = 4000 + u16::from(packet.client);
    let client = match packet.client {
        5 => p.prober,
        6 => "0.0.0.0",
        7 => p.ld,
        _ => p.client,
    };
    let flags = *packet.flags.get(&FLAGS);
    let key = if packet.client == 4 { 78 } else { 77 };
    let tcp = |src, dst| Tcp { payload: &payload, ..Tcp::new(src, dst, flags) }.ip();
    let request = || tcp((client, port), (p.private, 80));
    let reply = || tcp((p.private, 80), (client, port));
    let question = |to| udp((client, port), to, &payload, packet.client.is_multiple_of(2));
    let answer = |from| udp(from, (client, port), &payload, packet.client.is_multiple_of(2));
    let (at, mut bytes) = match packet.kind {
        0..=2 => (0, frame(&tunnel(p.eip, p.service, "gre", None, &request()))),
        3 => (0, frame(&tunnel(p.eip, p.service, "gre", Some(9), &request()))),
        4 => (0, frame(&tunnel(p.eip, p.service, "gre", None, &question((p.private, 53))))),
        5 | 6 => (0, frame(&tunnel(p.host, p.ld, "gre", Some(key), &reply()))),
        7 => (0, frame(&tunnel(p.host, p.ld, "gre", Some(key), &answer((p.private, 53))))),
        8 => (1, frame_to(EDGE_MAC, &tcp((client, port), (p.public, 80)))),
        9 => (1, frame_to(EDGE_MAC, &question((p.public, 53)))),
        10 => (0, frame(&tunnel(p.ld, p.anycast, "gre", None, &reply()))),
        _ => (0, frame(&tunnel(p.ld, p.anycast, "gre", None, &answer((p.private, 53))))),
    };
    let inner = match packet.kind {
        8 | 9 => 14,
        3 | 5..=7 => 42,
        _ => 38,
    };
    for change in &packet.changes {
        match change {
            Change::Flip(at, bits) => {
                let at = at.index(bytes.len().clamp(1, inner + 42));
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Change::Pad(count) => bytes.extend(vec![0; usize::from(*count)]),
            Change::Ttl(ttl) => bytes.get_mut(inner + 8).into_iter().for_each(|place| *place = *ttl),
            Change::Tos(tos) => bytes.get_mut(inner + 1).into_iter().for_each(|place| *place = *tos),
        }
    }
    if packet.repair {
        for at in [14, inner] {
            if let Some(header) = bytes.get_mut(at..at + 20) {
                header[10..12].fill(0);
                let checksum = Sum::new().bytes(header).checksum();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
        }
    }
    (at, bytes)
}

/// A real server of both listeners, one of the first alone, and one that nobody chooses.
fn clb_tables(p: &Plan) -> serde_json::Value {
    let mut tables = p.clb_tables();
    let backend = |id: u32, key: u32, weight: u32| json!({"id": id, "tunnel": p.host, "key": key, "encap": "gre", "weight": weight});
    let vip = &mut tables["clb"]["vips"][0];
    vip["listeners"][0]["backends"] = json!([backend(5, 77, 100), backend(6, 78, 100), backend(7, 79, 0)]);
    vip["listeners"][1]["backends"] = json!([backend(5, 77, 100)]);
    tables
}

type Frames = Vec<(u16, Vec<u8>)>;
type Seen = (Vec<Outcome>, Vec<Vec<u8>>, usize, Vec<[u8; 128]>);

fn send(node: &mut dyn Pipeline, now: u64, frames: &[(u16, Vec<u8>)]) -> Seen {
    let mut buffers: Vec<Frame> = Vec::new();
    for (port, bytes) in frames {
        let mut frame = Frame::default();
        assert!(frame.load(*port, now, bytes));
        buffers.push(frame);
    }
    let mut outcomes = vec![Outcome::Drop(DropReason::RingFull); frames.len()];
    let mut notes = Notes::default();
    node.process(now, &mut buffers, &mut outcomes, &mut notes);
    let points = notes.0.iter().map(tgw_contract::Point::to_bytes).collect();
    (outcomes, buffers.iter().map(|frame| frame.bytes().to_vec()).collect(), notes.0.len(), points)
}

fn agree(
    role: Role,
    tables: &serde_json::Value,
    window: usize,
    batches: &[(u64, Frames)],
) -> Result<usize, TestCaseError> {
    let with = |tuning| node_with(role, tables, Options { flow_capacity: 64, seed: 3, tuning, ..Options::default() });
    let mut straight = with(Tuning { window, ..Tuning::default() });
    let mut general = with(Tuning { straight: false, window: 1, prefetch: false, tags: false });
    let mut forwarded = 0;
    for (now, frames) in batches {
        let (one, other) = (send(&mut *straight, *now, frames), send(&mut *general, *now, frames));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(straight.counters(), general.counters());
        forwarded += one.0.iter().filter(|outcome| matches!(outcome, Outcome::Forward { .. })).count();
    }
    Ok(forwarded)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn both_ways_do_the_same(
        batches in prop::collection::vec((0u64..40, prop::collection::vec(packets(), 1..90)), 1..5),
        window in 1usize..70,
    ) {
        let p = plan(4, 4, "gre");
        let mut now = NOW;
        let batches: Vec<_> = batches
            .iter()
            .map(|(seconds, packets)| {
                now += seconds * 1_000_000_000;
                (now, packets.iter().map(|packet| realize(&p, packet)).collect::<Vec<_>>())
            })
            .collect();
        agree(Role::Clb, &clb_tables(&p), window, &batches)?;
        agree(Role::Eip, &p.eip_tables(), window, &batches)?;
    }
}

/// Otherwise the test above could agree on nothing.
#[test]
fn ordinary_packets_are_forwarded() {
    let p = plan(4, 4, "gre");
    let one = |kind: usize, flags: u8| {
        let tcp = |src, dst| Tcp::new(src, dst, flags).ip();
        match kind {
            0 => (0, frame(&tunnel(p.eip, p.service, "gre", None, &tcp((p.client, 4000), (p.private, 80))))),
            1 => (0, frame(&tunnel(p.host, p.ld, "gre", Some(77), &tcp((p.private, 80), (p.client, 4000))))),
            2 => (1, frame_to(EDGE_MAC, &tcp((p.client, 4000), (p.public, 80)))),
            _ => (0, frame(&tunnel(p.ld, p.anycast, "gre", None, &tcp((p.private, 80), (p.client, 4000))))),
        }
    };
    let clb = vec![one(0, SYN), one(1, SYN | ACK), one(0, ACK), one(0, ACK | PSH), one(1, ACK)];
    assert_eq!(agree(Role::Clb, &p.clb_tables(), 16, &[(NOW, clb)]).unwrap(), 5);
    let eip = vec![one(2, SYN), one(3, SYN | ACK), one(2, ACK), one(2, ACK | PSH), one(3, ACK)];
    assert_eq!(agree(Role::Eip, &p.eip_tables(), 16, &[(NOW, eip)]).unwrap(), 5);
}

/// Free places of the straight way's maps have the address 0.0.0.0, and so may packets.
#[test]
fn an_address_that_is_none_is_bound_to_nothing() {
    let p = plan(4, 4, "gre");
    for none in ["0.0.0.0", "0.0.0.1"] {
        let tcp = |src, dst| Tcp::new(src, dst, ACK).ip();
        let reply = (0, frame(&tunnel(p.ld, p.anycast, "gre", None, &tcp((none, 80), (p.client, 4000)))));
        let request = (1, frame_to(EDGE_MAC, &tcp((p.client, 4000), (none, 80))));
        assert_eq!(agree(Role::Eip, &p.eip_tables(), 16, &[(NOW, vec![reply, request])]).unwrap(), 0);
    }
}
