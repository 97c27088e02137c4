//! How a VIP is protected: its limits, who may reach it, what happens in a flood.

use std::sync::Arc;

use serde_json::Value;
use tgw_contract::colour::Prefix;

use super::read::{number, Place, Reader};
use crate::blacklist::Rule;
use crate::hash::Map;
use crate::limits::MAX_RATE;
use crate::source_list::SourceList;

/// Prefixes of a list.
const MOST_PREFIXES: usize = 1_000_000;
/// Problems of a list that are told: a list that is wrong throughout would drown the others.
const MOST_PROBLEMS: usize = 10;
/// A day.
const LONGEST: u64 = 86_400;

/// When SYNs are answered with cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SynPolicy {
    #[default]
    Never,
    /// While the flood gate is shut.
    Flood,
    Always,
}

/// What protects one VIP.
#[derive(Clone, Debug, Default)]
pub(crate) struct Protection {
    pub(crate) packets_per_s: Option<u64>,
    pub(crate) bytes_per_s: Option<u64>,
    /// New flows per second above which none is inserted.
    pub(crate) flood_gate_per_s: Option<u64>,
    pub(crate) syn_cookies: SynPolicy,
    pub(crate) deny: Option<Arc<SourceList>>,
    pub(crate) allow: Option<Arc<SourceList>>,
}

impl Protection {
    /// Whether packets of known flows, too, may be refused or changed.
    pub(crate) fn looks_at_packets(&self) -> bool {
        let lists = self.deny.is_some() || self.allow.is_some();
        self.packets_per_s.is_some() || self.bytes_per_s.is_some() || lists || self.has_cookies()
    }

    /// Whether SYNs are ever answered with cookies.
    pub(crate) fn has_cookies(&self) -> bool {
        self.syn_cookies != SynPolicy::Never
    }
}

/// The lists by name; `None` for one that is wrong itself.
#[derive(Default)]
pub(super) struct SourceLists(Map<String, Option<Arc<SourceList>>>);

impl SourceLists {
    pub(super) fn read(reader: &mut Reader, place: &Place<'_>) -> Self {
        let mut lists = Self::default();
        if place.is_absent() || !reader.object(place) {
            return lists;
        }
        for (name, value) in place.value.and_then(Value::as_object).into_iter().flatten() {
            lists.0.insert(name.clone(), list(reader, &place.field(name), value).map(Arc::new));
        }
        lists
    }

    fn find(&self, reader: &mut Reader, place: &Place<'_>) -> Option<Arc<SourceList>> {
        reader
            .optional(place, "null or the name of one of clb.source_lists", |name| self.0.get(name.as_str()?))?
            .clone()
    }
}

/// A list may be long: a path is made only for what is wrong.
fn list(reader: &mut Reader, place: &Place<'_>, value: &Value) -> Option<SourceList> {
    let Some(items) = value.as_array() else {
        reader.problem(&place.path, "a list of address prefixes", place.found());
        return None;
    };
    if items.len() > MOST_PREFIXES {
        reader.problem(&place.path, format!("at most {MOST_PREFIXES} prefixes"), items.len().to_string());
        return None;
    }
    let mut prefixes = Vec::with_capacity(items.len());
    let mut wrong = 0;
    for (index, item) in items.iter().enumerate() {
        match item.as_str().and_then(Prefix::parse) {
            Some(prefix) => prefixes.push(prefix),
            None if wrong == MOST_PROBLEMS => return None,
            None => {
                wrong += 1;
                let place = Place { value: Some(item), path: format!("{}[{index}]", place.path) };
                reader.problem(&place.path, "an address prefix such as 192.0.2.0/24", place.found());
            }
        }
    }
    (wrong == 0).then(|| SourceList::new(prefixes))
}

pub(super) fn blacklist(reader: &mut Reader, place: &Place<'_>) -> Option<Rule> {
    if place.is_absent() || !reader.object(place) {
        return None;
    }
    // One below the value that marks those on the list.
    let events = reader.number(&place.field("events"), 1, u64::from(u32::MAX) - 1);
    let window_s = reader.number(&place.field("window_s"), 1, LONGEST);
    let ttl_s = reader.number(&place.field("ttl_s"), 1, LONGEST);
    Some(Rule { events: events? as u32, window_s: window_s? as u32, ttl_s: ttl_s? as u32 })
}

pub(super) fn of_vip(reader: &mut Reader, vip: &Place<'_>, lists: &SourceLists) -> Protection {
    let mut rate = |name: &str, most: u64| {
        reader.optional(&vip.field(name), &format!("null or a whole number from 1 to {most}"), |value| {
            number(value, 1, most)
        })
    };
    let packets_per_s = rate("packets_per_s", MAX_RATE);
    let bytes_per_s = rate("bytes_per_s", MAX_RATE);
    let flood_gate_per_s = rate("flood_gate_per_s", u64::from(u32::MAX));
    let cookies_at = vip.field("syn_cookies");
    let policy = reader.optional(&cookies_at, "\"never\", \"flood\" or \"always\"", |value| match value.as_str() {
        Some("never") => Some(SynPolicy::Never),
        Some("flood") => Some(SynPolicy::Flood),
        Some("always") => Some(SynPolicy::Always),
        _ => None,
    });
    let syn_cookies = policy.unwrap_or_default();
    if syn_cookies == SynPolicy::Flood && flood_gate_per_s.is_none() {
        reader.problem(&cookies_at.path, "flood_gate_per_s beside it, which says what a flood is", "none");
    }
    // The replies of a direct-return VIP do not come by here: nobody could translate their sequence numbers.
    if syn_cookies != SynPolicy::Never && vip.field("mode").value.and_then(Value::as_str) == Some("dsr") {
        reader.problem(&cookies_at.path, "\"never\", as mode is \"dsr\"", cookies_at.found());
    }
    let deny = lists.find(reader, &vip.field("deny"));
    let allow = lists.find(reader, &vip.field("allow"));
    Protection { packets_per_s, bytes_per_s, flood_gate_per_s, syn_cookies, deny, allow }
}
