//! The fixed part of the header: who writes, what, and how much room there is.

use tgw_contract::records as layout;

use crate::error::TapError;
use crate::map::Map;

/// What never changes while the writer lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name of the node, 1 to 64 bytes.
    pub node: String,
    /// `Role::number`, 0 for a prober.
    pub role: u32,
    /// Number of the worker within the node.
    pub worker: u16,
    /// Random, new at each start of the node.
    pub boot_id: [u8; 16],
    /// Slots in the ring, a power of two.
    pub capacity: u64,
    /// Process id of the writer.
    pub pid: u32,
    /// When the file was made, ns since 1970.
    pub created_ns: u64,
}

const NODE_BYTES: usize = 64;
/// 2^24 records are 2 GiB: a larger number is a mistake, not a wish.
const CAPACITY_LIMIT: u64 = 1 << 24;

impl Header {
    /// Bytes of the whole file.
    #[must_use]
    pub fn file_size(&self) -> usize {
        // `check` bounds the capacity, so this cannot overflow on a 64-bit machine.
        layout::TAP_HEADER_SIZE + self.capacity as usize * layout::POINT_SIZE
    }

    pub(crate) fn check(&self) -> Result<(), TapError> {
        if self.node.is_empty() || self.node.len() > NODE_BYTES {
            return Err(TapError::field("node", "1 to 64 bytes", format!("{} bytes", self.node.len())));
        }
        if !self.capacity.is_power_of_two() || self.capacity > CAPACITY_LIMIT {
            return Err(TapError::field("capacity", "a power of two up to 2^24", self.capacity));
        }
        Ok(())
    }

    /// The whole fresh header: cursors, heartbeat and counters zero.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0u8; layout::TAP_HEADER_SIZE];
        let mut put = |offset: usize, bytes: &[u8]| out[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(layout::TAP_AT_MAGIC, &layout::TAP_MAGIC);
        put(layout::TAP_AT_LAYOUT, &layout::LAYOUT.to_le_bytes());
        put(layout::TAP_AT_RECORD_KIND, &layout::POINT_KIND.to_le_bytes());
        put(layout::TAP_AT_RECORD_SIZE, &(layout::POINT_SIZE as u32).to_le_bytes());
        put(layout::TAP_AT_WORKER, &u32::from(self.worker).to_le_bytes());
        put(layout::TAP_AT_CAPACITY, &self.capacity.to_le_bytes());
        put(layout::TAP_AT_BOOT_ID, &self.boot_id);
        put(layout::TAP_AT_NODE, self.node.as_bytes());
        put(layout::TAP_AT_CREATED_NS, &self.created_ns.to_le_bytes());
        put(layout::TAP_AT_PID, &self.pid.to_le_bytes());
        put(layout::TAP_AT_ROLE, &self.role.to_le_bytes());
        out
    }

    /// The header that a mapping of at least `TAP_HEADER_SIZE` bytes starts with.
    pub(crate) fn from_map(map: &Map) -> Result<Self, TapError> {
        let magic: [u8; 8] = bytes(map, layout::TAP_AT_MAGIC)?;
        if magic != layout::TAP_MAGIC {
            return Err(TapError::field("magic", format!("{:?}", layout::TAP_MAGIC), format!("{magic:?}")));
        }
        same(map, "layout", layout::TAP_AT_LAYOUT, layout::LAYOUT)?;
        same(map, "record_kind", layout::TAP_AT_RECORD_KIND, layout::POINT_KIND)?;
        same(map, "record_size", layout::TAP_AT_RECORD_SIZE, layout::POINT_SIZE as u32)?;
        let name: [u8; NODE_BYTES] = bytes(map, layout::TAP_AT_NODE)?;
        let worker = u32::from_le_bytes(bytes(map, layout::TAP_AT_WORKER)?);
        let header = Self {
            node: String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned(),
            role: u32::from_le_bytes(bytes(map, layout::TAP_AT_ROLE)?),
            worker: u16::try_from(worker).map_err(|_| TapError::field("worker", "at most 65535", worker))?,
            boot_id: bytes(map, layout::TAP_AT_BOOT_ID)?,
            capacity: u64::from_le_bytes(bytes(map, layout::TAP_AT_CAPACITY)?),
            pid: u32::from_le_bytes(bytes(map, layout::TAP_AT_PID)?),
            created_ns: u64::from_le_bytes(bytes(map, layout::TAP_AT_CREATED_NS)?),
        };
        header.check()?;
        Ok(header)
    }
}

/// The tap's file name: `<node>.<worker>.<first 8 hex digits of the boot id>.tap`.
#[must_use]
pub fn file_name(node: &str, worker: u16, boot_id: &[u8; 16]) -> String {
    let boot: String = boot_id.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{node}.{worker}.{boot}.tap")
}

fn bytes<const N: usize>(map: &Map, offset: usize) -> Result<[u8; N], TapError> {
    let mut out = [0u8; N];
    if map.read(offset, &mut out) {
        Ok(out)
    } else {
        Err(TapError::field("size", format!("at least {} bytes", layout::TAP_HEADER_SIZE), "less"))
    }
}

fn same(map: &Map, field: &'static str, offset: usize, expected: u32) -> Result<(), TapError> {
    let found = u32::from_le_bytes(bytes(map, offset)?);
    if found == expected {
        Ok(())
    } else {
        Err(TapError::field(field, format!("{expected:#x}"), format!("{found:#x}")))
    }
}
