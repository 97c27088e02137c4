//! A node as threads: start, new tables, faults, stop.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tgw_device::af_xdp::Hosts;
use tgw_device::{Device, DeviceError};
use tgw_forward::{pipeline, ConfigError, Dispatcher, Meters, Options, Pipeline, ServerHealth, Tables};
use tgw_tap::{Counters, Header, TapError, Writer};

use crate::clock;
use crate::config::{Checked, Config};
use crate::control::{Alarm, Bell, Control};
use crate::dispatch::{way, Dispatch, Inbox, Way};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::lane::Lane;
use crate::open::{self, PortDevice};
use crate::residence::Residence;
use crate::worker::{DispatchLoop, Ports, RingLoop, RunToCompletion};

/// The devices of one thread, in the order of [`Node::taps`]: one set for each.
pub type DeviceSet = Vec<Box<dyn Device>>;

/// Makes the pipeline of the worker of this number.
pub type MakePipeline = dyn Fn(u16) -> Box<dyn Pipeline>;

const ALREADY: NodeError = NodeError::State("the node was started before: make a new one");
/// How long [`Node::apply`] waits for the workers.
const ACKNOWLEDGE: Duration = Duration::from_secs(1);

/// Why a node cannot do what it was told.
#[derive(Debug)]
pub enum NodeError {
    /// Configuration or tables are wrong; nothing was applied.
    Config(ConfigError),
    /// A port cannot be opened.
    Device(DeviceError),
    /// A tap cannot be made.
    Tap(TapError),
    /// The system refused a thread or a descriptor.
    System(io::Error),
    /// The tables are in place, but these workers have not turned to take them.
    Behind {
        /// Numbers of the workers.
        workers: Vec<usize>,
        /// Epoch of the tables.
        epoch: u64,
    },
    /// Asked for in the wrong order.
    State(&'static str),
}

impl fmt::Display for NodeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(out),
            Self::Device(error) => error.fmt(out),
            Self::Tap(error) => error.fmt(out),
            Self::System(error) => write!(out, "cannot start a worker: {error}"),
            Self::Behind { workers, epoch } => {
                let limit = ACKNOWLEDGE.as_secs();
                write!(out, "workers {workers:?} have not taken epoch {epoch} within {limit} s: they do not turn")
            }
            Self::State(what) => out.write_str(what),
        }
    }
}

impl std::error::Error for NodeError {}

impl From<ConfigError> for NodeError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<DeviceError> for NodeError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

impl From<TapError> for NodeError {
    fn from(error: TapError) -> Self {
        Self::Tap(error)
    }
}

/// The counters of one worker.
#[derive(Clone)]
pub struct WorkerCounters {
    /// Number of the worker (and of its tap).
    pub worker: u16,
    /// Its counters.
    pub counters: Counters,
    /// How long frames stay with it, and what it counts by VIP, listener and real server; a dispatcher has neither.
    pub engine: Option<EngineCounters>,
}

/// What an engine shows besides the counters of its tap.
#[derive(Clone)]
pub struct EngineCounters {
    /// How long frames stay.
    pub residence: Arc<Residence>,
    /// Traffic by VIP, listener and real server.
    pub meters: Arc<Meters>,
}

impl WorkerCounters {
    /// What this engine shows is this worker's.
    pub(crate) fn attach(&mut self, engine: &Engine) {
        self.engine = Some(EngineCounters { residence: engine.residence(), meters: engine.meters() });
    }
}

/// One EIP, CLB or vSwitch node.
pub struct Node {
    config: Config,
    checked: Checked,
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
    alarms: Vec<Alarm>,
    counters: Vec<WorkerCounters>,
    paths: Vec<PathBuf>,
    devices: Vec<PortDevice>,
    /// Who must know the addresses of the host, by number of the port.
    hosts: Vec<(u16, Hosts)>,
    started: bool,
}

impl Node {
    /// A node that does nothing yet. `ConfigError` names what is wrong.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let checked = config.check()?;
        let control = Arc::new(Control::new(taps(&checked)));
        Ok(Self {
            config,
            checked,
            control,
            threads: Vec::new(),
            alarms: Vec::new(),
            counters: Vec::new(),
            paths: Vec::new(),
            devices: Vec::new(),
            hosts: Vec::new(),
            started: false,
        })
    }

    /// How many taps (and threads) this node has: its workers, and the dispatchers of a CLB, which come first.
    #[must_use]
    pub fn taps(&self) -> usize {
        taps(&self.checked)
    }

    /// Open the configured interfaces and start.
    pub fn start(&mut self) -> Result<(), NodeError> {
        if self.started {
            return Err(ALREADY);
        }
        let opened = open::open(&self.config.ports, usize::from(self.checked.dispatchers), self.taps())?;
        (self.devices, self.hosts) = (opened.ports, opened.hosts);
        if let Some(tables) = self.control.tables() {
            self.tell_hosts(&tables)?;
        }
        self.start_with(opened.sets)
    }

    /// Start on these devices: for each thread those that it receives from, or (a CLB's workers) sends to.
    pub fn start_with(&mut self, sets: Vec<DeviceSet>) -> Result<(), NodeError> {
        let role = self.checked.role;
        let options = Options {
            flow_capacity: self.config.flow_capacity,
            seed: self.config.seed,
            workers: self.checked.workers,
            first_worker: self.checked.dispatchers,
            ..Options::default()
        };
        self.start_on(sets, &move |worker| pipeline(role, worker, &options))
    }

    /// Start on these devices and pipelines; `make` makes the pipeline of the worker of this number.
    pub fn start_on(&mut self, sets: Vec<DeviceSet>, make: &MakePipeline) -> Result<(), NodeError> {
        if self.started {
            return Err(ALREADY);
        }
        if sets.len() != self.taps() {
            return Err(NodeError::State("expected one set of devices for each tap"));
        }
        self.started = true;
        let sets: Vec<Ports> = sets.into_iter().map(Ports::new).collect();
        let result =
            if self.checked.dispatchers > 0 { self.start_clb(sets, make) } else { self.start_workers(sets, make) };
        if result.is_err() {
            self.stop();
        }
        result
    }

    /// Check the tables and give them to every worker. Returns when all of them act by them.
    ///
    /// `NodeError::Config` when the tables are wrong and `NodeError::Device` when a port cannot be told the addresses of its
    /// host (the tables stay as they are), `NodeError::Behind` when some worker does not
    /// turn (those that turn have the new tables; the same tables may be given again).
    pub fn apply(&self, tables: &str) -> Result<u64, NodeError> {
        let tables = Arc::new(Tables::from_json(tables, self.checked.role)?);
        let epoch = tables.epoch();
        self.tell_hosts(&tables)?;
        let generation = self.control.set_tables(tables);
        self.wake();
        if !self.started {
            return Ok(epoch);
        }
        let limit = Instant::now() + ACKNOWLEDGE;
        loop {
            let workers = self.control.behind(generation);
            if workers.is_empty() {
                return Ok(epoch);
            }
            if Instant::now() >= limit {
                return Err(NodeError::Behind { workers, epoch });
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Add a fault.
    pub fn inject(&self, fault: Fault) {
        let mut faults = self.control.faults().as_ref().clone();
        faults.push(fault);
        self.control.set_faults(faults);
        self.wake();
    }

    /// End all faults.
    pub fn clear_faults(&self) {
        self.control.set_faults(Vec::new());
        self.wake();
    }

    /// The faults that are injected.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.control.faults().as_ref().clone()
    }

    /// The counters of every worker; empty before the start. They stay readable after the stop.
    #[must_use]
    pub fn counters(&self) -> &[WorkerCounters] {
        &self.counters
    }

    /// What each configured port was opened as; empty before the start.
    #[must_use]
    pub fn devices(&self) -> &[PortDevice] {
        &self.devices
    }

    /// What health checks have found of the real servers, see [`Tables::health`]; empty before the first tables.
    #[must_use]
    pub fn health(&self) -> Vec<ServerHealth> {
        self.control.tables().map_or_else(Vec::new, |tables| tables.health())
    }

    /// The tap files.
    #[must_use]
    pub fn tap_paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether every thread that was started still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.threads.is_empty() && self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// End all threads and mark their taps closed. Frames inside are dropped as SHUTTING_DOWN.
    pub fn stop(&mut self) {
        self.control.stop();
        self.wake();
        for thread in self.threads.drain(..) {
            // A worker that panicked has left its tap unclosed, which says so to every reader.
            let _ = thread.join();
        }
        // Nothing of ours stays on the interfaces.
        self.hosts.clear();
    }

    fn start_workers(&mut self, sets: Vec<Ports>, make: &MakePipeline) -> Result<(), NodeError> {
        for (slot, ports) in sets.into_iter().enumerate() {
            let lane = self.lane(slot, make)?;
            let poller = ports.poller().map_err(NodeError::System)?;
            self.alarms.push(Alarm::Poller(poller.waker()));
            let worker = RunToCompletion { lane, ports, poller, control: Arc::clone(&self.control) };
            self.spawn(slot, move || worker.run())?;
        }
        Ok(())
    }

    fn start_clb(&mut self, sets: Vec<Ports>, make: &MakePipeline) -> Result<(), NodeError> {
        let dispatchers = usize::from(self.checked.dispatchers);
        let running = Arc::new(AtomicUsize::new(dispatchers));
        // By dispatcher, its ways to the workers.
        let mut ways: Vec<Vec<Way>> = (0..dispatchers).map(|_| Vec::new()).collect();
        let mut bells = Vec::new();
        let mut sets = sets.into_iter();
        let fronts: Vec<Ports> = sets.by_ref().take(dispatchers).collect();
        let taps = (0..self.checked.dispatchers).map(|number| self.tap(number)).collect::<Result<Vec<_>, _>>()?;
        for (slot, ports) in (dispatchers..).zip(sets) {
            let inboxes = ways.iter_mut().map(|ways| {
                let (way, inbox) = way(self.config.ring_capacity);
                ways.push(way);
                inbox
            });
            let inbox = Inbox::join(inboxes);
            let bell = Arc::new(Bell::default());
            bells.push(Arc::clone(&bell));
            self.alarms.push(Alarm::Bell(Arc::clone(&bell)));
            let worker = RingLoop {
                lane: self.lane(slot, make)?,
                inbox,
                ports,
                bell,
                control: Arc::clone(&self.control),
                dispatchers_running: Arc::clone(&running),
            };
            self.spawn(slot, move || worker.run())?;
        }
        for (number, ((ports, tap), ways)) in (0..).zip(fronts.into_iter().zip(taps).zip(ways)) {
            let poller = ports.poller().map_err(NodeError::System)?;
            self.alarms.push(Alarm::Poller(poller.waker()));
            let dispatch = Dispatch::new(Dispatcher::default(), tap, ways);
            let (bells, control, running) = (bells.clone(), Arc::clone(&self.control), Arc::clone(&running));
            let dispatcher = DispatchLoop { number, dispatch, ports, poller, bells, control, running };
            self.spawn(usize::from(number), move || dispatcher.run())?;
        }
        Ok(())
    }

    fn spawn(&mut self, slot: usize, run: impl FnOnce() + Send + 'static) -> Result<(), NodeError> {
        let name = format!("{}.{slot}", self.config.role);
        self.threads.push(thread::Builder::new().name(name).spawn(run).map_err(NodeError::System)?);
        Ok(())
    }

    fn lane(&mut self, slot: usize, make: &MakePipeline) -> Result<Lane, NodeError> {
        let worker = slot as u16; // `check` bounds the workers
        let tap = self.tap(worker)?;
        let engine = Engine::new(self.checked.role, make(worker), tap);
        if let Some(counters) = self.counters.last_mut() {
            counters.attach(&engine);
        }
        Ok(Lane::new(engine, worker))
    }

    fn tap(&mut self, worker: u16) -> Result<Writer, NodeError> {
        let header = Header {
            node: self.config.name.clone(),
            role: u32::from(self.checked.role.number()),
            worker,
            boot_id: self.checked.boot_id,
            capacity: self.config.tap_capacity,
            pid: std::process::id(),
            created_ns: clock::now(),
        };
        let mut tap = tap_in(self.config.tap_dir.as_deref(), header)?;
        // A tap without a heartbeat would look like that of a node that hangs.
        tap.beat(clock::now());
        self.counters.push(WorkerCounters { worker, counters: tap.counters(), engine: None });
        self.paths.extend(tap.path().map(Path::to_owned));
        Ok(tap)
    }

    /// What is sent to the host's own addresses stays the host's, where the device decides.
    fn tell_hosts(&self, tables: &Tables) -> Result<(), DeviceError> {
        for (index, hosts) in &self.hosts {
            if let Some(port) = tables.port(*index) {
                hosts.set(&port.host_addresses)?;
            }
        }
        Ok(())
    }

    fn wake(&self) {
        for alarm in &self.alarms {
            alarm.wake();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

fn taps(checked: &Checked) -> usize {
    usize::from(checked.workers) + usize::from(checked.dispatchers)
}

pub(crate) fn tap_in(directory: Option<&Path>, header: Header) -> Result<Writer, TapError> {
    match directory {
        Some(directory) => Writer::create(directory, header),
        None => Writer::anonymous(header),
    }
}
