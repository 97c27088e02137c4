//! Capture files for notebooks and tests.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use tgw_device::pcap::{PcapReader, PcapWriter};
use tgw_device::DeviceError;

use crate::errors;

/// The frames of a capture file (classic pcap, Ethernet) as (ns since 1970, frame).
#[pyfunction]
pub(crate) fn read_pcap(path: PathBuf) -> PyResult<Vec<(u64, Vec<u8>)>> {
    let mut reader = PcapReader::open(&path).map_err(|error| raised(&error))?;
    let mut frames = Vec::new();
    while let Some(frame) =
        reader.next_frame().map_err(|error| errors::device(error.raw_os_error(), &error.to_string()))?
    {
        frames.push(frame);
    }
    Ok(frames)
}

/// Write (ns since 1970, frame) pairs to a capture file, made anew.
#[pyfunction]
pub(crate) fn write_pcap(path: PathBuf, frames: Vec<(u64, PyBackedBytes)>) -> PyResult<()> {
    let mut writer = PcapWriter::create(&path).map_err(|error| raised(&error))?;
    for (at, bytes) in &frames {
        writer.write(*at, bytes)?;
    }
    Ok(writer.flush()?)
}

fn raised(error: &DeviceError) -> PyErr {
    errors::device(error.source.raw_os_error(), &error.to_string())
}
