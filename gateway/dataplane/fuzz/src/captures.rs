//! Files that others write: captures, and taps of nodes that may have died while they wrote.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use tgw_contract::Point;
use tgw_device::pcap::PcapReader;
use tgw_forward::Observer;
use tgw_tap::{Header, Reader, Writer};

/// A file of these bytes, gone at the end.
struct Given(PathBuf);

impl Given {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("tgw-fuzz-{}-{name}", std::process::id()));
        fs::write(&path, bytes).expect("a temporary file");
        Self(path)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Read a capture to its end, or to where it contradicts itself.
pub fn pcap(data: &[u8]) {
    let file = Given::new("pcap", data);
    let Ok(mut reader) = PcapReader::open(&file.0) else { return };
    let mut read = 24;
    while let Ok(Some((_, bytes))) = reader.next_frame() {
        read += 16 + bytes.len();
    }
    assert!(read <= data.len());
}

/// Write over a file of zeros and a good header: (place, length, bytes), as often as there are.
fn spoil(file: &mut [u8], mut data: &[u8]) {
    while let [high, low, length, rest @ ..] = data {
        let (bytes, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        let at = usize::from(u16::from_be_bytes([*high, *low])) % file.len();
        let count = bytes.len().min(file.len() - at);
        file[at..at + count].copy_from_slice(&bytes[..count]);
        data = rest;
    }
}

/// A tap whose file another process changes as it likes, before it is opened (as many bytes of the input as its first byte
/// says) and between two readings (the rest).
pub fn tap(data: &[u8]) {
    let [cut, data @ ..] = data else { return };
    let (before, between) = data.split_at(usize::from(*cut).min(data.len()));
    let mut bytes = fresh();
    spoil(&mut bytes, before);
    let file = Given::new("tap", &bytes);
    let Ok(mut reader) = Reader::open(&file.0) else { return };
    let capacity = reader.header().capacity;
    for round in 0..2 {
        if round == 1 {
            spoil(&mut bytes, between);
            // Over the same file, as a writer does, and not in place of it.
            let mut open = fs::OpenOptions::new().write(true).open(&file.0).expect("the same file");
            open.write_all(&bytes).expect("room for it");
        }
        let mut out = Vec::new();
        let taken = reader.take(&mut out);
        assert!(taken <= capacity && out.len() as u64 <= taken * 128);
        let _ = out.as_chunks::<128>().0.iter().map(Point::from_bytes).collect::<Vec<_>>();
        reader.release();
        let _ = (reader.state(), reader.counters().all_drops());
    }
}

/// A good tap of four records.
fn fresh() -> Vec<u8> {
    static FRESH: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let folder = std::env::temp_dir().join(format!("tgw-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let header =
            Header { node: "n".into(), role: 2, worker: 3, boot_id: [7; 16], capacity: 4, pid: 1, created_ns: 5 };
        let mut writer = Writer::create(&folder, header).expect("a tap");
        (0..3).for_each(|n| writer.point(&Point { kind: 1, probe_id: n, ..Point::default() }));
        writer.publish(17);
        let bytes = fs::read(writer.path().expect("it has a file")).expect("the tap's bytes");
        let _ = fs::remove_dir_all(&folder);
        bytes
    };
    FRESH.get_or_init(make).clone()
}
