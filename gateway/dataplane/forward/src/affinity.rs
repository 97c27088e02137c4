//! Source affinity: a client stays with its real server for a while after its last connection.
//!
//! Clients of such a listener are hashed by their address alone, so while the servers stay the same no state is needed, and
//! every LD makes the same choice. What a worker remembers here carries a client over changes of the servers. A client is
//! entered once a TCP connection of it goes on after its first packet, so a flood of SYNs enters nobody; or with its first
//! datagram that gets a place in the flow table, so that only the flood gate keeps a flood of datagrams out. When the table
//! is full, the hash is all there is. Memory is set at start, and nothing is taken from it before a listener asks for affinity.

use crate::flow::FlowTable;
use crate::hash::Tuple;
use crate::tables::Listener;
use crate::Nanos;

/// A worker remembers one client for so many connections that it can track.
const CONNECTIONS_PER_CLIENT: usize = 4;

pub(crate) struct Affinity {
    clients: FlowTable,
}

/// The name of a client at a listener: its flow without its port.
pub(crate) const fn client_of(flow: &Tuple) -> Tuple {
    Tuple { src_port: 0, ..*flow }
}

impl Affinity {
    pub(crate) fn new(flow_capacity: usize, seed: u64) -> Self {
        Self { clients: FlowTable::new(flow_capacity / CONNECTIONS_PER_CLIENT, seed) }
    }

    pub(crate) fn advance(&mut self, now: Nanos) {
        self.clients.advance(now / 1_000_000_000);
    }

    pub(crate) fn sweep(&mut self, parts: usize) {
        self.clients.sweep(parts);
    }

    /// The id of the real server that this client has.
    pub(crate) fn server_of(&mut self, client: &Tuple) -> Option<u32> {
        let found = self.clients.find(self.clients.hash(client), client)?;
        Some(self.clients.value(found))
    }

    /// A connection of this client to `server` goes on. The client keeps the server that it has, as long as that one `is_open`
    /// for connections.
    pub(crate) fn touch(&mut self, client: &Tuple, listener: &Listener, server: u32, is_open: impl Fn(u32) -> bool) {
        let Some(timeout) = listener.affinity_s else { return };
        let hash = self.clients.hash(client);
        match self.clients.find(hash, client) {
            Some(found) => {
                let known = self.clients.value(found);
                if known == server || !is_open(known) && is_open(server) {
                    self.clients.set(found, 0, server, timeout);
                }
            }
            None if is_open(server) => {
                let _ = self.clients.insert(hash, client, 0, server, timeout);
            }
            None => {}
        }
    }
}
