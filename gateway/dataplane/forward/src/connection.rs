//! The life of a connection as a middlebox sees it, and how long it may stay silent.

use tgw_wire::{protocol, tcp};

/// A SYN was seen, and nothing of the client since.
pub(crate) const HALF_OPEN: u8 = 1;
/// The client has gone on after its SYN.
pub(crate) const ESTABLISHED: u8 = 2;
/// Both ends have closed, or one has reset: the 5-tuple may come back as another connection.
const CLOSING: u8 = 3;
/// Not TCP.
const DATAGRAMS: u8 = 4;
/// The client spoke without a SYN that was seen here (it came over from another LD, or it is made up), and the server has
/// not answered yet. Kept no longer than a half-open one, so that stray ACKs cannot fill the table for minutes.
const UNCONFIRMED: u8 = 5;
const PHASE: u8 = 0x0F;
const CLIENT_CLOSED: u8 = 0x10;
const SERVER_CLOSED: u8 = 0x20;

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Server,
}

/// The state after a packet; `state` is 0 for the first one.
pub(crate) fn next(state: u8, protocol: u8, flags: u8, from: Sender) -> u8 {
    if protocol != protocol::TCP {
        return DATAGRAMS;
    }
    if flags & tcp::RST != 0 {
        return CLOSING;
    }
    let is_syn = is_opening(flags);
    // A client that has closed and opens anew has left the old connection behind, also where the server's end of it was
    // never seen, as in direct return.
    if is_syn && from == Sender::Client && state & CLIENT_CLOSED != 0 {
        return HALF_OPEN;
    }
    if is_syn && (state == 0 || is_over(state)) {
        return HALF_OPEN;
    }
    if is_over(state) {
        return CLOSING;
    }
    let closed = match (flags & tcp::FIN != 0, from) {
        (false, _) => 0,
        (true, Sender::Client) => CLIENT_CLOSED,
        (true, Sender::Server) => SERVER_CLOSED,
    };
    let closed = state & !PHASE | closed;
    let phase = match (state & PHASE, from) {
        _ if closed == CLIENT_CLOSED | SERVER_CLOSED => CLOSING,
        (HALF_OPEN, Sender::Client) if !is_syn => ESTABLISHED,
        (HALF_OPEN, _) => HALF_OPEN,
        (0 | UNCONFIRMED, Sender::Client) => UNCONFIRMED,
        _ => ESTABLISHED,
    };
    phase | closed
}

/// Whether packets that neither open, close nor reset leave the state as it is.
#[inline]
pub(crate) const fn is_settled(state: u8) -> bool {
    state == DATAGRAMS || state & PHASE == ESTABLISHED && state & !PHASE != CLIENT_CLOSED | SERVER_CLOSED
}

/// Seconds that a connection in this state may stay silent.
#[inline]
pub(crate) const fn timeout(state: u8) -> u16 {
    TIMEOUTS[state as usize]
}

const TIMEOUTS: [u16; 256] = {
    let mut table = [0; 256];
    let mut state = 0;
    while state < 256 {
        table[state] = seconds(state as u8);
        state += 1;
    }
    table
};

const fn seconds(state: u8) -> u16 {
    match (state & PHASE, state & !PHASE) {
        (HALF_OPEN | UNCONFIRMED, _) => 30,
        (CLOSING, _) => 10,
        (DATAGRAMS, _) => 60,
        (_, 0) => 900,
        _ => 120,
    }
}

/// Whether another connection may take the 5-tuple over.
pub(crate) const fn is_over(state: u8) -> bool {
    state & PHASE == CLOSING
}

/// Whether a flow may make room for another when its table is full: nobody has proved yet that both its ends are there.
/// Never an established one. Nor one that is closing: a forged reset closes flows too, and in a few seconds it is gone by
/// itself. Nor datagrams: nothing tells a flood of them from a service; the flood gate holds that off.
pub(crate) const fn is_evictable(state: u8) -> bool {
    matches!(state & PHASE, HALF_OPEN | UNCONFIRMED)
}

/// Whether TCP flags open a connection.
pub(crate) const fn is_opening(flags: u8) -> bool {
    flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcp::{ACK, FIN, RST, SYN};
    use Sender::{Client, Server};

    fn after(packets: &[(u8, Sender)]) -> u8 {
        packets.iter().fold(0, |state, (flags, from)| next(state, protocol::TCP, *flags, *from))
    }

    #[test]
    fn a_whole_life() {
        let life = [
            (SYN, Client, 30),
            (SYN | ACK, Server, 30),
            (ACK, Client, 900),
            (ACK, Server, 900),
            (FIN | ACK, Client, 120),
            (ACK, Server, 120),
            (FIN | ACK, Server, 10),
            (ACK, Client, 10),
        ];
        let mut state = 0;
        for (flags, from, seconds) in life {
            state = next(state, protocol::TCP, flags, from);
            assert_eq!(timeout(state), seconds, "{flags:#x} {from:?}");
        }
        assert!(is_over(state));
        assert_eq!(timeout(next(state, protocol::TCP, SYN, Client)), 30);
    }

    #[test]
    fn a_reset_ends_it_from_either_side() {
        assert!(is_over(after(&[(SYN, Client), (RST | ACK, Server)])));
        assert!(is_over(after(&[(SYN, Client), (SYN | ACK, Server), (RST, Client)])));
        assert!(is_over(after(&[(SYN, Client), (RST, Client), (ACK, Client)])), "a straggler does not revive it");
    }

    #[test]
    fn a_repeated_syn_does_not_put_a_connection_back() {
        assert_eq!(timeout(after(&[(SYN, Client), (SYN, Client)])), 30);
        assert_eq!(timeout(after(&[(SYN, Client), (ACK, Client), (SYN, Client)])), 900);
    }

    /// In direct return an LD sees the client alone.
    #[test]
    fn one_direction_is_enough() {
        assert_eq!(timeout(after(&[(SYN, Client), (ACK, Client)])), 900);
        assert_eq!(timeout(after(&[(SYN, Client), (ACK, Client), (FIN | ACK, Client)])), 120);
        assert_eq!(timeout(after(&[(SYN, Client), (ACK, Client), (FIN | ACK, Client), (ACK, Client)])), 120);
        let again = [(SYN, Client), (ACK, Client), (FIN | ACK, Client), (SYN, Client)];
        assert_eq!(timeout(after(&again)), 30, "the port comes back as another connection");
        assert_eq!(timeout(after(&[&again[..], &[(ACK, Client)]].concat())), 900);
    }

    #[test]
    fn what_began_elsewhere_is_established_once_the_server_answers() {
        assert_eq!(timeout(after(&[(ACK, Client)])), 30);
        assert_eq!(timeout(after(&[(ACK, Client), (ACK, Client)])), 30, "a made-up client does not confirm itself");
        assert_eq!(timeout(after(&[(ACK, Client), (ACK, Server)])), 900);
        assert_eq!(timeout(after(&[(ACK, Client), (ACK, Server), (ACK, Client)])), 900);
        assert!(is_over(after(&[(ACK, Client), (RST, Server)])), "a server that knows nothing of it ends it");
    }

    #[test]
    fn what_is_settled_stays_as_it_is() {
        for state in (0..=255).filter(|&state| is_settled(state)) {
            for (flags, from) in [(ACK, Client), (ACK, Server), (ACK | tcp::PSH, Client)] {
                let protocol = if state & PHASE == DATAGRAMS { protocol::UDP } else { protocol::TCP };
                assert_eq!(next(state, protocol, flags, from), state);
            }
        }
        assert!(is_settled(after(&[(SYN, Client), (ACK, Client)])) && !is_settled(after(&[(SYN, Client)])));
    }

    #[test]
    fn only_what_nobody_has_confirmed_may_be_evicted() {
        for packets in [&[(SYN, Client)][..], &[(SYN, Client), (SYN | ACK, Server)], &[(ACK, Client), (FIN, Client)]] {
            assert!(is_evictable(after(packets)), "{packets:?}");
        }
        let kept =
            [&[(SYN, Client), (ACK, Client)][..], &[(ACK, Client), (ACK, Server)], &[(SYN, Client), (RST, Server)]];
        assert!(kept.iter().all(|packets| !is_evictable(after(packets))));
        assert!(!is_evictable(next(0, protocol::UDP, 0, Client)));
    }

    #[test]
    fn datagrams_are_datagrams() {
        assert_eq!(timeout(after(&[(FIN | ACK, Server)])), 120);
        assert_eq!(timeout(next(0, protocol::UDP, 0, Client)), 60);
    }
}
