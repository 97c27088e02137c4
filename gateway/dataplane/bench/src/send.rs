//! `tgw-bench send`: UDP datagrams of many flows out of an interface, at a rate or as fast as one core can.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tgw_wire::ethernet::{self, Mac};
use tgw_wire::{gre, ipv4, protocol, udp};

use crate::bpf::{instruction, Instruction, Program};
use crate::node::ready;
use crate::words::Words;
use crate::Failure;

pub(crate) const USAGE: &str = "tgw-bench send --interface NAME --to MAC --source A --target A:PORT --seconds S
    [--tunnel A,A] [--flows N] [--bytes N] [--gap NS]
  UDP datagrams of N flows (a power of two, at most 2^30, default 65536) out of an interface (needs CAP_BPF, CAP_NET_ADMIN):
  source ports from 32768 on, and the lower half of the source address. --tunnel SOURCE,TARGET puts them into GRE;
  --bytes is the length of the (inner) IP packet, default 64; --gap is waited before each frame (default 0).";

/// Frames of one visit to the interface.
const BATCH: u32 = 64;
/// How often the program looks at the clock at most, while it waits.
const LOOKS: i32 = 400;
/// Flows that differ in the port alone: what is more than these differs in the address.
const PORT_BITS: i32 = 14;
const FIRST_PORT: i32 = 0x8000;

/// What is sent.
struct Datagram {
    to: Mac,
    from: Mac,
    source: Ipv4Addr,
    target: (Ipv4Addr, u16),
    tunnel: Option<(Ipv4Addr, Ipv4Addr)>,
    bytes: usize,
}

impl Datagram {
    /// The frame with flow 0, and where its inner IP packet begins.
    fn frame(&self) -> Result<(Vec<u8>, usize), Failure> {
        let size = self.bytes.checked_sub(ipv4::HEADER_LEN + udp::HEADER_LEN).ok_or("--bytes: at least 28")?;
        let inner_at = ethernet::HEADER_LEN + self.tunnel.map_or(0, |_| ipv4::HEADER_LEN + 4);
        let mut frame = vec![0; inner_at + self.bytes];
        ethernet::Repr { dst: self.to, src: self.from, ethertype: ethernet::IPV4 }.emit(&mut frame)?;
        if let Some((src, dst)) = self.tunnel {
            let header = &mut frame[ethernet::HEADER_LEN..];
            let payload_len = 4 + self.bytes;
            ipv4::Repr { src, dst, protocol: protocol::GRE, ttl: 64, tos: 0, payload_len }.emit(header)?;
            gre::Repr { protocol: ethernet::IPV4, key: None }.emit(&mut header[ipv4::HEADER_LEN..])?;
        }
        let inner = &mut frame[inner_at..];
        let (src, dst, payload_len) = (self.source, self.target.0, udp::HEADER_LEN + size);
        ipv4::Repr { src, dst, protocol: protocol::UDP, ttl: 64, tos: 0, payload_len }.emit(inner)?;
        // The identification is the complement of what varies in the address: the checksum is right for every flow.
        let [.., high, low] = src.octets();
        let checksum = u16::from_be_bytes([inner[10], inner[11]]);
        let identification = !u16::from_be_bytes([high, low]);
        let old = u16::from_be_bytes([inner[4], inner[5]]);
        inner[4..6].copy_from_slice(&identification.to_be_bytes());
        inner[10..12].copy_from_slice(&replaced(checksum, old, identification).to_be_bytes());
        // No checksum: with one, every frame would cost the sum.
        udp::Repr { src_port: FIRST_PORT as u16, dst_port: self.target.1, payload_len: size, checksum: 0 }
            .emit(&mut inner[ipv4::HEADER_LEN..])?;
        Ok((frame, inner_at))
    }
}

/// The checksum after one word of the header became another one (RFC 1624).
fn replaced(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xFFFF) + (sum >> 16);
    !((sum & 0xFFFF) + (sum >> 16)) as u16
}

/// Write the headers anew, with a random flow out of `flows`, wait for `gap` nanoseconds, send it out of `interface`.
///
/// Anew, because frames come back: whoever forwards one without a copy leaves its own headers in the buffer.
fn program(frame: &[u8], inner: usize, source: Ipv4Addr, flows: u32, gap: i32, interface: u32) -> Vec<Instruction> {
    let (load_word, store_half, set, copy) = (0x61, 0x6B, 0xB7, 0xBF);
    let (put_word, put_half, put_byte) = (0x62, 0x6A, 0x72);
    let (call, exit, to_big_endian) = (0x85, 0x95, 0xDC);
    let (add, subtract_register, and, or, xor, shift_right) = (0x07, 0x1F, 0x57, 0x47, 0xA7, 0x77);
    let (not_greater_register, not_less, less) = (0xBD, 0x35, 0xA5);
    let (random_u32, clock, redirect) = (7, 5, 23);
    let at = |offset: usize| (inner + offset) as i16;
    let headers = inner + ipv4::HEADER_LEN + udp::HEADER_LEN;
    let [.., high, low] = source.octets();
    let base = i32::from(u16::from_be_bytes([high, low]));
    let mut code = vec![
        // r6 = data, r2 = data_end; XDP_ABORTED unless the headers are inside, as the verifier wants it.
        instruction(load_word, 6, 1, 0, 0),
        instruction(load_word, 2, 1, 4, 0),
        instruction(copy, 3, 6, 0, 0),
        instruction(add, 3, 0, 0, headers as i32),
        instruction(not_greater_register, 3, 2, 2, 0),
        instruction(set, 0, 0, 0, 0),
        instruction(exit, 0, 0, 0, 0),
    ];
    for (number, bytes) in frame[..headers].chunks(4).enumerate() {
        let offset = (number * 4) as i16;
        match *bytes {
            [a, b, c, d] => code.push(instruction(put_word, 6, 0, offset, i32::from_le_bytes([a, b, c, d]))),
            [a, b, ref rest @ ..] => {
                code.push(instruction(put_half, 6, 0, offset, i32::from(u16::from_le_bytes([a, b]))));
                code.extend(rest.iter().map(|byte| instruction(put_byte, 6, 0, offset + 2, i32::from(*byte))));
            }
            ref rest => code.extend(rest.iter().map(|byte| instruction(put_byte, 6, 0, offset, i32::from(*byte)))),
        }
    }
    code.extend([
        // r0 = a random number below `flows`.
        instruction(call, 0, 0, 0, random_u32),
        instruction(and, 0, 0, 0, flows as i32 - 1),
        // The port.
        instruction(copy, 1, 0, 0, 0),
        instruction(and, 1, 0, 0, (1 << PORT_BITS) - 1),
        instruction(or, 1, 0, 0, FIRST_PORT),
        instruction(to_big_endian, 1, 0, 0, 16),
        instruction(store_half, 6, 1, at(20), 0),
        // The lower half of the address, and its complement as identification.
        instruction(shift_right, 0, 0, 0, PORT_BITS),
        instruction(add, 0, 0, 0, base),
        instruction(to_big_endian, 0, 0, 0, 16),
        instruction(store_half, 6, 0, at(14), 0),
        instruction(xor, 0, 0, 0, 0xFFFF),
        instruction(store_half, 6, 0, at(4), 0),
    ]);
    if gap > 0 {
        // r7 = now; look at the clock again and again, at most `LOOKS` times (r8).
        code.extend([
            instruction(call, 0, 0, 0, clock),
            instruction(copy, 7, 0, 0, 0),
            instruction(set, 8, 0, 0, 0),
            instruction(call, 0, 0, 0, clock),
            instruction(subtract_register, 0, 7, 0, 0),
            instruction(add, 8, 0, 0, 1),
            instruction(not_less, 0, 0, 1, gap), // enough: out of the loop
            instruction(less, 8, 0, -5, LOOKS),
        ]);
    }
    code.extend([
        instruction(set, 1, 0, 0, interface as i32),
        instruction(set, 2, 0, 0, 0),
        instruction(call, 0, 0, 0, redirect),
        instruction(exit, 0, 0, 0, 0),
    ]);
    code
}

/// Send, and say how many went at what rate.
pub(crate) fn run(words: &Words) -> Result<Value, Failure> {
    let interface = words.text("--interface")?;
    let about = |what: &str| -> Result<String, Failure> {
        let path = format!("/sys/class/net/{interface}/{what}");
        Ok(std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?.trim().to_owned())
    };
    let index: u32 = about("ifindex")?.parse()?;
    let target: SocketAddrV4 = words.value("--target")?;
    let tunnel = match words.maybe("--tunnel") {
        Some(pair) => {
            let (src, dst) = pair.split_once(',').ok_or("--tunnel: expected SOURCE,TARGET")?;
            Some((src.parse()?, dst.parse()?))
        }
        None => None,
    };
    let datagram = Datagram {
        to: mac(words.text("--to")?)?,
        from: mac(&about("address")?)?,
        source: words.value("--source")?,
        target: (*target.ip(), target.port()),
        tunnel,
        bytes: words.value_or("--bytes", 64)?,
    };
    let flows: u32 = words.value_or("--flows", 1 << 16)?;
    let [.., high, low] = datagram.source.octets();
    let last = u32::from(u16::from_be_bytes([high, low])) + ((flows.max(1) - 1) >> PORT_BITS);
    if !flows.is_power_of_two() || flows > 1 << 30 || last > 0xFFFF {
        return Err("--flows: expected a power of two whose addresses fit into the lower half of --source".into());
    }
    let gap: i32 = words.value_or("--gap", 0)?;
    let length = Duration::try_from_secs_f64(words.value("--seconds")?)?;
    let (frame, inner) = datagram.frame()?;
    let program = Program::load(&program(&frame, inner, datagram.source, flows, gap, index))?;
    let offered = || -> Result<u64, Failure> {
        Ok(about("statistics/tx_packets")?.parse::<u64>()? + about("statistics/tx_dropped")?.parse::<u64>()?)
    };
    let before = offered()?;
    // One run for the whole time (to start and to end one takes the kernel long), which ends with this process.
    let mut sender = Some(std::thread::spawn(move || program.run_live(&frame, u32::MAX, BATCH)));
    let mut start = Instant::now();
    let mut has_begun = false;
    while start.elapsed() < length {
        if let Some(ended) = sender.take_if(|sender| sender.is_finished()) {
            ended.join().map_err(|_| "the sender panicked")??;
            return Err("the kernel has stopped sending".into());
        }
        std::thread::sleep(Duration::from_millis(1));
        if !has_begun && offered()? > before {
            (start, has_begun) = (Instant::now(), true);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let sent = offered()? - before;
    Ok(json!({"sent": sent, "seconds": seconds, "pps": (sent as f64 / seconds).round()}))
}

pub(crate) const COUNT: &str = "tgw-bench count --interface NAME --settle S --seconds S
  Writes a line when it looks, waits (5 s at most) for the first frame that comes in by an interface, lets --settle seconds
  pass, and counts for --seconds.";

/// Count what comes in by an interface, once it does.
pub(crate) fn count(words: &Words) -> Result<Value, Failure> {
    let path = format!("/sys/class/net/{}/statistics/rx_packets", words.text("--interface")?);
    let received = || -> Result<u64, Failure> {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(text.trim().parse()?)
    };
    let settle = Duration::try_from_secs_f64(words.value("--settle")?)?;
    let length = Duration::try_from_secs_f64(words.value("--seconds")?)?;
    let before = received()?;
    ready()?;
    let start = Instant::now();
    while received()? == before && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(settle);
    let (start, before) = (Instant::now(), received()?);
    std::thread::sleep(length);
    let (seconds, received) = (start.elapsed().as_secs_f64(), received()? - before);
    Ok(json!({"received": received, "seconds": seconds, "pps": (received as f64 / seconds).round()}))
}

fn mac(text: &str) -> Result<Mac, Failure> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
    Ok(Mac(bytes.try_into().map_err(|_| format!("{text}: expected a MAC"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::{untunnel, verify};

    fn datagram(tunnel: Option<(Ipv4Addr, Ipv4Addr)>) -> Datagram {
        Datagram {
            to: Mac([2, 0, 0, 0, 0, 1]),
            from: Mac([2, 0, 0, 0, 0, 2]),
            source: Ipv4Addr::new(11, 0, 3, 0),
            target: (Ipv4Addr::new(10, 100, 0, 1), 53),
            tunnel,
            bytes: 64,
        }
    }

    #[test]
    fn the_checksum_is_right_whatever_the_program_writes() {
        let (mut frame, inner) = datagram(None).frame().unwrap();
        assert_eq!((inner, frame.len()), (14, 14 + 64));
        for flow in [0u16, 1, 0x1234, 0xFCFF] {
            let low = 0x300u16.wrapping_add(flow);
            frame[inner + 14..inner + 16].copy_from_slice(&low.to_be_bytes());
            frame[inner + 4..inner + 6].copy_from_slice(&(!low).to_be_bytes());
            verify(&frame[inner..]);
        }
    }

    #[test]
    fn a_tunnelled_datagram_is_whole() {
        let tunnel = (Ipv4Addr::new(10, 3, 0, 1), Ipv4Addr::new(10, 4, 0, 1));
        let (frame, _) = datagram(Some(tunnel)).frame().unwrap();
        let (src, dst, key, inner) = untunnel(&frame);
        assert_eq!((src, dst, key), (tunnel.0.into(), tunnel.1.into(), None));
        verify(&inner);
        assert_eq!(inner.len(), 64);
    }

    #[test]
    fn macs_have_six_bytes() {
        assert_eq!(mac("02:00:00:00:00:ff").unwrap(), Mac([2, 0, 0, 0, 0, 255]));
        assert!(mac("02:00").is_err() && mac("x").is_err());
    }
}
