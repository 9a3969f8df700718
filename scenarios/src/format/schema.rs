//! The JSON Schema (draft 2020-12) of scenario files, out of the description that the decoder reads by.

use super::{
    decode,
    shape::{Ends, Keys, Table, Variant},
};
use serde_json::{Map, Value as Json, json};

/// The schema of a scenario file, with `revision` in its comment.
#[must_use]
pub fn schema(revision: &str) -> Json {
    let mut schema = table(&decode::SCENARIO);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["$id"] = "urn:worldline:scenario".into();
    schema["$comment"] = format!("worldline schema, revision {revision}").into();
    schema["title"] = "A scenario of Worldline".into();
    schema["description"] =
        "A world, what its players do, what goes wrong and when, and which budgets must be kept.".into();
    schema
}

/// The schema of a table.
pub(super) fn table(table: &Table) -> Json {
    let mut schema = of_keys(table.keys.iter().copied().map(|key| (key.name(), key.is_required(), key.schema())));
    let mut rules = (table.rules)();
    for variants in table.variants {
        // Every key of every kind, so that an editor can offer it; which of them are right, each kind says.
        for key in variants.all().flat_map(|variant| variant.keys) {
            let properties = schema["properties"].as_object_mut().expect("of_keys makes one");
            properties.entry(key.name()).or_insert_with(|| json!({}));
        }
        let words: Vec<_> =
            variants.all().map(|kind| json!({ "const": kind.name, "description": kind.about })).collect();
        schema["properties"]["kind"]["enum"] = variants.all().map(|kind| kind.name).collect::<Vec<_>>().into();
        schema["properties"]["kind"]["oneOf"] = words.into();
        rules.extend(variants.all().map(|kind| variant(table.keys, kind)));
    }
    if !rules.is_empty() {
        schema["allOf"] = rules.into();
    }
    schema
}

/// What holds where a table is of this kind.
fn variant(common: Keys, kind: &Variant) -> Json {
    let mut then = of_keys(kind.keys.iter().copied().map(|key| (key.name(), key.is_required(), key.schema())));
    for key in common.iter().filter(|key| kind.ends == Ends::Later || !super::kinds::ENDS.contains(&key.name())) {
        then["properties"][key.name()] = true.into();
    }
    json!({
        "if": { "properties": { "kind": { "const": kind.name } }, "required": ["kind"] },
        "then": then,
    })
}

fn of_keys(keys: impl Iterator<Item = (&'static str, bool, Json)>) -> Json {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, must, schema) in keys {
        properties.insert(name.into(), schema);
        if must {
            required.push(Json::from(name));
        }
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}
