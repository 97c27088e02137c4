#![no_main]
//! The views of Ethernet, IP, TCP, UDP and ICMP: checked or not, everything they return can be asked for.

use libfuzzer_sys::fuzz_target;
use tgw_wire::checksum::Delta;
use tgw_wire::{ethernet, icmpv4, icmpv6, ipv4, ipv6, tcp, udp};

fuzz_target!(|data: &[u8]| {
    let [kind, bytes @ ..] = data else { return };
    let mut copy = bytes.to_vec();
    let delta = Delta::new().replace_word(1, 2);
    match kind % 7 {
        0 => {
            let checked = ethernet::Packet::new_checked(bytes).is_ok();
            let view = ethernet::Packet::new_unchecked(bytes);
            assert!(!checked || view.payload().len() + ethernet::HEADER_LEN == bytes.len());
            let _ = view.to_string();
        }
        1 => {
            if let Ok(view) = ipv4::Packet::new_checked(bytes) {
                assert_eq!(view.payload().len(), view.total_len() - view.header_len());
                let was_right = view.verify_checksum();
                let mut change = ipv4::Packet::new_unchecked(&mut copy[..]);
                let _ = change.set_src(std::net::Ipv4Addr::LOCALHOST);
                let _ = change.set_dst(std::net::Ipv4Addr::BROADCAST);
                change.decrement_ttl();
                assert_eq!(change.verify_checksum(), was_right);
            }
            let _ = ipv4::Packet::new_unchecked(bytes).to_string();
        }
        2 => {
            if let Ok(view) = ipv6::Packet::new_checked(bytes) {
                assert_eq!(view.payload().len(), view.total_len() - ipv6::HEADER_LEN);
                if let Ok(ipv6::Upper::Protocol { offset, .. }) = view.upper() {
                    assert!(offset <= view.total_len());
                }
            }
            let view = ipv6::Packet::new_unchecked(bytes);
            let _ = (view.upper(), view.to_string());
        }
        3 => {
            if let Ok(view) = tcp::Packet::new_checked(bytes) {
                assert_eq!(view.payload().len(), bytes.len() - view.header_len());
            }
            let mut view = tcp::Packet::new_unchecked(&mut copy[..]);
            view.adjust(delta);
            let _ = view.to_string();
        }
        4 => {
            if let Ok(view) = udp::Packet::new_checked(bytes) {
                assert_eq!(view.payload().len() + udp::HEADER_LEN, view.length());
            }
            let mut view = udp::Packet::new_unchecked(&mut copy[..]);
            view.adjust(delta);
            let _ = (view.datagram().len(), view.to_string());
        }
        5 => {
            let mut view = icmpv4::Packet::new_unchecked(&mut copy[..]);
            let _ = (view.verify_checksum(), view.is_error(), view.quoted_mut().len());
            view.adjust(delta);
            let _ = view.to_string();
        }
        _ => {
            let mut view = icmpv6::Packet::new_unchecked(&mut copy[..]);
            let _ = (view.is_error(), view.quoted_mut().len());
            view.adjust(delta);
            let _ = view.to_string();
        }
    }
});
