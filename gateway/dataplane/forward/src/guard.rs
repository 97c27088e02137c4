//! What stands before the flow table of an LD: limits, source lists, the flood gate, the blacklist. One per worker, and no
//! worker shares a line of memory with another: each has its share of a VIP's rates.

use std::sync::Arc;

use tgw_contract::DropReason;

use crate::blacklist::{Blacklist, Rule};
use crate::gate::FloodGate;
use crate::hash::Map;
use crate::limits::TokenBucket;
use crate::source_list::SourceList;
use crate::tables::{ClbTables, SynPolicy, Vip};
use crate::Nanos;

/// Newcomers without a place that are remembered, so that their further packets are no newcomers again.
const REMEMBERED: usize = 4096;
/// Burst of a limit of bytes, at least: the largest packet.
const LARGEST_PACKET: u64 = 65_535;
const SECOND: Nanos = 1_000_000_000;

/// What is asked about a request before anything is looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Place of the VIP in the tables.
    pub(crate) vip: u32,
    /// The client's address, mapped.
    pub(crate) source: u128,
    /// Length of the client's IP packet [bytes].
    pub(crate) length: usize,
    /// A coloured probe. It is ours, so no list is about it, but limits are: it must see what clients see.
    pub(crate) is_probe: bool,
}

/// What a packet of no known flow may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newcomer {
    /// Take a place in the flow table.
    Enter,
    /// Go on by consistent hash alone, for the first time.
    Pass,
    /// The same, and it did so before.
    PassAgain,
}

/// One VIP's.
#[derive(Debug, Default)]
struct Post {
    id: u32,
    new_flows: Option<TokenBucket>,
    packets: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
    gate: Option<FloodGate>,
    cookies: SynPolicy,
    deny: Option<Arc<SourceList>>,
    allow: Option<Arc<SourceList>>,
}

/// One worker's.
pub(crate) struct Guard {
    now: Nanos,
    workers: u16,
    seed: u64,
    /// By place of the VIP in the tables.
    posts: Vec<Post>,
    blacklist: Option<Blacklist>,
    /// Hashes of newcomers without a place; empty while no VIP has a gate.
    remembered: Vec<u32>,
}

impl Guard {
    pub(crate) fn new(workers: u16, seed: u64) -> Self {
        Self { now: 0, workers, seed, posts: Vec::new(), blacklist: None, remembered: Vec::new() }
    }

    /// Other tables are in force: what buckets and gates hold stays, by the VIP's id.
    pub(crate) fn take_tables(&mut self, clb: &ClbTables) {
        let old: Map<u32, Post> = std::mem::take(&mut self.posts).into_iter().map(|post| (post.id, post)).collect();
        self.posts = clb.vips.iter().map(|vip| self.post(vip, old.get(&vip.id))).collect();
        self.blacklist = clb.blacklist.map(|rule: Rule| match self.blacklist.take() {
            Some(list) => list.at_rule(rule),
            None => Blacklist::new(rule, self.seed),
        });
        if self.remembered.is_empty() && self.posts.iter().any(|post| post.gate.is_some()) {
            self.remembered = vec![0; REMEMBERED];
        }
    }

    fn post(&self, vip: &Vip, old: Option<&Post>) -> Post {
        let bucket = |rate: Option<u64>, burst: u64, old: Option<TokenBucket>| {
            let rate = TokenBucket::share(rate?, self.workers);
            let new = TokenBucket::with_burst(rate, rate.max(burst), self.now);
            Some(old.map_or(new, |old| old.poured_into(new)))
        };
        let gate = vip.protection.flood_gate_per_s.map(|rate| {
            let new = FloodGate::new(TokenBucket::share(rate, self.workers), self.now);
            old.and_then(|old| old.gate).map_or(new, |old| old.carried_over(new))
        });
        let new_flows = vip.new_flows_per_s.map(u64::from);
        Post {
            id: vip.id,
            new_flows: bucket(new_flows, 1, old.and_then(|old| old.new_flows)),
            packets: bucket(vip.protection.packets_per_s, 1, old.and_then(|old| old.packets)),
            bytes: bucket(vip.protection.bytes_per_s, LARGEST_PACKET, old.and_then(|old| old.bytes)),
            gate,
            cookies: vip.protection.syn_cookies,
            deny: vip.protection.deny.clone(),
            allow: vip.protection.allow.clone(),
        }
    }

    pub(crate) fn advance(&mut self, now: Nanos) {
        self.now = now;
    }

    /// Whether [`Guard::admit`] can refuse a packet to this VIP.
    pub(crate) fn asks(&self, vip: u32) -> bool {
        self.posts.get(vip as usize).is_some_and(|post| {
            post.packets.is_some() || post.bytes.is_some() || post.deny.is_some() || post.allow.is_some()
        })
    }

    /// Whether a request may come in. `SourceDenied`, `PacketLimit`, `ByteLimit`.
    pub(crate) fn admit(&mut self, facts: &Facts) -> Result<(), DropReason> {
        let Some(post) = self.posts.get_mut(facts.vip as usize) else { return Ok(()) };
        if !facts.is_probe {
            let is_denied = post.deny.as_ref().is_some_and(|list| list.contains(facts.source));
            if is_denied || post.allow.as_ref().is_some_and(|list| !list.contains(facts.source)) {
                return Err(DropReason::SourceDenied);
            }
        }
        if post.packets.as_mut().is_some_and(|bucket| !bucket.take(self.now)) {
            return Err(DropReason::PacketLimit);
        }
        let length = u32::try_from(facts.length).unwrap_or(u32::MAX);
        if post.bytes.as_mut().is_some_and(|bucket| !bucket.take_many(length, self.now)) {
            return Err(DropReason::ByteLimit);
        }
        Ok(())
    }

    /// Whether new flows of this VIP are counted at all.
    pub(crate) fn counts_newcomers(&self, vip: u32) -> bool {
        self.posts.get(vip as usize).is_some_and(|post| post.new_flows.is_some() || post.gate.is_some())
    }

    /// Whether one more new flow is within the VIP's limit.
    pub(crate) fn may_open(&mut self, vip: u32) -> bool {
        match self.posts.get_mut(vip as usize) {
            Some(Post { new_flows: Some(bucket), .. }) => bucket.take(self.now),
            _ => true,
        }
    }

    /// A packet of no known flow came for this VIP; `hash`: of its flow.
    pub(crate) fn newcomer(&mut self, vip: u32, hash: u64) -> Newcomer {
        let Some(Post { gate: Some(gate), .. }) = self.posts.get_mut(vip as usize) else { return Newcomer::Enter };
        let place = (hash >> 32) as usize & (REMEMBERED - 1);
        // 0 is a free place.
        let name = hash as u32 | 1;
        if gate.is_shut_at(self.now) && self.remembered.get(place) == Some(&name) {
            return Newcomer::PassAgain;
        }
        if gate.newcomer(self.now) {
            return Newcomer::Enter;
        }
        if let Some(remembered) = self.remembered.get_mut(place) {
            *remembered = name;
        }
        Newcomer::Pass
    }

    /// Whether the VIP ever answers SYNs with cookies: sequence numbers of its connections may need translation.
    pub(crate) fn has_cookies(&self, vip: u32) -> bool {
        self.cookies(vip) != SynPolicy::Never
    }

    /// Whether every connection of the VIP began with a cookie.
    pub(crate) fn always_cookies(&self, vip: u32) -> bool {
        self.cookies(vip) == SynPolicy::Always
    }

    /// Whether the VIP answers SYNs with cookies now.
    pub(crate) fn answers_now(&mut self, vip: u32) -> bool {
        let now = self.now;
        match self.posts.get_mut(vip as usize) {
            Some(Post { cookies: SynPolicy::Always, .. }) => true,
            Some(Post { cookies: SynPolicy::Flood, gate: Some(gate), .. }) => gate.is_shut_at(now),
            _ => false,
        }
    }

    fn cookies(&self, vip: u32) -> SynPolicy {
        self.posts.get(vip as usize).map_or(SynPolicy::Never, |post| post.cookies)
    }

    /// Whether this client (mapped address) is blacklisted.
    pub(crate) fn is_blacklisted(&self, source: u128) -> bool {
        self.blacklist.as_ref().is_some_and(|list| list.holds(source, self.seconds()))
    }

    /// Whether drops for this reason are to be told to [`Guard::learn`].
    pub(crate) fn learns(&self, reason: DropReason) -> bool {
        self.blacklist.is_some() && Blacklist::counts(reason)
    }

    /// A packet of this client (mapped address) died of a reason that [`Guard::learns`] names.
    pub(crate) fn learn(&mut self, source: u128) {
        let now = self.seconds();
        if let Some(list) = &mut self.blacklist {
            list.learn(source, now);
        }
    }

    fn seconds(&self) -> u32 {
        (self.now / SECOND) as u32
    }
}
