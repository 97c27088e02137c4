//! Sub-commands: the two cores, and the parts of the benchmark on real devices that are no Python's.

use serde_json::Value;

use crate::words::Words;
use crate::{connections, node, send, two_cores, Failure};

type Command = (&'static str, &'static str, fn(&Words) -> Result<Value, Failure>);

const COMMANDS: [Command; 6] = [
    ("two-cores", two_cores::USAGE, two_cores::run),
    ("send", send::USAGE, send::run),
    ("count", send::COUNT, send::count),
    ("node", node::USAGE, node::run),
    ("connect", connections::CONNECT, connections::connect),
    ("serve", connections::SERVE, connections::serve),
];

/// Run the sub-command that the first word names; `None` when it names none.
pub(crate) fn run() -> Option<Result<Value, Failure>> {
    let mut words = std::env::args().skip(1);
    let name = words.next()?;
    let (_, usage, run) = COMMANDS.into_iter().find(|(known, ..)| *known == name)?;
    let done = Words::read(words).and_then(|words| {
        words.check(usage)?;
        run(&words)
    });
    Some(done.map_err(|error| format!("{name}: {error}\nusage: {usage}").into()))
}
