#![no_main]
//! Tables out of any text: refused with a reason, or taken whole.

use libfuzzer_sys::fuzz_target;
use tgw_contract::Role;
use tgw_forward::Tables;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for role in Role::ALL {
        match Tables::from_json(text, role) {
            Ok(tables) => assert!(tables.epoch() > 0 && !tables.ports().is_empty()),
            Err(error) => assert!(!error.problems.is_empty() && error.problems.iter().all(|p| !p.path.is_empty())),
        }
    }
});
