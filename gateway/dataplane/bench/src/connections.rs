//! `tgw-bench connect` and `tgw-bench serve`: short TCP connections, and how long each takes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::node::{ready, wait_for_the_end};
use crate::words::Words;
use crate::Failure;

pub(crate) const CONNECT: &str = "tgw-bench connect --target A:PORT --seconds S [--threads N] [--rate N]
  Connect, send a request of one byte, read the answer to its end, close; again and again in N threads (default 32), as
  fast as it goes or N times a second (then times count from when each was due). Times in microseconds.";

pub(crate) const SERVE: &str = "tgw-bench serve --listen A:PORT [--threads N]
  Answer each request of one byte with 128 bytes and close, in N threads (default 16), until stdin ends.";

const ANSWER: [u8; 128] = [b'.'; 128];

/// What one thread has seen.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    failed: u64,
    first_failure: Option<String>,
}

fn exchange(target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target)?;
    stream.write_all(b"?")?;
    // The server closes first, so that its end waits out the connection and our port is free at once.
    let mut room = [0; 256];
    let mut length = 0;
    loop {
        match stream.read(&mut room)? {
            0 if length == ANSWER.len() => return Ok(()),
            0 => return Err(std::io::Error::other(format!("an answer of {length} bytes"))),
            more => length += more,
        }
    }
}

fn keep_connecting(target: SocketAddr, start: Instant, first: Duration, period: Duration, length: Duration) -> Seen {
    let mut seen = Seen::default();
    let mut due = start + first;
    let end = start + length;
    loop {
        let now = Instant::now();
        let began = if period.is_zero() { now } else { due };
        if began >= end || now >= end {
            return seen;
        }
        std::thread::sleep(began.saturating_duration_since(now));
        match exchange(target) {
            Ok(()) => seen.times.push(began.elapsed()),
            Err(error) => {
                seen.failed += 1;
                seen.first_failure.get_or_insert_with(|| error.to_string());
                std::thread::sleep(Duration::from_millis(1)); // a refusal takes no time: do not spin on it
            }
        }
        due += period;
    }
}

pub(crate) fn connect(words: &Words) -> Result<Value, Failure> {
    let target: SocketAddr = words.value("--target")?;
    let length = Duration::try_from_secs_f64(words.value("--seconds")?)?;
    let threads: u32 = words.value_or("--threads", 32)?.max(1);
    let rate: f64 = words.value_or("--rate", 0.0)?;
    let period = if rate > 0.0 { Duration::try_from_secs_f64(f64::from(threads) / rate)? } else { Duration::ZERO };
    let start = Instant::now();
    let handles: Vec<_> = (0..threads)
        .map(|n| {
            let first = period * n / threads;
            std::thread::spawn(move || keep_connecting(target, start, first, period, length))
        })
        .collect();
    let mut all = Seen::default();
    for handle in handles {
        let seen = handle.join().map_err(|_| "a thread of the client panicked")?;
        all.times.extend(seen.times);
        all.failed += seen.failed;
        all.first_failure = all.first_failure.or(seen.first_failure);
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(summary(all, seconds))
}

fn summary(mut seen: Seen, seconds: f64) -> Value {
    seen.times.sort_unstable();
    let percentile = |share: f64| {
        let at = (share * seen.times.len() as f64).ceil() as usize;
        seen.times.get(at.saturating_sub(1)).map(|time| (time.as_nanos() as f64 / 100.0).round() / 10.0)
    };
    json!({
        "connections": seen.times.len(),
        "failed": seen.failed,
        "first_failure": seen.first_failure,
        "seconds": seconds,
        "cps": (seen.times.len() as f64 / seconds).round(),
        "p50_us": percentile(0.5),
        "p90_us": percentile(0.9),
        "p99_us": percentile(0.99),
        "p999_us": percentile(0.999),
    })
}

fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    if stream.read(&mut [0; 16])? > 0 {
        stream.write_all(&ANSWER)?;
        stream.shutdown(Shutdown::Write)?;
    }
    Ok(())
}

pub(crate) fn serve(words: &Words) -> Result<Value, Failure> {
    let listener = Arc::new(TcpListener::bind(words.value::<SocketAddr>("--listen")?)?);
    let threads: u32 = words.value_or("--threads", 16)?.max(1);
    for _ in 0..threads {
        let listener = Arc::clone(&listener);
        // They end with the process.
        std::thread::spawn(move || loop {
            if let Ok((mut stream, _)) = listener.accept() {
                let _ = answer(&mut stream); // a client that has gone away is none of our business
            }
        });
    }
    ready()?;
    wait_for_the_end()?;
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_and_timed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(&mut stream.unwrap());
            }
        });
        let words = format!("--target {target} --seconds 0.2 --threads 2 --rate 100");
        let words = Words::read(words.split_whitespace().map(str::to_owned)).unwrap();
        let seen = connect(&words).unwrap();
        assert!((10..=20).contains(&seen["connections"].as_u64().unwrap()), "{seen}");
        assert_eq!(seen["failed"], 0);
        assert!(seen["p50_us"].as_f64() <= seen["p999_us"].as_f64());
    }

    #[test]
    fn refusals_are_failures() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let words = format!("--target {free} --seconds 0.05 --threads 1");
        let words = Words::read(words.split_whitespace().map(str::to_owned)).unwrap();
        let seen = connect(&words).unwrap();
        assert!(seen["failed"].as_u64() > Some(0) && seen["p50_us"].is_null(), "{seen}");
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let times = (1..=1000).map(Duration::from_micros).collect();
        let seen = summary(Seen { times, ..Seen::default() }, 2.0);
        assert_eq!((seen["cps"].as_f64(), seen["p50_us"].as_f64()), (Some(500.0), Some(500.0)));
        assert_eq!((seen["p99_us"].as_f64(), seen["p999_us"].as_f64()), (Some(990.0), Some(999.0)));
    }
}
