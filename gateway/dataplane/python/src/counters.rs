//! Counters as dictionaries.

use std::collections::BTreeMap;

use tgw_contract::{Counter, DropReason};
use tgw_node::WorkerCounters;

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
