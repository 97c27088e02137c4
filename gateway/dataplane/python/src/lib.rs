//! The Python module `gateway._dataplane`: the data plane as a library ([`pipeline::Pipeline`]) and as a running node
//! ([`node::Node`]). Thin: it converts and releases the interpreter, nothing else.

mod captures;
mod counters;
mod errors;
mod health;
mod node;
mod pipeline;

use pyo3::prelude::*;

/// The packet path of tgw.
#[pymodule]
mod _dataplane {
    #[pymodule_export]
    use super::captures::{read_pcap, read_tap, write_pcap};
    #[pymodule_export]
    use super::errors::{ConfigError, DeviceError};
    #[pymodule_export]
    use super::node::Node;
    #[pymodule_export]
    use super::pipeline::Pipeline;
}
