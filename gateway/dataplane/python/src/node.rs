//! The running node.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tgw_device::af_xdp::{Copying, Mode};
use tgw_node::{Config, Fault, PortDevice};

use crate::{counters, errors, health};

/// One EIP, CLB or vSwitch node with threads, on AF_XDP or packet sockets.
#[pyclass(module = "gateway._dataplane", frozen)]
pub(crate) struct Node {
    inner: RwLock<tgw_node::Node>,
    boot_id: String,
}

impl Node {
    fn read(&self) -> RwLockReadGuard<'_, tgw_node::Node> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, tgw_node::Node> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Node {
    /// A node that does nothing yet. ConfigError names what is wrong.
    #[new]
    fn new(py: Python<'_>, config_json: &str) -> PyResult<Self> {
        let config = Config::from_json(config_json).map_err(|error| errors::config(py, &error))?;
        let boot_id = config.boot_id.clone();
        let inner = tgw_node::Node::new(config).map_err(|error| errors::config(py, &error))?;
        Ok(Self { inner: RwLock::new(inner), boot_id })
    }

    /// Open the ports and taps and start the workers. DeviceError names the port or file that does not open.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.write().start()).map_err(|error| errors::node(py, &error))
    }

    /// End the workers; their taps are marked closed. Returns once they have ended.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.write().stop());
    }

    /// Check tables (JSON) and give them to every worker; returns when all act by them.
    ///
    /// ConfigError, and nothing applied, when they are wrong; DeviceError when a port cannot be told the addresses of its
    /// host; TimeoutError when a worker does not turn.
    fn apply(&self, py: Python<'_>, tables_json: &str) -> PyResult<()> {
        py.detach(|| self.read().apply(tables_json)).map(drop).map_err(|error| errors::node(py, &error))
    }

    /// The counters of each tap: a CLB's dispatcher first, then the workers. Empty before the start.
    fn counters(&self) -> Vec<BTreeMap<String, u64>> {
        counters::by_name(self.read().counters())
    }

    /// By worker: what it has forwarded, as (vip_id, protocol, port, server_id, requests, request bytes, replies, reply
    /// bytes) for each thing in its tables, and (vip_id, frames dropped).
    fn traffic(&self) -> counters::Traffic {
        counters::traffic(self.read().counters())
    }

    /// How long frames stayed inside: the upper bounds of 64 buckets [ns]; by worker the frames in each, and the sum of
    /// all their times [ns].
    fn residence(&self) -> counters::Times {
        counters::residence(self.read().counters())
    }

    /// What each port was opened as: port, interface, kind, text, and mode, copying, huge_pages, queues of AF_XDP or the
    /// reason why it is not that. Empty before the start.
    fn devices<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.read().devices().iter().map(|device| described(py, device)).collect()
    }

    /// What health checks have found: a dictionary for each real server of each listener that checks.
    fn health(&self, py: Python<'_>) -> PyResult<Vec<Py<PyDict>>> {
        health::as_dictionaries(py, &self.read().health())
    }

    /// The tap files.
    fn tap_paths(&self) -> Vec<String> {
        self.read().tap_paths().iter().map(|path| path.display().to_string()).collect()
    }

    /// Whether every worker's thread runs.
    fn is_running(&self) -> bool {
        self.read().is_running()
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
        self.read().inject(fault);
        Ok(())
    }

    /// End all faults.
    fn clear_faults(&self) {
        self.read().clear_faults();
    }

    /// The boot id of the configuration.
    #[getter]
    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

fn described<'py>(py: Python<'py>, device: &PortDevice) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("port", device.port)?;
    out.set_item("interface", &device.interface)?;
    out.set_item("kind", if device.xdp.is_some() { "af_xdp" } else { "af_packet" })?;
    out.set_item("text", device.to_string())?;
    if let Some(xdp) = &device.xdp {
        out.set_item("mode", if xdp.facts.mode == Mode::Native { "native" } else { "generic" })?;
        out.set_item("copying", if xdp.facts.copying == Copying::Zero { "zero" } else { "kernel" })?;
        out.set_item("huge_pages", xdp.facts.huge_pages)?;
        out.set_item("queues", xdp.queues)?;
        out.set_item("packet_senders", xdp.packet_senders)?;
    }
    if let Some(reason) = &device.reason {
        out.set_item("reason", reason)?;
    }
    Ok(out)
}
