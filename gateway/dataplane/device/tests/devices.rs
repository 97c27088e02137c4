//! The devices that need no network.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tgw_device::fault::Done;
use tgw_device::pcap::{PcapReader, PcapWriter};
use tgw_device::{Device, Faulty, Memory, Pcap, Plan, BATCH};
use tgw_forward::Frame;

fn buffers() -> Vec<Frame> {
    (0..BATCH).map(|_| Frame::default()).collect()
}

fn receive(device: &mut dyn Device, now: u64) -> Vec<Vec<u8>> {
    let mut frames = buffers();
    let count = device.receive(now, &mut frames);
    assert!(frames[..count].iter().all(|frame| frame.port == device.port() && frame.rx_ns == now));
    frames[..count].iter().map(|frame| frame.bytes().to_vec()).collect()
}

fn some_frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 0..40)
}

proptest! {
    #[test]
    fn memory_keeps_order_and_counts_what_it_has_no_room_for(frames in some_frames()) {
        let (mut device, wire) = Memory::new(4, 16);
        for frame in &frames {
            wire.put(frame);
        }
        prop_assert_eq!(receive(&mut device, 5), frames.iter().take(16).cloned().collect::<Vec<_>>());
        prop_assert_eq!(device.take_lost(), frames.len().saturating_sub(16) as u64);
        prop_assert_eq!(device.take_lost(), 0);
    }
}

#[test]
fn memory_refuses_what_it_has_no_room_for() {
    let (mut device, wire) = Memory::new(0, 2);
    let mut frames = buffers();
    for (n, frame) in frames.iter_mut().enumerate().take(4) {
        assert!(frame.load(0, 1, &[n as u8; 60]));
    }
    let mut refused = Vec::new();
    device.send(1, &frames, &[3, 1, 0], &mut refused);
    assert_eq!(refused, [0]);
    assert_eq!(wire.take(), [vec![3u8; 60], vec![1u8; 60]]);
}

#[test]
fn a_capture_reads_back_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcap");
    let mut device = Pcap::new(1, None, Some(PcapWriter::create(&path).unwrap()));
    let mut frames = buffers();
    for (n, frame) in frames.iter_mut().enumerate() {
        assert!(frame.load(0, 1, &vec![n as u8; 60 + n]));
    }
    let mut refused = Vec::new();
    device.send(1_700_000_000_123_456_789, &frames, &[0, 1, 2], &mut refused);
    device.flush().unwrap();
    assert!(refused.is_empty());
    let mut reader = PcapReader::open(&path).unwrap();
    assert_eq!(reader.next_frame().unwrap(), Some((1_700_000_000_123_456_789, vec![0; 60])));
    let mut replay = Pcap::new(7, Some(PcapReader::open(&path).unwrap()), None);
    assert_eq!(receive(&mut replay, 9), [vec![0u8; 60], vec![1; 61], vec![2; 62]]);
    assert!(receive(&mut replay, 10).is_empty());
    replay.send(1, &frames, &[5], &mut refused);
    assert_eq!(refused, [5], "no file to send to");
}

#[test]
fn a_capture_that_is_cut_off_says_so_wherever_the_cut_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.pcap");
    let mut writer = PcapWriter::create(&path).unwrap();
    (0..2).for_each(|at| writer.write(at, &[7; 20]).unwrap());
    writer.flush().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let (first, second) = (24 + 16 + 20, 24 + 2 * (16 + 20));
    assert_eq!(whole.len(), second);
    for cut in first..=second {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut reader = PcapReader::open(&path).unwrap();
        assert!(reader.next_frame().unwrap().is_some());
        let next = reader.next_frame();
        match cut {
            _ if cut == first => assert!(next.unwrap().is_none()),
            _ if cut == second => assert!(next.unwrap().is_some()),
            _ => assert!(next.is_err(), "{cut} bytes"),
        }
    }
}

#[test]
fn a_capture_of_microseconds_in_the_other_byte_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b.pcap");
    let mut file = vec![0xA1, 0xB2, 0xC3, 0xD4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 1];
    for word in [10u32, 20, 3, 3] {
        file.extend_from_slice(&word.to_be_bytes());
    }
    file.extend_from_slice(b"abc");
    std::fs::write(&path, &file).unwrap();
    let mut reader = PcapReader::open(&path).unwrap();
    assert_eq!(reader.next_frame().unwrap(), Some((10_000_020_000, b"abc".to_vec())));
    assert_eq!(reader.next_frame().unwrap(), None);
    std::fs::write(&path, &file[..file.len() - 1]).unwrap();
    assert!(PcapReader::open(&path).unwrap().next_frame().is_err(), "a frame that is cut off");
    std::fs::write(&path, [0u8; 24]).unwrap();
    assert!(PcapReader::open(&path).err().unwrap().to_string().contains("magic"));
}

fn through(plan: Plan, seed: u64) -> (Vec<Vec<u8>>, Done) {
    let (device, wire) = Memory::new(0, 10_000);
    let mut faulty = Faulty::new(device, plan, seed);
    let mut out = Vec::new();
    for n in 0..2000u32 {
        wire.put(&n.to_be_bytes().repeat(15));
    }
    for now in 0..200 {
        out.extend(receive(&mut faulty, now * 1000));
    }
    (out, faulty.done())
}

#[test]
fn faults_are_what_the_plan_says_and_repeat_themselves() {
    let clean = through(Plan::default(), 1);
    assert_eq!((clean.0.len(), clean.1), (2000, Done::default()));

    let plan = Plan { loss: 0.1, duplicate: 0.05, corrupt: 0.02, delay: 0.03, delay_ns: 5000 };
    let (out, done) = through(plan, 1);
    assert_eq!(out.len() as u64, 2000 - done.lost + done.duplicated);
    for (share, count) in [(0.1, done.lost), (0.05, done.duplicated), (0.02, done.corrupted), (0.03, done.delayed)] {
        let expected = 2000.0 * share;
        assert!((count as f64 - expected).abs() < 0.5 * expected, "{count} instead of {expected}");
    }
    assert_eq!(through(plan, 1), (out, done));
    assert_ne!(through(plan, 2).1, done);
}

#[test]
fn a_delayed_frame_comes_late_and_not_before() {
    let (device, wire) = Memory::new(0, 100);
    let mut faulty = Faulty::new(device, Plan { delay: 1.0, delay_ns: 50, ..Plan::default() }, 3);
    wire.put(&[1; 60]);
    assert!(receive(&mut faulty, 100).is_empty());
    assert!(receive(&mut faulty, 149).is_empty());
    assert_eq!(receive(&mut faulty, 150).len(), 1);
}
