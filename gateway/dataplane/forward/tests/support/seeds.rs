//! One good frame of each sort: where mutations and fuzzing start from.

use tgw_wire::tcp::{ACK, RST, SYN};

use super::{fragments, frame, frame_to, icmp, tunnel, udp, unreachable, Plan, Tcp, EDGE_MAC};

/// Frames that the roles take, by port.
pub fn seeds(p: &Plan) -> Vec<(u16, Vec<u8>)> {
    let syn = Tcp::new((p.client, 4000), (p.private, 80), SYN).ip();
    let answer = Tcp::new((p.private, 80), (p.client, 4000), SYN | ACK).ip();
    let question = udp((p.client, 4000), (p.private, 53), b"?", true);
    let public = Tcp::new((p.client, 4000), (p.public, 80), SYN).ip();
    let public_answer = Tcp::new((p.public, 80), (p.client, 4000), ACK).ip();
    let to_ld = |inner: &[u8]| (0, frame(&tunnel(p.eip, p.service, p.encap, None, inner)));
    let to_host = |inner: &[u8]| (0, frame(&tunnel(p.ld, p.host, p.encap, p.key, inner)));
    let from_host = |inner: &[u8]| (0, frame(&tunnel(p.host, p.ld, p.encap, p.key, inner)));
    let to_eip = |inner: &[u8]| (0, frame(&tunnel(p.ld, p.anycast, p.encap, None, inner)));
    let plain = |inner: &[u8]| (1, frame_to(EDGE_MAC, inner));
    let parts = fragments(&udp((p.client, 4001), (p.private, 53), &[7; 40], true), 9, 24);
    let answer_parts = fragments(&udp((p.private, 53), (p.client, 4000), &[7; 40], true), 9, 24);
    let public_parts = fragments(&udp((p.client, 4000), (p.public, 53), &[7; 40], true), 9, 24);
    let big = Tcp { payload: &[7; 1650], ..Tcp::new((p.client, 4000), (p.public, 80), ACK) }.ip();
    vec![
        to_ld(&syn),
        to_ld(&question),
        to_ld(&icmp(p.client, p.private, (3, 4), (2, 0), &answer)),
        to_host(&syn),
        to_host(&question),
        to_host(&unreachable(p.client, p.private, &answer)),
        from_host(&answer),
        from_host(&unreachable(p.private, p.client, &question)),
        to_eip(&answer),
        to_eip(&unreachable(p.private, p.client, &question)),
        plain(&public),
        plain(&unreachable(p.client, p.public, &public_answer)),
        plain(&answer),
        plain(&Tcp::new((p.client, 4000), (p.public, 80), RST).ip()),
        to_ld(&parts[0]),
        to_ld(&parts[1]),
        to_host(&parts[1]),
        plain(&answer_parts[0]),
        plain(&answer_parts[1]),
        plain(&public_parts[1]),
        plain(&big),
        // GUE, variant 1.
        (0, frame(&udp((p.eip, 50_000), (p.service, 6080), &syn, true))),
        (0, frame(&unreachable(p.router, p.ld, &tunnel(p.ld, p.host, p.encap, p.key, &syn)))),
    ]
}
