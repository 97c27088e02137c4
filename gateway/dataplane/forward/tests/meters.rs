//! Counts by VIP, listener and real server: each packet once, whichever way it took, and over changes of the tables.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::{frame, frame_to, node_with, plan, send, tables, tunnel, Tcp, EDGE_MAC};
use tgw_contract::Role;
use tgw_forward::{Options, Tally, Tuning};
use tgw_wire::tcp::{ACK, SYN};

fn ways() -> [Tuning; 2] {
    [Tuning::default(), Tuning { straight: false, ..Tuning::default() }]
}

#[test]
fn an_ld_counts_by_listener_and_real_server() {
    let p = plan(4, 4, "gre");
    for tuning in ways() {
        let mut node = node_with(Role::Clb, &p.clb_tables(), Options { tuning, ..Options::default() });
        let request = |flags| {
            let packet = Tcp::new((p.client, 4000), (p.private, 80), flags).ip();
            frame(&tunnel(p.eip, p.service, "gre", None, &packet))
        };
        let reply = |flags| {
            let packet = Tcp::new((p.private, 80), (p.client, 4000), flags).ip();
            frame(&tunnel(p.host, p.ld, "gre", Some(77), &packet))
        };
        for bytes in [request(SYN), reply(SYN | ACK), request(ACK), request(ACK), reply(ACK)] {
            send(&mut *node, 0, &bytes).port();
        }
        let nobody = Tcp::new((p.client, 4000), (p.private, 81), SYN).ip();
        send(&mut *node, 0, &frame(&tunnel(p.eip, p.service, "gre", None, &nobody))).reason();
        let meters = node.meters();
        let seen = meters.snapshot();
        let web = Tally {
            vip_id: 1,
            protocol: 6,
            port: 80,
            server_id: 5,
            requests: 3,
            request_bytes: 120,
            replies: 2,
            reply_bytes: 80,
        };
        let names = Tally { vip_id: 1, protocol: 17, port: 53, server_id: 5, ..Tally::default() };
        assert_eq!((&seen.tallies[..], &seen.drops[..]), (&[web, names][..], &[(1, 1)][..]));

        // Another real server comes, the listener for names goes: what stays keeps its counts.
        let mut other = p.clb_tables();
        let backends = &mut other["clb"]["vips"][0]["listeners"][0]["backends"];
        let newcomer = json!({"id": 4, "tunnel": p.host, "key": 78, "encap": "gre", "weight": 0});
        backends.as_array_mut().unwrap().insert(0, newcomer);
        other["clb"]["vips"][0]["listeners"].as_array_mut().unwrap().truncate(1);
        node.set_tables(tables(&other, Role::Clb));
        send(&mut *node, 0, &request(ACK)).port();
        let newcomer = Tally { server_id: 4, requests: 0, request_bytes: 0, replies: 0, reply_bytes: 0, ..web };
        let web = Tally { requests: 4, request_bytes: 160, ..web };
        assert_eq!(meters.snapshot().tallies, [newcomer, web]);
    }
}

#[test]
fn eip_nodes_and_hosts_count_by_vip() {
    let p = plan(4, 4, "gre");
    for tuning in ways() {
        let options = Options { tuning, ..Options::default() };
        let mut eip = node_with(Role::Eip, &p.eip_tables(), options);
        let request = Tcp::new((p.client, 4000), (p.public, 80), ACK).ip();
        let reply = Tcp::new((p.private, 80), (p.client, 4000), ACK).ip();
        send(&mut *eip, 1, &frame_to(EDGE_MAC, &request)).port();
        send(&mut *eip, 0, &frame(&tunnel(p.ld, p.anycast, "gre", None, &reply))).port();
        let one = Tally { vip_id: 1, requests: 1, request_bytes: 40, replies: 1, reply_bytes: 40, ..Tally::default() };
        assert_eq!(eip.meters().snapshot().tallies, [one]);

        let mut host = node_with(Role::Vswitch, &p.vswitch_tables(), options);
        let request = Tcp::new((p.client, 4000), (p.private, 80), SYN).ip();
        send(&mut *host, 0, &frame(&tunnel(p.ld, p.host, "gre", Some(77), &request))).port();
        send(&mut *host, 1, &frame_to(EDGE_MAC, &reply)).port();
        assert_eq!(host.meters().snapshot().tallies, [Tally { server_id: 5, ..one }]);
    }
}
