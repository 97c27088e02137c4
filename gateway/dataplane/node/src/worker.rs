//! The loops of the three kinds of thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use tgw_contract::Counter;
use tgw_device::poll::Poller;
use tgw_device::{Device, BATCH};
use tgw_forward::{Frame, Nanos};

use crate::clock;
use crate::control::{Bell, Control};
use crate::dispatch::{Dispatch, Inbox};
use crate::engine::Outlet;
use crate::lane::Lane;

/// The tap of the first dispatcher is the first one of a CLB that has any.
pub(crate) const DISPATCHER: u16 = 0;
/// The longest sleep: the heart must beat at least every 100 ms.
const SLEEP: Duration = Duration::from_millis(75);
/// The same while a device without a descriptor has to be asked.
const ASK: Duration = Duration::from_millis(1);
/// How often a stuck worker looks whether it still is.
const STUCK: Duration = Duration::from_millis(20);
/// How long a worker waits for the dispatchers to end.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// The devices of one thread.
pub(crate) struct Ports {
    devices: Vec<Box<dyn Device>>,
    sleep: Duration,
}

impl Ports {
    pub(crate) fn new(devices: Vec<Box<dyn Device>>) -> Self {
        let silent = devices.iter().any(|device| device.descriptor().is_none());
        Self { devices, sleep: if silent { ASK } else { SLEEP } }
    }

    /// A poller over those that receive.
    pub(crate) fn poller(&self) -> std::io::Result<Poller> {
        Poller::new(self.devices.iter().filter_map(|device| device.descriptor()))
    }

    fn take_lost(&mut self) -> u64 {
        self.devices.iter_mut().map(|device| device.take_lost()).sum()
    }
}

impl Outlet for Ports {
    fn send(&mut self, now: Nanos, port: u16, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) -> bool {
        match self.devices.iter_mut().find(|device| device.port() == port) {
            Some(device) => {
                device.send(now, frames, chosen, refused);
                true
            }
            None => false,
        }
    }
}

fn buffers() -> Vec<Frame> {
    (0..BATCH).map(|_| Frame::default()).collect()
}

/// Receive, process, send: one thread does it all.
pub(crate) struct RunToCompletion {
    pub(crate) lane: Lane,
    pub(crate) ports: Ports,
    pub(crate) poller: Poller,
    pub(crate) control: Arc<Control>,
}

impl RunToCompletion {
    pub(crate) fn run(mut self) {
        let mut frames = buffers();
        while !self.control.stopping() {
            self.lane.obey(&self.control);
            if self.lane.stuck() {
                std::thread::sleep(STUCK);
                continue;
            }
            let now = clock::now();
            if self.lane.engine.turn(now) {
                let lost = self.ports.take_lost();
                self.lane.engine.tap_mut().count(Counter::LostOnDevice, lost);
            }
            self.lane.engine.emit(now, &mut frames[0], &mut self.ports);
            let mut busy = false;
            for index in 0..self.ports.devices.len() {
                if self.lane.is_full() {
                    break;
                }
                let count = self.ports.devices[index].receive(clock::now(), &mut frames);
                busy |= count > 0;
                self.lane.feed(&mut frames[..count], &mut self.ports);
            }
            busy |= self.lane.release(&mut frames, &mut self.ports);
            if !busy {
                let limit = self.lane.rest(self.ports.sleep);
                self.poller.wait(limit);
            }
        }
        self.lane.end(None, &mut frames, clock::now());
    }
}

/// Receive and hand over: the dispatcher of a CLB.
pub(crate) struct DispatchLoop {
    /// Number of its tap.
    pub(crate) number: u16,
    pub(crate) dispatch: Dispatch,
    pub(crate) ports: Ports,
    pub(crate) poller: Poller,
    pub(crate) bells: Vec<Arc<Bell>>,
    pub(crate) control: Arc<Control>,
    /// Dispatchers that have not ended yet.
    pub(crate) running: Arc<AtomicUsize>,
}

impl DispatchLoop {
    pub(crate) fn run(mut self) {
        let mut frames = buffers();
        let mut seen = 0;
        let mut stuck = false;
        while !self.control.stopping() {
            if stuck {
                std::thread::sleep(STUCK);
                stuck = Lane::is_stuck(&self.control.faults(), self.number);
                continue;
            }
            if let Some(orders) = self.control.news(&mut seen) {
                if let Some(tables) = orders.tables {
                    self.dispatch.set_tables(tables);
                }
                stuck = Lane::is_stuck(&orders.faults, self.number);
                self.control.took(usize::from(self.number), seen);
            }
            if self.dispatch.turn(clock::now()) {
                let lost = self.ports.take_lost();
                self.dispatch.tap.count(Counter::LostOnDevice, lost);
            }
            let mut busy = false;
            for device in &mut self.ports.devices {
                let now = clock::now();
                let count = device.receive(now, &mut frames);
                busy |= count > 0;
                self.dispatch.process(now, &mut frames[..count], |worker| self.bells[worker].ring());
            }
            if !busy {
                self.poller.wait(self.ports.sleep);
            }
        }
        self.dispatch.tap.close(clock::now());
        // Release: the worker that sees this finds every frame that was handed over in its ring.
        self.running.fetch_sub(1, Ordering::Release);
        for bell in &self.bells {
            bell.wake();
        }
    }
}

/// Take from the ring, process, send: a worker of a CLB.
pub(crate) struct RingLoop {
    pub(crate) lane: Lane,
    pub(crate) inbox: Inbox,
    pub(crate) ports: Ports,
    pub(crate) bell: Arc<Bell>,
    pub(crate) control: Arc<Control>,
    pub(crate) dispatchers_running: Arc<AtomicUsize>,
}

impl RingLoop {
    pub(crate) fn run(mut self) {
        self.bell.mine();
        let mut frames = buffers();
        while !self.control.stopping() {
            self.lane.obey(&self.control);
            if self.lane.stuck() {
                std::thread::sleep(STUCK);
                continue;
            }
            let now = clock::now();
            self.lane.engine.turn(now);
            self.lane.engine.emit(now, &mut frames[0], &mut self.ports);
            let count = if self.lane.is_full() { 0 } else { self.inbox.take(&mut frames) };
            self.lane.feed(&mut frames[..count], &mut self.ports);
            let released = self.lane.release(&mut frames, &mut self.ports);
            if count == 0 && !released {
                let (control, inbox) = (&self.control, &self.inbox);
                self.bell.sleep(self.lane.rest(SLEEP), || !inbox.is_empty() || control.stopping());
            }
        }
        self.wait_for_dispatchers();
        self.lane.end(Some(&mut self.inbox), &mut frames, clock::now());
    }

    fn wait_for_dispatchers(&self) {
        let mut waited = Duration::ZERO;
        while self.dispatchers_running.load(Ordering::Acquire) > 0 && waited < LAST_FRAMES {
            std::thread::park_timeout(STUCK);
            waited += STUCK;
        }
    }
}

impl Lane {
    /// Take what was received in: some of it may be held, the rest is processed, sent and recorded.
    pub(crate) fn feed(&mut self, frames: &mut [Frame], outlet: &mut dyn Outlet) {
        let count = self.admit(frames);
        self.process(&mut frames[..count], outlet);
    }

    /// Process what was held and is due; whether there was some.
    pub(crate) fn release(&mut self, frames: &mut [Frame], outlet: &mut dyn Outlet) -> bool {
        let count = self.due(clock::now(), frames);
        self.process(&mut frames[..count], outlet);
        count > 0
    }

    /// How long this worker may sleep, at most `limit`.
    fn rest(&self, limit: Duration) -> Duration {
        self.next_due().map_or(limit, |due| limit.min(Duration::from_nanos(due.saturating_sub(clock::now()))))
    }

    fn process(&mut self, frames: &mut [Frame], outlet: &mut dyn Outlet) {
        if !frames.is_empty() {
            self.engine.process(clock::now(), frames, outlet);
            self.engine.publish(clock::now());
        }
    }
}
