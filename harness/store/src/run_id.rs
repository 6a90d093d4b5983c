//! Run names.

use host::date::Date;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Name of a run: UTC date and time of its start and 32 random bits, `20250131-094500-1f2e3d4c`. Names sort by time and
/// are unique across machines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct RunId(String);

impl RunId {
    /// A new name for a run that starts at this time.
    pub fn new(begun_unix_ns: u64) -> Self {
        // The keys of a hash map are drawn from the system's random numbers.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(begun_unix_ns);
        hasher.write_u32(std::process::id());
        let random = hasher.finish() >> 32;
        Self(format!("{}-{random:08x}", Date::from_unix_ns(begun_unix_ns).compact()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunId {
    type Error = String;

    /// Only the characters of [`RunId::new`] are allowed, because the name becomes a directory name.
    fn try_from(name: String) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte) || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            return Err(format!("{name:?} is not a run name such as 20250131-094500-1f2e3d4c"));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_sort_by_time() {
        let earlier = RunId::new(1_763_904_602_000_000_000);
        let later = RunId::new(1_763_904_603_000_000_000);
        assert!(earlier < later);
        assert_ne!(earlier, RunId::new(1_763_904_602_000_000_000));
        assert!(earlier.as_str().starts_with("20251123-133002-"), "{earlier}");
        assert_eq!(RunId::try_from(earlier.to_string()).unwrap(), earlier);
    }

    #[test]
    fn other_text_is_no_name() {
        for text in ["", "..", "../x", "2025/1", "latest", "A"] {
            assert!(RunId::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
