#![no_main]
//! Batches of frames, the straight way and the general way.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tgw_fuzz::ways::agree(data));
