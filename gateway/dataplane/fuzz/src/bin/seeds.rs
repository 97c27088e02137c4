//! Write the seed corpora anew: `cargo run --bin seeds`, in this folder.

use std::fs;
use std::io;
use std::path::Path;

use tgw_contract::records::{DROP_BASE, TAP_AT_CAPACITY, TAP_AT_WRITE_CURSOR, TAP_COUNTERS_OFFSET};
use tgw_fuzz::support::{frame, frame_to, plan, plans, seeds::seeds, tunnel, udp, Plan, Tcp, EDGE_MAC};
use tgw_fuzz::{pack, Batch};
use tgw_wire::quic::{Kind, Repr, VERSION_1, VERSION_2};
use tgw_wire::tcp::{ACK, FIN, PSH, SYN};

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

fn main() -> io::Result<()> {
    for (number, plan) in plans().iter().enumerate() {
        let name = format!("plan-{number}");
        let frames = seeds(plan);
        let mut input = pack(&[(0, frames.clone())]);
        input[0] = number as u8;
        for target in ["eip", "clb", "vswitch"] {
            write(target, &name, &input)?;
        }
        for (index, (_, frame)) in frames.iter().take(6).enumerate() {
            // Kind, then the bytes where that kind begins.
            for (kind, at) in [(0u8, 0), (1, 14), (2, 14), (3, 34), (4, 34), (5, 34), (6, 54)] {
                let view = [&[kind], frame.get(at..).unwrap_or_default()].concat();
                if number % 3 == 0 && number < 8 && index % 2 == 0 {
                    write("wire_packet", &format!("{name}-{index}-{kind}"), &view)?;
                }
            }
        }
        let at = if plan.eip.contains(':') { 54 } else { 34 };
        let at = if matches!(plan.encap, "gre" | "ipip") { at } else { at + 8 };
        if let Some(tunnel) = frames.first().and_then(|(_, frame)| frame.get(at..)) {
            write("wire_tunnel", &name, tunnel)?;
        }
        if matches!(number, 0 | 7 | 11 | 25) {
            let (clb, vswitch) = plan.with_extras(number);
            write("tables", &format!("{name}-eip"), plan.eip_tables().to_string().as_bytes())?;
            write("tables", &format!("{name}-clb"), clb.to_string().as_bytes())?;
            write("tables", &format!("{name}-vswitch"), vswitch.to_string().as_bytes())?;
        }
        if number == 0 {
            write("tables", &format!("{name}-guarded"), plan.guarded_tables().to_string().as_bytes())?;
            write("tables", &format!("{name}-balanced"), plan.balanced_clb_tables().to_string().as_bytes())?;
        }
    }
    ways()?;
    quic()?;
    flow()?;
    captures()
}

/// Packets of a connection that goes on, and datagrams, through an EIP node and an LD.
fn ordinary(p: &Plan) -> Vec<(u16, Vec<u8>)> {
    let (client, private, public, answers) = ((p.client, 4000), (p.private, 80), (p.public, 80), (p.private, 53));
    let to_ld = |inner: &[u8]| (0, frame(&tunnel(p.eip, p.service, p.encap, None, inner)));
    let from_host = |inner: &[u8]| (0, frame(&tunnel(p.host, p.ld, p.encap, p.key, inner)));
    let to_eip = |inner: &[u8]| (0, frame(&tunnel(p.ld, p.anycast, p.encap, None, inner)));
    let tcp = |src, dst, flags| Tcp { payload: b"some", ..Tcp::new(src, dst, flags) }.ip();
    let mut frames = Vec::new();
    for (request, reply) in [(SYN, SYN | ACK), (ACK, ACK), (ACK | PSH, ACK | PSH), (FIN | ACK, FIN | ACK)] {
        frames.push(to_ld(&tcp(client, private, request)));
        frames.push(from_host(&tcp(private, client, reply)));
        frames.push((1, frame_to(EDGE_MAC, &tcp(client, public, request))));
        frames.push(to_eip(&tcp(private, client, reply)));
    }
    for checksum in [true, false] {
        frames.push(to_ld(&udp(client, answers, b"?", checksum)));
        frames.push(from_host(&udp(answers, client, b"!", checksum)));
        frames.push(to_eip(&udp(answers, client, b"!", checksum)));
    }
    frames
}

fn ways() -> io::Result<()> {
    let count = plans().len();
    let p = plan(4, 4, "gre");
    // Plain, protected and balanced tables of the first plan, which is this one.
    for (name, choice) in [("plain", 0), ("guarded", count), ("balanced", 2 * count)] {
        let one: Batch = (0, ordinary(&p));
        let mut input = pack(&[one.clone(), one]);
        input[0] = choice as u8;
        write("ways", name, &input)?;
    }
    Ok(())
}

fn quic() -> io::Result<()> {
    let ids: [&[u8]; 3] = [&[9, 0, 3, 9, 9, 9, 9, 9], &[0xF0, 0xFF, 1, 2, 3, 4, 5, 6], &[]];
    for (number, dcid) in ids.into_iter().enumerate() {
        for (version, kind) in [(VERSION_1, Kind::Initial), (VERSION_2, Kind::Handshake), (7, Kind::Unknown)] {
            let repr = Repr { kind, version, dcid, scid: &[0xAA; 4] };
            let mut input = vec![1; 1 + repr.len() + 8];
            repr.emit(&mut input[1..]).map_err(|error| io::Error::other(error.to_string()))?;
            write("quic", &format!("long-{version:x}-{number}"), &input)?;
        }
        write("quic", &format!("short-{number}"), &[&[1, 0x41][..], dcid, &[7; 8]].concat())?;
        write("quic", &format!("plain-{number}"), &[&[0, 0x41][..], dcid, &[7; 8]].concat())?;
    }
    Ok(())
}

/// Insertions, look-ups, time and sweeps.
fn flow() -> io::Result<()> {
    let fill = |step: u16| (0..100u16).flat_map(move |n| [0, ((n * step) >> 8) as u8, (n * step) as u8, 60]);
    let later = [5, 0, 0, 30, 6, 0, 0, 0, 4, 0, 2, 0, 5, 0, 0, 40];
    for step in 1..3 {
        let input: Vec<u8> = std::iter::once(step as u8).chain(fill(step)).chain(later).chain(fill(step)).collect();
        write("flow", &format!("fill-{step}"), &input)?;
    }
    Ok(())
}

fn captures() -> io::Result<()> {
    for (name, magic) in [("us", 0xA1B2_C3D4u32), ("ns", 0xA1B2_3C4D)] {
        for (order, word) in [("le", u32::to_le_bytes as fn(u32) -> [u8; 4]), ("be", u32::to_be_bytes)] {
            let head = [magic, 0x0004_0002, 0, 0, 65_535, 1, 1_700_000_000, 5, 4, 4].map(word).concat();
            write("pcap", &format!("{name}-{order}"), &[&head[..], b"some"].concat())?;
        }
    }
    // Nothing changed; another capacity; cursors that leap, and that go back between the readings.
    let place = |at: usize, bytes: &[u8]| [&(at as u16).to_be_bytes()[..], &[bytes.len() as u8], bytes].concat();
    let cursor = |value: u64| place(TAP_AT_WRITE_CURSOR, &value.to_le_bytes());
    write("tap", "good", &[0])?;
    write("tap", "capacity", &[&[11][..], &place(TAP_AT_CAPACITY, &8u64.to_le_bytes())].concat())?;
    write("tap", "leap", &[&[11][..], &cursor(u64::MAX), &cursor(2)].concat())?;
    write("tap", "counters", &[&[11][..], &place(TAP_COUNTERS_OFFSET + 8 * DROP_BASE, &[0xFF; 16])].concat())
}
