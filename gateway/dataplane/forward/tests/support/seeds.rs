//! One good frame of each sort: where mutations and fuzzing start from.

use tgw_wire::tcp::{ACK, RST, SYN};

use super::{frame, frame_to, icmp, tunnel, udp, unreachable, Plan, Tcp, EDGE_MAC};

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
        (0, frame(&unreachable(p.router, p.ld, &tunnel(p.ld, p.host, p.encap, p.key, &syn)))),
    ]
}
