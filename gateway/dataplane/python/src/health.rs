//! What health checks have found, as dictionaries.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tgw_forward::ServerHealth;

/// One dictionary for each: vip_id, server_id, port, up, since_ns.
pub(crate) fn as_dictionaries(py: Python<'_>, servers: &[ServerHealth]) -> PyResult<Vec<Py<PyDict>>> {
    let one = |server: &ServerHealth| {
        let entry = PyDict::new(py);
        entry.set_item("vip_id", server.vip_id)?;
        entry.set_item("server_id", server.server_id)?;
        entry.set_item("port", server.port)?;
        entry.set_item("up", server.up)?;
        entry.set_item("since_ns", server.since_ns)?;
        Ok(entry.unbind())
    };
    servers.iter().map(one).collect()
}
