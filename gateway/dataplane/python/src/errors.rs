//! Native errors as Python exceptions: the one place.

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::{create_exception, IntoPyObject};
use tgw_node::{FaultError, NodeError};

create_exception!(
    gateway._dataplane,
    ConfigError,
    PyValueError,
    "A configuration or tables are refused, and nothing of them is applied. `problems` lists (path, expected, found)."
);
create_exception!(gateway._dataplane, DeviceError, PyOSError, "A port, a tap file or a capture file cannot be opened.");

/// A configuration's problems as `ConfigError`.
pub(crate) fn config(py: Python<'_>, error: &tgw_forward::ConfigError) -> PyErr {
    let raised = ConfigError::new_err(error.to_string());
    let problems: Vec<(String, String, String)> = error
        .problems
        .iter()
        .map(|problem| (problem.path.to_string(), problem.expected.to_string(), problem.found.to_string()))
        .collect();
    match problems.into_pyobject(py).and_then(|list| raised.value(py).setattr("problems", list)) {
        Ok(()) => raised,
        Err(error) => error,
    }
}

/// A node's error as the exception of its kind.
pub(crate) fn node(py: Python<'_>, error: &NodeError) -> PyErr {
    match error {
        NodeError::Config(error) => config(py, error),
        NodeError::Device(error) => device(error.source.raw_os_error(), &error.to_string()),
        NodeError::Tap(error) => tap(error),
        NodeError::System(error) => device(error.raw_os_error(), &error.to_string()),
        NodeError::Behind { .. } => PyTimeoutError::new_err(error.to_string()),
        NodeError::State(_) => PyRuntimeError::new_err(error.to_string()),
    }
}

/// A tap's error: an OSError, or a ValueError about a field.
pub(crate) fn tap(error: &tgw_tap::TapError) -> PyErr {
    match error {
        tgw_tap::TapError::Io { source, .. } => device(source.raw_os_error(), &error.to_string()),
        tgw_tap::TapError::Field { .. } => PyValueError::new_err(error.to_string()),
    }
}

/// A fault that cannot be injected as ValueError.
pub(crate) fn fault(error: &FaultError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// An operating system's error as `DeviceError`, with its number.
pub(crate) fn device(errno: Option<i32>, message: &str) -> PyErr {
    DeviceError::new_err((errno.unwrap_or(0), message.to_owned()))
}
