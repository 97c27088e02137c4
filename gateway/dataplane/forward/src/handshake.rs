//! The handshakes that an LD holds itself, with SYN cookies.
//!
//! A SYN is answered with a cookie and a window of nothing, and forgotten. A client that acknowledges the cookie is there:
//! its ACK becomes a SYN to a real server, and a splice is kept until the server answers; that answer becomes the ACK to
//! the server, and the client is told the server's window, whereupon it begins to send. From then on the sequence numbers
//! of the server are shifted to those that the client knows, and back. No stage holds a timer of its own: what is due
//! (windows to tell, SYNs to repeat) waits in two queues of fixed size until the pipeline is asked for frames to send.
//!
//! No option is offered to either side but the segment size and selective acknowledgements: windows are not scaled. Where
//! the numbers of a connection are shifted only this worker knows; when the fabric moves it to another LD, it ends.

use std::collections::VecDeque;

use tgw_contract::colour::{ColourKey, Cookies};
use tgw_contract::{DropReason, Hop};
use tgw_wire::{ipv4, ipv6, protocol, tcp};

use crate::clb::Clb;
use crate::connection::{self, Sender};
use crate::cookie::{Offer, SynCookies};
use crate::guard::Newcomer;
use crate::hash::Map;
use crate::packet::Kind;
use crate::quic::Route;
use crate::runner::{colour, Context, End};
use crate::segment::{offer, shift_ack, shift_quoted_seq, shift_seq, window, Segment};
use crate::splice::{Slot, Splice, Splices};
use crate::tables::{Backend, ClbTables, Endpoint, Listener, Section, Tables, FABRIC};
use crate::tunnel::{age, wrap};
use crate::work::Work;
use crate::{Faults, Frame, Nanos};

const SECOND: Nanos = 1_000_000_000;
/// A SYN to the server is repeated after so long [ns] ...
const PATIENCE: Nanos = SECOND;
/// ... until so many were sent; then the client is reset.
const MOST_TRIES: u8 = 5;
/// A splice that the server has not answered is forgotten after so long [s].
const PENDING: u32 = 8;
/// Places in each queue.
const QUEUE: usize = 8192;
/// Splices for so many places in the flow table, and at most so many.
const FLOWS_PER_SPLICE: usize = 4;
const MOST_SPLICES: usize = 1 << 20;
/// Bytes that the tunnels on the way may put in front of a client's packet, whatever they are.
const TUNNEL_ROOM: usize = 80;
const LARGEST_V4: u16 = 1460;
const LARGEST_V6: u16 = 1440;

/// Something to send for a splice.
#[derive(Clone, Copy, Debug)]
struct Due {
    slot: Slot,
    cookie: u32,
    at: Nanos,
}

/// One worker's.
pub(crate) struct Handshakes {
    cookies: SynCookies,
    /// Knows the probes: they go through to the server, so that they test all of the way.
    probes: Cookies,
    splices: Splices,
    capacity: usize,
    has_table: bool,
    /// Windows to tell to clients.
    windows: VecDeque<Due>,
    /// SYNs that the server has not answered, the oldest first.
    unanswered: VecDeque<Due>,
    /// VIPs that have no cookies any more, and may have connections that began with one; whether the sweep has met such.
    lingering: Map<u128, bool>,
}

/// What the handshake makes of a request.
pub(crate) enum Step {
    /// It became a frame for this port.
    Sent(u16),
    /// It goes on as any other; what was decided about a newcomer.
    Go(Option<Newcomer>),
}

impl Handshakes {
    pub(crate) fn new(flow_capacity: usize) -> Self {
        let none = ColourKey::new([0; 16]);
        Self {
            cookies: SynCookies::new(&none),
            probes: Cookies::new(none),
            splices: Splices::default(),
            capacity: (flow_capacity / FLOWS_PER_SPLICE).clamp(8, MOST_SPLICES),
            has_table: false,
            windows: VecDeque::new(),
            unanswered: VecDeque::new(),
            lingering: Map::default(),
        }
    }

    pub(crate) fn take_tables(&mut self, tables: &Tables, clb: &ClbTables, before: Option<&ClbTables>) {
        self.lingering.retain(|address, _| clb.has_cookies(*address) == Some(false));
        let had = before.filter(|_| !self.splices.is_empty());
        for &address in had.iter().flat_map(|had| had.by_address.keys()) {
            let ends =
                had.and_then(|had| had.has_cookies(address)) == Some(true) && clb.has_cookies(address) == Some(false);
            if ends {
                self.lingering.insert(address, true);
            }
        }
        if *self.probes.key() != tables.key {
            self.probes = Cookies::new(tables.key.clone());
            self.cookies = SynCookies::new(&tables.key);
        }
        if !self.has_table && clb.vips.iter().any(|vip| vip.protection.has_cookies()) {
            self.has_table = true;
            self.splices = Splices::new(self.capacity);
            self.windows.reserve_exact(QUEUE);
            self.unanswered.reserve_exact(QUEUE);
        }
    }

    /// Whether a VIP without cookies may have connections yet that began with one.
    #[inline]
    pub(crate) fn lingers(&self, address: u128) -> bool {
        !self.lingering.is_empty() && self.lingering.contains_key(&address)
    }

    /// Find out which VIPs still have such connections: all of them in `parts` calls.
    pub(crate) fn sweep(&mut self, parts: usize, now: Nanos) {
        let Self { splices, lingering, .. } = self;
        if lingering.is_empty() {
            return;
        }
        let is_whole = splices.sweep(parts, (now / SECOND) as u32, |splice| {
            if let Some(seen) = lingering.get_mut(&splice.flow.dst) {
                *seen = true;
            }
        });
        if is_whole {
            lingering.retain(|_, seen| std::mem::take(seen));
        }
    }

    /// It will be `now`. When the clock is set back, nobody waits longer than if asked now: the queue stays in order.
    pub(crate) fn advance(&mut self, now: Nanos) {
        let latest = now.saturating_add(PATIENCE);
        if self.unanswered.back().is_some_and(|due| due.at > latest) {
            for due in &mut self.unanswered {
                due.at = due.at.min(latest);
            }
        }
    }

    /// Whether a request is a coloured probe.
    pub(crate) fn is_probe(&mut self, tables: &Tables, work: &Work, now: Nanos) -> bool {
        tables.is_reserved(work.packet.tuple.src) && colour(work, tables, |isn| self.probes.is_cookie(isn, now)) != 0
    }

    /// Memory is set at the start: what does not fit is not remembered, and the client asks again.
    fn remember(queue: &mut VecDeque<Due>, due: Due) {
        if queue.len() < QUEUE {
            queue.push_back(due);
        }
    }
}

impl Clb {
    /// A request to a VIP that has SYN cookies, or had. `SynAnswered`, `SynCookieBad`, `HandshakePending`, and what may happen to
    /// any new connection.
    pub(crate) fn shake_request(
        &mut self,
        context: &mut Context<'_>,
        clb: &ClbTables,
        listener: &Listener,
        vip: u32,
        frame: &mut Frame,
        work: &mut Work,
    ) -> Result<Step, End> {
        if work.flow.protocol != protocol::TCP {
            return Ok(Step::Go(None));
        }
        let seconds = self.seconds();
        let known = self.handshakes.splices.find(work.hash, &work.flow, seconds);
        if work.is_error() {
            if let Some((_, splice)) = known.filter(|(_, splice)| splice.is_open) {
                // It quotes what the client got.
                shift_quoted_seq(frame.bytes_mut(), &work.packet, splice.delta().wrapping_neg());
            }
            return Ok(Step::Go(None));
        }
        let flags = work.packet.tcp_flags;
        let opening = connection::is_opening(flags);
        // Another server than the one that answered knows nothing of the connection: in numbers that nobody shifts, it resets
        // the client.
        let known = known.filter(|(slot, splice)| {
            let place = listener.place(splice.backend);
            let is_served = place.is_some_and(|place| !splice.is_open || !listener.is_replaced(&clb.board, place));
            if !is_served {
                self.handshakes.splices.remove(*slot);
            }
            is_served
        });
        let flow = self.flows.find(work.hash, &work.flow).map(|found| self.flows.state(found));
        let is_over = match (&known, flow) {
            (Some((_, splice)), _) => connection::is_over(splice.state),
            (None, Some(state)) => connection::is_over(state),
            (None, None) => true,
        };
        match known {
            Some((slot, splice)) if !splice.is_open => {
                return self.shake_pending(slot, &splice, flags, work).map(|()| Step::Go(None));
            }
            Some((slot, splice)) if !is_over => {
                self.shift_request(slot, splice, listener, frame, work);
                return Ok(Step::Go(None));
            }
            _ if !is_over => return Ok(Step::Go(None)),
            _ => {}
        }
        // What was there is over, or nothing was.
        if self.handshakes.is_probe(context.tables, work, self.now) {
            return Ok(Step::Go(None));
        }
        let is_blacklisted = self.guard.is_blacklisted(work.flow.src);
        if opening {
            let newcomer = flow.is_none().then(|| self.guard.newcomer(vip, work.hash));
            if is_blacklisted || self.guard.answers_now(vip) {
                return Err(self.answer(context, clb, listener, frame, work));
            }
            if let Some((slot, _)) = known {
                self.handshakes.splices.remove(slot);
            }
            return Ok(Step::Go(newcomer));
        }
        if flags & (tcp::SYN | tcp::RST | tcp::ACK) == tcp::ACK {
            let cookie = work.packet.ack.wrapping_sub(1);
            // The first byte after the SYN; or, when that acknowledgement was lost, a probe of the window, one before it.
            let first = [work.packet.seq.wrapping_sub(1), work.packet.seq];
            let checked = first.iter().find_map(|isn| {
                let offer = self.handshakes.cookies.check(&work.flow, *isn, cookie, self.now)?;
                Some((*isn, offer))
            });
            if let Some((isn, offer)) = checked {
                let splice = Splice {
                    flow: work.flow,
                    cookie,
                    client_isn: isn,
                    mss: offer.mss,
                    sack: offer.sack,
                    window: window(frame.bytes(), &work.packet),
                    tries: 1,
                    deadline: seconds.saturating_add(PENDING),
                    ..Splice::default()
                };
                let slot = known.map(|(slot, _)| slot);
                return self.open(context, (clb, listener), vip, slot, splice, frame, work).map(Step::Sent);
            }
        }
        if let Some((slot, splice)) = known {
            // A straggler.
            self.shift_request(slot, splice, listener, frame, work);
        } else if flow.is_none() && is_blacklisted {
            return Err(DropReason::Blacklisted.into());
        } else if flow.is_none() && self.guard.answers_now(vip) {
            return Err(DropReason::SynCookieBad.into());
        }
        Ok(Step::Go(None))
    }

    /// A reply, or an ICMP error about a request, of a VIP that has SYN cookies, or had: the port when it became a frame to the
    /// server. `HandshakePending`, `NoFlow`.
    pub(crate) fn shake_reply(
        &mut self,
        context: &mut Context<'_>,
        clb: &ClbTables,
        vip: u32,
        frame: &mut Frame,
        work: &mut Work,
    ) -> Result<Option<u16>, End> {
        if work.packet.kind != Kind::Tcp {
            return Ok(None);
        }
        let Some((slot, mut splice)) = self.handshakes.splices.find(work.hash, &work.flow, self.seconds()) else {
            // Whatever it belongs to, its numbers are not those that the client knows.
            if self.guard.always_cookies(vip) && self.flows.find(work.hash, &work.flow).is_none() {
                return Err(DropReason::NoFlow.into());
            }
            return Ok(None);
        };
        let listener = clb.listener(vip, work.flow.protocol, work.flow.dst_port).ok_or(DropReason::NoFlow)?;
        let backend = listener.backend(splice.backend).ok_or(DropReason::NoFlow)?;
        if !work.outer.is_from(&backend.endpoint) {
            return Err(DropReason::NoFlow.into());
        }
        let (flags, seq) = (work.packet.tcp_flags, work.packet.seq);
        let is_ours = work.packet.ack == splice.client_isn.wrapping_add(1);
        if flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN | tcp::ACK {
            if !is_ours || splice.is_open && seq != splice.server_isn {
                return Err(DropReason::HandshakePending.into());
            }
            age(frame, &work.packet)?;
            let told = window(frame.bytes(), &work.packet);
            return Ok(Some(self.complete(context, backend, slot, (splice, told), frame, work)?));
        }
        if !splice.is_open {
            if flags & (tcp::RST | tcp::ACK) != tcp::RST | tcp::ACK || !is_ours {
                return Err(DropReason::HandshakePending.into());
            }
            // Refused. The client takes a reset only at the number that it expects next.
            let expected = splice.cookie.wrapping_add(1);
            shift_seq(frame.bytes_mut(), &work.packet, expected.wrapping_sub(seq));
            self.handshakes.splices.remove(slot);
            return Ok(None);
        }
        shift_seq(frame.bytes_mut(), &work.packet, splice.delta());
        self.pass(slot, &mut splice, flags, Sender::Server);
        Ok(None)
    }

    /// The next frame of an LD's own making that a handshake needs.
    pub(crate) fn shake_emit(&mut self, tables: &Tables, frame: &mut Frame) -> Option<u16> {
        let Section::Clb(clb) = &tables.section else { return None };
        let mut faults = Faults::default();
        let mut context = Context { tables, faults: &mut faults };
        while let Some(due) = self.handshakes.windows.pop_front() {
            let Some(splice) = self.handshakes.splices.at(due.slot, due.cookie, self.seconds()) else { continue };
            if let Some(port) = send(&mut context, frame, &to_client(&splice, tcp::ACK), &clb.reply_to) {
                return Some(port);
            }
        }
        while let Some(due) = self.handshakes.unanswered.front().copied().filter(|due| due.at <= self.now) {
            self.handshakes.unanswered.pop_front();
            let Some(mut splice) = self.handshakes.splices.at(due.slot, due.cookie, self.seconds()) else { continue };
            if splice.is_open {
                continue;
            }
            let backend = clb
                .vip(splice.flow.dst)
                .and_then(|vip| clb.listener(vip, splice.flow.protocol, splice.flow.dst_port)?.backend(splice.backend));
            let (segment, to) = match backend {
                Some(backend) if splice.tries < MOST_TRIES => (to_server(&splice, tcp::SYN), &backend.endpoint),
                _ => {
                    self.handshakes.splices.remove(due.slot);
                    (to_client(&splice, tcp::RST | tcp::ACK), &clb.reply_to)
                }
            };
            if segment.flags == tcp::SYN {
                splice.tries += 1;
                self.handshakes.splices.set(due.slot, &splice);
                Handshakes::remember(&mut self.handshakes.unanswered, Due { at: self.now + PATIENCE, ..due });
            }
            if let Some(port) = send(&mut context, frame, &segment, to) {
                return Some(port);
            }
        }
        None
    }

    fn seconds(&self) -> u32 {
        (self.now / SECOND) as u32
    }

    /// Answer a SYN.
    fn answer(
        &mut self,
        context: &mut Context<'_>,
        clb: &ClbTables,
        listener: &Listener,
        frame: &mut Frame,
        work: &Work,
    ) -> End {
        if !listener.backends.iter().any(|backend| backend.weight > 0) {
            return DropReason::NoBackend.into();
        }
        let client = offer(frame.bytes(), &work.packet);
        let cookie = self.handshakes.cookies.make(&work.flow, work.packet.seq, client, self.now);
        let mss = largest_segment(context.tables, work.packet.version);
        let answer = Segment {
            flow: work.flow.reversed(),
            seq: cookie,
            ack: work.packet.seq.wrapping_add(1),
            flags: tcp::SYN | tcp::ACK,
            window: 0,
            offer: Some(Offer { mss, sack: client.sack }),
        };
        let reason = DropReason::SynAnswered;
        match send(context, frame, &answer, &clb.reply_to) {
            Some(port) => End::Answer { port, reason },
            None => DropReason::TunnelEncapFail.into(),
        }
    }

    /// A client that has proved itself: choose a server and open a connection to it.
    #[allow(clippy::too_many_arguments)]
    fn open(
        &mut self,
        context: &mut Context<'_>,
        (clb, listener): (&ClbTables, &Listener),
        vip: u32,
        slot: Option<Slot>,
        mut splice: Splice,
        frame: &mut Frame,
        work: &mut Work,
    ) -> Result<u16, End> {
        let seconds = self.seconds();
        let slot = slot.or_else(|| self.handshakes.splices.room(work.hash, seconds));
        let slot = slot.ok_or(DropReason::ConnTableFull)?;
        if !self.guard.may_open(vip) {
            return Err(DropReason::FlowLimit.into());
        }
        age(frame, &work.packet)?;
        if let Some(found) = self.flows.find(work.hash, &work.flow) {
            self.flows.remove(found);
        }
        let backend = self.choose(clb, listener, vip, work, Route::Unknown, Some(Newcomer::Enter))?;
        work.server_id = backend.id;
        splice.backend = backend.id;
        splice.state = connection::next(0, protocol::TCP, tcp::ACK, Sender::Client);
        let port = replace(context, frame, work, &to_server(&splice, tcp::SYN), &backend.endpoint)?;
        self.handshakes.splices.put(slot, work.hash, &splice);
        let due = Due { slot, cookie: splice.cookie, at: self.now + PATIENCE };
        Handshakes::remember(&mut self.handshakes.unanswered, due);
        Ok(port)
    }

    /// The server has taken the connection: acknowledge it, and let the client begin. `told`: the server's window.
    fn complete(
        &mut self,
        context: &mut Context<'_>,
        backend: &Backend,
        slot: Slot,
        (mut splice, told): (Splice, u16),
        frame: &mut Frame,
        work: &mut Work,
    ) -> Result<u16, End> {
        work.server_id = backend.id;
        splice.server_isn = work.packet.seq;
        let port = replace(context, frame, work, &to_server(&splice, tcp::ACK), &backend.endpoint)?;
        if !splice.is_open {
            splice.is_open = true;
            splice.window = told;
        }
        self.pass(slot, &mut splice, tcp::SYN | tcp::ACK, Sender::Server);
        if let Some(found) = self.flows.find(work.hash, &work.flow) {
            self.touch(found, work, Sender::Server, backend);
        }
        let due = Due { slot, cookie: splice.cookie, at: self.now };
        Handshakes::remember(&mut self.handshakes.windows, due);
        Ok(port)
    }

    /// The client sends before the server has answered. Only a reset goes on: the client has thought better of it.
    fn shake_pending(&mut self, slot: Slot, splice: &Splice, flags: u8, work: &Work) -> Result<(), End> {
        if flags & tcp::RST == 0 || work.packet.seq != splice.client_isn.wrapping_add(1) {
            return Err(DropReason::HandshakePending.into());
        }
        self.handshakes.splices.remove(slot);
        Ok(())
    }

    /// A request of a spliced connection, in the server's numbers.
    fn shift_request(&mut self, slot: Slot, mut splice: Splice, listener: &Listener, frame: &mut Frame, work: &Work) {
        shift_ack(frame.bytes_mut(), &work.packet, splice.delta().wrapping_neg());
        self.pass(slot, &mut splice, work.packet.tcp_flags, Sender::Client);
        // Its flow may be lost; its server must not be.
        if self.flows.find(work.hash, &work.flow).is_none() {
            if let Some(backend) = listener.backend(splice.backend) {
                let _ = self.enter(None, work, Sender::Client, backend);
            }
        }
    }

    /// Undo the shift of a packet that goes no further.
    pub(crate) fn shift_back(&mut self, frame: &mut Frame, work: &Work) {
        if work.packet.kind != Kind::Tcp {
            return;
        }
        let known = self.handshakes.splices.find(work.hash, &work.flow, self.seconds());
        let Some((_, splice)) = known.filter(|(_, splice)| splice.is_open) else { return };
        if work.hop == Hop::ClbIn {
            shift_ack(frame.bytes_mut(), &work.packet, splice.delta());
        } else {
            shift_seq(frame.bytes_mut(), &work.packet, splice.delta().wrapping_neg());
        }
    }

    /// A packet of a spliced connection goes by.
    fn pass(&mut self, slot: Slot, splice: &mut Splice, flags: u8, from: Sender) {
        splice.state = connection::next(splice.state, protocol::TCP, flags, from);
        splice.deadline = self.seconds().saturating_add(u32::from(connection::timeout(splice.state)));
        self.handshakes.splices.set(slot, splice);
    }
}

/// The segment that opens (SYN) or completes (ACK) the connection to the server.
fn to_server(splice: &Splice, flags: u8) -> Segment {
    let opens = flags & tcp::SYN != 0;
    Segment {
        flow: splice.flow,
        seq: splice.client_isn.wrapping_add(u32::from(!opens)),
        ack: if opens { 0 } else { splice.server_isn.wrapping_add(1) },
        flags,
        window: splice.window,
        offer: opens.then_some(Offer { mss: splice.mss, sack: splice.sack }),
    }
}

/// A segment that tells the client of its server.
fn to_client(splice: &Splice, flags: u8) -> Segment {
    Segment {
        flow: splice.flow.reversed(),
        seq: splice.cookie.wrapping_add(1),
        ack: splice.client_isn.wrapping_add(1),
        flags,
        window: splice.window,
        offer: None,
    }
}

/// The largest segment that fits through the fabric, and through the Internet.
fn largest_segment(tables: &Tables, version: u8) -> u16 {
    let (largest, headers) = if version == 4 {
        (LARGEST_V4, ipv4::HEADER_LEN + tcp::HEADER_LEN)
    } else {
        (LARGEST_V6, ipv6::HEADER_LEN + tcp::HEADER_LEN)
    };
    let mtu = tables.port(FABRIC).map_or(0, |port| usize::from(port.mtu));
    u16::try_from(mtu.saturating_sub(TUNNEL_ROOM + headers)).map_or(largest, |room| room.min(largest))
}

/// Write a segment of our own and wrap it.
pub(crate) fn send(context: &mut Context<'_>, frame: &mut Frame, segment: &Segment, to: &Endpoint) -> Option<u16> {
    let mut sent = segment.write(frame)?;
    wrap(context, frame, &mut sent, to).ok()
}

/// The packet in the frame becomes another one, to the server.
fn replace(
    context: &mut Context<'_>,
    frame: &mut Frame,
    work: &mut Work,
    segment: &Segment,
    to: &Endpoint,
) -> Result<u16, DropReason> {
    work.outer_dst = to.address;
    let mut sent = segment.write(frame).ok_or(DropReason::TunnelEncapFail)?;
    let port = wrap(context, frame, &mut sent, to)?;
    work.left = (segment.flow.src, segment.flow.dst);
    Ok(port)
}
