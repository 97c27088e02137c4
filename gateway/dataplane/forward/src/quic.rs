//! Where a QUIC packet belongs, by its destination connection id.
//!
//! A client chooses the id of its first packets, and the real server the id of all that follow. With `quic_server_id` real
//! servers write their own id into those, so that a connection finds its server wherever it comes from: other address, other
//! port, another LD, no state. Then ids of first packets, which say nothing, count as a whole, so that one that is repeated
//! from elsewhere meets the same server. Without `quic_server_id` nothing can be read from an id, because who sees only the
//! first packets cannot know what the later ones will be called: addresses and ports decide.

use tgw_contract::DropReason;
use tgw_wire::quic::{Kind, Packet};

use crate::hash::mix;
use crate::tables::{Listener, ServerId};

/// What a connection id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// The connection is this real server's, by its place in the listener. `opens`: the packet is of a kind that also begins
    /// connections.
    Server { place: usize, opens: bool },
    /// A client made this id up for a connection that begins.
    Client(&'a [u8]),
    /// Nothing: addresses and ports decide.
    Unknown,
}

/// Read the first packet of a client's datagram. `MalformedQuic` for what QUIC does not allow.
pub(crate) fn route<'a>(
    listener: &Listener,
    server_id: Option<ServerId>,
    datagram: &'a [u8],
) -> Result<Route<'a>, DropReason> {
    let packet = Packet::new_checked(datagram).map_err(|_| DropReason::MalformedQuic)?;
    let Some(server_id) = server_id else { return Ok(Route::Unknown) };
    if !packet.is_long() {
        // An id without room for the server's is none that a server has made.
        let id = server_id.read(datagram.get(1..).unwrap_or_default()).ok_or(DropReason::MalformedQuic)?;
        return Ok(listener.place(id).map_or(Route::Unknown, |place| Route::Server { place, opens: false }));
    }
    let opens = matches!(packet.kind(), Kind::Initial | Kind::ZeroRtt | Kind::Unknown);
    let at = 6..6 + packet.dcid().len();
    let dcid = datagram.get(at).unwrap_or_default();
    if let Some(place) = server_id.read(dcid).and_then(|id| listener.place(id)) {
        return Ok(Route::Server { place, opens });
    }
    Ok(if opens && !dcid.is_empty() { Route::Client(dcid) } else { Route::Unknown })
}

/// A hash of a connection id under a seed.
pub(crate) fn hash(id: &[u8], seed: u64) -> u64 {
    id.chunks(8).fold(seed ^ id.len() as u64, |hash, chunk| {
        mix(chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)) ^ hash)
    })
}
