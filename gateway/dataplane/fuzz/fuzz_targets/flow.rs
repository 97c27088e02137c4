#![no_main]
//! Steps at the flow table.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tgw_forward::flow_steps(data));
