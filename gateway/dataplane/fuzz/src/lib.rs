//! What the fuzz targets share: frames out of bytes, nodes to feed them to, and what must hold whatever comes.

pub mod captures;
pub mod quic;
pub mod ways;

#[path = "../../forward/tests/support/mod.rs"]
pub mod support;

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use support::{plans, Notes, Plan, EDGE_MAC, MAC, NOW};
use tgw_contract::{DropReason, Role};
use tgw_forward::{describe, Dispatcher, Frame, Options, Outcome, Pipeline, Tables};
use tgw_wire::checksum::Sum;
use tgw_wire::{ethernet, geneve, gre_udp, gue, ipv4, ipv6, udp, vxlan};

/// Frames of one input: each has a byte of options, two bytes of length, then its bytes.
const PORT: u8 = 0x01;
/// Make the checksums of its IPv4 headers right, so that the fuzzer gets behind them.
const REPAIR: u8 = 0x02;
/// Address it to the port it comes in by.
const OURS: u8 = 0x04;
/// It begins another batch, `PAUSE` later.
const LATER: u8 = 0x08;
/// Longer than what is half-open lasts, shorter than what is established does [ns].
const PAUSE: u64 = 40_000_000_000;
/// At most as many frames of one input.
const MANY: usize = 256;

/// Frames that come together: when, and by which port each.
pub type Batch = (u64, Vec<(u16, Vec<u8>)>);

/// Write batches as an input of a pipeline target; when they come is not kept.
#[must_use]
pub fn pack(batches: &[Batch]) -> Vec<u8> {
    let mut out = vec![0]; // the tables
    for (_, frames) in batches {
        let mut later = if out.len() > 1 { LATER } else { 0 };
        for (port, bytes) in frames {
            out.push(if *port == 1 { PORT } else { 0 } | REPAIR | OURS | std::mem::take(&mut later));
            out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            out.extend_from_slice(bytes);
        }
    }
    out
}

/// The frames of an input, in batches. What is cut off at its end is a short frame.
#[must_use]
pub fn unpack(mut data: &[u8]) -> Vec<Batch> {
    let (mut now, mut batches, mut frames, mut count) = (NOW, Vec::new(), Vec::new(), 0);
    while let [options, high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        data = rest;
        if options & LATER != 0 && !frames.is_empty() {
            batches.push((now, std::mem::take(&mut frames)));
            now += PAUSE;
        }
        let port = u16::from(options & PORT);
        let mut bytes = bytes.to_vec();
        if options & OURS != 0 {
            let mac = if port == 0 { MAC } else { EDGE_MAC };
            if let Some(place) = bytes.first_chunk_mut() {
                *place = mac.0;
            }
        }
        if options & REPAIR != 0 {
            repair(&mut bytes, 14);
        }
        frames.push((port, bytes));
        count += 1;
        if count == MANY {
            break;
        }
    }
    batches.push((now, frames));
    batches
}

/// Make the IPv4 header at `at` right, and one inside a tunnel behind it.
fn repair(bytes: &mut [u8], at: usize) {
    let Some(ip) = bytes.get_mut(at..) else { return };
    let Some(first) = ip.first() else { return };
    let header = usize::from(first & 0x0F) * 4;
    let (next, protocol) = match first >> 4 {
        4 if header >= 20 && ip.len() >= header => {
            ip[10..12].fill(0);
            let checksum = Sum::new().bytes(&ip[..header]).checksum();
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            (at + header, ip[9])
        }
        6 if ip.len() >= 40 => (at + 40, ip[6]),
        _ => return,
    };
    match protocol {
        4 | 41 => repair(bytes, next),
        47 => repair_gre(bytes, next),
        17 => repair_udp(bytes, at, next),
        _ => {}
    }
}

fn repair_gre(bytes: &mut [u8], at: usize) {
    let key = bytes.get(at).is_some_and(|flags| flags & 0x20 != 0);
    repair(bytes, at + if key { 8 } else { 4 });
}

/// What is inside first, then the checksum of the tunnel around it, when it has one.
fn repair_udp(bytes: &mut [u8], ip: usize, at: usize) {
    let header = udp::Packet::new_unchecked(bytes.get(at..).unwrap_or_default());
    let (port, length) = (header.dst_port(), header.length());
    let inside = at + udp::HEADER_LEN;
    match port {
        vxlan::PORT => repair(bytes, inside + vxlan::HEADER_LEN + ethernet::HEADER_LEN),
        gre_udp::PORT => repair_gre(bytes, inside),
        gue::PORT => {
            let header = gue::Packet::new_unchecked(bytes.get(inside..).unwrap_or_default()).header_len();
            repair(bytes, inside + header);
        }
        geneve::PORT => {
            let header = geneve::Packet::new_unchecked(bytes.get(inside..).unwrap_or_default()).header_len();
            repair(bytes, inside + header);
        }
        _ => return,
    }
    let Some(packet) = bytes.get(ip..) else { return };
    let pseudo = |length| match ipv4::Packet::new_checked(packet) {
        Ok(view) => Some(Sum::pseudo_v4(view.src(), view.dst(), 17, length)),
        Err(_) => ipv6::Packet::new_checked(packet).ok().map(|v| Sum::pseudo_v6(v.src(), v.dst(), 17, length)),
    };
    let Some(pseudo) = pseudo(length) else { return };
    if let Some(datagram) = bytes.get_mut(at..at + length).filter(|datagram| datagram.len() >= udp::HEADER_LEN) {
        if datagram[6..8] != [0, 0] {
            udp::Packet::new_unchecked(datagram).fill_checksum(pseudo);
        }
    }
}

/// Of the EIP node, the LD and the vSwitch.
type Region = [Arc<Tables>; 3];

/// Of each plan, then the same with protection, then with all that balancing can do: made once.
static TABLES: OnceLock<Vec<Region>> = OnceLock::new();

/// The tables that the first byte of an input chooses.
fn region(choice: u8) -> Option<&'static Region> {
    let all = TABLES.get_or_init(|| {
        let plans = plans();
        let plain = plans.iter().enumerate().map(|(number, plan)| tables_of(plan, plan.with_extras(number)));
        let guarded = plans.iter().map(|plan| tables_of(plan, (plan.guarded_tables(), plan.vswitch_tables())));
        let balanced = plans.iter().map(|plan| tables_of(plan, (plan.balanced_clb_tables(), plan.vswitch_tables())));
        plain.chain(guarded).chain(balanced).collect()
    });
    all.get(usize::from(choice) % all.len().max(1))
}

fn tables_of(plan: &Plan, (clb, vswitch): (Value, Value)) -> Region {
    [
        support::tables(&plan.eip_tables(), Role::Eip),
        support::tables(&clb, Role::Clb),
        support::tables(&vswitch, Role::Vswitch),
    ]
}

/// Feed an input to a node of this role. Panics when something does not hold.
pub fn pipeline(role: Role, data: &[u8]) {
    let [choice, data @ ..] = data else { return };
    let Some(tables) = region(*choice) else { return };
    let options = Options { flow_capacity: 64, seed: 5, workers: 1, ..Options::default() };
    let mut node = tgw_forward::pipeline(role, 0, &options);
    let mut dispatcher = Dispatcher::default();
    for tables in tables {
        node.set_tables(Arc::clone(tables)); // those of another role change nothing
    }
    dispatcher.set_tables(Arc::clone(&tables[1]));
    let mut last = NOW;
    for (now, frames) in unpack(data) {
        batch(&mut *node, &mut dispatcher, role, now, &frames);
        own_frames(&mut *node, now);
        last = now;
    }
    // Every flow ends in time, once the sweep has been round.
    (0..32).for_each(|_| node.idle(last + 1_000_000_000_000));
    assert_eq!(node.counters().active, 0);
}

fn batch(node: &mut dyn Pipeline, dispatcher: &mut Dispatcher, role: Role, now: u64, batch: &[(u16, Vec<u8>)]) {
    let mut frames = Vec::new();
    for (port, bytes) in batch {
        let mut frame = Frame::with_capacity(4096);
        if frame.load(*port, now, bytes) {
            assert!(dispatcher.classify(&frame, 3) < 3);
            let _ = describe(&frame, role, None);
            frames.push(frame);
        }
    }
    let unset = Outcome::Drop(DropReason::RingFull);
    let mut outcomes = vec![unset; frames.len()];
    let mut notes = Notes::default();
    node.process(now, &mut frames, &mut outcomes, &mut notes);
    let mut recorded = 0;
    for (frame, outcome) in frames.iter().zip(&outcomes) {
        match outcome {
            Outcome::Forward { .. } => {
                let _ = support::open(&frame.bytes()[14..]);
            }
            Outcome::Drop(DropReason::RingFull) => panic!("a frame without an outcome"),
            Outcome::Drop(reason) => recorded += usize::from(reason.is_recorded()),
            Outcome::Answer { reason, .. } => {
                let _ = support::open(&frame.bytes()[14..]);
                recorded += usize::from(reason.is_recorded());
            }
        }
    }
    assert_eq!(notes.0.iter().filter(|point| point.kind == 2).count(), recorded);
}

/// What a node makes of itself, health checks, comes to an end and can be read.
fn own_frames(node: &mut dyn Pipeline, now: u64) {
    let mut frame = Frame::with_capacity(4096);
    for _ in 0..1000 {
        if node.emit(now, &mut frame).is_none() {
            return;
        }
        let _ = support::open(&frame.bytes()[14..]);
    }
    panic!("a node that never stops sending");
}
