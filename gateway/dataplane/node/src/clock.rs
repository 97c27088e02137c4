//! The one place that asks the system for the time.

use std::time::{SystemTime, UNIX_EPOCH};

use tgw_forward::Nanos;

/// Now, in ns since 1970 (CLOCK_REALTIME: records of different nodes are put side by side).
pub(crate) fn now() -> Nanos {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as Nanos)
}
