//! The words of a sub-command: `--name value`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use crate::Failure;

pub(crate) struct Words(BTreeMap<String, String>);

impl Words {
    /// Read pairs of name and value. A word that starts no pair is an error.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut found = BTreeMap::new();
        while let Some(name) = words.next() {
            if !name.starts_with("--") {
                return Err(format!("unexpected word {name}").into());
            }
            let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
            found.insert(name, value);
        }
        Ok(Self(found))
    }

    /// Refuse names that `usage` does not know.
    pub(crate) fn check(&self, usage: &str) -> Result<(), Failure> {
        let known = |name: &String| usage.split([' ', '[', ']', '\n']).any(|word| word == name);
        match self.0.keys().find(|name| !known(name)) {
            Some(name) => Err(format!("unknown word {name}").into()),
            None => Ok(()),
        }
    }

    pub(crate) fn maybe(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, Failure> {
        self.maybe(name).ok_or_else(|| format!("{name} is missing").into())
    }

    pub(crate) fn value<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, Failure> {
        let text = self.text(name)?;
        text.parse().map_err(|error| format!("{name} {text}: {error}").into())
    }

    pub(crate) fn value_or<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T, Failure> {
        if self.maybe(name).is_some() {
            self.value(name)
        } else {
            Ok(default)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Words, Failure> {
        Words::read(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn pairs_are_read_and_the_rest_is_refused() {
        let words = read("--flows 8 --to x").unwrap();
        assert_eq!(words.value::<u32>("--flows").unwrap(), 8);
        assert_eq!(words.value_or("--bytes", 64).unwrap(), 64);
        assert!(words.value::<u32>("--to").is_err() && words.text("--none").is_err());
        assert!(words.check("x --flows N [--to MAC]").is_ok());
        assert!(words.check("x --flows N").is_err());
        assert!(read("flows 8").is_err() && read("--flows").is_err());
    }
}
