//! What can be wrong with a tap file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A tap file could not be made or read; the message names the file or the field, and what was expected.
#[derive(Debug)]
pub enum TapError {
    /// The file system refused.
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done to it.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A field of the header does not hold what it must.
    Field {
        /// The field's name in records.toml.
        field: &'static str,
        /// What it must hold.
        expected: String,
        /// What it holds.
        found: String,
    },
}

impl TapError {
    pub(crate) fn io<'a>(path: &'a Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { path: path.to_owned(), doing, source }
    }

    pub(crate) fn field(field: &'static str, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::Field { field, expected: expected.to_string(), found: found.to_string() }
    }
}

impl fmt::Display for TapError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, doing, source } => write!(out, "{}: cannot {doing}: {source}", path.display()),
            Self::Field { field, expected, found } => write!(out, "tap {field}: expected {expected}, found {found}"),
        }
    }
}

impl std::error::Error for TapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Field { .. } => None,
        }
    }
}
