#![no_main]
//! The views of GRE, VXLAN, GUE and Geneve; GRE in UDP and IP in IP have no view of their own.

use libfuzzer_sys::fuzz_target;
use tgw_wire::{geneve, gre, gre_udp, gue, ipip, udp, vxlan};

fuzz_target!(|data: &[u8]| {
    if let Ok(view) = gre::Packet::new_checked(data) {
        assert_eq!(view.payload().len() + view.header_len(), data.len());
        let repr = gre::Repr { protocol: view.protocol(), key: view.key() };
        let mut again = vec![0; repr.len()];
        assert!(repr.emit(&mut again).is_ok());
        let copy = gre::Packet::new_unchecked(&again);
        assert_eq!((copy.key(), copy.protocol()), (view.key(), view.protocol()));
        let in_udp = gre_udp::Repr { src_port: 50_000, gre: repr, inner_len: view.payload().len() };
        let mut again = vec![0; in_udp.len()];
        assert_eq!(in_udp.emit(&mut again).is_ok(), in_udp.len() + view.payload().len() <= usize::from(u16::MAX));
    }
    if let Ok(view) = vxlan::Packet::new_checked(data) {
        assert!(view.vni() <= vxlan::MAX_VNI && view.payload().len() + vxlan::HEADER_LEN == data.len());
    }
    if let Ok(view) = gue::Packet::new_checked(data) {
        assert_eq!(view.payload().len() + view.header_len(), data.len());
        let repr = gue::Repr { protocol: view.protocol(), key: view.key() };
        let mut again = vec![0; repr.len()];
        assert!(repr.emit(&mut again).is_ok());
        let copy = gue::Packet::new_checked(&again[..]).expect("as it was written");
        assert_eq!((copy.key(), copy.protocol(), copy.header_len()), (view.key(), view.protocol(), repr.len()));
    }
    if let Ok(view) = geneve::Packet::new_checked(data) {
        assert!(view.vni() <= geneve::MAX_VNI && view.payload().len() + view.header_len() == data.len());
    }
    if let Ok(view) = udp::Packet::new_checked(data) {
        let mut copy = view.datagram().to_vec();
        udp::Packet::new_unchecked(&mut copy[..]).fill_checksum(Default::default());
        assert!(udp::Packet::new_unchecked(&copy[..]).verify_checksum(Default::default()));
    }
    let _ = (gre::Packet::new_unchecked(data).to_string(), vxlan::Packet::new_unchecked(data).to_string());
    let _ = (gue::Packet::new_unchecked(data).to_string(), geneve::Packet::new_unchecked(data).to_string());
    let _ = data.first().map(|first| ipip::version_of(*first));
});
