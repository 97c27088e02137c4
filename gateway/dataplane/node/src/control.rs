//! What the control thread tells the workers, and how it knows that they have heard it.

use std::sync::atomic::{fence, AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tgw_device::poll::Waker;
use tgw_forward::Tables;

use crate::fault::Fault;

/// Shared by all threads of a node. Workers look between batches; nothing here blocks them.
pub(crate) struct Control {
    stop: AtomicBool,
    tables: ArcSwapOption<Tables>,
    faults: ArcSwap<Vec<Fault>>,
    /// Rises after each change of the two above.
    generation: AtomicU64,
    /// The generation that each worker acts by.
    taken: Vec<AtomicU64>,
}

/// What a worker finds when something changed.
pub(crate) struct Orders {
    pub(crate) tables: Option<Arc<Tables>>,
    pub(crate) faults: Arc<Vec<Fault>>,
}

impl Control {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            stop: AtomicBool::new(false),
            tables: ArcSwapOption::empty(),
            faults: ArcSwap::from_pointee(Vec::new()),
            generation: AtomicU64::new(0),
            taken: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(crate) fn set_tables(&self, tables: Arc<Tables>) -> u64 {
        self.tables.store(Some(tables));
        self.generation.fetch_add(1, Ordering::Release) + 1
    }

    pub(crate) fn tables(&self) -> Option<Arc<Tables>> {
        self.tables.load_full()
    }

    pub(crate) fn set_faults(&self, faults: Vec<Fault>) -> u64 {
        self.faults.store(Arc::new(faults));
        self.generation.fetch_add(1, Ordering::Release) + 1
    }

    pub(crate) fn faults(&self) -> Arc<Vec<Fault>> {
        self.faults.load_full()
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The orders, when they are newer than `seen` (which is brought up to date).
    pub(crate) fn news(&self, seen: &mut u64) -> Option<Orders> {
        let generation = self.generation.load(Ordering::Acquire);
        if generation == *seen {
            return None;
        }
        *seen = generation;
        Some(Orders { tables: self.tables.load_full(), faults: self.faults.load_full() })
    }

    /// Worker `slot` acts by generation `seen` from now on.
    pub(crate) fn took(&self, slot: usize, seen: u64) {
        if let Some(word) = self.taken.get(slot) {
            word.store(seen, Ordering::Release);
        }
    }

    /// The workers that do not act by `generation` yet.
    pub(crate) fn behind(&self, generation: u64) -> Vec<usize> {
        let lags = |slot: &usize| self.taken[*slot].load(Ordering::Acquire) < generation;
        (0..self.taken.len()).filter(lags).collect()
    }
}

/// Wakes a worker that sleeps on its ring; costs the ringer a load while the worker is awake.
#[derive(Default)]
pub(crate) struct Bell {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Bell {
    /// The calling thread is the one to wake.
    pub(crate) fn mine(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// Sleep at most `limit`, unless `ready` says that there is something after all.
    pub(crate) fn sleep(&self, limit: Duration, ready: impl Fn() -> bool) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`: either we see the item, or the ringer sees us asleep.
        fence(Ordering::SeqCst);
        if !ready() {
            std::thread::park_timeout(limit);
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Call after putting something in the ring.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Wake it whatever it does.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// How to wake one thread of the node.
pub(crate) enum Alarm {
    Poller(Waker),
    Bell(Arc<Bell>),
}

impl Alarm {
    pub(crate) fn wake(&self) {
        match self {
            Self::Poller(waker) => waker.wake(),
            Self::Bell(bell) => bell.wake(),
        }
    }
}
