//! Counters as dictionaries.

use std::collections::BTreeMap;

use tgw_contract::{Counter, DropReason};
use tgw_node::{Residence, WorkerCounters};

/// (vip_id, protocol, port, server_id, requests, request bytes, replies, reply bytes).
pub(crate) type Tally = (u32, u8, u16, u32, u64, u64, u64, u64);
/// By worker: its tallies, and (vip_id, frames dropped).
pub(crate) type Traffic = BTreeMap<u16, (Vec<Tally>, Vec<(u32, u64)>)>;
/// Upper bounds of the buckets [ns]; by worker: frames in each bucket, all their times together [ns].
pub(crate) type Times = (Vec<u64>, BTreeMap<u16, (Vec<u64>, u64)>);

/// What each worker has forwarded by VIP, listener and real server, and dropped by VIP.
pub(crate) fn traffic(workers: &[WorkerCounters]) -> Traffic {
    let engines = workers.iter().filter_map(|worker| Some((worker.worker, worker.engine.as_ref()?)));
    engines
        .map(|(worker, engine)| {
            let seen = engine.meters.snapshot();
            let tally = |t: &tgw_forward::Tally| {
                (t.vip_id, t.protocol, t.port, t.server_id, t.requests, t.request_bytes, t.replies, t.reply_bytes)
            };
            (worker, (seen.tallies.iter().map(tally).collect(), seen.drops))
        })
        .collect()
}

/// How long frames stayed with each worker.
pub(crate) fn residence(workers: &[WorkerCounters]) -> Times {
    let engines = workers.iter().filter_map(|worker| Some((worker.worker, worker.engine.as_ref()?)));
    let times = engines.map(|(worker, engine)| {
        let residence: &Residence = &engine.residence;
        (worker, (residence.counts().to_vec(), residence.sum_ns()))
    });
    (Residence::bounds().to_vec(), times.collect())
}

/// One dictionary a worker, by number: every counter, and `drop.<REASON>` for every drop reason.
pub(crate) fn by_name(workers: &[WorkerCounters]) -> Vec<BTreeMap<String, u64>> {
    let mut sorted: Vec<&WorkerCounters> = workers.iter().collect();
    sorted.sort_by_key(|worker| worker.worker);
    sorted
        .into_iter()
        .map(|worker| {
            let values = &worker.counters;
            let named = Counter::ALL.iter().map(|&counter| (counter.name().to_owned(), values.get(counter)));
            let drops = DropReason::ALL.iter().map(|&reason| (format!("drop.{}", reason.name()), values.drops(reason)));
            named.chain(drops).collect()
        })
        .collect()
}
