#![no_main]
//! A capture file.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tgw_fuzz::captures::pcap(data));
