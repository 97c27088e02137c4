//! A listener of an LD: its real servers, and which of them a new connection goes to.

use std::sync::Arc;

use super::{ClientAddress, Endpoint};
use crate::board::{Board, Standing};
use crate::hash::{fold, mix};
use crate::maglev::Maglev;
use crate::rendezvous::Rendezvous;
use crate::work::Outer;
use crate::Nanos;

/// How often Maglev is asked again when its choice may not be taken.
const ATTEMPTS: u64 = 8;
/// Of a server's share, what it gets the moment it is there, in parts of 2^16: about 5 %.
const FIRST_SHARE: u64 = (1 << 16) / 20;
/// The hash that decides which connections a slowly starting server gets: the same in every LD.
const WARMTH_SEED: u64 = 0x7467_7720_7761_726D;

/// A real server, as an LD sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) id: u32,
    pub(crate) weight: u32,
    pub(crate) endpoint: Endpoint,
}

/// How a real server is chosen for a new connection.
#[derive(Clone, Debug)]
pub(crate) enum Chooser {
    Maglev(Arc<Maglev>),
    Rendezvous(Arc<Rendezvous>),
}

/// Which worker handles a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dispatch {
    /// By addresses, ports and protocol.
    #[default]
    Tuple,
    /// By the two addresses: all connections of a client to a VIP meet.
    IpPair,
    /// By what a QUIC connection id says, where it says something; see [`crate::quic`].
    Quic(Option<ServerId>),
}

/// Where real servers write their id into the connection ids that they choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerId {
    pub(crate) offset: u8,
    /// From 1 to 4 bytes.
    pub(crate) length: u8,
}

/// How real servers are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) interval: Nanos,
    pub(crate) timeout: Nanos,
    /// Answers in a row that bring a server up.
    pub(crate) rise: u16,
    /// Failures in a row that take it down.
    pub(crate) fall: u16,
}

/// A protocol and port of a VIP.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Place of the VIP in the tables.
    pub(crate) vip: u32,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) client_address: ClientAddress,
    /// By rising id.
    pub(crate) backends: Vec<Backend>,
    /// `None` when no backend has a weight.
    pub(crate) chooser: Option<Chooser>,
    pub(crate) dispatch: Dispatch,
    /// How long a client without a connection keeps its real server [s].
    pub(crate) affinity_s: Option<u16>,
    /// How long a server's share of new connections grows after it came up, or came at all.
    pub(crate) slow_start: Option<Nanos>,
    pub(crate) health: Option<Health>,
    /// The first backend's slot on the board, the others follow; `None`: nothing is known, all are up.
    pub(crate) slots: Option<usize>,
}

impl Listener {
    /// Whether packets of known flows, too, say more than which flow they are of.
    pub(crate) fn looks_at_packets(&self) -> bool {
        let tells = self.client_address != ClientAddress::AsSource;
        tells || self.affinity_s.is_some() || matches!(self.dispatch, Dispatch::Quic(_))
    }

    /// The place of a real server among the backends, by its id.
    pub(crate) fn place(&self, id: u32) -> Option<usize> {
        self.backends.binary_search_by_key(&id, |backend| backend.id).ok()
    }

    pub(crate) fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(self.place(id)?)
    }

    /// The real server that a tunnel came from, and its place.
    pub(crate) fn sender(&self, outer: &Outer) -> Option<(usize, &Backend)> {
        self.backends.iter().enumerate().find(|(_, backend)| outer.is_from(&backend.endpoint))
    }

    pub(crate) fn slot(&self, place: usize) -> Option<usize> {
        self.slots.map(|first| first + place)
    }

    /// Whether this server may have connections at all: it is not known to be down.
    pub(crate) fn is_up(&self, board: &Board, place: usize) -> bool {
        self.slot(place).is_none_or(|slot| board.is_up(slot))
    }

    /// Whether this server may get new connections: it is up, and not drained.
    pub(crate) fn is_open(&self, board: &Board, place: usize) -> bool {
        self.backends.get(place).is_some_and(|backend| backend.weight > 0) && self.is_up(board, place)
    }

    /// Whether this server's connections go to others: it is down, and there is one that is open.
    pub(crate) fn is_replaced(&self, board: &Board, place: usize) -> bool {
        !self.is_up(board, place) && (0..self.backends.len()).any(|other| self.is_open(board, other))
    }

    /// The real server for a new connection of this hash, among those that are up. A server that starts slowly takes what
    /// its share allows; what it does not take, and what would be a down server's, goes to the next choice, and connections
    /// of the others stay where they are. `None`: no server is up that has a weight.
    pub(crate) fn choose_up(&self, board: &Board, hash: u64, now: Nanos) -> Option<usize> {
        let Some(first) = self.slots else { return self.choose_any(hash) };
        let fits = |place: usize| {
            let standing = board.standing(first + place);
            (standing.up && self.is_warm(place, standing, hash, now), standing.up)
        };
        match self.chooser.as_ref()? {
            Chooser::Rendezvous(rendezvous) => {
                let (best, spare) = rendezvous.choose_two(hash, fits);
                best.or(spare)
            }
            Chooser::Maglev(maglev) => {
                let mut spare = None;
                for attempt in 0..ATTEMPTS {
                    let place = maglev.choose(if attempt == 0 { hash } else { mix(hash ^ attempt) });
                    let (may, might) = fits(place);
                    if may {
                        return Some(place);
                    }
                    spare = spare.or(might.then_some(place));
                }
                // Nearly all are down: look at each, beginning anywhere.
                spare.or_else(|| {
                    let servers = self.backends.len();
                    let start = ((hash & 0xFFFF_FFFF) as usize * servers) >> 32;
                    (start..start + servers).map(|at| at % servers).find(|&place| self.is_open(board, place))
                })
            }
        }
    }

    /// The real server for a new connection, up or not. `None`: no server has a weight.
    pub(crate) fn choose_any(&self, hash: u64) -> Option<usize> {
        self.chooser.as_ref().map(|chooser| match chooser {
            Chooser::Maglev(maglev) => maglev.choose(hash),
            Chooser::Rendezvous(rendezvous) => rendezvous.choose(hash),
        })
    }

    /// Whether a server that has not been up for long takes a connection of this hash.
    fn is_warm(&self, place: usize, standing: Standing, hash: u64, now: Nanos) -> bool {
        let Some(period) = self.slow_start.filter(|_| standing.since > 0) else { return true };
        let passed = now.saturating_sub(standing.since);
        if passed >= period {
            return true;
        }
        let grown = u128::from((1 << 16) - FIRST_SHARE) * u128::from(passed) / u128::from(period.max(1));
        let salt = self.backends.get(place).map_or(0, |backend| u64::from(backend.id));
        fold(hash ^ WARMTH_SEED, mix(salt)) >> 48 < FIRST_SHARE + grown as u64
    }
}

impl ServerId {
    /// The id in a connection id that begins `bytes`; `None` when it is too short.
    pub(crate) fn read(self, bytes: &[u8]) -> Option<u32> {
        let id = bytes.get(usize::from(self.offset)..self.end())?;
        Some(id.iter().fold(0, |id, byte| id << 8 | u32::from(*byte)))
    }

    /// Where it ends in a connection id.
    pub(crate) fn end(self) -> usize {
        usize::from(self.offset) + usize::from(self.length)
    }
}
