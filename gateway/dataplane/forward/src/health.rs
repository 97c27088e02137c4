//! Health checks of real servers, sans I/O: takes the time, yields what to ask, judges what was answered.
//!
//! A check is a SYN of the LD's own tunnel address to the VIP, wrapped as a client's would be for one real server: it tests
//! the host, the vSwitch, the server and the way back, all that a connection needs. The vSwitch learns this LD as it does
//! with every request, and sends the SYN-ACK back to it; whichever worker gets it notes it on the board, and resets the
//! connection. The first worker of a node sends and judges; all obey the board.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::board::{Board, Question, Standing, Verdict};
use crate::hash::{mix, Map, Tuple};
use crate::segment::Segment;
use crate::tables::{ClbTables, Health, Listener};
use crate::work::Work;
use crate::Nanos;

/// Source ports of checks. Each check takes the next, so that the servers of one host are not confused there.
const FIRST_PORT: u16 = 61_440;
const PORTS: u16 = 4096;

/// Whether a reply, or an error about a request, is about a check that came from this LD's address.
pub(crate) fn is_answer(local: u128, work: &Work) -> bool {
    work.flow.src == local && work.flow.src_port >= FIRST_PORT
}

/// What identifies a target over changes of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name {
    address: u128,
    port: u16,
    server: u32,
}

/// A real server of a listener.
#[derive(Clone, Debug)]
struct Target {
    name: Name,
    /// Places in the tables.
    listener: u32,
    place: u32,
    slot: usize,
    policy: Health,
    /// Answers (of a server that is down) or failures (of one that is up) in a row.
    streak: u16,
    asked: Option<(Question, Nanos)>,
}

/// One check to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    target: u32,
    /// Places in the tables.
    pub(crate) listener: u32,
    pub(crate) place: u32,
    pub(crate) question: Question,
}

/// Asks and judges.
#[derive(Debug)]
pub(crate) struct Checker {
    seed: u64,
    /// Checks made so far.
    count: u64,
    now: Nanos,
    targets: Vec<Target>,
    /// When each target is next to be asked or judged: one entry for each, so it never grows.
    queue: BinaryHeap<Reverse<(Nanos, u32)>>,
}

impl Checker {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, count: 0, now: 0, targets: Vec::new(), queue: BinaryHeap::new() }
    }

    /// Other tables are in force. What was going on with a target that stays goes on; new ones begin at a time of their own
    /// within their interval.
    pub(crate) fn take_tables(&mut self, clb: &ClbTables, before: Option<&ClbTables>, now: Nanos) {
        let due: Map<u32, Nanos> = self.queue.drain().map(|Reverse((due, target))| (target, due)).collect();
        let old: Map<Name, (Target, Nanos)> = std::mem::take(&mut self.targets)
            .into_iter()
            .zip(0..)
            .map(|(target, index)| (target.name, (target, due.get(&index).copied().unwrap_or(now))))
            .collect();
        for (listener, at) in clb.listeners.iter().zip(0..) {
            let Some(policy) = listener.health else { continue };
            let address = clb.vips.get(listener.vip as usize).map_or(0, |vip| vip.address);
            for (backend, place) in listener.backends.iter().zip(0..) {
                let Some(slot) = listener.slot(place as usize) else { continue };
                let name = Name { address, port: listener.port, server: backend.id };
                let index = self.targets.len() as u32;
                let target = Target { name, listener: at, place, slot, policy, streak: 0, asked: None };
                let (target, due) = match old.get(&name) {
                    Some((known, due)) => {
                        // This worker knows better than who settled the board from old tables.
                        if let Some(before) = before {
                            clb.board.set(slot, before.board.standing(known.slot));
                        }
                        if let Some((question, _)) = known.asked {
                            carry(&clb.board, slot, before, known.slot, question);
                        }
                        (Target { streak: known.streak, asked: known.asked, ..target }, *due)
                    }
                    None => {
                        let due = now + self.jitter(&target);
                        (target, due)
                    }
                };
                self.targets.push(target);
                self.queue.push(Reverse((due, index)));
            }
        }
    }

    /// The next check to send at `now`; `None` when none is due. Judges on the way.
    pub(crate) fn next(&mut self, now: Nanos, board: &Board) -> Option<Check> {
        if now < self.now {
            self.begin_again(now);
        }
        self.now = now;
        loop {
            let Reverse((due, index)) = *self.queue.peek().filter(|Reverse((due, _))| *due <= now)?;
            self.queue.pop();
            let Some(target) = self.targets.get_mut(index as usize) else { continue };
            let policy = target.policy;
            // Time has leapt, or this worker was held up: no reason to blame a server, or to ask all of them at once now.
            let is_late = now - due > policy.interval;
            if let Some((question, asked)) = target.asked.take() {
                let verdict = board.verdict(target.slot, question);
                if !is_late || verdict != Verdict::Pending {
                    target.judge(board, verdict, now);
                }
                let next = if is_late { now + self.jitter_of(index) } else { (asked + policy.interval).max(now) };
                self.queue.push(Reverse((next, index)));
                continue;
            }
            if is_late {
                let next = now + self.jitter_of(index);
                self.queue.push(Reverse((next, index)));
                continue;
            }
            self.count += 1;
            let port = FIRST_PORT + (self.count % u64::from(PORTS)) as u16;
            let question = Question { port, isn: mix(self.seed ^ self.count) as u32 };
            target.asked = Some((question, now));
            board.ask(target.slot, question);
            self.queue.push(Reverse((now + policy.timeout, index)));
            return Some(Check { target: index, listener: target.listener, place: target.place, question });
        }
    }

    /// The check could not be sent: it says nothing about the server.
    pub(crate) fn revoke(&mut self, check: &Check) {
        if let Some(target) = self.targets.get_mut(check.target as usize) {
            target.asked = None;
        }
    }

    /// The clock was set back: what waits is forgotten.
    fn begin_again(&mut self, now: Nanos) {
        self.queue.clear();
        for index in 0..self.targets.len() as u32 {
            let due = now + self.jitter_of(index);
            self.queue.push(Reverse((due, index)));
        }
        self.targets.iter_mut().for_each(|target| target.asked = None);
    }

    fn jitter_of(&self, index: u32) -> Nanos {
        self.targets.get(index as usize).map_or(0, |target| self.jitter(target))
    }

    /// A time within a target's interval, its own.
    fn jitter(&self, target: &Target) -> Nanos {
        let Name { address, port, server } = target.name;
        let name = mix(address as u64 ^ mix((address >> 64) as u64 ^ u64::from(port) << 32 ^ u64::from(server)));
        mix(self.seed ^ name) % target.policy.interval.max(1)
    }
}

impl Target {
    fn judge(&mut self, board: &Board, verdict: Verdict, now: Nanos) {
        let is_up = board.is_up(self.slot);
        if is_up == (verdict == Verdict::Answered) {
            self.streak = 0;
            return;
        }
        self.streak += 1;
        if self.streak >= if is_up { self.policy.fall } else { self.policy.rise } {
            self.streak = 0;
            board.set(self.slot, Standing { up: !is_up, since: now.max(1) });
        }
    }
}

/// A question that waits is asked on the new board too, and what has come of it on the old one stays.
fn carry(board: &Board, slot: usize, before: Option<&ClbTables>, old: usize, question: Question) {
    board.ask(slot, question);
    match before.map(|before| before.board.verdict(old, question)) {
        None | Some(Verdict::Pending) => {}
        Some(verdict) => board.answer(slot, question, verdict),
    }
}

/// Note an answer on the board. `place` of the real server in the listener.
pub(crate) fn note(board: &Board, listener: &Listener, place: usize, question: Question, verdict: Verdict) {
    if let (Some(slot), true) = (listener.slot(place), listener.health.is_some()) {
        board.answer(slot, question, verdict);
    }
}

/// A segment of a check.
pub(crate) const fn segment(flow: Tuple, seq: u32, flags: u8) -> Segment {
    Segment { flow, seq, ack: 0, flags, window: u16::MAX, offer: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{Section, Tables};
    use tgw_contract::Role;

    const MS: Nanos = 1_000_000;
    const START: Nanos = 1_000_000 * MS;

    fn tables(servers: &[u32], health: &str) -> Tables {
        let backends: Vec<String> = servers
            .iter()
            .map(|id| format!(r#"{{"id": {id}, "tunnel": "10.3.1.{id}", "key": {id}, "encap": "gre"}}"#))
            .collect();
        let text = format!(
            r#"{{"epoch": 1, "role": "clb", "tunnel": {{"local": "10.3.0.1", "encap": "gre"}},
            "probe": {{"key": "00000000000000000000000000000000", "reserved": []}},
            "ports": [{{"index": 0, "mac": "02:00:00:00:00:01", "mtu": 1500}}],
            "clb": {{"reply_to": "10.3.9.9", "reply_encap": "gre", "vips": [
              {{"id": 1, "address": "10.9.0.1", "service": "10.4.0.1", "listeners": [
                {{"protocol": "tcp", "port": 80, "health": {health}, "backends": [{}]}}]}}]}}}}"#,
            backends.join(", ")
        );
        Tables::from_json(&text, Role::Clb).unwrap()
    }

    fn clb(tables: &Tables) -> &ClbTables {
        match &tables.section {
            Section::Clb(clb) => clb,
            _ => unreachable!(),
        }
    }

    const HEALTH: &str = r#"{"interval_ms": 1000, "timeout_ms": 300, "rise": 2, "fall": 3}"#;

    /// Turns the checker every 10 ms up to `until`; servers that `answers` names answer. The times at which each was asked.
    fn run(
        checker: &mut Checker,
        clb: &ClbTables,
        from: Nanos,
        until: Nanos,
        answers: &dyn Fn(u32) -> bool,
    ) -> Vec<(Nanos, u32)> {
        let mut asked = Vec::new();
        let mut now = from;
        while now <= until {
            while let Some(check) = checker.next(now, &clb.board) {
                let listener = &clb.listeners[check.listener as usize];
                let id = listener.backends[check.place as usize].id;
                asked.push((now, id));
                if answers(id) {
                    note(&clb.board, listener, check.place as usize, check.question, Verdict::Answered);
                }
            }
            now += 10 * MS;
        }
        asked
    }

    fn up(clb: &ClbTables) -> Vec<bool> {
        (0..clb.listeners[0].backends.len()).map(|place| clb.listeners[0].is_up(&clb.board, place)).collect()
    }

    #[test]
    fn each_is_asked_once_an_interval_at_its_own_time() {
        let tables = tables(&[1, 2, 3, 4, 5], HEALTH);
        let clb = clb(&tables);
        let once = |seed: u64| {
            let mut checker = Checker::new(seed);
            checker.take_tables(clb, None, START);
            run(&mut checker, clb, START, START + 9_990 * MS, &|_| true)
        };
        let asked = once(7);
        assert_eq!(asked, once(7), "the same seed, the same times");
        assert_ne!(asked, once(8));
        for id in 1..=5 {
            let times: Vec<Nanos> = asked.iter().filter(|(_, of)| *of == id).map(|(time, _)| *time).collect();
            assert_eq!(times.len(), 10, "{id}");
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1000 * MS), "{times:?}");
        }
        let firsts: std::collections::HashSet<Nanos> = asked[..5].iter().map(|(time, _)| *time).collect();
        assert!(firsts.len() >= 4, "jitter: {asked:?}");
    }

    #[test]
    fn falls_after_failures_in_a_row_and_rises_after_answers_in_a_row() {
        let tables = tables(&[1, 2], HEALTH);
        let clb = clb(&tables);
        let mut checker = Checker::new(1);
        checker.take_tables(clb, None, START);
        let mut now = START;
        let mut seconds = |checker: &mut Checker, count: u64, answers: &dyn Fn(u32) -> bool| {
            run(checker, clb, now, now + count * 1000 * MS - 10 * MS, answers);
            now += count * 1000 * MS;
            up(clb)
        };
        assert_eq!(seconds(&mut checker, 2, &|_| true), [true, true]);
        assert_eq!(seconds(&mut checker, 2, &|id| id == 1), [true, true], "twice is not three times");
        assert_eq!(seconds(&mut checker, 2, &|_| true), [true, true]);
        assert_eq!(seconds(&mut checker, 2, &|id| id == 1), [true, true], "the count began anew");
        assert_eq!(seconds(&mut checker, 3, &|id| id == 1), [true, false]);
        let Standing { up: false, since } = clb.board.standing(1) else { panic!("up") };
        assert!(since > START + 8_000 * MS);
        assert_eq!(seconds(&mut checker, 1, &|_| true), [true, false], "once is not twice");
        assert_eq!(seconds(&mut checker, 3, &|_| true), [true, true]);
        assert_eq!(clb.board.standing(0), Standing::EVER);
    }

    #[test]
    fn a_refusal_and_silence_are_failures_and_a_check_that_was_not_sent_is_none() {
        let tables = tables(&[1], HEALTH);
        let clb = clb(&tables);
        for (verdict, expected) in [(Some(Verdict::Refused), false), (None, false), (Some(Verdict::Answered), true)] {
            let mut checker = Checker::new(1);
            clb.board.set(0, Standing::EVER);
            checker.take_tables(clb, None, START);
            for step in 0..1000 {
                while let Some(check) = checker.next(START + step * 10 * MS, &clb.board) {
                    if let Some(verdict) = verdict {
                        note(&clb.board, &clb.listeners[0], 0, check.question, verdict);
                    }
                }
            }
            assert_eq!(up(clb), [expected], "{verdict:?}");
        }
        clb.board.set(0, Standing::EVER);
        let mut checker = Checker::new(1);
        checker.take_tables(clb, None, START);
        for step in 0..1000 {
            while let Some(check) = checker.next(START + step * 10 * MS, &clb.board) {
                checker.revoke(&check);
            }
        }
        assert_eq!(up(clb), [true], "nothing was sent, nothing is known");
    }

    #[test]
    fn new_tables_keep_what_was_found_and_what_is_under_way() {
        let before = tables(&[1, 2, 3], HEALTH);
        let mut checker = Checker::new(1);
        checker.take_tables(clb(&before), None, START);
        clb(&before).succeed(None, START);
        run(&mut checker, clb(&before), START, START + 5_000 * MS, &|id| id != 2);
        assert_eq!(up(clb(&before)), [true, false, true]);
        let after = tables(&[2, 3, 4], HEALTH);
        let (old, new) = (clb(&before), clb(&after));
        let now = START + 5_000 * MS;
        new.succeed(Some(old), now);
        assert_eq!(up(new), [false, true, true]);
        assert_eq!(new.board.standing(0), old.board.standing(1));
        assert_eq!(new.board.standing(1), Standing::EVER);
        assert_eq!(new.board.standing(2), Standing { up: true, since: now }, "it has just come");
        // A worker that settled first from older knowledge does not win over the checker.
        new.board.set(0, Standing::EVER);
        checker.take_tables(new, Some(old), now);
        assert_eq!(up(new), [false, true, true]);
        let asked = run(&mut checker, new, now, now + 2_990 * MS, &|_| true);
        for id in 2..=4 {
            assert_eq!(asked.iter().filter(|(_, of)| *of == id).count(), 3, "{asked:?}");
        }
        assert_eq!(up(new), [true, true, true]);
        // Without checks, nobody is down.
        new.board.set(1, Standing { up: false, since: 5 });
        let bare = tables(&[2, 3, 4], "null");
        clb(&bare).succeed(Some(new), now);
        assert_eq!(up(clb(&bare)), [true, true, true]);
    }

    #[test]
    fn the_clock_may_leap_either_way() {
        let tables = tables(&[1, 2, 3, 4, 5, 6, 7, 8], HEALTH);
        let clb = clb(&tables);
        let mut checker = Checker::new(1);
        checker.take_tables(clb, None, START);
        run(&mut checker, clb, START, START + 3_000 * MS, &|_| true);
        for far in [START + 3_600_000 * MS, START] {
            let asked = run(&mut checker, clb, far, far + 2_990 * MS, &|_| true);
            let at_once = asked.iter().filter(|(time, _)| *time == far).count();
            assert!(at_once <= 4, "{asked:?}");
            assert!((16..=28).contains(&asked.len()), "{asked:?}");
            assert_eq!(up(clb), [true; 8]);
        }
        assert_eq!(checker.queue.len(), checker.targets.len());
    }
}
