//! Write the seed corpora anew: `cargo run --bin seeds`, in this folder.

use std::fs;
use std::io;
use std::path::Path;

use tgw_fuzz::pack;
use tgw_fuzz::support::{plans, seeds::seeds};

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

fn main() -> io::Result<()> {
    for (number, plan) in plans().iter().enumerate() {
        let name = format!("plan-{number}");
        let frames = seeds(plan);
        let mut input = pack(&frames);
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
            write("tables", &format!("{name}-eip"), plan.eip_tables().to_string().as_bytes())?;
            write("tables", &format!("{name}-clb"), plan.clb_tables().to_string().as_bytes())?;
            write("tables", &format!("{name}-vswitch"), plan.vswitch_tables().to_string().as_bytes())?;
        }
    }
    Ok(())
}
