//! Capture files as a device: frames come from one file and go to another. Classic pcap, Ethernet, ns or us stamps.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::RawFd;
use std::path::Path;

use tgw_forward::{Frame, Nanos};

use crate::{Device, DeviceError};

const MAGIC_US: u32 = 0xA1B2_C3D4;
const MAGIC_NS: u32 = 0xA1B2_3C4D;
const LINKTYPE_ETHERNET: u32 = 1;
const SNAP: u32 = 65_535;

/// Reads the frames of a capture file, in order.
pub struct PcapReader {
    file: BufReader<File>,
    swapped: bool,
    nanos_per_tick: u64,
}

impl PcapReader {
    /// Open a capture. `DeviceError` when it cannot be read or is not an Ethernet capture in classic pcap.
    pub fn open(path: &Path) -> Result<Self, DeviceError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(DeviceError::new(&name, "open"))?;
        let mut file = BufReader::new(file);
        let mut head = [0u8; 24];
        file.read_exact(&mut head).map_err(DeviceError::new(&name, "read the pcap header"))?;
        let magic = word(&head, 0, false);
        let (swapped, nanos_per_tick) = match (magic, magic.swap_bytes()) {
            (MAGIC_US, _) => (false, 1000),
            (MAGIC_NS, _) => (false, 1),
            (_, MAGIC_US) => (true, 1000),
            (_, MAGIC_NS) => (true, 1),
            _ => {
                return Err(DeviceError::new(&name, "read the pcap header")(invalid(
                    "magic is not that of classic pcap",
                )))
            }
        };
        if word(&head, 20, swapped) != LINKTYPE_ETHERNET {
            return Err(DeviceError::new(&name, "read the pcap header")(invalid("link type is not Ethernet (1)")));
        }
        Ok(Self { file, swapped, nanos_per_tick })
    }

    /// The next frame and its time, `None` at the end. An error when the file is cut off or contradicts itself.
    pub fn next_frame(&mut self) -> io::Result<Option<(Nanos, Vec<u8>)>> {
        if self.file.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut head = [0u8; 16];
        self.file.read_exact(&mut head)?;
        let seconds = u64::from(word(&head, 0, self.swapped));
        let ticks = u64::from(word(&head, 4, self.swapped));
        let length = word(&head, 8, self.swapped);
        if length > SNAP {
            return Err(invalid("a frame longer than 65535 bytes"));
        }
        let mut bytes = vec![0u8; length as usize];
        self.file.read_exact(&mut bytes)?;
        Ok(Some((seconds * 1_000_000_000 + ticks * self.nanos_per_tick, bytes)))
    }
}

/// Writes a capture file with nanosecond stamps.
pub struct PcapWriter {
    file: BufWriter<File>,
}

impl PcapWriter {
    /// Make the file anew.
    pub fn create(path: &Path) -> Result<Self, DeviceError> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(DeviceError::new(&name, "create"))?;
        let mut file = BufWriter::new(file);
        let mut head = [0u8; 24];
        head[0..4].copy_from_slice(&MAGIC_NS.to_le_bytes());
        head[4..6].copy_from_slice(&2u16.to_le_bytes());
        head[6..8].copy_from_slice(&4u16.to_le_bytes());
        head[16..20].copy_from_slice(&SNAP.to_le_bytes());
        head[20..24].copy_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
        file.write_all(&head).map_err(DeviceError::new(&name, "write"))?;
        Ok(Self { file })
    }

    /// Append a frame that was seen at `at`.
    pub fn write(&mut self, at: Nanos, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).ok().filter(|n| *n <= SNAP).ok_or_else(|| invalid("frame too long"))?;
        let seconds = u32::try_from(at / 1_000_000_000).map_err(|_| invalid("time past 2106"))?;
        let nanos = (at % 1_000_000_000) as u32;
        for value in [seconds, nanos, length, length] {
            self.file.write_all(&value.to_le_bytes())?;
        }
        self.file.write_all(bytes)
    }

    /// Everything written reaches the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A device that replays one capture and records another.
pub struct Pcap {
    port: u16,
    source: Option<PcapReader>,
    sink: Option<PcapWriter>,
    lost: u64,
}

impl Pcap {
    /// A device for `port`; without a source nothing comes in, without a sink whatever is sent is refused.
    #[must_use]
    pub fn new(port: u16, source: Option<PcapReader>, sink: Option<PcapWriter>) -> Self {
        Self { port, source, sink, lost: 0 }
    }

    /// Everything sent reaches the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.as_mut().map_or(Ok(()), PcapWriter::flush)
    }
}

impl Device for Pcap {
    fn port(&self) -> u16 {
        self.port
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    /// Frames arrive at `now`, whatever their stamps: the stamps belong to another time.
    fn receive(&mut self, now: Nanos, frames: &mut [Frame]) -> usize {
        let mut filled = 0;
        while filled < frames.len() {
            match self.source.as_mut().map(PcapReader::next_frame) {
                Some(Ok(Some((_, bytes)))) if frames[filled].load(self.port, now, &bytes) => filled += 1,
                Some(Ok(Some(_))) => self.lost += 1,
                Some(Ok(None) | Err(_)) | None => {
                    self.source = None; // the end, or a file that cannot be read on
                    break;
                }
            }
        }
        filled
    }

    fn send(&mut self, now: Nanos, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) {
        for &index in chosen {
            let taken = self.sink.as_mut().is_some_and(|sink| sink.write(now, frames[index].bytes()).is_ok());
            if !taken {
                refused.push(index);
            }
        }
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

fn word(bytes: &[u8], offset: usize, swapped: bool) -> u32 {
    let raw = [bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]];
    let value = u32::from_le_bytes(raw);
    if swapped {
        value.swap_bytes()
    } else {
        value
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
