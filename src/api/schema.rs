//! Schemas that a derive cannot say, and the printed CRD.

use kube::CustomResourceExt;
use schemars::{JsonSchema as _, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::source::ARGUMENTS_MAX;
use super::spec::{
    AMOUNT_MAX, FREE_FORM_PROPERTIES_MAX, LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, LABELS_MAX, PersistedCollection, RESOURCES_MAX,
    Workers,
};

/// The CRDs as YAML, ready for `kubectl apply -f`.
///
/// # Panics
/// Never: the types are fixed, and a test prints them.
pub fn crds() -> String {
    let mut crd = serde_json::to_value(PersistedCollection::crd()).expect("a CRD is JSON");
    tidy(&mut crd);
    let yaml = serde_yaml::to_string(&crd).expect("JSON is YAML");
    format!("# Generated from src/api by `make generate`; do not edit.\n{yaml}")
}

/// Any JSON object. What is in it is kept, not pruned.
pub(super) fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": FREE_FORM_PROPERTIES_MAX,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// A list of any JSON values.
pub(super) fn any_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": ARGUMENTS_MAX,
        "items": { "x-kubernetes-preserve-unknown-fields": true },
        "x-kubernetes-list-type": "atomic",
    })
}

/// Amounts of resources by name.
pub(super) fn amounts(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = amounts_of_any_name(generator);
    schema.insert(
        "x-kubernetes-validations".to_owned(),
        serde_json::json!([{
            "rule": "self.all(name, name.matches('^[A-Za-z0-9_][A-Za-z0-9_./:-]{0,62}$'))",
            "message": "must have names of resources as keys, for example GPU: letters, digits and any of _./:-, at most 63",
        }]),
    );
    schema
}

/// Amounts of resources; the names are left to `validate`.
pub(super) fn amounts_of_any_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": RESOURCES_MAX,
        "additionalProperties": { "type": "number", "minimum": 0, "maximum": AMOUNT_MAX },
    })
}

/// Labels that must match.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": LABELS_MAX,
        "additionalProperties": { "type": "string", "maxLength": 63 },
        "x-kubernetes-validations": [{
            "rule": "self.all(key, key.size() <= 317 && key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$') && self[key].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))",
            "message": "must be labels such as {disk: nvme}: letters, digits and any of _.- in key and value, with a letter or digit at both ends",
        }],
    })
}

/// A selector of workers without rules, which would cost too much where there are many: patterns, and `validate`.
pub(super) fn workers_of_many(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Value::from(Workers::json_schema(generator));
    drop_rules(&mut schema);
    for (path, pattern) in [
        ("/properties/matchLabels/additionalProperties", LABEL_VALUE_PATTERN),
        ("/properties/matchExpressions/items/properties/key", LABEL_KEY_PATTERN),
    ] {
        let text = schema.pointer_mut(path).expect("the schema of a selector");
        text["pattern"] = pattern.into();
    }
    schema.try_into().expect("an object is a schema")
}

fn drop_rules(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("x-kubernetes-validations");
            map.values_mut().for_each(drop_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_rules),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Takes out what schemars says and Kubernetes has no use for.
///
/// `nullable`: an absent field and null are the same to us. `title` repeats the kind. Descriptions are one paragraph, which
/// `kubectl explain` wraps by itself. Whole numbers are written without a fraction.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, inner| match (name.as_str(), &*inner) {
                ("nullable", Value::Bool(_)) => false,
                ("title", Value::String(_)) => false,
                ("format", Value::String(format)) => format != "double",
                _ => true,
            });
            if let Some(Value::Array(values)) = map.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            if let Some(Value::String(description)) = map.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|n| number.is_f64() && n.fract() == 0.0 && n.abs() < 1e15) {
                *value = Value::from(whole as i64);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::crds;

    /// Where the printed CRD is committed, for `kubectl apply` and for the chart: `make generate` writes both.
    const FILES: [&str; 2] = [
        concat!(env!("CARGO_MANIFEST_DIR"), "/crds/persistedcollections.mainstay.dev.yaml"),
        concat!(env!("CARGO_MANIFEST_DIR"), "/charts/mainstay/files/persistedcollections.mainstay.dev.yaml"),
    ];

    #[test]
    fn the_crd_is_small_enough_for_a_plain_apply() {
        let yaml = crds();
        assert!(yaml.len() < 64 * 1024, "{} bytes", yaml.len());
    }

    #[test]
    fn the_committed_crd_is_the_one_that_is_printed() {
        for file in FILES {
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(file, crds()).unwrap();
            }
            let committed = std::fs::read_to_string(file).unwrap_or_default();
            assert!(committed == crds(), "{file} is out of date: run `make generate`");
        }
    }
}
