#![no_main]
//! A tap that another process spoils.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tgw_fuzz::captures::tap(data));
