//! JSON Schemas made from the structs of the files. Files are checked against them, and editors use the same ones from
//! `configs/schema/`.

use std::sync::{Arc, LazyLock};

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use super::faults::Faults;
use super::tree::{self, Node, Value};

/// The embedded defaults, `configs/defaults.yaml`.
pub const DEFAULTS: &str = include_str!("../../../configs/defaults.yaml");
/// The name of that file in faults.
pub(super) const DEFAULTS_PATH: &str = "configs/defaults.yaml";

/// The embedded defaults, not yet checked.
pub(super) static DEFAULTS_TREE: LazyLock<Result<Node, Faults>> = LazyLock::new(|| {
    let mut faults = Faults::default();
    let tree = tree::parse(&Arc::from(DEFAULTS_PATH), DEFAULTS, &mut faults);
    faults.into_result(tree)
});

/// The schema of a struct.
pub(super) fn of<T: JsonSchema>() -> Json {
    SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

/// The schema of a user's file: only the keys in `required` are required, and all others have `defaults`.
pub(super) fn of_partial<T: JsonSchema>(required: &[&str], defaults: Option<&Node>) -> Json {
    let mut schema = of::<T>();
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

/// The properties of a schema; an empty map if it has none.
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
