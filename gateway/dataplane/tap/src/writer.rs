//! The writing side: one worker's own.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use tgw_contract::records::{self as layout, Counter, Point};
use tgw_contract::{DropReason, Verdict};
use tgw_forward::{Nanos, Observer};

use crate::bucket::Bucket;
use crate::error::TapError;
use crate::header::{file_name, Header};
use crate::map::Map;
use crate::reader::Reader;

/// Drop Points of uncoloured packets that a tap takes per second; the rest is counted as `suppressed`.
pub const DROP_POINTS_PER_SECOND: u32 = 200;

const TRACE_POINT: u8 = 1;
const DROP_POINT: u8 = 2;
/// Points of one batch: at most a few a frame, and a batch is 64 frames.
const STAGED: usize = 256;

/// The counters of a tap, readable from any thread while its worker counts.
#[derive(Clone)]
pub struct Counters {
    map: Arc<Map>,
}

impl Counters {
    pub(crate) fn over(map: Arc<Map>) -> Self {
        Self { map }
    }

    /// One counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.at(counter as usize)
    }

    /// Frames dropped for one reason.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.at(layout::DROP_BASE + usize::from(reason.number()))
    }

    /// Frames dropped for any reason.
    #[must_use]
    pub fn all_drops(&self) -> u64 {
        // Saturating: another process may have spoilt the file.
        DropReason::ALL.iter().fold(0, |sum, &reason| sum.saturating_add(self.drops(reason)))
    }

    fn at(&self, index: usize) -> u64 {
        self.map.word(layout::TAP_COUNTERS_OFFSET + 8 * index).map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

/// Writes one tap. Points are staged by [`Observer::point`] and reach the ring with [`Writer::publish`].
pub struct Writer {
    map: Arc<Map>,
    header: Header,
    path: Option<PathBuf>,
    written: u64,
    read_seen: u64,
    lost: u64,
    suppressed: u64,
    bucket: Bucket,
    staged: Vec<Point>,
}

impl Writer {
    /// Make the tap file of a worker in `directory`. Readers never see it half made: it gets its name when it is whole.
    ///
    /// `TapError` when the header is impossible or the file system refuses (a full disk refuses here, not later).
    pub fn create(directory: &Path, header: Header) -> Result<Self, TapError> {
        header.check()?;
        let name = file_name(&header.node, header.worker, &header.boot_id);
        let path = directory.join(&name);
        let making = directory.join(format!(".{name}.new"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&making)
            .map_err(TapError::io(&making, "create"))?;
        let whole = Map::allocate(&file, header.file_size()).map_err(TapError::io(&making, "reserve its size"));
        let map = whole.inspect_err(|_| drop(fs::remove_file(&making)))?;
        map.write(0, &header.to_bytes());
        fs::rename(&making, &path).map_err(TapError::io(&path, "give it its name"))?;
        Ok(Self::over(map, header, Some(path)))
    }

    /// A tap in memory that only this process sees.
    pub fn anonymous(header: Header) -> Result<Self, TapError> {
        header.check()?;
        let map =
            Map::anonymous(header.file_size()).map_err(TapError::io(Path::new("(memory)"), "reserve the ring"))?;
        map.write(0, &header.to_bytes());
        Ok(Self::over(map, header, None))
    }

    fn over(map: Map, header: Header, path: Option<PathBuf>) -> Self {
        Self {
            map: Arc::new(map),
            header,
            path,
            written: 0,
            read_seen: 0,
            lost: 0,
            suppressed: 0,
            bucket: Bucket::new(DROP_POINTS_PER_SECOND),
            staged: Vec::with_capacity(STAGED),
        }
    }

    /// Cap the Drop Points of uncoloured packets at `rate` a second.
    #[must_use]
    pub fn with_drop_points_per_second(mut self, rate: u32) -> Self {
        self.bucket = Bucket::new(rate);
        self
    }

    /// The fixed header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file; `None` for a tap in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The counters, for other threads to read.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::over(Arc::clone(&self.map))
    }

    /// A reader of this tap, from its first record.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::over(Arc::clone(&self.map), self.header.clone())
    }

    /// Add `n` to a counter.
    pub fn count(&mut self, counter: Counter, n: u64) {
        self.add(counter as usize, n);
    }

    /// Set a gauge.
    pub fn set(&mut self, gauge: Counter, value: u64) {
        self.store(layout::TAP_COUNTERS_OFFSET + 8 * gauge as usize, value, Ordering::Relaxed);
    }

    /// Count one frame dropped for `reason`. The Drop Point, if there is to be one, is a call of its own.
    pub fn count_drop(&mut self, reason: DropReason) {
        self.add(layout::DROP_BASE + usize::from(reason.number()), 1);
    }

    /// Count `n` frames that left, of `bytes` bytes together.
    pub fn count_out(&mut self, n: u64, bytes: u64) {
        self.count(Counter::FramesOut, n);
        self.count(Counter::BytesOut, bytes);
    }

    /// Count `n` frames that came in, of `bytes` bytes together.
    pub fn count_in(&mut self, n: u64, bytes: u64) {
        self.count(Counter::FramesIn, n);
        self.count(Counter::BytesIn, bytes);
    }

    /// The frame of `drop` did not leave after all: its Trace Point of this batch, if it has one, becomes a Drop Point.
    ///
    /// `drop` is what can be read from the frame now; the Trace Point, made when the frame came in, knows more. Without
    /// one, `drop` itself is staged.
    pub fn revoke(&mut self, drop: &Point) {
        let same = |point: &&mut Point| {
            point.kind == TRACE_POINT
                && point.probe_id == drop.probe_id
                && point.tcp_flags == drop.tcp_flags
                && point.tcp_seq == drop.tcp_seq
        };
        match self.staged.iter_mut().rev().find(same) {
            Some(point) if drop.probe_id != 0 => {
                point.kind = DROP_POINT;
                point.reason = drop.reason;
                point.verdict = Verdict::Dropped.number();
            }
            _ => self.point(drop),
        }
    }

    /// Put the staged points into the ring, `now` being the time at which their frames have left or died.
    pub fn publish(&mut self, now: Nanos) {
        if self.staged.is_empty() {
            return;
        }
        let staged = std::mem::take(&mut self.staged);
        let (mut traces, mut drops) = (0, 0);
        for point in &staged {
            if point.kind == DROP_POINT {
                drops += 1;
                if point.probe_id == 0 && !self.bucket.take(now) {
                    self.suppressed += 1;
                    continue;
                }
            } else {
                traces += 1;
            }
            self.append(point, now);
        }
        // Release: a reader that sees the cursor sees the records before it.
        self.store(layout::TAP_AT_WRITE_CURSOR, self.written, Ordering::Release);
        self.store(layout::TAP_AT_LOST, self.lost, Ordering::Relaxed);
        self.store(layout::TAP_AT_SUPPRESSED, self.suppressed, Ordering::Relaxed);
        self.count(Counter::TracePoints, traces);
        self.count(Counter::DropPoints, drops);
        self.staged = staged;
        self.staged.clear();
    }

    /// Store the heartbeat.
    pub fn beat(&mut self, now: Nanos) {
        self.store(layout::TAP_AT_HEARTBEAT_NS, now, Ordering::Release);
    }

    /// Publish what is staged and mark an end in good order.
    pub fn close(&mut self, now: Nanos) {
        self.publish(now);
        self.beat(now);
        self.store(layout::TAP_AT_CLOSED, 1, Ordering::Release);
    }

    fn append(&mut self, point: &Point, now: Nanos) {
        let capacity = self.header.capacity;
        if self.written.wrapping_sub(self.read_seen) >= capacity {
            // Acquire: the reader's copies out of these slots happened before it freed them. A cursor ahead of ours is
            // a broken reader: keep to what we know.
            let read = self.map.word(layout::TAP_AT_READ_CURSOR).map_or(0, |word| word.load(Ordering::Acquire));
            self.read_seen = read.min(self.written).max(self.read_seen);
            if self.written - self.read_seen >= capacity {
                self.lost += 1;
                return;
            }
        }
        let mut record = *point;
        record.seq = self.written;
        record.worker = self.header.worker;
        record.residence_ns = u32::try_from(now.saturating_sub(record.ts_ns)).unwrap_or(u32::MAX);
        let slot = (self.written & (capacity - 1)) as usize;
        self.map.write(layout::TAP_HEADER_SIZE + slot * layout::POINT_SIZE, &record.to_bytes());
        self.written += 1;
    }

    fn add(&mut self, index: usize, n: u64) {
        // Counters past the table cannot be: the generator checks them against TAP_COUNTERS_COUNT.
        if let Some(word) = self.map.word(layout::TAP_COUNTERS_OFFSET + 8 * index) {
            // This thread is the only writer, so a load and a store do; no locked instruction.
            word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    fn store(&self, offset: usize, value: u64, order: Ordering) {
        if let Some(word) = self.map.word(offset) {
            word.store(value, order);
        }
    }
}

impl Observer for Writer {
    fn point(&mut self, point: &Point) {
        self.staged.push(*point);
    }
}
