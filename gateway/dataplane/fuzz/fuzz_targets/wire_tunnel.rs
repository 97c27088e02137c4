#![no_main]
//! The views of GRE and VXLAN.

use libfuzzer_sys::fuzz_target;
use tgw_wire::{gre, vxlan};

fuzz_target!(|data: &[u8]| {
    if let Ok(view) = gre::Packet::new_checked(data) {
        assert_eq!(view.payload().len() + view.header_len(), data.len());
        let repr = gre::Repr { protocol: view.protocol(), key: view.key() };
        let mut again = vec![0; repr.len()];
        assert!(repr.emit(&mut again).is_ok());
        let copy = gre::Packet::new_unchecked(&again);
        assert_eq!((copy.key(), copy.protocol()), (view.key(), view.protocol()));
    }
    if let Ok(view) = vxlan::Packet::new_checked(data) {
        assert!(view.vni() <= vxlan::MAX_VNI && view.payload().len() + vxlan::HEADER_LEN == data.len());
    }
    let _ = (gre::Packet::new_unchecked(data).to_string(), vxlan::Packet::new_unchecked(data).to_string());
});
