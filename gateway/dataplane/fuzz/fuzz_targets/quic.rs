#![no_main]
//! A datagram at a QUIC listener.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tgw_fuzz::quic::check(data));
