//! The library door.

use std::collections::hash_map::RandomState;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use tgw_node::{Config, Fault, Inline};

use crate::{counters, errors, health};

/// One node without threads, devices or a clock: frames and a time in, frames out.
#[pyclass(module = "gateway._dataplane", frozen)]
pub(crate) struct Pipeline {
    inner: Mutex<Inline>,
}

impl Pipeline {
    fn lock(&self) -> MutexGuard<'_, Inline> {
        // A panic in the pipeline has already reached Python as PanicException; what it left is still memory-safe.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Pipeline {
    #[new]
    #[pyo3(signature = (
        role, *, workers = 1, tap_dir = None, node = "sim", tap_capacity = 65536, flow_capacity = 65536, seed = 0,
        boot_id = None
    ))]
    #[allow(clippy::too_many_arguments)] // keyword arguments in Python
    fn new(
        py: Python<'_>,
        role: &str,
        workers: u16,
        tap_dir: Option<PathBuf>,
        node: &str,
        tap_capacity: u64,
        flow_capacity: usize,
        seed: u64,
        boot_id: Option<String>,
    ) -> PyResult<Self> {
        let config = Config {
            name: node.to_owned(),
            role: role.to_owned(),
            boot_id: boot_id.unwrap_or_else(random_boot_id),
            tap_dir,
            tap_capacity,
            workers: Some(workers),
            dispatchers: None,
            flow_capacity,
            ring_capacity: 1024,
            seed,
            ports: Vec::new(),
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let inner = Inline::new(&config, std::process::id(), created).map_err(|error| errors::node(py, &error))?;
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// Use these tables (JSON) from the next frame on. ConfigError, and nothing applied, when they are wrong.
    fn apply(&self, py: Python<'_>, tables_json: &str) -> PyResult<()> {
        let result = py.detach(|| self.lock().apply(tables_json));
        result.map(drop).map_err(|error| errors::config(py, &error))
    }

    /// Take (port, frame) pairs in at `now_ns`; the (port, frame) pairs that come out.
    fn process(&self, py: Python<'_>, frames: Vec<(u16, PyBackedBytes)>, now_ns: u64) -> Vec<(u16, Py<PyBytes>)> {
        let out = py.detach(|| {
            let taken = frames.iter().map(|(port, bytes)| (*port, bytes.as_ref()));
            self.lock().process(taken, now_ns)
        });
        out.into_iter().map(|(port, bytes)| (port, PyBytes::new(py, &bytes).unbind())).collect()
    }

    /// The packed point records since the last call, worker by worker.
    fn take_records<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.lock().take_records())
    }

    /// The counters of each tap: a CLB's dispatcher first, then the workers.
    fn counters(&self) -> Vec<BTreeMap<String, u64>> {
        counters::by_name(self.lock().counters())
    }

    /// By worker: what it has forwarded, as (vip_id, protocol, port, server_id, requests, request bytes, replies, reply
    /// bytes) for each thing in its tables, and (vip_id, frames dropped).
    fn traffic(&self) -> counters::Traffic {
        counters::traffic(self.lock().counters())
    }

    /// How long frames stayed inside: the upper bounds of 64 buckets [ns]; by worker the frames in each, and the sum of
    /// all their times [ns].
    fn residence(&self) -> counters::Times {
        counters::residence(self.lock().counters())
    }

    /// What health checks have found: a dictionary for each real server of each listener that checks.
    fn health(&self, py: Python<'_>) -> PyResult<Vec<Py<PyDict>>> {
        health::as_dictionaries(py, &self.lock().health())
    }

    /// The tap files; none without a tap_dir.
    fn tap_paths(&self) -> Vec<String> {
        self.lock().tap_paths().iter().map(|path| path.display().to_string()).collect()
    }

    /// Inject a fault besides those that are. ValueError names what is wrong with it.
    #[pyo3(signature = (kind, probability, seed, *, worker = None, delay_us = None, vip_id = None))]
    fn inject(
        &self,
        kind: &str,
        probability: f64,
        seed: u64,
        worker: Option<u16>,
        delay_us: Option<u32>,
        vip_id: Option<u32>,
    ) -> PyResult<()> {
        let fault =
            Fault::new(kind, probability, seed, worker, delay_us, vip_id).map_err(|error| errors::fault(&error))?;
        self.lock().inject(fault);
        Ok(())
    }

    /// End all faults.
    fn clear_faults(&self) {
        self.lock().clear_faults();
    }

    /// What every worker that turns owes at `now_ns`: its heartbeat, and a sweep over idle flows.
    fn beat(&self, now_ns: u64) {
        self.lock().beat(now_ns);
    }

    /// End in good order: frames inside are dropped as SHUTTING_DOWN, the taps are marked closed.
    fn close(&self, now_ns: u64) {
        self.lock().close(now_ns);
    }
}

/// 32 hex digits nobody else has: two simulations may share a directory of taps.
fn random_boot_id() -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}
