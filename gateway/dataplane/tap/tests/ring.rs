//! The ring file against a plain queue, and across the death of its writer.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use proptest::prelude::*;
use tgw_contract::{Counter, DropReason, Point};
use tgw_forward::Observer;
use tgw_tap::{file_name, Header, Reader, TapError, Writer};

fn header(capacity: u64) -> Header {
    Header {
        node: "ld-a1".into(),
        role: 2,
        worker: 3,
        boot_id: *b"0123456789abcdef",
        capacity,
        pid: std::process::id(),
        created_ns: 5,
    }
}

fn point(kind: u8, probe_id: u64, ts_ns: u64) -> Point {
    Point { kind, probe_id, ts_ns, tcp_seq: probe_id as u32, ..Point::default() }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8),
    Publish,
    Take,
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u8..6).prop_map(Step::Write),
        3 => Just(Step::Publish),
        2 => Just(Step::Take),
        1 => Just(Step::Release),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// The file does what a bounded queue does, whose room is freed by `release`: what was taken in comes out once and
    /// in order, what was not is counted as lost, and sequence numbers have no gaps.
    #[test]
    fn is_a_bounded_queue(power in 0u32..5, steps in steps()) {
        let capacity = 1u64 << power;
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(directory.path(), header(capacity)).unwrap();
        let mut reader = Reader::open(writer.path().unwrap()).unwrap();
        let (mut staged, mut unread) = (Vec::new(), VecDeque::new());
        let (mut held, mut taken_not_released, mut lost, mut next, mut out) = (0u64, 0u64, 0u64, 0u64, 0u64);
        for step in steps {
            match step {
                Step::Write(count) => for _ in 0..count {
                    next += 1;
                    writer.point(&point(1, next, 10));
                    staged.push(next);
                },
                Step::Publish => {
                    writer.publish(17);
                    for id in staged.drain(..) {
                        if held < capacity { held += 1; unread.push_back(id); } else { lost += 1; }
                    }
                }
                Step::Take => for record in reader.points() {
                    prop_assert_eq!(Some(record.probe_id), unread.pop_front());
                    prop_assert_eq!((record.seq, record.worker, record.residence_ns), (out, 3, 7));
                    out += 1;
                    taken_not_released += 1;
                },
                Step::Release => {
                    reader.release();
                    held -= taken_not_released;
                    taken_not_released = 0;
                }
            }
            // Staged points are nobody's business yet; everything published is there or counted.
            prop_assert_eq!(reader.state().lost, lost);
            prop_assert_eq!(reader.state().write_cursor, out + unread.len() as u64);
            prop_assert_eq!(reader.counters().get(Counter::TracePoints), next - staged.len() as u64);
        }
    }
}

#[test]
fn a_drop_point_flood_is_capped_and_counted_but_probes_are_not() {
    let mut writer = Writer::anonymous(header(4096)).unwrap().with_drop_points_per_second(10);
    let mut reader = writer.reader();
    for n in 0..1000 {
        writer.point(&point(2, u64::from(n % 2 == 0) * 99, 1));
    }
    writer.publish(1_000_000_000);
    let points = reader.points();
    assert_eq!(points.iter().filter(|p| p.probe_id == 99).count(), 500);
    assert_eq!(points.iter().filter(|p| p.probe_id == 0).count(), 10);
    assert_eq!(reader.state().suppressed, 490);
    assert_eq!(reader.counters().get(Counter::DropPoints), 1000);
}

#[test]
fn a_frame_that_did_not_leave_after_all_has_one_record() {
    let mut writer = Writer::anonymous(header(16)).unwrap();
    let mut reader = writer.reader();
    writer.point(&Point { vip_id: 7, verdict: 1, ..point(1, 42, 1) });
    writer.point(&Point { vip_id: 8, verdict: 1, ..point(1, 43, 1) });
    let full = DropReason::DeviceFull.number();
    writer.revoke(&Point { reason: full, verdict: 2, ..point(2, 42, 1) });
    writer.revoke(&Point { reason: full, verdict: 2, ..point(2, 0, 1) });
    writer.publish(2);
    let seen: Vec<_> = reader.points().iter().map(|p| (p.kind, p.reason, p.verdict, p.probe_id, p.vip_id)).collect();
    assert_eq!(seen, [(2, full, 2, 42, 7), (1, 0, 1, 43, 8), (2, full, 2, 0, 0)]);
}

#[test]
fn counters_and_cursors_are_seen_through_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(directory.path(), header(8)).unwrap();
    writer.count_in(5, 500);
    writer.count_out(3, 300);
    writer.count_drop(DropReason::NoVip);
    writer.count_drop(DropReason::NoVip);
    writer.set(Counter::Epoch, 9);
    writer.beat(77);
    let reader = Reader::open(&directory.path().join(file_name("ld-a1", 3, b"0123456789abcdef"))).unwrap();
    let counters = reader.counters();
    assert_eq!((counters.get(Counter::FramesIn), counters.get(Counter::BytesOut)), (5, 300));
    assert_eq!((counters.drops(DropReason::NoVip), counters.all_drops(), counters.get(Counter::Epoch)), (2, 2, 9));
    assert_eq!((reader.state().heartbeat_ns, reader.state().closed), (77, false));
    assert_eq!(reader.header(), writer.header());
    writer.close(88);
    assert_eq!((reader.state().heartbeat_ns, reader.state().closed), (88, true));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing half made is left");
}

#[test]
fn what_is_no_tap_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let field = |result: Result<Reader, TapError>| match result {
        Err(TapError::Field { field, .. }) => field,
        Err(TapError::Io { .. }) => "io",
        Ok(_) => "accepted",
    };
    let path = directory.path().join("x.tap");
    assert_eq!(field(Reader::open(&path)), "io");
    std::fs::write(&path, b"short").unwrap();
    assert_eq!(field(Reader::open(&path)), "io");
    std::fs::write(&path, vec![7u8; 8192]).unwrap();
    assert_eq!(field(Reader::open(&path)), "magic");
    let writer = Writer::create(directory.path(), header(8)).unwrap();
    let whole = std::fs::read(writer.path().unwrap()).unwrap();
    let mut other_layout = whole.clone();
    other_layout[8] ^= 1;
    std::fs::write(&path, other_layout).unwrap();
    assert_eq!(field(Reader::open(&path)), "layout");
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(field(Reader::open(&path)), "io", "shorter than its capacity says");
    assert!(matches!(Writer::anonymous(header(3)), Err(TapError::Field { field: "capacity", .. })));
    let nameless = Header { node: String::new(), ..header(8) };
    assert!(matches!(Writer::anonymous(nameless), Err(TapError::Field { field: "node", .. })));
    let nowhere = Writer::create(&directory.path().join("missing"), header(8));
    assert!(nowhere.is_err_and(|error| error.to_string().contains("missing")));
}

#[test]
fn a_reader_in_step_with_a_writer_sees_only_whole_records() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(directory.path(), header(64)).unwrap();
    let mut reader = Reader::open(writer.path().unwrap()).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&done);
    let thread = std::thread::spawn(move || {
        for n in 1..=50_000u64 {
            writer.point(&Point { vip_id: n as u32, server_id: !(n as u32), ..point(1, n, n) });
            if n % 7 == 0 {
                writer.publish(n);
            }
        }
        writer.close(1);
        told.store(true, Ordering::Release);
    });
    let (mut seen, mut last) = (0u64, 0);
    loop {
        let finished = done.load(Ordering::Acquire);
        for record in reader.points() {
            assert_eq!((record.seq, record.vip_id, record.server_id), (seen, record.probe_id as u32, !record.vip_id));
            assert!(record.probe_id > last);
            (seen, last) = (seen + 1, record.probe_id);
        }
        reader.release();
        if finished {
            break;
        }
    }
    thread.join().unwrap();
    assert_eq!(seen + reader.state().lost, 50_000);
}

/// Not a test of its own: the child of the next one writes until it is killed.
#[test]
#[ignore = "run by a_killed_writer_leaves_a_whole_file"]
fn write_until_killed() {
    let Some(directory) = std::env::var_os("TGW_TAP_TEST_DIRECTORY") else {
        return;
    };
    let mut writer = Writer::create(directory.as_ref(), header(1 << 16)).unwrap();
    for n in 1.. {
        writer.count_in(1, 100);
        writer.point(&Point { vip_id: n as u32, server_id: !(n as u32), ..point(1, n, n) });
        writer.publish(n);
        writer.beat(n);
    }
}

#[test]
fn a_killed_writer_leaves_a_whole_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "write_until_killed"])
        .env("TGW_TAP_TEST_DIRECTORY", directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = directory.path().join(file_name("ld-a1", 3, b"0123456789abcdef"));
    let wait = std::time::Instant::now();
    while !Reader::open(&path).is_ok_and(|reader| reader.state().write_cursor > 10_000) {
        assert!(wait.elapsed().as_secs() < 20, "the child has written nothing");
        std::thread::yield_now();
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    let mut reader = Reader::open(&path).unwrap();
    let state = reader.state();
    let records = reader.points();
    assert_eq!(records.len() as u64, state.write_cursor);
    for (at, record) in records.iter().enumerate() {
        assert_eq!((record.seq, record.probe_id), (at as u64, at as u64 + 1));
        assert_eq!((record.vip_id, record.server_id), (record.probe_id as u32, !(record.probe_id as u32)));
    }
    assert!(!state.closed && state.heartbeat_ns > 0 && state.lost + state.write_cursor > 10_000);
    assert!(reader.counters().get(Counter::FramesIn) >= state.write_cursor);
}
