//! The reading side. The product's reader is the collector (Python); this one serves the library door and the tests.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use tgw_contract::records::{self as layout, Point};

use crate::error::TapError;
use crate::header::Header;
use crate::map::Map;
use crate::writer::Counters;

/// What writer and reader keep changing. Each field is whole by itself; together they are not one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Records ever published.
    pub write_cursor: u64,
    /// Records the reader has made safe.
    pub read_cursor: u64,
    /// Records not written because the ring was full.
    pub lost: u64,
    /// Drop Points of uncoloured packets not written because of the rate cap.
    pub suppressed: u64,
    /// When the worker last turned, ns since 1970.
    pub heartbeat_ns: u64,
    /// Whether the writer ended in good order.
    pub closed: bool,
}

/// One tap, open for reading.
pub struct Reader {
    map: Arc<Map>,
    header: Header,
    next: u64,
}

impl Reader {
    /// Open a tap file. `TapError` when it cannot be read, is no tap, or has another layout.
    pub fn open(path: &Path) -> Result<Self, TapError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(TapError::io(path, "open"))?;
        let head = Map::over(&file, layout::TAP_HEADER_SIZE).map_err(TapError::io(path, "map the header"))?;
        let header = Header::from_map(&head)?;
        let map = Map::over(&file, header.file_size()).map_err(TapError::io(path, "map the ring"))?;
        Ok(Self::over(Arc::new(map), header))
    }

    pub(crate) fn over(map: Arc<Map>, header: Header) -> Self {
        Self { map, header, next: 0 }
    }

    /// The fixed header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Cursors, losses, heartbeat.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            // Acquire pairs with the writer's release store: records before the cursor are whole.
            write_cursor: self.load(layout::TAP_AT_WRITE_CURSOR, Ordering::Acquire),
            read_cursor: self.load(layout::TAP_AT_READ_CURSOR, Ordering::Relaxed),
            lost: self.load(layout::TAP_AT_LOST, Ordering::Relaxed),
            suppressed: self.load(layout::TAP_AT_SUPPRESSED, Ordering::Relaxed),
            heartbeat_ns: self.load(layout::TAP_AT_HEARTBEAT_NS, Ordering::Acquire),
            closed: self.load(layout::TAP_AT_CLOSED, Ordering::Acquire) == 1,
        }
    }

    /// All counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::over(Arc::clone(&self.map))
    }

    /// Append to `out` the packed records published since the last call, the oldest first, and how many they are.
    ///
    /// Does not move `read_cursor`: call [`Reader::release`] once they are safe. Another reader may own that cursor
    /// (a collector beside a simulation); then records older than one ring are gone and are passed over.
    pub fn take(&mut self, out: &mut Vec<u8>) -> u64 {
        let end = self.state().write_cursor;
        let start = self.next.max(end.saturating_sub(self.header.capacity));
        let mut record = [0u8; layout::POINT_SIZE];
        for n in start..end {
            let slot = (n & (self.header.capacity - 1)) as usize;
            if self.map.read(layout::TAP_HEADER_SIZE + slot * layout::POINT_SIZE, &mut record) {
                out.extend_from_slice(&record);
            }
        }
        self.next = end;
        // Only who spoils the file moves the writer's cursor back.
        end.saturating_sub(start)
    }

    /// The points published since the last call.
    pub fn points(&mut self) -> Vec<Point> {
        let mut raw = Vec::new();
        self.take(&mut raw);
        raw.as_chunks::<{ layout::POINT_SIZE }>().0.iter().map(Point::from_bytes).collect()
    }

    /// Tell the writer that everything taken so far is safe and its slots are free.
    pub fn release(&self) {
        if let Some(word) = self.map.word(layout::TAP_AT_READ_CURSOR) {
            // Release: our copies out of the slots happen before the writer sees them free.
            word.store(self.next, Ordering::Release);
        }
    }

    fn load(&self, offset: usize, order: Ordering) -> u64 {
        self.map.word(offset).map_or(0, |word| word.load(order))
    }
}
