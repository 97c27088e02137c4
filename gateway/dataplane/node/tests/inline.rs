//! The library door: what holds for a node holds without its threads.
#![allow(clippy::unwrap_used, clippy::panic)]

use tgw_contract::{Counter, DropReason, Role};
use tgw_node::{Config, Inline, NodeError};

const NOW: u64 = 1_700_000_000_000_000_000;

fn config(workers: u16) -> Config {
    let text = r#"{"name": "n", "role": "clb", "boot_id": "00112233445566778899aabbccddeeff", "tap_capacity": 1024}"#;
    Config { workers: Some(workers), ..Config::from_json(text).unwrap() }
}

fn tables(new_flows_per_s: u32) -> String {
    format!(
        r#"{{"epoch": 1, "node": "n", "role": "{}", "tunnel": {{"local": "10.3.0.11", "encap": "gre"}},
        "probe": {{"reserved": ["198.18.0.0/16"], "key": "000102030405060708090a0b0c0d0e0f"}},
        "clb": {{"reply_to": "10.3.255.1", "reply_encap": "gre", "vips": [
            {{"id": 7, "address": "10.100.0.1", "service": "10.4.0.1", "new_flows_per_s": {new_flows_per_s},
              "listeners": [{{"protocol": "udp", "port": 53, "backends": [
                {{"id": 5, "tunnel": "10.3.1.1", "key": 77, "encap": "gre", "weight": 100}}]}}]}}]}},
        "ports": [{{"index": 0, "mac": "02:00:00:00:00:01", "next_hop_mac": "02:00:00:00:00:02", "mtu": 1600}}]}}"#,
        Role::Clb.name()
    )
}

fn ipv4(protocol: u8, source: [u8; 4], target: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    header.extend(source);
    header.extend(target);
    let sum: u32 = header.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    header[10..12].copy_from_slice(&(!((folded & 0xFFFF) + (folded >> 16)) as u16).to_be_bytes());
    header.extend_from_slice(payload);
    header
}

/// A datagram of a flow of its own to the VIP, in GRE.
fn datagram(flow: u16) -> Vec<u8> {
    let udp: Vec<u8> = [1000 + flow, 53, 8, 0].iter().flat_map(|field| field.to_be_bytes()).collect();
    let inner = ipv4(17, [192, 0, 2, 1], [10, 100, 0, 1], &udp);
    let outer = ipv4(47, [10, 3, 0, 1], [10, 4, 0, 1], &[&[0, 0, 8, 0], &inner[..]].concat());
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], &outer[..]].concat()
}

#[test]
fn workers_share_the_limit_of_a_vip() {
    for workers in [1, 4] {
        let mut node = Inline::new(&config(workers), 1, NOW).unwrap();
        node.apply(&tables(40)).unwrap();
        let frames: Vec<Vec<u8>> = (0..400).map(datagram).collect();
        let out = node.process(frames.iter().map(|bytes| (0, bytes.as_slice())), NOW);
        assert_eq!(out.len(), 40, "{workers} workers");
        let limited: u64 = node.counters().iter().map(|one| one.counters.drops(DropReason::FlowLimit)).sum();
        assert_eq!(limited, 360);
        assert!(node.counters().iter().all(|one| one.counters.get(Counter::FramesIn) > 0), "every worker works");
    }
}

/// A LD of three workers and its two real servers, of which one is dead. The first worker asks; whichever gets an answer notes
/// it and resets; all obey.
#[test]
fn one_worker_checks_health_and_all_obey() {
    let text = tables(1000).replace(
        r#""protocol": "udp", "port": 53, "backends": ["#,
        r#""protocol": "tcp", "port": 80, "health": {"interval_ms": 200, "timeout_ms": 100, "rise": 2, "fall": 2}, "backends": [
           {"id": 6, "tunnel": "10.3.1.2", "key": 78, "encap": "gre", "weight": 100},"#,
    );
    let mut node = Inline::new(&config(3), 1, NOW).unwrap();
    assert!(node.health().is_empty());
    node.apply(&text).unwrap();
    let known = |node: &Inline| -> Vec<(u32, u32, u16, bool)> {
        node.health().iter().map(|one| (one.vip_id, one.server_id, one.port, one.up)).collect()
    };
    assert_eq!(known(&node), [(7, 5, 80, true), (7, 6, 80, true)]);
    let (mut now, mut checks, mut resets) = (NOW, 0, 0);
    let mut answers: Vec<Vec<u8>> = Vec::new();
    for _ in 0..300 {
        now += 20_000_000;
        node.beat(now);
        let taken: Vec<Vec<u8>> = std::mem::take(&mut answers);
        for (port, frame) in node.process(taken.iter().map(|bytes| (0, bytes.as_slice())), now) {
            assert_eq!((port, &frame[14 + 12..14 + 20]), (0, &[10, 3, 0, 11, 10, 3, 1, frame[14 + 19]][..]));
            let inner = &frame[14 + 20 + 8..];
            assert_eq!(inner[12..20], [10, 3, 0, 11, 10, 100, 0, 1]);
            let tcp = &inner[20..];
            match tcp[13] {
                2 => checks += 1,
                4 => resets += 1,
                flags => panic!("{flags:#x}"),
            }
            if tcp[13] != 2 || frame[14 + 19] != 1 {
                continue; // 10.3.1.2 is dead
            }
            let mut segment = [&tcp[2..4], &tcp[..2], &[0; 4], &tcp[4..8], &[0x50, 0x12, 4, 0, 0, 0, 0, 0]].concat();
            let ack = u32::from_be_bytes(segment[8..12].try_into().unwrap()).wrapping_add(1);
            segment[8..12].copy_from_slice(&ack.to_be_bytes());
            let reply = ipv4(6, [10, 100, 0, 1], [10, 3, 0, 11], &segment);
            let outer = ipv4(47, [10, 3, 1, 1], [10, 3, 0, 11], &[&[0x20, 0, 8, 0, 0, 0, 0, 77], &reply[..]].concat());
            answers.push([&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], &outer[..]].concat());
        }
    }
    assert_eq!(known(&node), [(7, 5, 80, true), (7, 6, 80, false)]);
    assert_eq!(node.health()[0].since_ns, 0);
    assert!((NOW + 200_000_000..NOW + 800_000_000).contains(&node.health()[1].since_ns));
    assert!((56..=62).contains(&checks) && resets >= 28, "{checks} {resets}");
    let total = |counter| node.counters().iter().map(|one| one.counters.get(counter)).sum::<u64>();
    assert_eq!(total(Counter::Generated), checks + resets);
    let taken: Vec<u64> = node.counters().iter().map(|one| one.counters.drops(DropReason::HealthAnswer)).collect();
    assert_eq!(taken.iter().sum::<u64>(), resets);
    assert!(taken[1..].iter().all(|taken| *taken > 0), "answers come to any worker: {taken:?}");
    // Connections of every worker go to the one that is up.
    let syn = |client: u16| {
        let segment =
            [&(1000 + client).to_be_bytes()[..], &[0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0]].concat();
        let inner = ipv4(6, [192, 0, 2, 1], [10, 100, 0, 1], &segment);
        let outer = ipv4(47, [10, 3, 0, 1], [10, 4, 0, 1], &[&[0, 0, 8, 0], &inner[..]].concat());
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], &outer[..]].concat()
    };
    let frames: Vec<Vec<u8>> = (0..100).map(syn).collect();
    let out = node.process(frames.iter().map(|bytes| (0, bytes.as_slice())), now);
    assert_eq!(out.len(), 100);
    assert!(out.iter().all(|(_, frame)| frame[14 + 19] == 1));
    // What was found outlives new tables.
    node.apply(&text.replace(r#""epoch": 1"#, r#""epoch": 2"#)).unwrap();
    assert_eq!(known(&node), [(7, 5, 80, true), (7, 6, 80, false)]);
}

#[test]
fn a_name_that_makes_no_file_name_is_refused_at_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("taps");
    std::fs::create_dir(&inside).unwrap();
    let long = "n".repeat(65);
    for name in ["", "../n", "a/b", "a\0b", long.as_str()] {
        let wrong = Config { name: name.to_owned(), tap_dir: Some(inside.clone()), ..config(1) };
        match Inline::new(&wrong, 1, NOW) {
            Err(NodeError::Config(error)) => assert_eq!(error.problems[0].path, "name", "{name:?}"),
            Err(other) => panic!("{name:?}: {other}"),
            Ok(_) => panic!("{name:?} was taken"),
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no tap outside its directory");
}

#[test]
fn a_node_that_is_told_no_seed_makes_its_own() {
    let text = r#"{"name": "n", "role": "clb", "boot_id": "00112233445566778899aabbccddeeff""#;
    let seed = |rest: &str| Config::from_json(&format!("{text}{rest}}}")).unwrap().seed;
    assert_ne!(seed(""), seed(""), "who knows the seed can fill a bucket of every node");
    assert_eq!(seed(r#", "seed": 9"#), 9);
}
