//! `tgw-bench`: time per packet of each role beside the machine's limit, and the exact account, as JSON on stdout.

mod ablation;
mod bpf;
mod capacity;
mod case;
mod commands;
mod connections;
mod exact;
mod flood;
mod limit;
mod machine;
mod node;
mod random;
mod send;
mod single;
#[path = "../../forward/tests/support/mod.rs"]
mod support;
mod traffic;
mod two_cores;
mod words;

use std::process::ExitCode;
use std::time::Instant;

use serde_json::{json, Value};

use case::{Effort, Subject};
use random::{Choice, ZIPF_EXPONENT};
use traffic::Direction;

type Failure = Box<dyn std::error::Error>;

/// Frames given to a pipeline at once.
const BATCH: usize = 64;

/// The largest table that is measured.
const MOST_FLOWS: usize = 10_000_000;

/// The table whose size is measured.
const VERY_MANY_FLOWS: usize = 100_000_000;

const USAGE: &str = "usage: tgw-bench [--quick] [--frames N] [--case NAME] [--flows N] [--turns N]
  --quick      few flows and short turns: shows that it works, not how fast
  --frames N   frames of the exact account (default 100000000; 0: no account)
  --case NAME  only this case, such as clb.request
  --flows N    only this number of flows
  --turns N    turns of each case and its limit (default 61)";

struct Arguments {
    quick: bool,
    frames: u64,
    case: Option<String>,
    flows: Option<usize>,
    turns: usize,
}

fn arguments() -> Result<Arguments, Failure> {
    let mut quick = false;
    let (mut frames, mut case, mut flows, mut turns) = (None, None, None, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--quick" => quick = true,
            "--frames" => frames = Some(value()?.parse()?),
            "--case" => case = Some(value()?),
            "--flows" => flows = Some(value()?.parse()?),
            "--turns" => turns = Some(value()?.parse::<usize>()?.max(1)),
            _ => return Err(format!("unknown word {word}\n{USAGE}").into()),
        }
    }
    let (default_frames, default_turns) = if quick { (200_000, 3) } else { (100_000_000, 61) };
    let frames = frames.unwrap_or(default_frames);
    Ok(Arguments { quick, frames, case, flows, turns: turns.unwrap_or(default_turns) })
}

fn method(effort: Effort, core: usize) -> Value {
    json!({
        "core": core,
        "batch": BATCH,
        "turns": effort.turns,
        "batches_per_turn": effort.batches,
        "zipf_exponent": ZIPF_EXPONENT,
        "where": "in memory, one thread pinned to one core, no device, no tap; frame_bytes is the length of the inner IP \
                  packet; 2048-byte buffers as the node has them",
        "time": "each batch of 64 is timed by itself; the frames are written into the buffers before it, outside of the \
                 timed region, so they are warm in the cache; the cost of reading the clock is subtracted; a turn is the \
                 mean of its batches without the slowest 1 % (interrupts); the figure is the median over turns",
        "limit": "in alternating turns over the same frames: inner addresses and ports read, one cache line chosen by them \
                  read out of a table of one line per flow (prefetched over the batch; huge pages where the kernel has them), outer Ethernet, IPv4 and GRE \
                  headers written with checksum. The same for every role: an EIP node has no flow table, but its limit \
                  has the read; a node that only takes a tunnel off writes fewer bytes than its limit",
        "flows": "opened before (SYN, data), table 85 % full; measured packets are ACK with data of established flows",
        "tables": "LD: 64 VIPs with 16 real servers each; host: 16 real servers; EIP: 1024 bindings unless rules are named",
        "exact": "whole nodes, 2 workers, all roles, families and encapsulations, in the caller's thread: frames in and out \
                  are counted outside of the node, drops are the node's counters",
    })
}

fn run(arguments: &Arguments) -> Result<(Value, bool), Failure> {
    let core = machine::stay_on_one_core()?;
    let started = Instant::now();
    let effort = if arguments.quick {
        Effort { turns: arguments.turns, batches: 50, settling: 10 }
    } else {
        Effort { turns: arguments.turns, batches: 500, settling: 250 }
    };
    let many = if arguments.quick { 5_000 } else { 1_000_000 };
    let flow_counts: &[usize] = if arguments.quick { &[1, 1_000] } else { &[1, 10_000, 1_000_000, MOST_FLOWS] };
    // (name, direction, flows, rules)
    let mut plan: Vec<(String, Direction, usize, usize)> = Vec::new();
    for direction in Direction::ALL {
        plan.extend(flow_counts.iter().map(|flows| (direction.name().to_owned(), direction, *flows, 0)));
        if direction == Direction::EipRequest {
            plan.push((format!("{}.rules", direction.name()), direction, many, many));
        }
    }
    let chosen = |name: &str, flows: usize| {
        arguments.case.as_ref().is_none_or(|case| case == name) && arguments.flows.is_none_or(|only| only == flows)
    };
    plan.retain(|(name, _, flows, _)| chosen(name, *flows));
    let mut cases = Vec::new();
    for (name, direction, flows, rules) in plan {
        let mut subject = Subject::new(direction, flows, rules)?;
        let mut modes = vec![("uniform", Choice::Uniform { flows })];
        if Some(&flows) == flow_counts.last() {
            modes.push(("zipf", Choice::zipf(flows)));
        }
        for (mode, choice) in &modes {
            for size in [64, 512] {
                let case = subject.measure(size, choice, effort)?.document(&name, direction, flows, size, mode);
                eprintln!(
                    "{:6.1} s  {name:<18} {flows:>8} flows {size:>4} B {mode:<8} {:>7} ns, limit {:>6} ns, x{}",
                    started.elapsed().as_secs_f64(),
                    case["ns_per_packet"],
                    case["limit_ns_per_packet"],
                    case["ratio_to_limit"],
                );
                cases.push(case);
            }
        }
    }
    let mut document = json!({"method": method(effort, core), "cases": cases});
    if chosen("ablation", many) {
        eprintln!("{:6.1} s  ablation, one packet a call", started.elapsed().as_secs_f64());
        let turns = Effort { turns: effort.turns.min(21), ..effort };
        document["ablation"] = ablation::run(if arguments.quick { many } else { MOST_FLOWS }, turns)?;
    }
    if chosen("capacity", many) {
        eprintln!("{:6.1} s  capacity", started.elapsed().as_secs_f64());
        let flows = if arguments.quick { 100_000 } else { VERY_MANY_FLOWS };
        document["capacity"] = capacity::run(flows, Effort { turns: effort.turns.min(9), ..effort })?;
    }
    if chosen("flood", many) {
        eprintln!("{:6.1} s  flood", started.elapsed().as_secs_f64());
        document["flood"] = if arguments.quick { flood::run(2_000, 600)? } else { flood::run(100_000, 40_000)? };
    }
    if chosen("repeat_one", many) {
        let packets = if arguments.quick { 500 } else { 20_000 };
        let one = |direction, flows: &usize| single::run(direction, *flows, packets);
        document["repeat_one"] = flow_counts
            .iter()
            .filter(|&&flows| flows <= 1_000_000)
            .flat_map(|flows| [Direction::ClbRequest, Direction::EipRequest].map(|direction| one(direction, flows)))
            .collect::<Result<Value, _>>()?;
        document["method"]["repeat_one"] = json!(format!(
            "one packet a call; before each, {}; then the packet is written into its buffer and one call is timed; the cost of \
             a call without a packet is subtracted. limit: the same for the machine's limit. emptied_: 128 KiB are walked \
             over besides, before each packet, which empties the first-level cache",
            single::between()?
        ));
    }
    let mut exact = true;
    if arguments.frames > 0 {
        let account = exact::run(arguments.frames, |count| {
            eprintln!("{:6.1} s  account: {count} frames", started.elapsed().as_secs_f64());
        })?;
        exact = account.difference() == 0;
        document["exact"] = account.document();
    }
    Ok((document, exact))
}

fn main() -> ExitCode {
    let command = commands::run().map(|done| done.map(|document| (document, true)));
    let done = command.unwrap_or_else(|| arguments().and_then(|arguments| run(&arguments)));
    match done {
        Ok((document, exact)) => {
            println!("{document:#}");
            if exact {
                return ExitCode::SUCCESS;
            }
            eprintln!("tgw-bench: the account is not exact");
        }
        Err(failure) => eprintln!("tgw-bench: {failure}"),
    }
    ExitCode::FAILURE
}
