//! What each idea of the packet path gives: each switched off alone, and all of them together, in turns over the same node
//! and packets.

use serde_json::{json, Value};
use tgw_forward::Tuning;

use crate::case::{cost_of_the_clock, quantile, Effort, Subject, Timed};
use crate::random::Choice;
use crate::traffic::Direction;
use crate::Failure;

/// Name, how the pipeline goes about it, how it is called.
type Variant = (&'static str, Tuning, Timed);

/// Lengths of the window that are tried besides.
const WINDOWS: [(&str, usize); 6] = [("4", 4), ("8", 8), ("16", 16), ("24", 24), ("32", 32), ("64", 64)];

fn variants() -> Vec<Variant> {
    let on = Tuning::default();
    let off = Tuning { window: 1, prefetch: false, tags: false, ..on };
    let mut variants = vec![
        ("all_on", on, Timed::Pipeline),
        ("batching", on, Timed::OneByOne),
        ("prefetch", Tuning { prefetch: false, ..on }, Timed::Pipeline),
        ("window", Tuning { window: 1, ..on }, Timed::Pipeline),
        ("tags", Tuning { tags: false, ..on }, Timed::Pipeline),
        ("straight_way", Tuning { straight: false, ..on }, Timed::Pipeline),
        ("all_off", off, Timed::OneByOne),
        ("read", on, Timed::Read),
        ("look_up", on, Timed::LookUp),
        ("read_off", off, Timed::Read),
        ("look_up_off", off, Timed::LookUp),
    ];
    variants.extend(WINDOWS.map(|(name, window)| (name, Tuning { window, ..on }, Timed::Pipeline)));
    variants
}

/// CLB requests of 64 bytes, uniform over `flows`.
pub(crate) fn run(flows: usize, effort: Effort) -> Result<Value, Failure> {
    let mut subject = Subject::new(Direction::ClbRequest, flows, 0)?;
    let traffic = subject.traffic(64)?;
    let choice = Choice::Uniform { flows };
    let clock = cost_of_the_clock();
    let variants = variants();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    for _ in 0..effort.turns {
        for ((_, tuning, timed), times) in variants.iter().zip(&mut times) {
            subject.tune(*tuning);
            times.push(subject.turn(&traffic, &choice, effort, clock, *timed)?);
        }
    }
    let round = |value: f64, unit: f64| (value * unit).round() / unit;
    let median = |name: &str| {
        let at = variants.iter().position(|variant| variant.0 == name).ok_or("no such variant")?;
        let mut sorted = times[at].clone();
        sorted.sort_by(f64::total_cmp);
        Ok::<f64, Failure>(quantile(&sorted, 0.5))
    };
    let (on, off) = (median("all_on")?, median("all_off")?);
    let mut document = json!({
        "flows": flows,
        "all_on_ns": round(on, 100.0),
        "all_off_ns": round(off, 100.0),
        "factor": round(off / on, 1000.0),
        "read_ns": round(median("read")?, 100.0),
        "read_and_look_up_ns": round(median("look_up")?, 100.0),
        "lookup_share": {
            "all_on": round((median("look_up")? - median("read")?) / on, 1000.0),
            "all_off": round((median("look_up_off")? - median("read_off")?) / off, 1000.0),
        },
    });
    for name in ["batching", "prefetch", "window", "tags", "straight_way"] {
        let ns = median(name)?;
        document[name] = json!({"off_ns": round(ns, 100.0), "factor": round(ns / on, 1000.0)});
    }
    for (name, _) in WINDOWS {
        document["ns_by_window"][name] = json!(round(median(name)?, 100.0));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_idea_has_its_figure() {
        let found = run(500, Effort { turns: 1, batches: 5, settling: 1 }).unwrap();
        for name in ["batching", "prefetch", "window", "tags", "straight_way"] {
            assert!(found[name]["off_ns"].as_f64().unwrap() > 0.0, "{name}");
        }
        assert!(found["factor"].as_f64().unwrap() > 0.0 && found["lookup_share"]["all_on"].is_f64());
    }
}
