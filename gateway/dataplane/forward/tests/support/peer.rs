//! A small TCP for one connection: retransmission, windows, reordering and selective acknowledgements, and it minds every
//! number that it is told.

use std::collections::BTreeMap;

use tgw_wire::tcp::{ACK, FIN, RST, SYN};

use super::{ip, packet, pseudo};

const RETRY: u64 = 300_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Listen,
    SynSent,
    SynReceived,
    Established,
    Reset,
}

/// A segment as it was read.
#[derive(Clone, Debug)]
pub struct Seen {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub mss: Option<u16>,
    pub sack_permitted: bool,
    pub blocks: Vec<(u32, u32)>,
    pub payload: Vec<u8>,
}

/// Read a TCP packet; its checksum must be right.
pub fn read(bytes: &[u8]) -> Seen {
    super::verify(bytes);
    let (_, _, number, tcp) = super::open(bytes);
    assert_eq!(number, 6);
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let header = usize::from(tcp[12] >> 4) * 4;
    let mut seen = Seen {
        flags: tcp[13],
        seq: word(4),
        ack: word(8),
        window: u16::from_be_bytes([tcp[14], tcp[15]]),
        mss: None,
        sack_permitted: false,
        blocks: Vec::new(),
        payload: tcp[header..].to_vec(),
    };
    let mut at = 20;
    while at < header {
        match tcp[at] {
            0 => break,
            1 => at += 1,
            kind => {
                let length = usize::from(tcp[at + 1]);
                match kind {
                    2 => seen.mss = Some(u16::from_be_bytes([tcp[at + 2], tcp[at + 3]])),
                    4 => seen.sack_permitted = true,
                    5 => seen.blocks = (at + 2..at + length).step_by(8).map(|at| (word(at), word(at + 4))).collect(),
                    _ => {}
                }
                at += length;
            }
        }
    }
    seen
}

/// One end.
pub struct Peer {
    own: (&'static str, u16),
    other: (&'static str, u16),
    pub state: State,
    pub isn: u32,
    /// Sent from here on, acknowledged up to there (counted from the byte after the SYN).
    next: usize,
    acked: usize,
    /// What is to be sent, and whether it ends.
    to_send: Vec<u8>,
    pub closes: bool,
    window: usize,
    pub mss: usize,
    pub other_isn: u32,
    pub received: Vec<u8>,
    early: BTreeMap<usize, Vec<u8>>,
    pub is_ended: bool,
    sack: bool,
    /// Selective acknowledgements that it got.
    pub sacked: usize,
    timer: u64,
    probes: u32,
}

impl Peer {
    pub fn new(own: (&'static str, u16), other: (&'static str, u16), isn: u32, to_send: Vec<u8>) -> Self {
        Self {
            own,
            other,
            state: State::Listen,
            isn,
            next: 0,
            acked: 0,
            to_send,
            closes: true,
            window: 0,
            mss: 536,
            other_isn: 0,
            received: Vec::new(),
            early: BTreeMap::new(),
            is_ended: false,
            sack: false,
            sacked: 0,
            timer: 0,
            probes: 0,
        }
    }

    fn end(&self) -> usize {
        self.to_send.len() + usize::from(self.closes)
    }

    /// Everything was sent, acknowledged and received.
    pub fn is_done(&self) -> bool {
        self.state == State::Established && self.acked == self.end() && self.is_ended
    }

    fn segment(&self, flags: u8, seq: u32, payload: &[u8]) -> Vec<u8> {
        let mut options = Vec::new();
        if flags & SYN != 0 {
            let [high, low] = (if ip(self.own.0).is_ipv4() { 1460u16 } else { 1440 }).to_be_bytes();
            options.extend([2, 4, high, low, 1, 1, 4, 2]);
        } else if self.sack && payload.is_empty() && !self.early.is_empty() {
            let edge = |at: usize| self.other_isn.wrapping_add(1).wrapping_add(at as u32).to_be_bytes();
            let blocks: Vec<_> = self.early.iter().take(3).collect();
            options.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
            for (at, bytes) in blocks {
                options.extend(edge(*at));
                options.extend(edge(at + bytes.len()));
            }
        }
        let ack = match flags & ACK {
            0 => 0,
            _ => self.other_isn.wrapping_add(1 + self.received.len() as u32 + u32::from(self.is_ended)),
        };
        let mut tcp = Vec::new();
        tcp.extend(self.own.1.to_be_bytes());
        tcp.extend(self.other.1.to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([(5 + options.len() as u8 / 4) << 4, flags, 0x20, 0, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(payload);
        let (src, dst) = (ip(self.own.0), ip(self.other.0));
        let checksum = pseudo(src, dst, 6, tcp.len()).bytes(&tcp).checksum();
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        packet(src, dst, 6, 64, &tcp)
    }

    fn seq(&self, at: usize) -> u32 {
        self.isn.wrapping_add(1).wrapping_add(at as u32)
    }

    pub fn connect(&mut self, now: u64) -> Vec<u8> {
        (self.state, self.timer) = (State::SynSent, now + RETRY);
        self.segment(SYN, self.isn, b"")
    }

    pub fn reset(&mut self) -> Vec<u8> {
        self.state = State::Reset;
        self.segment(RST, self.seq(self.next), b"")
    }

    /// Time goes on: what is due again.
    pub fn tick(&mut self, now: u64) -> Vec<Vec<u8>> {
        if now < self.timer {
            return Vec::new();
        }
        self.timer = now + RETRY;
        match self.state {
            State::Listen | State::Reset => Vec::new(),
            State::SynSent => vec![self.segment(SYN, self.isn, b"")],
            State::SynReceived => vec![self.segment(SYN | ACK, self.isn, b"")],
            State::Established if self.acked == self.end() => Vec::new(),
            State::Established if self.window == 0 => {
                self.probes += 1;
                vec![self.segment(ACK, self.seq(self.acked).wrapping_sub(1), b"")]
            }
            State::Established => {
                self.next = self.acked;
                self.push(now)
            }
        }
    }

    /// Send as much as the other's window takes.
    fn push(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while self.next < self.end() && self.next - self.acked < self.window {
            let last = (self.next + self.mss).min(self.to_send.len()).min(self.acked + self.window);
            let payload = self.to_send[self.next.min(last)..last].to_vec();
            let fin = if last == self.to_send.len() && self.closes { FIN } else { 0 };
            out.push(self.segment(ACK | fin, self.seq(self.next), &payload));
            self.next = last + usize::from(fin != 0);
        }
        if !out.is_empty() {
            self.timer = now + RETRY;
        }
        out
    }

    /// Take a packet: what it answers.
    pub fn take(&mut self, now: u64, bytes: &[u8]) -> Vec<Vec<u8>> {
        let seen = read(bytes);
        let (src, dst, _, tcp) = super::open(bytes);
        assert_eq!((src, dst), (ip(self.other.0), ip(self.own.0)));
        assert_eq!(tcp[..4], [self.other.1.to_be_bytes(), self.own.1.to_be_bytes()].concat());
        if self.state == State::Reset {
            return Vec::new();
        }
        if seen.flags & RST != 0 {
            let expected = self.other_isn.wrapping_add(1 + self.received.len() as u32);
            let is_exact = match self.state {
                State::SynSent => seen.flags & ACK != 0 && seen.ack == self.seq(0),
                State::Listen => false,
                _ => seen.seq == expected,
            };
            assert!(is_exact, "a reset that nobody would take: {seen:?}");
            self.state = State::Reset;
            return Vec::new();
        }
        match (self.state, seen.flags & (SYN | ACK)) {
            (State::Listen, SYN) => {
                self.begin(&seen);
                (self.state, self.timer) = (State::SynReceived, now + RETRY);
                return vec![self.segment(SYN | ACK, self.isn, b"")];
            }
            (State::SynReceived, SYN) => return vec![self.segment(SYN | ACK, self.isn, b"")],
            (State::SynSent, flags) if flags == SYN | ACK => {
                assert_eq!(seen.ack, self.seq(0));
                self.begin(&seen);
                self.state = State::Established;
                let mut out = vec![self.segment(ACK, self.seq(0), b"")];
                out.extend(self.push(now));
                return out;
            }
            (State::SynSent | State::Listen, _) => panic!("{:?} {seen:?}", self.state),
            // Again: the acknowledgement was lost.
            (_, flags) if flags & SYN != 0 => return vec![self.segment(ACK, self.seq(self.next), b"")],
            _ => {}
        }
        // Every number must be one that it has sent.
        let acked = seen.ack.wrapping_sub(self.seq(0)) as usize;
        assert!(acked <= self.end(), "{} of {}: {seen:?}", acked, self.end());
        for (from, to) in &seen.blocks {
            let (from, to) = (from.wrapping_sub(self.seq(0)) as usize, to.wrapping_sub(self.seq(0)) as usize);
            assert!(from < to && to <= self.to_send.len() && from > 0, "block {from}..{to}");
            self.sacked += 1;
        }
        if self.state == State::SynReceived {
            self.state = State::Established;
        }
        self.window = usize::from(seen.window);
        let is_news = acked > self.acked;
        self.acked = self.acked.max(acked);
        self.next = self.next.max(self.acked);
        let mut out = self.arrive(&seen);
        if is_news || seen.payload.is_empty() {
            out.extend(self.push(now));
        }
        out
    }

    fn begin(&mut self, seen: &Seen) {
        self.other_isn = seen.seq;
        self.sack = seen.sack_permitted;
        self.mss = usize::from(seen.mss.unwrap());
        self.window = usize::from(seen.window);
    }

    fn arrive(&mut self, seen: &Seen) -> Vec<Vec<u8>> {
        let at = seen.seq.wrapping_sub(self.other_isn.wrapping_add(1)) as i32;
        let old = self.received.len() as i32 + i32::from(self.is_ended);
        if seen.payload.is_empty() && seen.flags & FIN == 0 {
            // A probe of the window wants an answer.
            return if at < old { vec![self.segment(ACK, self.seq(self.next), b"")] } else { Vec::new() };
        }
        assert!((-1..1 << 24).contains(&at), "{at}");
        if !seen.payload.is_empty() && at + seen.payload.len() as i32 > self.received.len() as i32 {
            self.early.insert(at as usize, seen.payload.clone());
        }
        while let Some((first, bytes)) = self.early.pop_first() {
            if first > self.received.len() {
                self.early.insert(first, bytes);
                break;
            }
            self.received.extend(bytes.iter().skip(self.received.len() - first));
        }
        let last = at + seen.payload.len() as i32;
        if seen.flags & FIN != 0 && last == self.received.len() as i32 {
            self.is_ended = true;
        }
        vec![self.segment(ACK, self.seq(self.next), b"")]
    }
}
