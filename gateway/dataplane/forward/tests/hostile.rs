//! Frames that nobody meant well, at every role: no panic, one outcome each, and the account is exact.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use proptest::sample::Index;
use support::peer::Peer;
use support::{frame, node, plans, seeds::seeds, send, tunnel, untunnel, Notes, Plan, EDGE_MAC, MAC, NOW};
use tgw_contract::{DropReason, Role};
use tgw_forward::{describe, Dispatcher, Fault, FaultKind, Faults, Frame, Outcome, Pipeline};

/// Frames by port.
type Frames = Vec<(u16, Vec<u8>)>;

#[derive(Clone, Debug)]
enum Spoil {
    Nothing,
    Flip(Index, u8),
    Word(Index, u16),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index),
}

fn spoils() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        2 => Just(Spoil::Nothing),
        6 => (any::<Index>(), 1u8..).prop_map(|(at, bits)| Spoil::Flip(at, bits)),
        2 => (any::<Index>(), prop_oneof![Just(0), Just(0xFFFF), any::<u16>()]).prop_map(|(at, word)| Spoil::Word(at, word)),
        2 => any::<Index>().prop_map(Spoil::Cut),
        1 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Spoil::Insert(at, bytes)),
        1 => any::<Index>().prop_map(Spoil::Remove),
    ]
}

fn spoil(bytes: &mut Vec<u8>, spoil: &Spoil) {
    if bytes.is_empty() {
        return;
    }
    match spoil {
        Spoil::Nothing => {}
        Spoil::Flip(at, bits) => {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        Spoil::Word(at, word) => {
            let at = at.index(bytes.len());
            let [high, low] = word.to_be_bytes();
            bytes[at] = high;
            if let Some(next) = bytes.get_mut(at + 1) {
                *next = low;
            }
        }
        Spoil::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Spoil::Insert(at, more) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, more.iter().copied());
        }
        Spoil::Remove(at) => {
            bytes.remove(at.index(bytes.len()));
        }
    }
}

#[derive(Clone, Debug)]
enum Input {
    Spoilt(Index, Vec<Spoil>),
    Random(u16, Vec<u8>),
    /// Random bytes behind a header that gets them through the door.
    Behind(u16, bool, Vec<u8>),
}

fn inputs() -> impl Strategy<Value = Input> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        6 => (any::<Index>(), prop::collection::vec(spoils(), 0..4)).prop_map(|(seed, how)| Input::Spoilt(seed, how)),
        1 => (0u16..3, bytes()).prop_map(|(port, bytes)| Input::Random(port, bytes)),
        2 => (0u16..2, any::<bool>(), bytes()).prop_map(|(port, v4, bytes)| Input::Behind(port, v4, bytes)),
    ]
}

fn realize(input: &Input, seeds: &[(u16, Vec<u8>)]) -> (u16, Vec<u8>) {
    match input {
        Input::Spoilt(seed, how) => {
            let (port, mut bytes) = seed.get(seeds).clone();
            how.iter().for_each(|how| spoil(&mut bytes, how));
            (port, bytes)
        }
        Input::Random(port, bytes) => (*port, bytes.clone()),
        Input::Behind(port, v4, bytes) => {
            let mut all = if *port == 0 { MAC } else { EDGE_MAC }.0.to_vec();
            all.extend_from_slice(&[2, 0, 0, 0, 0, 1]);
            all.extend_from_slice(if *v4 { &[8, 0, 0x45] } else { &[0x86, 0xDD, 0x60] });
            all.extend_from_slice(bytes);
            (*port, all)
        }
    }
}

fn run(node: &mut dyn Pipeline, role: Role, frames: &[(u16, Vec<u8>)]) -> Result<(), TestCaseError> {
    let mut buffers: Vec<Frame> = Vec::new();
    for (port, bytes) in frames {
        let mut frame = Frame::default();
        prop_assert!(frame.load(*port, NOW, bytes));
        prop_assert!(Dispatcher::default().classify(&frame, 3) < 3);
        let _ = describe(&frame, role, None);
        buffers.push(frame);
    }
    // A reason that no pipeline gives marks frames that were forgotten.
    let unset = Outcome::Drop(DropReason::RingFull);
    let mut outcomes = vec![unset; buffers.len()];
    let mut notes = Notes::default();
    node.process(NOW, &mut buffers, &mut outcomes, &mut notes);
    let mut recorded = 0;
    for (outcome, frame) in outcomes.iter().zip(&buffers) {
        prop_assert_ne!(*outcome, unset);
        match outcome {
            Outcome::Forward { port } => {
                prop_assert!(*port <= 1);
                prop_assert!(frame.bytes().len() > 14 + 20);
                let inner = &frame.bytes()[14..];
                let _ = support::open(inner); // a whole IP packet with a right header
            }
            Outcome::Drop(reason) => recorded += usize::from(reason.is_recorded()),
            Outcome::Answer { port, reason } => {
                prop_assert!(*port <= 1);
                let _ = support::open(&frame.bytes()[14..]);
                recorded += usize::from(reason.is_recorded());
            }
        }
    }
    let drops = notes.0.iter().filter(|point| point.kind == 2).count();
    prop_assert_eq!(drops, recorded, "one Drop Point for each recorded drop");
    let flows = node.counters();
    prop_assert_eq!(flows.created, flows.expired + flows.active);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_every_frame_is_accounted_for(
        inputs in prop::collection::vec(inputs(), 1..150),
        plan in any::<Index>(),
        faulty in any::<bool>(),
        extras in 0usize..3,
    ) {
        let plans = plans();
        let plan = *plan.get(&plans);
        let seeds = seeds(&plan);
        let frames: Vec<(u16, Vec<u8>)> = inputs.iter().map(|input| realize(input, &seeds)).collect();
        let mut dispatcher = Dispatcher::default();
        dispatcher.set_tables(support::tables(&plan.balanced_clb_tables(), Role::Clb));
        for (port, bytes) in &frames {
            let mut frame = Frame::default();
            prop_assert!(frame.load(*port, NOW, bytes) && dispatcher.classify(&frame, 3) < 3);
        }
        let (clb, vswitch) = plan.with_extras(extras);
        let nodes = [
            (Role::Eip, plan.eip()),
            (Role::Clb, support::node(Role::Clb, &clb)),
            (Role::Clb, support::node(Role::Clb, &plan.balanced_clb_tables())),
            (Role::Vswitch, support::node(Role::Vswitch, &vswitch)),
        ];
        for (role, mut node) in nodes {
            if faulty {
                node.set_faults(Faults::new([
                    Fault { kind: FaultKind::EncapFail, probability: 0.2, seed: 1 },
                    Fault { kind: FaultKind::LossVisible, probability: 0.2, seed: 2 },
                    Fault { kind: FaultKind::VipMissing { vip_id: 1 }, probability: 0.2, seed: 3 },
                ]));
            }
            run(&mut *node, role, &frames)?;
        }
    }
}

/// An LD with all protection at once and two connections that began with a cookie, one of which the server has taken; and
/// frames of both.
fn guarded(plan: &Plan) -> (Box<dyn Pipeline>, Frames) {
    let mut clb = node(Role::Clb, &plan.guarded_tables());
    let to_ld = |inner: &[u8]| frame(&tunnel(plan.eip, plan.service, plan.encap, None, inner));
    let from_host = |inner: &[u8]| frame(&tunnel(plan.host, plan.ld, plan.encap, plan.key, inner));
    let mut seen = Vec::new();
    for port in [5000, 5001] {
        let mut client = Peer::new((plan.client, port), (plan.private, 80), 7, vec![1; 99]);
        let mut server = Peer::new((plan.private, 80), (plan.client, port), 9, vec![2; 99]);
        let syn = to_ld(&client.connect(NOW));
        let answer = untunnel(&send(&mut *clb, 0, &syn).frame).3;
        let ack = to_ld(&client.take(NOW, &answer)[0]);
        let second = untunnel(&send(&mut *clb, 0, &ack).frame).3;
        let syn_ack = from_host(&server.take(NOW, &second)[0]);
        let mut seeds = vec![syn, ack, syn_ack.clone()];
        if port == 5001 {
            let last = untunnel(&send(&mut *clb, 0, &syn_ack).frame).3;
            let data = server.take(NOW, &last);
            seeds.extend(data.iter().map(|packet| from_host(packet)));
            let mut late = Frame::default();
            assert_eq!(clb.emit(NOW, &mut late), Some(0));
            let window = untunnel(late.bytes()).3;
            seeds.extend(client.take(NOW, &window).iter().map(|packet| to_ld(packet)));
        }
        seen.extend(seeds.into_iter().map(|bytes| (0, bytes)));
    }
    (clb, seen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_guarded_ld_accounts_for_every_frame_too(
        inputs in prop::collection::vec(inputs(), 1..150),
        plan in any::<Index>(),
    ) {
        let plans = plans();
        let plan = *plan.get(&plans);
        let (mut clb, mut all) = guarded(&plan);
        all.extend(seeds(&plan));
        let frames: Vec<(u16, Vec<u8>)> = inputs.iter().map(|input| realize(input, &all)).collect();
        run(&mut *clb, Role::Clb, &frames)?;
        let mut own = Frame::default();
        for seconds in 0..10u64 {
            while let Some(port) = clb.emit(NOW + seconds * 1_000_000_000, &mut own) {
                prop_assert_eq!(port, 0);
                let inner = untunnel(own.bytes()).3;
                support::verify(&inner);
            }
        }
    }
}

/// Unspoilt, the seeds do what they are there for: the mutations start from packets that go through.
#[test]
fn the_seeds_reach_every_pipeline() {
    for plan in plans() {
        for (role, mut node) in [(Role::Eip, plan.eip()), (Role::Clb, plan.clb()), (Role::Vswitch, plan.vswitch())] {
            let forwarded = seeds(&plan)
                .iter()
                .filter(|(port, bytes)| {
                    matches!(support::send(&mut *node, *port, bytes).outcome, Outcome::Forward { .. })
                })
                .count();
            assert!(forwarded >= 4, "{role:?} {plan:?}: {forwarded}");
        }
    }
}
