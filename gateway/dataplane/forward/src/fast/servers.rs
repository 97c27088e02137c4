//! Real servers by id: a tunnel's headers ready in one cache line each.

use super::numbers::Numbers;
use super::template::Template;
use crate::prefetch::prefetch;

/// A read-only map from ids to templates. Ids that follow each other, as they do in a fleet, lie side by side.
#[derive(Debug)]
pub(super) struct Servers {
    lines: Vec<Template>,
    /// By (listener, id), of real servers that several listeners have: the record.
    shared: Numbers,
}

/// Where a lookup begins. Ids in a row never meet; ids in steps of some power of two seldom do.
#[inline(always)]
const fn home(id: u32) -> usize {
    (id ^ id >> 8 ^ id >> 16) as usize
}

const fn pair(listener: u32, id: u32) -> u64 {
    (listener as u64) << 32 | id as u64
}

impl Servers {
    /// Of templates with their listeners and ids; the same id always has the same headers.
    pub(super) fn new(items: &[Template]) -> Self {
        let size = (items.len() * 2).next_power_of_two().max(4);
        let mut lines = vec![Template::NONE; size];
        let mut shared = Vec::new();
        for item in items {
            let mut at = home(item.server_id) & (size - 1);
            while lines[at].server_id != 0 && lines[at].server_id != item.server_id {
                at = (at + 1) & (size - 1);
            }
            if lines[at].server_id == 0 {
                lines[at] = *item;
            } else {
                lines[at].shared = true;
                shared.push((pair(item.listener, item.server_id), [item.record, 0]));
            }
        }
        Self { lines, shared: Numbers::new(&shared) }
    }

    /// Ask for the line that a lookup reads first.
    #[inline]
    pub(super) fn prefetch(&self, id: u32) {
        if let Some(line) = self.lines.get(home(id) & (self.lines.len() - 1)) {
            prefetch(line);
        }
    }

    /// The real server of this id, if the listener has it, and the record of both.
    #[inline(always)]
    pub(super) fn get(&self, listener: u32, id: u32) -> Option<(&Template, u32)> {
        let mut at = home(id) & (self.lines.len() - 1);
        loop {
            let line = self.lines.get(at)?;
            if line.server_id == id {
                if line.listener == listener {
                    return Some((line, line.record));
                }
                let [record, _] = self.shared.get(pair(listener, id)).filter(|_| line.shared)?;
                return Some((line, record));
            }
            if line.server_id == 0 {
                return None;
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_in_steps_of_a_power_of_two_do_not_pile_up() {
        for step in 0..22 {
            let ids = (1..=1000u32).map(|n| n << step);
            let items: Vec<_> = ids.clone().map(|id| Template::NONE.of_server(id, 0, 0)).collect();
            let made = Servers::new(&items);
            let mask = made.lines.len() - 1;
            let far = |id: u32| {
                let place = made.lines.iter().position(|line| line.server_id == id).unwrap();
                place.wrapping_sub(home(id)) & mask
            };
            let mean = ids.map(far).sum::<usize>() / 1000;
            assert!(mean < 8, "{mean} further lines for each lookup of ids in steps of {}", 1u64 << step);
        }
    }

    proptest! {
        #[test]
        fn as_a_plain_set(pairs in prop::collection::btree_set((0u32..5, 1u32..60), 0..80)) {
            let items: Vec<_> = pairs
                .iter()
                .map(|&(listener, id)| Template::NONE.of_server(id, listener, listener * 100 + id))
                .collect();
            let made = Servers::new(&items);
            for listener in 0..6 {
                for id in 1..70 {
                    made.prefetch(id);
                    let found = made.get(listener, id).map(|(line, record)| (line.server_id, record));
                    prop_assert_eq!(found, pairs.contains(&(listener, id)).then_some((id, listener * 100 + id)));
                }
            }
        }
    }
}
