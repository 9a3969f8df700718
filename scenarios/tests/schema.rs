//! `worldline schema` says what the decoder does: whatever the decoder accepts, it accepts; what the decoder refuses for its
//! shape alone, it refuses.

mod cases;
mod tool;

use cases::{CASES, GOOD};
use jsonschema::Validator;
use serde_json::{Map, Number, Value as Json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};
use worldline_scenarios::format;

/// As an editor hands it to a validator. `None` for what is no TOML.
fn json(text: &str) -> Option<Json> {
    DeTable::parse(text).ok().map(|document| table(document.get_ref()))
}

fn table(table: &DeTable<'_>) -> Json {
    table
        .iter()
        .map(|(key, value)| (key.get_ref().to_string(), value_of(value.get_ref())))
        .collect::<Map<_, _>>()
        .into()
}

fn value_of(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
            .map_or_else(|_| Number::from_f64(n.as_str().parse().unwrap_or(f64::MAX)).into(), Json::from),
        DeValue::Float(n) => n.as_str().parse::<f64>().ok().and_then(Number::from_f64).into(),
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(when) => [("datetime".to_owned(), Json::from(when.to_string()))].into_iter().collect(),
        DeValue::Array(list) => list.iter().map(|value| value_of(value.get_ref())).collect(),
        DeValue::Table(inner) => table(inner),
    }
}

fn validator() -> Validator {
    let printed = tool::worldline(&["schema"]);
    assert_eq!((printed.code, printed.errors.as_str()), (0, ""));
    let schema: Json = serde_json::from_str(&printed.output).expect("JSON");
    assert!(jsonschema::meta::is_valid(&schema), "a schema by the standard's own");
    jsonschema::draft202012::new(&schema).expect("a schema")
}

fn files() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["catalogue", "tests/storms"].map(|folder| fs::read_dir(here.join(folder)).expect("here"));
    let mut files: Vec<_> = folders.into_iter().flatten().map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(files.len() >= 16, "{files:?}");
    files
}

fn refusals(validator: &Validator, document: &Json) -> Vec<String> {
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The contract between the two.
fn agree(validator: &Validator, text: &str, what: &str) {
    let Some(document) = json(text) else { return };
    match format::parse("file", text) {
        Ok(_) => assert_eq!(refusals(validator, &document), Vec::<String>::new(), "{what}"),
        Err(problems) if problems.has_wrong_shape() => {
            assert!(!validator.is_valid(&document), "{what}: accepted by the schema\n{problems}");
        }
        Err(_) => {}
    }
}

#[test]
fn every_scenario_of_ours_is_valid() {
    let validator = validator();
    for file in files() {
        let document = json(&fs::read_to_string(&file).expect("a text")).expect("TOML");
        assert_eq!(refusals(&validator, &document), Vec::<String>::new(), "{}", file.display());
    }
}

#[test]
fn every_wrong_line_that_is_wrong_in_its_shape_is_refused() {
    let validator = validator();
    for (line, wrong, _) in CASES {
        let mut lines: Vec<&str> = GOOD.lines().collect();
        lines[line - 1] = wrong;
        agree(&validator, &lines.join("\n"), wrong);
    }
}

#[test]
fn where_a_line_is_gone_or_misspelt_or_of_another_type_both_agree() {
    let validator = validator();
    let mut seen = BTreeSet::new();
    for file in files() {
        let text = fs::read_to_string(&file).expect("a text");
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((key, _)) = line.split_once(" = ") else { continue };
            if line.ends_with('[') || !seen.insert((*line).to_owned()) {
                continue;
            }
            let others = ["1", "1.5", "true", "\"x\"", "\"5s\"", "[]", "{}"].map(|value| format!("{key} = {value}"));
            let misspelt = [String::new(), format!("{line}\n{key}x = 1"), line.replacen(key, &format!("{key}s"), 1)];
            for changed in others.iter().chain(&misspelt) {
                let mut lines = lines.clone();
                lines[at] = changed;
                agree(&validator, &lines.join("\n"), &format!("{}: {changed}", file.display()));
            }
        }
    }
    assert!(seen.len() > 60, "{}", seen.len());
}

#[test]
fn every_key_tells_what_it_is_for() {
    fn walk(schema: &Json, path: &str) {
        for (key, below) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            if *below != Json::Bool(true) && *below != Json::Object(Map::new()) {
                let about = below["description"].as_str().unwrap_or_default();
                assert!(about.ends_with('.'), "{path}: {about:?}");
                walk(below, &path);
                walk(&below["items"], &path);
            }
        }
        schema["allOf"].as_array().into_iter().flatten().for_each(|rule| walk(&rule["then"], path));
    }
    walk(&format::schema("x"), "");
}
