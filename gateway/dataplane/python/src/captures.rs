//! Files for notebooks and tests: captures of frames, and taps that a node left behind.

use std::io;
use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use tgw_device::pcap::{PcapReader, PcapWriter};
use tgw_device::DeviceError;
use tgw_tap::Reader;

use crate::errors;

/// The frames of a capture file (classic pcap, Ethernet) as (ns since 1970, frame).
#[pyfunction]
pub(crate) fn read_pcap(py: Python<'_>, path: PathBuf) -> PyResult<Vec<(u64, Py<PyBytes>)>> {
    let mut reader = PcapReader::open(&path).map_err(|error| raised(&error))?;
    let mut frames = Vec::new();
    let mut next = || reader.next_frame().map_err(|error| unfinished(&path, "read on", &error));
    while let Some((at, bytes)) = next()? {
        frames.push((at, PyBytes::new(py, &bytes).unbind()));
    }
    Ok(frames)
}

/// Write (ns since 1970, frame) pairs to a capture file, made anew.
#[pyfunction]
pub(crate) fn write_pcap(path: PathBuf, frames: Vec<(u64, PyBackedBytes)>) -> PyResult<()> {
    let mut writer = PcapWriter::create(&path).map_err(|error| raised(&error))?;
    let mut write = || {
        frames.iter().try_for_each(|(at, bytes)| writer.write(*at, bytes))?;
        writer.flush()
    };
    write().map_err(|error| unfinished(&path, "write", &error))
}

/// The packed point records that a tap file still holds, the oldest first.
#[pyfunction]
pub(crate) fn read_tap(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyBytes>> {
    let mut reader = Reader::open(&path).map_err(|error| errors::tap(&error))?;
    let mut records = Vec::new();
    reader.take(&mut records);
    Ok(PyBytes::new(py, &records))
}

fn unfinished(path: &Path, doing: &str, error: &io::Error) -> PyErr {
    errors::device(error.raw_os_error(), &format!("{}: cannot {doing}: {error}", path.display()))
}

fn raised(error: &DeviceError) -> PyErr {
    errors::device(error.source.raw_os_error(), &error.to_string())
}
