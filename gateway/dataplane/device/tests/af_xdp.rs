//! AF_XDP on veths, in network namespaces of its own. Without root each test says that it is skipped.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tgw_device::af_packet::Receive;
use tgw_device::af_xdp::{Copying, Mode, Options};
use tgw_device::poll::Poller;
use tgw_device::{AfPacket, AfXdp, Device, BATCH};
use tgw_forward::Frame;

/// Two namespaces and a veth between them: `a0` (10.9.1.2) here, `a1` (10.9.1.1) at the far end.
struct Pair {
    here: String,
    far: String,
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Pair {
    /// `queues`: how many here, to receive and to transmit. `None`, said on stderr, without root or iproute2.
    fn new(receive: u32, transmit: u32) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // SAFETY: no arguments, never fails.
        if unsafe { libc::geteuid() } != 0 || Command::new("ip").arg("-V").output().is_err() {
            eprintln!("skipped: network namespaces need root and iproute2");
            return None;
        }
        let tag = format!("tgwx-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let pair = Self { here: format!("{tag}-here"), far: format!("{tag}-far") };
        for name in [&pair.here, &pair.far] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
            pair.inside(name, || {
                std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
                std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            });
        }
        ip(&format!(
            "link add a0 netns {} address 02:00:00:00:00:02 numrxqueues {receive} numtxqueues {transmit} type veth \
             peer name a1 netns {} address 02:00:00:00:00:01 numrxqueues {transmit} numtxqueues {receive}",
            pair.here, pair.far
        ));
        for (name, interface, address) in [(&pair.here, "a0", "10.9.1.2/30"), (&pair.far, "a1", "10.9.1.1/30")] {
            ip(&format!("-n {name} addr add {address} dev {interface}"));
            ip(&format!("-n {name} link set {interface} up"));
        }
        Some(pair)
    }

    /// Run in a namespace.
    fn inside<T: Send>(&self, name: &str, run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{name}")).unwrap();
                // SAFETY: no pointers; it changes this thread alone, which ends here.
                assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                run()
            });
            thread.join().unwrap()
        })
    }

    fn open(&self, options: Options) -> AfXdp {
        self.inside(&self.here, || AfXdp::open(7, "a0", 0, &options)).unwrap()
    }

    fn far(&self) -> AfPacket {
        self.inside(&self.far, || AfPacket::open(1, "a1", Receive::All)).unwrap()
    }

    /// What `ip` says of the interface here.
    fn shown(&self) -> String {
        let done = Command::new("ip").args(["-n", &self.here, "-s", "link", "show", "a0"]).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [&self.here, &self.far] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

const NATIVE: Options =
    Options { mode: Some(Mode::Native), copying: None, receive_frames: 512, send_frames: 256, huge_pages: true };
const GENERIC: Options = Options { mode: Some(Mode::Generic), ..NATIVE };

/// An IPv4 frame for no address of the host, with a number in it.
fn frame(number: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0];
    frame.extend([192, 0, 2, 9, 203, 0, 113, 1]);
    frame.extend(number.to_be_bytes());
    frame.resize(length, 0xEE);
    frame
}

fn number(frame: &[u8]) -> Option<u32> {
    let ours = frame.get(26..34) == Some(&[192, 0, 2, 9, 203, 0, 113, 1]);
    ours.then(|| u32::from_be_bytes(frame[34..38].try_into().unwrap()))
}

/// Send frames of these numbers; how many were refused.
fn send(device: &mut dyn Device, numbers: std::ops::Range<u32>, length: usize) -> usize {
    let mut frames: Vec<Frame> = (0..BATCH).map(|_| Frame::default()).collect();
    let all: Vec<u32> = numbers.collect();
    let mut refused = Vec::new();
    for part in all.chunks(BATCH) {
        for (frame, &n) in frames.iter_mut().zip(part) {
            assert!(frame.load(0, 0, &self::frame(n, length)));
        }
        let chosen: Vec<usize> = (0..part.len()).collect();
        device.send(0, &frames, &chosen, &mut refused);
    }
    refused.len()
}

/// The numbers of our frames that come within `quiet` of each other, and no others.
fn receive(device: &mut dyn Device, quiet: Duration) -> Vec<u32> {
    let mut frames: Vec<Frame> = (0..BATCH).map(|_| Frame::default()).collect();
    let mut poller = Poller::new(device.descriptor()).unwrap();
    let mut numbers = Vec::new();
    let mut last = Instant::now();
    while last.elapsed() < quiet {
        let count = device.receive(5, &mut frames);
        if count == 0 {
            poller.wait(quiet);
            continue;
        }
        for frame in &frames[..count] {
            assert!(frame.port == device.port() && frame.rx_ns == 5);
            if let Some(number) = number(frame.bytes()) {
                numbers.push(number);
                last = Instant::now();
            }
        }
    }
    numbers
}

const QUIET: Duration = Duration::from_millis(150);

#[test]
fn frames_pass_both_ways_in_both_modes() {
    for (options, mode) in [(NATIVE, "native"), (GENERIC, "generic")] {
        let Some(pair) = Pair::new(1, 1) else { return };
        let mut near = pair.open(options);
        assert!(near.describe().contains(mode) && near.describe().contains("a0 queue 0"), "{}", near.describe());
        assert_eq!(near.facts().copying, Copying::Kernel, "veth has no zero-copy");
        let mut far = pair.far();
        for length in [60, 800, 1514] {
            assert_eq!(send(&mut far, 0..300, length), 0);
            assert_eq!(receive(&mut near, QUIET), (0..300).collect::<Vec<_>>(), "{mode}, {length} bytes in");
            assert_eq!(send(&mut near, 0..300, length), 0);
            assert_eq!(receive(&mut far, QUIET), (0..300).collect::<Vec<_>>(), "{mode}, {length} bytes out");
        }
        assert_eq!((near.take_lost(), far.take_lost()), (0, 0));
        // Many rounds, so that every buffer has gone around.
        for round in 0..20 {
            assert_eq!(send(&mut far, round * 200..(round + 1) * 200, 60), 0);
            assert_eq!(receive(&mut near, Duration::from_millis(20)).len(), 200);
            assert_eq!(send(&mut near, 0..200, 60), 0);
        }
        assert_eq!(receive(&mut far, QUIET).len(), 4000);
    }
}

#[test]
fn every_frame_of_a_burst_is_received_or_lost() {
    for options in [NATIVE, GENERIC] {
        let Some(pair) = Pair::new(1, 1) else { return };
        let mut near = pair.open(options);
        let mut far = pair.far();
        let before = dropped(&pair.shown());
        let refused = send(&mut far, 0..2000, 60) as u64;
        let received = receive(&mut near, QUIET);
        let lost = near.take_lost();
        // The kernel's own queue in front of us is no part of the device: what it drops on a busy machine is in the
        // interface's counter, which in native mode has our losses too.
        let counted = dropped(&pair.shown()) - before;
        let on_the_way = if options.mode == Some(Mode::Native) { counted - lost } else { counted };
        assert!(received.is_sorted());
        assert!(lost > 0 && received.len() >= 512 - BATCH, "{lost} lost, {} received", received.len());
        assert_eq!(received.len() as u64 + lost + on_the_way + refused, 2000);
        assert_eq!(near.take_lost(), 0);
        assert_eq!(send(&mut far, 0..100, 60), 0);
        assert_eq!(receive(&mut near, QUIET).len(), 100, "and it goes on");
    }
}

/// RX dropped of `ip -s link`.
fn dropped(shown: &str) -> u64 {
    let values = shown.lines().skip_while(|line| !line.contains("RX:")).nth(1).unwrap();
    values.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[test]
fn every_frame_that_is_sent_arrives_or_is_refused() {
    let Some(pair) = Pair::new(1, 1) else { return };
    let mut near = pair.open(NATIVE);
    let mut far = pair.far();
    let refused = send(&mut near, 0..5000, 60);
    let arrived = receive(&mut far, QUIET).len();
    assert_eq!(arrived + refused + far.take_lost() as usize, 5000);
    assert_eq!(send(&mut near, 0..10, 1515), 10, "longer than the MTU");
    ip(&format!("-n {} link set a0 mtu 1600", pair.here));
    ip(&format!("-n {} link set a1 mtu 1600", pair.far));
    assert_eq!(send(&mut near, 0..10, 1515), 0, "the MTU has changed");
    assert_eq!(receive(&mut far, QUIET).len(), 10);
}

#[test]
fn a_link_that_is_down_refuses_and_one_that_comes_back_does_not() {
    for options in [NATIVE, GENERIC] {
        let Some(pair) = Pair::new(1, 1) else { return };
        let mut near = pair.open(options);
        let mut far = pair.far();
        for (name, interface) in [(&pair.here, "a0"), (&pair.far, "a1")] {
            ip(&format!("-n {name} link set {interface} down"));
            assert_eq!(send(&mut near, 0..100, 60), 100, "{interface} is down");
            assert_eq!(send(&mut near, 0..1000, 60), 1000);
            let mut poller = Poller::new(near.descriptor()).unwrap();
            let start = Instant::now();
            (0..5).for_each(|_| poller.wait(Duration::from_millis(20)));
            assert!(start.elapsed() >= Duration::from_millis(90), "a link that is down must not be polled hot");
            ip(&format!("-n {name} link set {interface} up"));
            let until = Instant::now() + Duration::from_secs(5);
            while send(&mut near, 0..1, 60) == 1 {
                assert!(Instant::now() < until);
            }
            receive(&mut far, QUIET);
            assert_eq!(send(&mut near, 100..300, 60), 0);
            assert_eq!(receive(&mut far, QUIET), (100..300).collect::<Vec<_>>(), "nothing of what was refused");
            assert_eq!(send(&mut far, 0..100, 60), 0);
            assert_eq!(receive(&mut near, QUIET), (0..100).collect::<Vec<_>>());
        }
    }
}

#[test]
fn an_interface_that_is_gone_refuses_and_is_not_polled_hot() {
    for options in [NATIVE, GENERIC] {
        let Some(pair) = Pair::new(1, 1) else { return };
        let mut near = pair.open(options);
        ip(&format!("-n {} link del a0", pair.here));
        assert_eq!(send(&mut near, 0..200, 60), 200);
        assert!(near.receive(0, &mut [Frame::default()]) == 0 && near.take_lost() == 0);
        let mut poller = Poller::new(near.descriptor()).unwrap();
        let start = Instant::now();
        (0..5).for_each(|_| poller.wait(Duration::from_millis(20)));
        assert!(start.elapsed() >= Duration::from_millis(90));
        assert!(near.hosts().set(&[7]).is_ok(), "nobody needs to know");
    }
}

#[test]
fn the_host_keeps_what_is_its_own() {
    for options in [NATIVE, GENERIC] {
        let Some(pair) = Pair::new(1, 1) else { return };
        let mut near = pair.open(options);
        let hosts = near.hosts();
        let host = pair.inside(&pair.here, || UdpSocket::bind("10.9.1.2:3784").unwrap());
        let client = pair.inside(&pair.far, || UdpSocket::bind("10.9.1.1:0").unwrap());
        for socket in [&host, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        let mut buffer = [0; 64];
        client.send_to(b"question", "10.9.1.2:3784").unwrap();
        let (_, from) = host.recv_from(&mut buffer).unwrap();
        host.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap().0, 6);

        // A tunnel's packet to the same address is the node's, and so is everything once the address is gone.
        host.set_read_timeout(Some(QUIET)).unwrap();
        let mut frames = [Frame::default()];
        let mut taken = |device: &mut AfXdp, port: u16| {
            let _ = client.send_to(b"to the node", ("10.9.1.2", port)).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            device.receive(0, &mut frames) == 1 && frames[0].bytes().ends_with(b"to the node")
        };
        assert!(taken(&mut near, 4789) && !taken(&mut near, 3784));
        host.recv_from(&mut buffer).unwrap();
        hosts.set(&[]).unwrap();
        assert!(taken(&mut near, 3784));
        assert!(host.recv_from(&mut buffer).is_err());
        hosts.set(&[0xFFFF_0A09_0102, 1, 2, 3]).unwrap();
        assert!(!taken(&mut near, 3784));
        host.recv_from(&mut buffer).unwrap();
    }
}

#[test]
fn what_does_not_work_is_refused_with_the_reasons() {
    let Some(pair) = Pair::new(1, 1) else { return };
    let refusal = |interface: &str, queue, options: Options| {
        pair.inside(&pair.here, || AfXdp::open(0, interface, queue, &options).err().unwrap().to_string())
    };
    let zero = refusal("a0", 0, Options { copying: Some(Copying::Zero), ..Options::default() });
    assert!(zero.starts_with("a0: ") && zero.contains("native, zero-copy: ") && zero.contains("generic, zero-copy: "));
    assert!(refusal("lo", 0, NATIVE).contains("native: "), "loopback has no native mode");
    assert!(refusal("nothing", 0, NATIVE).contains("find the interface"));
    assert!(refusal("a0", 5, NATIVE).contains("native, copy: "), "no such queue");
    let first = pair.open(NATIVE);
    assert!(refusal("a0", 0, Options::default()).contains("native: "), "somebody else's program is there");
    drop(first);
    drop(pair.open(Options::default()));
}

#[test]
fn a_device_that_is_dropped_leaves_the_interface_as_it_was() {
    let Some(pair) = Pair::new(1, 1) else { return };
    let near = pair.open(NATIVE);
    assert!(pair.shown().contains("prog/xdp"), "{}", pair.shown());
    drop(near);
    assert!(!pair.shown().contains("xdp"), "{}", pair.shown());
    let near = pair.open(GENERIC);
    let hosts = near.hosts();
    drop(near);
    assert!(pair.shown().contains("xdpgeneric"), "a handle holds on to it");
    drop(hosts);
    assert!(!pair.shown().contains("xdp"));
}

#[test]
fn receivers_and_senders_apart() {
    let Some(pair) = Pair::new(2, 3) else { return };
    let opened = pair.inside(&pair.here, || AfXdp::open_all(3, "a0", 4, &NATIVE)).unwrap();
    let (mut receivers, mut senders) = (opened.receivers, opened.senders);
    let queues = |devices: &[AfXdp]| devices.iter().map(|device| device.facts().queue).collect::<Vec<_>>();
    assert_eq!((queues(&receivers), queues(&senders)), (vec![0, 1], vec![0, 1, 2]));
    assert!(senders.iter().all(|sender| sender.descriptor().is_none()));
    assert_eq!(send(&mut receivers[0], 0..5, 60), 5, "a receiver does not send here");
    let mut far = pair.far();
    // Each sender in a thread of its own, while the receivers receive.
    std::thread::scope(|scope| {
        for (at, sender) in senders.iter_mut().enumerate() {
            let at = at as u32;
            scope.spawn(move || {
                (0..10).for_each(|part| {
                    assert_eq!(send(sender, at * 1000 + part * 100..at * 1000 + part * 100 + 100, 60), 0)
                });
            });
        }
        let numbers = receive(&mut far, QUIET);
        for at in 0..3 {
            let of = numbers.iter().copied().filter(|number| number / 1000 == at);
            assert!(of.eq(at * 1000..at * 1000 + 1000), "sender {at}");
        }
    });
    assert_eq!(send(&mut far, 0..100, 60), 0);
    let mut numbers: Vec<u32> = receivers.iter_mut().flat_map(|device| receive(device, QUIET)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "each frame by one queue");
}
