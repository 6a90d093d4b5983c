//! Messages of the dynamic loader.

use std::error::Error as _;

/// Why a library was not loaded, in the loader's words: it names the library, or the one that it needs.
pub(super) fn loader_message(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
