//! What a worker counts by VIP, listener and real server, for anyone to read while it counts.
//!
//! There is one record for each thing that traffic is for: of an LD, each real server of each listener; of a host, each VIP
//! of each real server; of an EIP node, each binding. A packet adds to one record; totals by listener, VIP or server are
//! sums of records. They say what was decided: a frame that the device then could not take is in the tap's account, not here.
//! Each worker has its own records and is their only writer, so an addition is a load and a store, without
//! a lock or a shared line, and a reader stops nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::hash::Map;
use crate::tables::{Section, Tables};

/// Traffic of one thing.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(crate) struct Record {
    requests: AtomicU64,
    request_bytes: AtomicU64,
    replies: AtomicU64,
    reply_bytes: AtomicU64,
}

#[inline(always)]
fn add(counter: &AtomicU64, n: u64) {
    // The worker is the only writer.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

impl Record {
    #[inline(always)]
    pub(crate) fn request(&self, bytes: usize) {
        add(&self.requests, 1);
        add(&self.request_bytes, bytes as u64);
    }

    #[inline(always)]
    pub(crate) fn reply(&self, bytes: usize) {
        add(&self.replies, 1);
        add(&self.reply_bytes, bytes as u64);
    }

    fn all(&self) -> [u64; 4] {
        [&self.requests, &self.request_bytes, &self.replies, &self.reply_bytes].map(|n| n.load(Ordering::Relaxed))
    }
}

/// What has been forwarded of one thing since the worker knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The VIP.
    pub vip_id: u32,
    /// Protocol and port of the listener; zeros where listeners are not known (EIP nodes, hosts).
    pub protocol: u8,
    /// See `protocol`.
    pub port: u16,
    /// The real server; 0 on EIP nodes.
    pub server_id: u32,
    /// Packets towards the real server [packets].
    pub requests: u64,
    /// Their IP packets without tunnels [bytes].
    pub request_bytes: u64,
    /// Packets towards the client [packets].
    pub replies: u64,
    /// Their IP packets without tunnels [bytes].
    pub reply_bytes: u64,
}

impl Tally {
    const fn name(&self) -> (u32, u8, u16, u32) {
        (self.vip_id, self.protocol, self.port, self.server_id)
    }
}

/// What a worker has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Of everything in its tables.
    pub tallies: Vec<Tally>,
    /// By VIP id: frames dropped that were known to be for it [frames].
    pub drops: Vec<(u32, u64)>,
}

/// The records of one set of tables.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    tables: Option<Arc<Tables>>,
    records: Box<[Record]>,
    drops: Box<[AtomicU64]>,
}

impl Sheet {
    fn of(tables: &Arc<Tables>, before: &Self) -> Self {
        let things = tables.things();
        let vips = tables.vip_ids();
        let records: Box<[Record]> = things.iter().map(|_| Record::default()).collect();
        let drops: Box<[AtomicU64]> = vips.iter().map(|_| AtomicU64::new(0)).collect();
        let old = before.snapshot();
        let known: Map<(u32, u8, u16, u32), Tally> = old.tallies.iter().map(|tally| (tally.name(), *tally)).collect();
        for (thing, record) in things.iter().zip(&records) {
            if let Some(tally) = known.get(&thing.name()) {
                add(&record.requests, tally.requests);
                add(&record.request_bytes, tally.request_bytes);
                add(&record.replies, tally.replies);
                add(&record.reply_bytes, tally.reply_bytes);
            }
        }
        let dropped: Map<u32, u64> = old.drops.into_iter().collect();
        for (id, drops) in vips.iter().zip(&drops) {
            add(drops, dropped.get(id).copied().unwrap_or(0));
        }
        Self { tables: Some(Arc::clone(tables)), records, drops }
    }

    /// The record at a place of `Tables::things`.
    #[inline(always)]
    pub(crate) fn record(&self, place: u32) -> Option<&Record> {
        self.records.get(place as usize)
    }

    /// A frame for the VIP at this place was dropped.
    pub(crate) fn dropped(&self, vip: u32) {
        if let Some(drops) = self.drops.get(vip as usize) {
            add(drops, 1);
        }
    }

    fn snapshot(&self) -> Snapshot {
        let Some(tables) = &self.tables else { return Snapshot::default() };
        let tallies = tables.things().into_iter().zip(&self.records).map(|(thing, record)| {
            let [requests, request_bytes, replies, reply_bytes] = record.all();
            Tally { requests, request_bytes, replies, reply_bytes, ..thing }
        });
        let drops = tables.vip_ids().into_iter().zip(&self.drops).map(|(id, n)| (id, n.load(Ordering::Relaxed)));
        Snapshot { tallies: tallies.collect(), drops: drops.collect() }
    }
}

/// The counts of one worker, shared with whoever reads them.
#[derive(Debug, Default)]
pub struct Meters {
    /// Locked when tables change and when somebody reads, never on the packet path.
    sheet: Mutex<Arc<Sheet>>,
}

impl Meters {
    /// Other tables: what stays keeps its counts.
    pub(crate) fn take_tables(&self, tables: &Arc<Tables>) -> Arc<Sheet> {
        let mut sheet = self.sheet.lock().unwrap_or_else(PoisonError::into_inner);
        *sheet = Arc::new(Sheet::of(tables, &sheet));
        Arc::clone(&sheet)
    }

    /// The counts as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let sheet = Arc::clone(&self.sheet.lock().unwrap_or_else(PoisonError::into_inner));
        sheet.snapshot()
    }
}

impl Tables {
    /// What traffic is counted by, in the order of their places.
    fn things(&self) -> Vec<Tally> {
        match &self.section {
            Section::Eip(eip) => {
                eip.bindings.iter().map(|binding| Tally { vip_id: binding.vip_id, ..Tally::default() }).collect()
            }
            Section::Clb(clb) => {
                let mut services: Vec<_> = clb.services().collect();
                services.sort_unstable_by_key(|service| service.3);
                let backends = |(vip, protocol, port, place): (u32, u8, u16, u32)| {
                    let vip_id = clb.vips.get(vip as usize).map_or(0, |vip| vip.id);
                    let listener = clb.listeners.get(place as usize);
                    let backends = listener.map_or(&[][..], |listener| &listener.backends);
                    backends.iter().map(move |b| Tally { vip_id, protocol, port, server_id: b.id, ..Tally::default() })
                };
                services.into_iter().flat_map(backends).collect()
            }
            Section::Vswitch(vswitch) => {
                let vips = |server: &crate::tables::Server| {
                    let server_id = server.id;
                    let vips: Vec<u32> = server.vips.iter().map(|vip| vip.id).collect();
                    vips.into_iter().map(move |vip_id| Tally { vip_id, server_id, ..Tally::default() })
                };
                vswitch.servers.iter().flat_map(vips).collect()
            }
        }
    }

    fn vip_ids(&self) -> Vec<u32> {
        match &self.section {
            Section::Eip(eip) => eip.bindings.iter().map(|binding| binding.vip_id).collect(),
            Section::Clb(clb) => clb.vips.iter().map(|vip| vip.id).collect(),
            Section::Vswitch(_) => Vec::new(),
        }
    }
}
