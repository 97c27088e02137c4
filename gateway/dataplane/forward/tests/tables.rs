//! Tables that are wrong are refused whole, with every problem named by its path.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{json, Value};
use support::{plan, plans};
use tgw_contract::Role;
use tgw_forward::{ConfigError, Tables};

fn check(role: Role, value: &Value) -> Vec<(String, String, String)> {
    match Tables::from_json(&value.to_string(), role) {
        Ok(_) => Vec::new(),
        Err(ConfigError { problems }) => problems.into_iter().map(|p| (p.path, p.expected, p.found)).collect(),
    }
}

fn good(role: Role) -> Value {
    let plan = plan(4, 4, "gre");
    match role {
        Role::Eip => plan.eip_tables(),
        Role::Clb => plan.clb_tables(),
        Role::Vswitch => plan.vswitch_tables(),
    }
}

/// One change of good tables, and the one path that it must be refused at.
fn refused_at(role: Role, pointer: &str, wrong: Value, path: &str) {
    let mut tables = good(role);
    *tables.pointer_mut(pointer).unwrap() = wrong.clone();
    let problems = check(role, &tables);
    let paths: Vec<&str> = problems.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(paths, [path], "{pointer} = {wrong}: {problems:?}");
}

#[test]
fn good_tables_are_taken() {
    for plan in plans() {
        for (role, tables) in
            [(Role::Eip, plan.eip_tables()), (Role::Clb, plan.clb_tables()), (Role::Vswitch, plan.vswitch_tables())]
        {
            let tables = Tables::from_json(&tables.to_string(), role).unwrap();
            assert_eq!(tables.epoch(), 7);
            assert_eq!(tables.ports().len(), if role == Role::Clb { 1 } else { 2 });
        }
    }
    let mut empty = good(Role::Clb);
    empty["clb"]["vips"] = json!([]);
    assert!(check(Role::Clb, &empty).is_empty(), "a buffer cluster holds no VIP");
}

#[test]
fn each_wrong_value_is_named_by_its_path() {
    let clb = |pointer: &str, wrong: Value, path: &str| refused_at(Role::Clb, pointer, wrong, path);
    clb("/epoch", json!(0), "epoch");
    clb("/epoch", json!("7"), "epoch");
    clb("/role", json!("eip"), "role");
    clb("/tunnel/local", json!("0.0.0.0"), "tunnel.local");
    clb("/tunnel/encap", json!("l2tp"), "tunnel.encap");
    clb("/probe/key", json!("0123"), "probe.key");
    clb("/probe/reserved/0", json!("198.18.0.1/16"), "probe.reserved[0]");
    clb("/ports/0/index", json!(1), "ports");
    clb("/ports/0/mac", json!("ff:ff:ff:ff:ff:ff"), "ports[0].mac");
    clb("/ports/0/next_hop_mac", json!("x"), "ports[0].next_hop_mac");
    clb("/ports/0/mtu", json!(100), "ports[0].mtu");
    clb("/ports/0/mtu", json!(1907), "ports[0].mtu");
    clb("/ports/0/host_addresses/0", json!("10.0.0.256"), "ports[0].host_addresses[0]");
    clb("/clb/reply_to", json!(null), "clb.reply_to");
    clb("/clb/reply_to", json!("fd00::1"), "clb.reply_to");
    clb("/clb/reply_encap", json!(1), "clb.reply_encap");
    clb("/clb/vips", json!({}), "clb.vips");
    clb("/clb/vips/0/id", json!(0), "clb.vips[0].id");
    clb("/clb/vips/0/address", json!("224.0.0.1"), "clb.vips[0].address");
    clb("/clb/vips/0/service", json!("::ffff:10.0.0.1"), "clb.vips[0].service");
    clb("/clb/vips/0/new_flows_per_s", json!(0), "clb.vips[0].new_flows_per_s");
    clb("/clb/vips/0/listeners/0/protocol", json!("sctp"), "clb.vips[0].listeners[0].protocol");
    clb("/clb/vips/0/listeners/1/port", json!(65536), "clb.vips[0].listeners[1].port");
    let backend = "/clb/vips/0/listeners/0/backends/0";
    let at = "clb.vips[0].listeners[0].backends[0]";
    clb(&format!("{backend}/id"), json!(-1), &format!("{at}.id"));
    clb(&format!("{backend}/tunnel"), json!("nowhere"), &format!("{at}.tunnel"));
    clb(&format!("{backend}/key"), json!(0), &format!("{at}.key"));
    clb(&format!("{backend}/weight"), json!(1001), &format!("{at}.weight"));
    refused_at(Role::Eip, "/ports/1/index", json!(2), "ports");
    refused_at(Role::Eip, "/eip/anycast", json!([]), "eip.anycast");
    refused_at(Role::Eip, "/eip/bindings/0/private", json!("fd64::1"), "eip.bindings[0].private");
    refused_at(Role::Eip, "/eip/bindings/0/service", json!("fd04::1"), "eip.bindings[0].service");
    refused_at(Role::Vswitch, "/vswitch/servers/0/mac", json!(null), "vswitch.servers[0].mac");
    refused_at(Role::Vswitch, "/vswitch/servers/0/port", json!(2), "vswitch.servers[0].port");
    refused_at(Role::Vswitch, "/vswitch/servers/0/vips/0/id", json!(0), "vswitch.servers[0].vips[0].id");
}

/// What a VIP may ask for its protection, and what it may not.
#[test]
fn protection_is_checked() {
    let with = |vip: Value, clb: Value| {
        let mut tables = plan(4, 4, "gre").protected_tables(vip);
        for (name, value) in clb.as_object().unwrap() {
            tables["clb"][name] = value.clone();
        }
        check(Role::Clb, &tables).into_iter().map(|(path, ..)| path).collect::<Vec<_>>()
    };
    let lists = json!({"source_lists": {"bad": ["192.0.2.0/24", "2001:db8::/32"], "good": []}});
    let all = json!({"packets_per_s": 1_000_000, "bytes_per_s": 100_000_000_000_u64, "flood_gate_per_s": 1000,
                     "syn_cookies": "flood", "deny": "bad", "allow": "good"});
    assert!(with(all, lists.clone()).is_empty());
    let none = json!({"packets_per_s": null, "syn_cookies": null, "deny": null});
    assert!(with(none, json!({"source_lists": null, "blacklist": null})).is_empty());
    let vip = |more: Value, name: &str| assert_eq!(with(more, lists.clone()), [format!("clb.vips[0].{name}")]);
    vip(json!({"packets_per_s": 0}), "packets_per_s");
    vip(json!({"bytes_per_s": 1_u64 << 44}), "bytes_per_s");
    vip(json!({"flood_gate_per_s": -1}), "flood_gate_per_s");
    vip(json!({"syn_cookies": "sometimes"}), "syn_cookies");
    vip(json!({"syn_cookies": "flood"}), "syn_cookies");
    vip(json!({"syn_cookies": "always", "mode": "dsr"}), "syn_cookies");
    let mut told = plan(4, 4, "gre").clb_tables();
    told["clb"]["vips"][0]["syn_cookies"] = json!("always");
    told["clb"]["vips"][0]["listeners"][0]["client_address"] = json!("toa");
    assert_eq!(check(Role::Clb, &told)[0].0, "clb.vips[0].listeners[0].client_address");
    vip(json!({"deny": "ugly"}), "deny");
    vip(json!({"allow": 1}), "allow");
    let clb = |more: Value, path: &str| assert_eq!(with(json!({}), more), [path]);
    clb(json!({"blacklist": {"events": 0, "window_s": 1, "ttl_s": 1}}), "clb.blacklist.events");
    clb(json!({"blacklist": {"events": 1, "window_s": 86_401, "ttl_s": 1}}), "clb.blacklist.window_s");
    clb(json!({"blacklist": {"events": 1, "window_s": 1}}), "clb.blacklist.ttl_s");
    clb(json!({"blacklist": []}), "clb.blacklist");
    clb(json!({"source_lists": []}), "clb.source_lists");
    clb(json!({"source_lists": {"x": "192.0.2.0/24"}}), "clb.source_lists.x");
    clb(json!({"source_lists": {"x": ["192.0.2.0/24", "192.0.2.1/24"]}}), "clb.source_lists.x[1]");
    clb(json!({"source_lists": {"x": vec!["0.0.0.0/0"; 1_000_001]}}), "clb.source_lists.x");
    let many = with(json!({}), json!({"source_lists": {"x": vec!["wrong"; 1000]}}));
    assert_eq!(many.len(), 10, "one wrong list does not drown the others");
}

/// A list of a million prefixes is read in seconds.
#[test]
fn a_million_prefixes_are_read_in_time() {
    let mut tables = plan(4, 4, "gre").protected_tables(json!({"deny": "long"}));
    let prefixes: Vec<String> = (0..1_000_000u32)
        .map(|n| {
            let n = n.wrapping_mul(2_654_435_761);
            if n % 2 == 0 {
                format!("{}/32", std::net::Ipv4Addr::from_bits(n))
            } else {
                format!("2001:db8:{:x}:{:x}::/64", n >> 16, n & 0xFFFF)
            }
        })
        .collect();
    tables["clb"]["source_lists"] = json!({"long": prefixes});
    let text = tables.to_string();
    let start = std::time::Instant::now();
    assert!(Tables::from_json(&text, Role::Clb).is_ok());
    let elapsed = start.elapsed();
    println!("read in {elapsed:?}");
    assert!(elapsed.as_secs() < 30, "{elapsed:?}, without optimization");
}

/// One change of good tables, with fields put in where there were none.
fn refused_with(listener: usize, fields: Value, path: &str) {
    let mut tables = good(Role::Clb);
    for (key, value) in fields.as_object().unwrap() {
        tables["clb"]["vips"][0]["listeners"][listener][key] = value.clone();
    }
    let problems = check(Role::Clb, &tables);
    let paths: Vec<&str> = problems.iter().map(|(path, ..)| path.as_str()).collect();
    if path.is_empty() {
        assert!(paths.is_empty(), "{fields}: {problems:?}");
    } else {
        assert_eq!(paths, [format!("clb.vips[0].listeners[{listener}].{path}")], "{fields}: {problems:?}");
    }
}

/// Listener 0 is TCP, 1 is UDP.
#[test]
fn a_listener_can_keep_what_it_promises() {
    let health = |interval: u32, timeout: u32, rise: u32, fall: u32| json!({"health": {"interval_ms": interval, "timeout_ms": timeout, "rise": rise, "fall": fall}});
    for fields in [
        json!({"balance": "rendezvous", "dispatch": "ip_pair", "affinity_s": 1, "slow_start_s": 86_400}),
        json!({"balance": null, "dispatch": null, "affinity_s": null, "slow_start_s": null, "health": null, "quic_server_id": null}),
        json!({"affinity_s": 16_000, "dispatch": "tuple"}),
        health(100, 50, 1, 100),
        health(1000, 1000, 2, 3),
    ] {
        refused_with(0, fields, "");
    }
    refused_with(1, json!({"dispatch": "quic"}), "");
    refused_with(1, json!({"dispatch": "quic", "quic_server_id": {"offset": 16, "length": 4}}), "");
    for (fields, path) in [
        (json!({"balance": "random"}), "balance"),
        (json!({"dispatch": 5}), "dispatch"),
        (json!({"dispatch": "quic"}), "dispatch"),
        (json!({"affinity_s": 0}), "affinity_s"),
        (json!({"affinity_s": 16_001}), "affinity_s"),
        (json!({"slow_start_s": 86_401}), "slow_start_s"),
        (json!({"quic_server_id": {"offset": 1, "length": 2}}), "quic_server_id"),
        (json!({"health": 5}), "health"),
        (health(99, 50, 1, 1), "health.interval_ms"),
        (health(1000, 1001, 1, 1), "health.timeout_ms"),
        (health(1000, 49, 1, 1), "health.timeout_ms"),
        (health(1000, 500, 0, 1), "health.rise"),
        (health(1000, 500, 1, 101), "health.fall"),
    ] {
        refused_with(0, fields, path);
    }
    refused_with(1, health(1000, 500, 1, 1), "health");
    let quic = |id: Value| json!({"dispatch": "quic", "quic_server_id": id});
    refused_with(1, quic(json!({"offset": 20, "length": 1})), "quic_server_id.offset");
    refused_with(1, quic(json!({"offset": 17, "length": 4})), "quic_server_id.length");
    refused_with(1, quic(json!({"offset": 0, "length": 5})), "quic_server_id.length");
    refused_with(1, quic(json!({"offset": 0})), "quic_server_id.length");
    refused_with(1, quic(json!([1, 2])), "quic_server_id");
    refused_with(1, json!({"dispatch": "quic", "affinity_s": 5}), "affinity_s");
    // The id of a real server must fit where it is to be written.
    let mut tables = good(Role::Clb);
    let listener = &mut tables["clb"]["vips"][0]["listeners"][1];
    (listener["dispatch"], listener["quic_server_id"]) = (json!("quic"), json!({"offset": 1, "length": 1}));
    listener["backends"][0]["id"] = json!(256);
    assert_eq!(check(Role::Clb, &tables)[0].0, "clb.vips[0].listeners[1].quic_server_id.length");
}

/// A check goes from the LD's tunnel address to the VIP's: what cannot be is refused, not left out in silence.
#[test]
fn health_needs_one_family() {
    for plan in plans() {
        let mut tables = plan.clb_tables();
        tables["clb"]["vips"][0]["listeners"][0]["health"] =
            json!({"interval_ms": 1000, "timeout_ms": 500, "rise": 2, "fall": 3});
        let same = support::ip(plan.private).is_ipv4() == support::ip(plan.ld).is_ipv4();
        let problems = check(Role::Clb, &tables);
        assert_eq!(problems.is_empty(), same, "{problems:?}");
        assert!(same || problems[0].0 == "clb.vips[0].listeners[0].health");
    }
}

#[test]
fn nothing_may_stand_twice() {
    let twice = |role: Role, list: &str, path: &str| {
        let mut tables = good(role);
        let items = tables.pointer_mut(list).unwrap().as_array_mut().unwrap();
        items.push(items[0].clone());
        let problems = check(role, &tables);
        assert!(problems.iter().any(|(found, ..)| found == path), "{problems:?}");
    };
    twice(Role::Clb, "/clb/vips", "clb.vips[1].id");
    twice(Role::Clb, "/clb/vips", "clb.vips[1].address");
    twice(Role::Clb, "/clb/vips/0/listeners", "clb.vips[0].listeners[2].port");
    twice(Role::Clb, "/clb/vips/0/listeners/0/backends", "clb.vips[0].listeners[0].backends[1].id");
    twice(Role::Clb, "/ports", "ports[1].index");
    twice(Role::Eip, "/eip/bindings", "eip.bindings[1].public");
    twice(Role::Eip, "/eip/bindings", "eip.bindings[1].private");
    twice(Role::Vswitch, "/vswitch/servers", "vswitch.servers[1].key");
}

#[test]
fn a_server_is_the_same_wherever_it_stands() {
    let mut tables = good(Role::Clb);
    tables["clb"]["vips"][0]["listeners"][1]["backends"][0]["key"] = json!(78);
    let problems = check(Role::Clb, &tables);
    assert_eq!(problems[0].0, "clb.vips[0].listeners[1].backends[0]");
    assert!(problems[0].1.contains("clb.vips[0].listeners[0].backends[0]"), "{problems:?}");
}

/// A reply says which server of the listener sent it by its key, or without one by its host.
#[test]
fn servers_of_a_listener_are_told_apart() {
    let problems = |key: Option<u32>, second: Value| {
        let mut tables = support::Plan { key, ..plan(4, 4, "gue") }.clb_tables();
        let backends = tables["clb"]["vips"][0]["listeners"][0]["backends"].as_array_mut().unwrap();
        let mut other = backends[0].clone();
        other["id"] = json!(6);
        other.as_object_mut().unwrap().extend(second.as_object().unwrap().clone());
        backends.push(other);
        check(Role::Clb, &tables).into_iter().map(|(path, ..)| path).collect::<Vec<_>>()
    };
    let at = "clb.vips[0].listeners[0].backends[1]";
    assert_eq!(problems(Some(77), json!({"tunnel": "10.3.1.99"})), [format!("{at}.key")]);
    assert!(problems(Some(77), json!({"key": 78})).is_empty());
    assert!(problems(Some(77), json!({"key": null})).is_empty());
    assert_eq!(problems(None, json!({})), [format!("{at}.tunnel")]);
    assert!(problems(None, json!({"tunnel": "10.3.1.99"})).is_empty());
}

#[test]
fn keys_are_as_large_as_their_tunnel_carries() {
    let with_key = |encap: &'static str, key: Value| {
        let plan = plan(4, 4, encap);
        let (mut clb, mut vswitch) = (plan.clb_tables(), plan.vswitch_tables());
        for listener in clb["clb"]["vips"][0]["listeners"].as_array_mut().unwrap() {
            listener["backends"][0]["key"] = key.clone();
        }
        vswitch["vswitch"]["servers"][0]["key"] = key;
        [(Role::Clb, clb), (Role::Vswitch, vswitch)].map(|(role, tables)| check(role, &tables))
    };
    let most: [(&str, u64); 5] = [
        ("gre", u32::MAX.into()),
        ("gre_udp", u32::MAX.into()),
        ("gue", u32::MAX.into()),
        ("vxlan", (1 << 24) - 1),
        ("geneve", (1 << 24) - 1),
    ];
    for (encap, most) in most {
        for (key, fine) in
            [(json!(most), true), (json!(most + 1), false), (json!(0), false), (json!(null), encap == "gue")]
        {
            let problems = with_key(encap, key.clone());
            assert!(problems.iter().all(|problems| problems.is_empty() == fine), "{encap} {key}: {problems:?}");
        }
    }
    let [clb, vswitch] = with_key("ipip", json!(7));
    assert_eq!(clb[0].0, "clb.vips[0].listeners[0].backends[0].key");
    assert_eq!(vswitch[0].0, "vswitch.servers[0].key");
    assert!(vswitch[0].1.contains("carries no key"), "{vswitch:?}");
}

/// Without keys, servers on one host are told apart by their VIPs.
#[test]
fn servers_without_keys_share_no_vip() {
    for encap in ["ipip", "gue"] {
        let plan = support::Plan { key: None, ..plan(4, 4, encap) };
        let mut tables = plan.vswitch_tables();
        let servers = tables["vswitch"]["servers"].as_array_mut().unwrap();
        let mut second = servers[0].clone();
        second["id"] = json!(6);
        servers.push(second);
        let problems = check(Role::Vswitch, &tables);
        assert_eq!(problems[0].0, "vswitch.servers[1].vips[0].address", "{encap}: {problems:?}");
        tables["vswitch"]["servers"][1]["vips"][0]["address"] = json!("10.100.0.2");
        assert!(check(Role::Vswitch, &tables).is_empty());
        if encap == "gue" {
            tables["vswitch"]["servers"][1]["vips"][0]["address"] = json!(plan.private);
            tables["vswitch"]["servers"][1]["key"] = json!(78);
            assert!(check(Role::Vswitch, &tables).is_empty(), "one with a key is no other's namesake");
        }
    }
}

#[test]
fn direct_return_and_client_addresses() {
    let mut tables = good(Role::Vswitch);
    tables["vswitch"]["servers"][0]["vips"][0]["mode"] = json!("dsr");
    assert_eq!(check(Role::Vswitch, &tables)[0].0, "vswitch.servers[0].vips[0].mode", "to where?");
    tables["vswitch"]["reply_to"] = json!("fd03::ffff");
    tables["vswitch"]["reply_encap"] = json!("gre");
    assert_eq!(check(Role::Vswitch, &tables)[0].0, "vswitch.reply_to", "not from an IPv4 tunnel end");
    tables["vswitch"]["reply_to"] = json!("10.3.255.1");
    assert!(check(Role::Vswitch, &tables).is_empty());
    tables["vswitch"]["servers"][0]["vips"][0]["mode"] = json!("nat");
    assert_eq!(check(Role::Vswitch, &tables)[0].0, "vswitch.servers[0].vips[0].mode");

    for (listener, how, mode, wrong) in [
        (0, "toa", "tunnel", None),
        (0, "toa", "dsr", None),
        (0, "proxy_v2", "tunnel", None),
        (0, "proxy_v2", "dsr", Some("clb.vips[0].listeners[0].client_address")),
        (1, "toa", "tunnel", Some("clb.vips[0].listeners[1].client_address")),
        (1, "proxy_v2", "tunnel", Some("clb.vips[0].listeners[1].client_address")),
        (0, "x-forwarded-for", "tunnel", Some("clb.vips[0].listeners[0].client_address")),
        (0, "toa", "half", Some("clb.vips[0].mode")),
    ] {
        let mut tables = good(Role::Clb);
        tables["clb"]["vips"][0]["mode"] = json!(mode);
        tables["clb"]["vips"][0]["listeners"][listener]["client_address"] = json!(how);
        let problems = check(Role::Clb, &tables);
        assert_eq!(problems.first().map(|problem| problem.0.as_str()), wrong, "{how} {mode}: {problems:?}");
    }
}

#[test]
fn all_problems_are_told_at_once_and_what_is_no_json_says_where() {
    let problems = check(Role::Clb, &json!({"epoch": 1}));
    for path in ["role", "tunnel.local", "tunnel.encap", "probe.key", "probe.reserved", "ports", "clb.vips"] {
        assert!(problems.iter().any(|(found, ..)| found == path), "{path}: {problems:?}");
    }
    assert!(problems.iter().any(|(path, _, found)| path == "tunnel.local" && found == "nothing"));
    for text in ["", "{", "[1, 2", "nonsense"] {
        let error = Tables::from_json(text, Role::Eip).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }
    let error = Tables::from_json("[]", Role::Eip).unwrap_err();
    assert_eq!(error.to_string(), "(the whole document): expected an object, found []");
}
