//! JSON Schemas of the files, made from the raw structs: files are checked against them, and editors use the same
//! ones from `configs/schema/`.

use std::sync::{Arc, LazyLock};

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use super::faults::Faults;
use super::raw;
use super::tree::{self, Node, Value};

/// The defaults as they are embedded, `configs/defaults.yaml`.
pub const DEFAULTS: &str = include_str!("../../../configs/defaults.yaml");
/// How faults call that file.
pub(super) const DEFAULTS_PATH: &str = "configs/defaults.yaml";

/// Every schema there is.
pub(super) struct Schemas {
    pub(super) board: Json,
    pub(super) network: Json,
    pub(super) experiment: Json,
    pub(super) defaults: Json,
    pub(super) stored: Json,
    pub(super) thresholds: Json,
    pub(super) group: Json,
}

/// They do not change while the program runs.
pub(super) static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::make);

impl Schemas {
    fn make() -> Self {
        let full = (of::<raw::Board>(), of::<raw::Experiment>());
        // Faults in the defaults are reported by whoever reads them; here they only lack their hints.
        let defaults = tree::parse(&Arc::from(DEFAULTS_PATH), DEFAULTS, &mut Faults::default());
        let board_defaults = defaults.as_ref().and_then(|tree| tree.get("board"));
        Self {
            board: with_defaults(full.0.clone(), &["board"], board_defaults),
            network: of::<raw::Network>(),
            experiment: with_defaults(full.1.clone(), &["experiment", "networks"], defaults.as_ref()),
            defaults: defaults_schema(full.1, full.0),
            stored: of::<raw::Stored>(),
            thresholds: of::<raw::Thresholds>(),
            group: of::<raw::Group>(),
        }
    }

    /// The committed ones: file name below `configs/schema/`, and contents.
    #[cfg(test)]
    pub(super) fn files(&self) -> [(&'static str, String); 6] {
        let text = |schema: &Json| format!("{schema:#}\n");
        [
            ("board.json", text(&self.board)),
            ("network.json", text(&self.network)),
            ("experiment.json", text(&self.experiment)),
            ("defaults.json", text(&self.defaults)),
            ("thresholds.json", text(&self.thresholds)),
            ("group.json", text(&self.group)),
        ]
    }
}

fn of<T: JsonSchema>() -> Json {
    SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

/// What a user's file may look like: only `required` must be there, and settings within it may be partial.
fn with_defaults(mut schema: Json, required: &[&str], defaults: Option<&Node>) -> Json {
    schema["required"] = json!(required);
    let names: Vec<String> = properties(&schema).keys().cloned().collect();
    for name in names {
        let value = defaults.and_then(|tree| tree.get(&name));
        let group = schema["properties"][&name]["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix("#/$defs/"))
            .map(str::to_owned)
            .filter(|group| schema["$defs"][group]["properties"].is_object());
        match (group, value) {
            (Some(group), Some(value)) => {
                let group = &mut schema["$defs"][group];
                if let Some(group) = group.as_object_mut() {
                    group.remove("required");
                }
                for entry in value.entries() {
                    group["properties"][&entry.key]["default"] = plain(&entry.value);
                }
            }
            (None, Some(value)) => schema["properties"][&name]["default"] = plain(value),
            (_, None) => {}
        }
    }
    schema
}

/// The defaults hold every setting of an experiment and, below `board`, every one of a board that has a default.
fn defaults_schema(mut experiment: Json, board: Json) -> Json {
    let mut board = without(board, &["board", "target"]);
    let board_definitions = board.as_object_mut().and_then(|board| board.remove("$defs"));
    if let Some(board) = board.as_object_mut() {
        board.remove("$schema");
        board.insert("description".to_owned(), json!("What a board's file may leave out."));
    }
    experiment = without(experiment, &["experiment", "networks"]);
    experiment["title"] = json!("Defaults");
    experiment["description"] = json!("Every setting with its default.");
    experiment["properties"]["board"] = board;
    if let Some(required) = experiment["required"].as_array_mut() {
        required.push(json!("board"));
    }
    if let (Some(all), Some(Json::Object(more))) = (experiment["$defs"].as_object_mut(), board_definitions) {
        all.extend(more);
    }
    experiment
}

fn without(mut schema: Json, names: &[&str]) -> Json {
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.retain(|name, _| !names.contains(&name.as_str()));
    }
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|name| !name.as_str().is_some_and(|name| names.contains(&name)));
    }
    schema
}

/// The properties of a schema; an empty map where it has none.
pub(super) fn properties(schema: &Json) -> &Map<String, Json> {
    static NONE: LazyLock<Map<String, Json>> = LazyLock::new(Map::new);
    schema["properties"].as_object().unwrap_or(&NONE)
}

fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Integer(value) => {
            i64::try_from(*value).map_or_else(|_| json!(value.to_string()), |v| json!(v))
        }
        Value::Float(value) => json!(value),
        Value::Text(value) => json!(value),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), plain(&entry.value))).collect::<Map<_, _>>().into()
        }
    }
}

/// A pattern that schemas use: its text, the test it stands for, and what to call what it allows.
pub(super) struct Pattern {
    pub(super) text: &'static str,
    pub(super) allows: fn(&str) -> bool,
    pub(super) called: &'static str,
}

/// All of them; small enough to need no engine for regular expressions.
pub(super) const PATTERNS: [Pattern; 7] = [
    Pattern {
        text: raw::NAME,
        allows: is_name,
        called: "a name (at most 64 letters, digits, \"_\", \".\" and \"-\", not beginning with \".\" or \"-\")",
    },
    Pattern { text: raw::TEXT, allows: is_text, called: "text without control characters" },
    Pattern {
        text: raw::SHA256,
        allows: |text| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
        called: "a SHA-256 sum (64 hexadecimal digits in lower case)",
    },
    Pattern {
        text: raw::URL,
        allows: |text| {
            let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
            rest.is_some_and(|rest| is_text(rest) && !rest.contains(char::is_whitespace))
        },
        called: "an address beginning with http:// or https://",
    },
    Pattern {
        text: raw::GLIBC,
        allows: |text| {
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            text.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor))
        },
        called: "a version such as \"2.27\"",
    },
    Pattern {
        text: raw::PERCENT,
        allows: |text| {
            let number = text.strip_suffix('%').unwrap_or("");
            let number = number.strip_suffix(' ').unwrap_or(number);
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            match number.split_once('.') {
                Some((whole, rest)) => digits(whole) && digits(rest),
                None => digits(number),
            }
        },
        called: "a share such as 2%",
    },
    Pattern {
        text: raw::CUDA_ARCH,
        allows: |text| {
            let rest = text.strip_prefix("sm_").unwrap_or("");
            let digits = rest.strip_suffix(|last: char| last.is_ascii_lowercase()).unwrap_or(rest);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        },
        called: "a CUDA architecture such as sm_62",
    },
];

/// Whether `text` may be the name of a board, network, experiment or processor: see [`raw::NAME`].
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-'])
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|letter| letter.is_ascii_control())
}
