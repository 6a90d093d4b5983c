//! How values are written in YAML: texts with a pattern, durations, shares.

use std::borrow::Cow;

use domain::processor::MERGES;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A pattern that schemas use.
pub(super) struct Pattern {
    /// The regular expression in the schema.
    pub(super) text: &'static str,
    /// The same test in code, so that no engine for regular expressions is needed.
    pub(super) allows: fn(&str) -> bool,
    /// What it allows, for messages.
    pub(super) expected: &'static str,
}

/// Declares the schemas of texts, each with its pattern. Fields of structs are plain strings with
/// `#[schemars(with = "Name")]`; the schema is checked before a struct is read.
macro_rules! texts {
    ($($name:ident: $description:literal, $expected:literal, $pattern:literal, $allows:expr;)*) => {
        $(
            #[doc = $description]
            pub(super) enum $name {}

            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
                }
            }
        )*

        /// The patterns of all texts.
        pub(super) const PATTERNS: &[Pattern] =
            &[$(Pattern { text: $pattern, allows: $allows, expected: $expected }),*];
    };
}

/// The pattern of [`Name`], for the keys of mappings.
pub(super) const NAME: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$";

texts! {
    Name: "A name: at most 64 letters, digits, `_`, `.` and `-`; it must not start with `.` or `-`.",
        "a name (at most 64 letters, digits, \"_\", \".\" and \"-\"; must not start with \".\" or \"-\")",
        "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$", is_name;
    Used: "A processor by its name, or several sets of CPUs as one: their names in the order of the board, joined by `+`.",
        "the name of a processor (several are joined by \"+\")",
        r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(\+[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})*$",
        |text| text.split(MERGES).all(is_name);
    Text: "Any non-empty text without control characters.", "non-empty text without control characters",
        r"^[^\u0000-\u001f\u007f]+$", is_text;
    Sha256: "64 lower-case hexadecimal digits.", "a SHA-256 digest (64 lower-case hexadecimal digits)",
        "^[0-9a-f]{64}$",
        |text| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    Url: "A URL that starts with `http://` or `https://`.", "a URL that starts with http:// or https://",
        r"^https?://[^\s\u0000-\u001f\u007f]+$",
        |text| {
            let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
            rest.is_some_and(|rest| is_text(rest) && !rest.contains(char::is_whitespace))
        };
    HostPort: "A host, or a host and a port: `lab`, `lab:20408`, `[::1]:20408`.", "a host or host:port, such as lab:20408",
        r"^(\[[0-9A-Fa-f:.]+\]|[^:/\[\]\s\u0000-\u001f\u007f]+)(:[0-9]{1,5})?$",
        is_host_port;
    Glibc: "A version such as \"2.27\". Quote it, otherwise YAML reads a number.", "a version such as \"2.27\"",
        r"^[0-9]+\.[0-9]+$",
        |text| text.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor));
    Percent: "A percentage with its sign, such as `2%` or `0.5 %`.", "a percentage such as 2%",
        r"^[0-9]+(\.[0-9]+)? ?%$",
        |text| {
            let number = text.strip_suffix('%').unwrap_or("");
            let number = number.strip_suffix(' ').unwrap_or(number);
            number.split_once('.').map_or_else(|| digits(number), |(whole, rest)| digits(whole) && digits(rest))
        };
    OnnxRuntimePath: "An absolute path of ONNX Runtime's library, whose name has its version: `/…/libonnxruntime.so.1.20.1`.",
        "an absolute path to a file named libonnxruntime.so.VERSION, such as /usr/lib/libonnxruntime.so.1.20.1",
        r"^/([^\u0000-\u001f\u007f]*/)?libonnxruntime\.so(\.[0-9]+)+$",
        |text| {
            let version = text.rsplit('/').next().and_then(|file| file.strip_prefix("libonnxruntime.so."));
            text.starts_with('/') && is_text(text) && version.is_some_and(|version| version.split('.').all(digits))
        };
    CudaArchName: "A CUDA architecture such as `sm_62`.", "a CUDA architecture such as sm_62",
        "^sm_[0-9]+[a-z]?$",
        |text| {
            let rest = text.strip_prefix("sm_").unwrap_or("");
            digits(rest.strip_suffix(|last: char| last.is_ascii_lowercase()).unwrap_or(rest))
        };
}

/// Whether `text` can be the name of a board, network, experiment or processor.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-'])
}

/// Whether `text` is a host, or a host and a port.
pub(super) fn is_host_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => {
            let is_ipv6 = host.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte));
            (if is_ipv6 { host } else { "" }, port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let forbidden =
        |letter: char| letter.is_whitespace() || letter.is_ascii_control() || "/[]".contains(letter);
    let has_port = |port: &str| digits(port) && port.parse::<u16>().is_ok_and(|port| port != 0);
    !host.is_empty()
        && !host.contains(forbidden)
        && (port.is_empty() || port.strip_prefix(':').is_some_and(has_port))
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|letter| letter.is_ascii_control())
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The size of one dimension of a tensor.
pub(super) enum Extent {}

impl JsonSchema for Extent {
    fn schema_name() -> Cow<'static, str> {
        "Extent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer", "format": "uint64", "minimum": 1, "maximum": 1_000_000_000,
            "description": "The size of one dimension of a tensor."
        })
    }
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Auto {
    /// Chosen by the program.
    Auto,
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum All {
    /// All available ones.
    All,
}

/// The word `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Nothing {
    /// Off.
    None,
}

/// A percentage, or `none`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum PercentOrNone {
    /// Off.
    None(Nothing),
    /// A percentage.
    Percent(#[schemars(with = "Percent")] String),
}

/// A duration in seconds.
pub(super) mod seconds {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A duration in minutes.
pub(super) mod minutes {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64() / 60.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let minutes = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(60.0 * minutes).map_err(serde::de::Error::custom)
    }
}

/// A share of one, written as a percentage: 0.02 is `2%`.
pub(super) mod percent {
    use serde::{Deserialize as _, Deserializer};

    pub(crate) fn share<E: serde::de::Error>(text: &str) -> Result<f64, E> {
        let number = text.trim_end_matches('%').trim_end();
        Ok(number.parse::<f64>().map_err(E::custom)? / 100.0)
    }

    pub(super) fn text(share: f64) -> String {
        // Rounded, since 100 × 0.07 is not 7.
        format!("{}%", (share * 1e8).round() / 1e6)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        share(&String::deserialize(deserializer)?)
    }
}

/// An optional share of one, written as a percentage or `none`.
pub(super) mod percent_or_none {
    use super::{Nothing, PercentOrNone, percent};
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        let written = value
            .map_or(PercentOrNone::None(Nothing::None), |share| PercentOrNone::Percent(percent::text(share)));
        written.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        match PercentOrNone::deserialize(deserializer)? {
            PercentOrNone::None(_) => Ok(None),
            PercentOrNone::Percent(text) => percent::share(&text).map(Some),
        }
    }
}
