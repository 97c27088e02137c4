//! Two queues in memory: a wire with a device at one end and a test or a simulation at the other.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tgw_forward::{Frame, Nanos};

use crate::Device;

#[derive(Default)]
struct Queues {
    towards: VecDeque<Vec<u8>>,
    from: VecDeque<Vec<u8>>,
    room: usize,
    lost: u64,
}

/// The far end of a [`Memory`] device.
#[derive(Clone)]
pub struct Wire {
    queues: Arc<Mutex<Queues>>,
}

/// A device over two bounded queues.
pub struct Memory {
    port: u16,
    wire: Wire,
}

impl Memory {
    /// A device for `port` and the wire to its far end; each direction holds at most `room` frames.
    #[must_use]
    pub fn new(port: u16, room: usize) -> (Self, Wire) {
        let wire = Wire { queues: Arc::new(Mutex::new(Queues { room, ..Queues::default() })) };
        (Self { port, wire: wire.clone() }, wire)
    }
}

impl Wire {
    /// Put a frame on the wire towards the device; lost, and counted by the device, when its queue is full.
    pub fn put(&self, bytes: &[u8]) {
        let mut queues = self.lock();
        if queues.towards.len() < queues.room {
            queues.towards.push_back(bytes.to_vec());
        } else {
            queues.lost += 1;
        }
    }

    /// Everything the device has sent since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Vec<u8>> {
        self.lock().from.drain(..).collect()
    }

    /// Another device on this wire, for `port`, that only sends: the wire is shared, as an interface is.
    #[must_use]
    pub fn sender(&self, port: u16) -> impl Device + use<> {
        Sender(Memory { port, wire: self.clone() })
    }

    /// Frames still on their way to the device.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().towards.len()
    }

    /// From now on, each direction holds at most `room` frames; 0 is a link that is down.
    pub fn set_room(&self, room: usize) {
        self.lock().room = room;
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // The queues are whole after every statement, so a panic of the other end spoils nothing.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sender(Memory);

impl Device for Sender {
    fn port(&self) -> u16 {
        self.0.port
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    fn receive(&mut self, _: Nanos, _: &mut [Frame]) -> usize {
        0
    }

    fn send(&mut self, now: Nanos, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) {
        self.0.send(now, frames, chosen, refused);
    }
}

impl Device for Memory {
    fn port(&self) -> u16 {
        self.port
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    fn receive(&mut self, now: Nanos, frames: &mut [Frame]) -> usize {
        let mut queues = self.wire.lock();
        let mut filled = 0;
        while filled < frames.len() {
            let Some(bytes) = queues.towards.pop_front() else {
                break;
            };
            if frames[filled].load(self.port, now, &bytes) {
                filled += 1;
            } else {
                queues.lost += 1; // larger than a frame buffer: no real link would have carried it
            }
        }
        filled
    }

    fn send(&mut self, _now: Nanos, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) {
        let mut queues = self.wire.lock();
        for &index in chosen {
            if queues.from.len() < queues.room {
                queues.from.push_back(frames[index].bytes().to_vec());
            } else {
                refused.push(index);
            }
        }
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.wire.lock().lost)
    }
}
