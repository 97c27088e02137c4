#![no_main]
//! Batches of frames at a node of this role.

use libfuzzer_sys::fuzz_target;
use tgw_contract::Role;

fuzz_target!(|data: &[u8]| tgw_fuzz::pipeline(Role::Eip, data));
