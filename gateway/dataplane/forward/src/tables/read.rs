//! Reading JSON that may be wrong anywhere: every value knows its path, every problem is kept.

use std::net::IpAddr;

use serde_json::Value;
use tgw_contract::colour::mapped;

use super::Problem;

/// A value, or its absence, and where it stands.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub(super) value: Option<&'a Value>,
    pub(super) path: String,
}

/// Keeps the problems.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
}

impl<'a> Place<'a> {
    pub(super) fn field(&self, name: &str) -> Place<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Place { value: self.value.and_then(|value| value.get(name)), path }
    }

    fn item(&self, index: usize, value: &'a Value) -> Place<'a> {
        Place { value: Some(value), path: format!("{}[{index}]", self.path) }
    }

    /// Whether nothing stands there, or null.
    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none_or(Value::is_null)
    }

    pub(super) fn found(&self) -> String {
        let text = self.value.map_or_else(|| "nothing".to_owned(), Value::to_string);
        match text.char_indices().nth(80) {
            Some((cut, _)) => format!("{}...", &text[..cut]),
            None => text,
        }
    }
}

impl Reader {
    pub(super) fn problem(&mut self, path: &str, expected: impl Into<String>, found: impl Into<String>) {
        let path = if path.is_empty() { "(the whole document)" } else { path };
        self.problems.push(Problem { path: path.to_owned(), expected: expected.into(), found: found.into() });
    }

    /// What `convert` makes of the value; a problem when it makes nothing.
    pub(super) fn read<T>(
        &mut self,
        place: &Place<'_>,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let read = place.value.and_then(convert);
        if read.is_none() {
            self.problem(&place.path, expected, place.found());
        }
        read
    }

    /// The same, where nothing or null is fine.
    pub(super) fn optional<T>(
        &mut self,
        place: &Place<'_>,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        if place.is_absent() {
            return None;
        }
        self.read(place, expected, convert)
    }

    pub(super) fn number(&mut self, place: &Place<'_>, low: u64, high: u64) -> Option<u64> {
        self.read(place, &format!("a whole number from {low} to {high}"), |value| number(value, low, high))
    }

    /// An address as the tables keep it.
    pub(super) fn address(&mut self, place: &Place<'_>) -> Option<u128> {
        self.read(place, "an IPv4 or IPv6 unicast address", address)
    }

    pub(super) fn object(&mut self, place: &Place<'_>) -> bool {
        self.read(place, "an object", |value| value.is_object().then_some(())).is_some()
    }

    pub(super) fn list<'a>(&mut self, place: &Place<'a>) -> Vec<Place<'a>> {
        match place.value.and_then(Value::as_array) {
            Some(items) => items.iter().enumerate().map(|(index, value)| place.item(index, value)).collect(),
            None => {
                self.problem(&place.path, "a list", place.found());
                Vec::new()
            }
        }
    }
}

pub(super) fn number(value: &Value, low: u64, high: u64) -> Option<u64> {
    value.as_u64().filter(|number| (low..=high).contains(number))
}

pub(super) fn address(value: &Value) -> Option<u128> {
    let address: IpAddr = value.as_str()?.parse().ok()?;
    let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!address.is_unspecified() && !address.is_multicast() && !is_mapped).then(|| mapped(address))
}
