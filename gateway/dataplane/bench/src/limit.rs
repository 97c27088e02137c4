//! The machine's limit: what no gateway can avoid doing with these frames, and nothing else.
//!
//! Per packet: read the addresses and ports of the inner header, read one cache line that they name at random out of a
//! table as large as a flow table (one line per flow), write an outer Ethernet, IPv4 and GRE header with its checksum.
//! The lines of a batch are prefetched before the first is read, as the pipelines do.

use std::hint::black_box;

use tgw_forward::Frame;
use tgw_wire::checksum::Sum;

use crate::machine::{ask_for_huge_pages, prefetch};
use crate::{Failure, BATCH};

#[repr(align(64))]
#[derive(Clone)]
struct Line([u64; 8]);

const OUTER: usize = 14 + 20 + 8;

pub(crate) struct Limit {
    table: Vec<Line>,
    outer: [u8; OUTER],
    /// Of the outer IPv4 header, without its length.
    sum: Sum,
    places: [usize; BATCH],
}

impl Limit {
    /// A table of one cache line per flow, in huge pages where there are any; every line is written, so that each has
    /// memory of its own.
    pub(crate) fn new(flows: usize) -> Self {
        let mut table = Vec::with_capacity(flows.max(1));
        ask_for_huge_pages(&table);
        table.extend((0..flows.max(1)).map(|n| Line([n as u64 | 1; 8])));
        let mut outer = [0; OUTER];
        outer[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        outer[22..24].copy_from_slice(&[64, 47]);
        outer[26..34].copy_from_slice(&[10, 3, 0, 11, 10, 3, 1, 1]);
        outer[34..38].copy_from_slice(&[0x20, 0, 8, 0]);
        Self { table, outer, sum: Sum::new().bytes(&outer[14..34]), places: [0; BATCH] }
    }

    /// Touch and rewrite a batch; the inner packets start at `inner`.
    #[inline(never)]
    pub(crate) fn process(&mut self, frames: &mut [Frame], inner: usize) -> Result<(), Failure> {
        for (frame, place) in frames.iter().zip(&mut self.places) {
            let header = frame.bytes().get(inner + 12..).and_then(|bytes| bytes.first_chunk::<12>());
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *header.ok_or("a frame without inner header")?;
            let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
            let ports = u64::from(u32::from_ne_bytes([i, j, k, l]));
            let product =
                u128::from(addresses ^ 0xA076_1D64_78BD_642F) * u128::from(ports << 32 ^ 0xE703_7ED1_A0B4_28DB);
            let hash = product as u64 ^ (product >> 64) as u64;
            *place = ((u128::from(hash) * self.table.len() as u128) >> 64) as usize;
            prefetch(&self.table[*place]);
        }
        for (frame, place) in frames.iter_mut().zip(&self.places) {
            let line = self.table[*place].0[0];
            frame.trim_front(inner);
            let length = (frame.bytes().len() + OUTER - 14) as u16;
            // Nothing is read back that was just written: that would wait for the store.
            let checksum = self.sum.word(length).checksum();
            let header = frame.prepend(OUTER).ok_or("a frame without headroom")?;
            header.copy_from_slice(&self.outer);
            header[16..18].copy_from_slice(&length.to_be_bytes());
            header[24..26].copy_from_slice(&checksum.to_be_bytes());
            header[38..42].copy_from_slice(&(line as u32).to_be_bytes());
        }
        black_box(frames);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgw_wire::{gre, ipv4};

    #[test]
    fn what_it_writes_is_a_tunnel_packet_around_what_it_read() {
        let inner: Vec<u8> = (0..64).collect();
        let mut frames = vec![Frame::default(); 2];
        for frame in &mut frames {
            assert!(frame.load(0, 0, &[&[9; 38][..], &inner].concat()));
        }
        Limit::new(100).process(&mut frames, 38).unwrap();
        let ip = ipv4::Packet::new_checked(&frames[0].bytes()[14..]).unwrap();
        assert!(ip.verify_checksum());
        let tunnel = gre::Packet::new_checked(ip.payload()).unwrap();
        assert_eq!(tunnel.payload(), &inner[..]);
        assert_ne!(tunnel.key(), Some(0));
        assert_eq!(frames[0].bytes(), frames[1].bytes());
    }
}
