"""Network namespaces, veths and processes of a measurement, all of them gone at its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PREFIX = "tgwb-"
NETNS = Path("/run/netns")
NEEDED = ("ip", "ethtool", "sysctl", "nice", "taskset", "renice", "timeout")
# Frames must be what they are on a wire; without GRO, and so without NAPI, unless a test asks for it.
OFFLOADS = [word for what in ("tx", "rx", "tso", "gso", "gro") for word in (what, "off")]


# What is measured comes before all else on the machine; and who empties the kernel's queues before who fills them.
NICE, NAPI_NICE = -15, -10


class WireError(RuntimeError):
    """A command of the measurement failed; the message says which and why."""


def missing() -> str | None:
    """Why there can be no measurement on real devices here; None when there can."""
    if os.geteuid() != 0:
        return "not root: network namespaces and raw sockets need it"
    lacking = [tool for tool in NEEDED if shutil.which(tool) is None]
    if lacking:
        return f"not here: {', '.join(lacking)} (make setup)"
    if len(os.sched_getaffinity(0)) < 2:
        return "one core: the balancer needs one of its own"
    name = f"{PREFIX}{os.getpid()}-can"
    try:
        command("ip", "netns", "add", name)
    except WireError as error:
        return f"no network namespaces: {error}"
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False, timeout=20)
    return None


def command(*words: str, stdin: str | None = None, limit_s: float = 30.0) -> str:
    """Run to the end and return stdout. WireError when it fails."""
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=limit_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WireError(f"{' '.join(words[:6])}: {error}") from None
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split())[:500]
        raise WireError(f"{' '.join(words[:6])}: {reason or f'exit {done.returncode}'}")
    return done.stdout


def within(namespace: str, core: int | None, *words: str) -> list[str]:
    """The command that runs `words` in a namespace, pinned to a core."""
    pinned = ["nice", "-n", str(NICE), "taskset", "-c", str(core)] if core is not None else []
    return ["ip", "netns", "exec", namespace, *pinned, *words]


class Process:
    """A process that says "ready" (or is ready when it runs) and ends when its stdin does."""

    def __init__(self, words: list[str], log: Path, says_ready: bool = True) -> None:
        self._log = log
        with log.open("w") as stderr:
            # A session of its own: where the kernel groups processes by session, a nice value counts only within one.
            self._child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            Path(f"/proc/{self._child.pid}/autogroup").write_text(str(NICE))
        if says_ready and self._child.stdout is not None and self._child.stdout.readline().strip() != "ready":
            self.kill()
            raise WireError(self.said())

    def said(self) -> str:
        """The end of what it wrote on stderr."""
        said = self._log.read_text().partition("usage:")[0]
        return " ".join(said.split())[-500:] or "it ended without a word"

    def result(self, limit_s: float = 10.0) -> dict[str, Any]:
        """Close its stdin and read what it says at the end. WireError when that is nothing."""
        try:
            out, _ = self._child.communicate(timeout=limit_s)
            found: dict[str, Any] = json.loads(out)
        except (subprocess.TimeoutExpired, ValueError):
            self.kill()
            raise WireError(self.said()) from None
        return found

    def is_running(self) -> bool:
        return self._child.poll() is None

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(3)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait(5)
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Network:
    """Namespaces with a common prefix, the veths between them, and the processes in them."""

    def __init__(self, tag: str, directory: Path) -> None:
        self.prefix = f"{PREFIX}{os.getpid()}-{tag}-"
        self.directory = directory
        self._made: list[str] = []
        self._processes: list[Process] = []
        self._links = 0

    def full(self, name: str) -> str:
        """The namespace's name on this machine."""
        return self.prefix + name

    def namespaces(self, *names: str, forward: tuple[str, ...] = ()) -> None:
        """Make namespaces; those named in `forward` route."""
        for name in names:
            full = self.full(name)
            command("ip", "netns", "add", full)
            self._made.append(full)
            command("ip", "-n", full, "link", "set", "lo", "up")
            self.sysctl(name, "net.ipv6.conf.all.disable_ipv6=1", f"net.ipv4.ip_forward={int(name in forward)}")
            self.sysctl(name, "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")

    def run(self, name: str, *words: str) -> str:
        """Run a command in a namespace to its end."""
        return command(*within(self.full(name), None, *words))

    def sysctl(self, name: str, *settings: str) -> None:
        self.run(name, "sysctl", "-qw", *settings)

    def veth(self, one: tuple[str, str, str], other: tuple[str, str, str], mtu: int = 1600) -> None:
        """A veth pair: (namespace, interface, address with prefix length) of either end. They know each other's MAC."""
        self._links += 1
        macs = [f"02:00:00:{self._links:02x}:00:{end:02x}" for end in (1, 2)]
        (a, a_name, _), (b, b_name, _) = one, other
        pair = ["type", "veth", "peer", "name", b_name, "netns", self.full(b), "address", macs[1]]
        command("ip", "link", "add", a_name, "netns", self.full(a), "address", macs[0], *pair)
        for (name, interface, address), (_, _, far), mac in ((one, other, macs[1]), (other, one, macs[0])):
            self.run(name, "ethtool", "-K", interface, *OFFLOADS)
            self.ip(name, "addr", "add", address, "dev", interface)
            self.ip(name, "link", "set", interface, "mtu", str(mtu), "up")
            self.neighbour(name, interface, far.partition("/")[0], mac)

    def ip(self, name: str, *words: str) -> None:
        command("ip", "-n", self.full(name), *words)

    def neighbour(self, name: str, interface: str, address: str, mac: str) -> None:
        """Let an address have this MAC for good."""
        self.ip(name, "neigh", "replace", address, "lladdr", mac, "dev", interface, "nud", "permanent")

    def mac(self, name: str, interface: str) -> str:
        (link,) = json.loads(command("ip", "-j", "-n", self.full(name), "link", "show", interface))
        return str(link["address"])

    def put(self, name: str, interface: str, what: str, value: str) -> None:
        """Write a file of an interface in /sys."""
        path = f"/sys/class/net/{interface}/{what}"
        self.run(name, "sh", "-c", f"echo {value} > {path}")

    def receive_on(self, name: str, interface: str, core: int) -> None:
        """Let this core do what the kernel does with frames that come in here (RPS)."""
        self.put(name, interface, "queues/rx-0/rps_cpus", f"{1 << core:x}")

    def receive_in_thread(self, name: str, interface: str, core: int) -> None:
        """Let a kernel thread pinned to this core receive here: NAPI (GRO turns it on), threaded."""
        self.run(name, "ethtool", "-K", interface, "gro", "on")
        before = _napi_threads(interface)
        self.put(name, interface, "threaded", "1")
        new = _napi_threads(interface) - before
        if len(new) != 1:
            raise WireError(f"{interface}: {len(new)} new NAPI threads, 1 expected")
        (thread,) = new
        command("taskset", "-p", "-c", str(core), str(thread))
        command("renice", "-n", str(NAPI_NICE), "-p", str(thread))

    def start(self, name: str, core: int | None, *words: str, says_ready: bool = True) -> Process:
        """Start a process in a namespace; it ends with this network."""
        log = self.directory / f"{self.prefix}{name}-{len(self._processes)}.log"
        process = Process(within(self.full(name), core, *words), log, says_ready)
        self._processes.append(process)
        return process

    def remove(self) -> None:
        """End the processes, remove the namespaces and all that is in them."""
        for process in reversed(self._processes):
            process.kill()
        for full in self._made:
            subprocess.run(["ip", "netns", "del", full], capture_output=True, check=False, timeout=20)
        self._processes.clear()
        self._made.clear()


@contextlib.contextmanager
def network(tag: str, directory: Path) -> Iterator[Network]:
    """A network that is gone afterwards."""
    made = Network(tag, directory)
    try:
        yield made
    finally:
        made.remove()


def remove_left_over() -> list[str]:
    """Remove namespaces of measurements whose process is gone (it was killed); their names."""
    found = sorted(path.name for path in NETNS.glob(f"{PREFIX}*")) if NETNS.is_dir() else []
    gone = [name for name in found if not Path(f"/proc/{name.removeprefix(PREFIX).partition('-')[0]}").exists()]
    for name in gone:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False, timeout=20)
    return gone


def _napi_threads(interface: str) -> set[int]:
    """The kernel's threads that receive on an interface of this name, in whatever namespace."""
    threads = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            # "napi/INTERFACE-ID", cut to what fits.
            if path.read_text().startswith(f"napi/{interface}-"[:15]):
                threads.add(int(path.parent.name))
    return threads
