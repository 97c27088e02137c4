//! Sleeping until a device or another thread has something.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::sys;

/// Wakes a [`Poller`] from another thread.
#[derive(Clone)]
pub struct Waker {
    event: Arc<File>,
}

impl Waker {
    /// End the poller's sleep, or its next one when it is awake.
    pub fn wake(&self) {
        // The only failure of a write to an event counter is that it is full: then it is readable anyway.
        let _ = (&*self.event).write(&1u64.to_ne_bytes());
    }
}

/// Sleeps on descriptors.
pub struct Poller {
    waker: Waker,
    watched: Vec<libc::pollfd>,
}

impl Poller {
    /// A poller over these descriptors (which must stay open while it lives).
    pub fn new(descriptors: impl IntoIterator<Item = RawFd>) -> io::Result<Self> {
        let event = File::from(sys::event()?);
        let all = std::iter::once(event.as_raw_fd()).chain(descriptors);
        let watched = all.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
        Ok(Self { waker: Waker { event: Arc::new(event) }, watched })
    }

    /// A handle to end this poller's sleep.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Sleep until something is there, but not longer than `limit`. Waking early for no reason is allowed.
    pub fn wait(&mut self, limit: Duration) {
        // Rounded up, so that a limit below a millisecond does not spin.
        let milliseconds = limit.as_micros().div_ceil(1000).min(1000) as libc::c_int;
        match sys::poll(&mut self.watched, milliseconds) {
            Ok(_) if self.watched[0].revents != 0 => {
                let _ = (&*self.waker.event).read(&mut [0u8; 8]);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Out of kernel memory: do not turn this into a busy loop.
            Err(_) => std::thread::sleep(limit.min(Duration::from_millis(10))),
        }
    }
}
