//! `tgw-bench node`: one node of the gateway on real interfaces, until stdin ends.

use std::io::{Read, Write};

use serde_json::{json, Value};
use tgw_contract::{Counter, DropReason};
use tgw_node::{Config, Node, WorkerCounters};

use crate::words::Words;
use crate::Failure;

pub(crate) const USAGE: &str = "tgw-bench node --config FILE --tables FILE
  A node with this configuration and these tables (JSON). Writes a line when it forwards, ends when stdin ends, and then
  says what it counted.";

pub(crate) fn run(words: &Words) -> Result<Value, Failure> {
    let read = |name: &str| -> Result<String, Failure> {
        let path = words.text(name)?;
        Ok(std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?)
    };
    let (config, tables) = (read("--config")?, read("--tables")?);
    let mut node = Node::new(Config::from_json(&config)?)?;
    node.start()?;
    node.apply(&tables)?;
    ready()?;
    wait_for_the_end()?;
    node.stop();
    Ok(json!({"workers": node.counters().iter().map(counters).collect::<Vec<_>>()}))
}

/// Say that it runs.
pub(crate) fn ready() -> Result<(), Failure> {
    println!("ready");
    Ok(std::io::stdout().flush()?)
}

/// Sleep until stdin ends.
pub(crate) fn wait_for_the_end() -> Result<(), Failure> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn counters(one: &WorkerCounters) -> Value {
    let mut counters = json!({"worker": one.worker, "lost_on_device": one.counters.get(Counter::LostOnDevice)});
    counters["frames_in"] = one.counters.get(Counter::FramesIn).into();
    counters["frames_out"] = one.counters.get(Counter::FramesOut).into();
    counters["batches"] = one.counters.get(Counter::Batches).into();
    let drops = DropReason::ALL.into_iter().map(|reason| (reason.name(), one.counters.drops(reason)));
    counters["drops"] =
        drops.filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), Value::from(count))).collect();
    counters
}
