//! JSON schemas as a model should read them: an object has the properties that are written down.
//!
//! To the standard an object with `properties` may have any others too. A small model uses that freedom until its tokens
//! are spent, so, as in llama.cpp, it has to be asked for with `additionalProperties`. What is generated then is valid by
//! the standard all the same.

use serde_json::{Map, Value};

/// Keywords that say something about the same value from several places. Where two of them meet, or one is `allOf`, no
/// object can be closed by looking at it alone.
const COMBINING: [&str; 6] = ["properties", "$ref", "allOf", "anyOf", "oneOf", "if"];

/// Keywords that say themselves what else an object may have.
const OPENING: [&str; 3] = ["additionalProperties", "unevaluatedProperties", "patternProperties"];

/// Adds `"additionalProperties": false` to every object that lists its properties and does not say what else it may have.
/// A schema that combines others is left as it is.
pub fn close_objects(schema: &mut Value) {
    if !combines(schema) {
        close(schema);
    }
}

fn combines(schema: &Value) -> bool {
    let Some(members) = schema.as_object() else { return false };
    members.contains_key("allOf")
        || COMBINING.into_iter().filter(|&keyword| members.contains_key(keyword)).count() > 1
        || members.iter().any(|(keyword, value)| match Holds::of(keyword) {
            Holds::Schemas => children(value).any(combines),
            Holds::Named => value.as_object().is_some_and(|named| named.values().any(combines)),
            Holds::Data => false,
        })
}

fn close(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    for (keyword, value) in members.iter_mut() {
        match Holds::of(keyword) {
            Holds::Schemas => match value {
                Value::Array(schemas) => schemas.iter_mut().for_each(close),
                schema => close(schema),
            },
            Holds::Named => {
                value.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(close);
            }
            Holds::Data => {}
        }
    }
    if members.contains_key("properties") && !OPENING.into_iter().any(|keyword| members.contains_key(keyword)) {
        members.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

fn children(value: &Value) -> impl Iterator<Item = &Value> {
    let (one, many) = match value {
        Value::Array(schemas) => (None, schemas.as_slice()),
        schema => (Some(schema), &[][..]),
    };
    one.into_iter().chain(many)
}

/// What the value of a keyword is.
enum Holds {
    /// A schema or an array of schemas.
    Schemas,
    /// An object whose values are schemas.
    Named,
    /// Anything else, such as the values of `enum`.
    Data,
}

impl Holds {
    fn of(keyword: &str) -> Self {
        match keyword {
            "items"
            | "prefixItems"
            | "additionalItems"
            | "contains"
            | "additionalProperties"
            | "anyOf"
            | "oneOf"
            | "allOf"
            | "not"
            | "if"
            | "then"
            | "else" => Self::Schemas,
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => Self::Named,
            _ => Self::Data,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn closed(mut schema: Value) -> Value {
        close_objects(&mut schema);
        schema
    }

    #[test]
    fn an_object_with_properties_is_closed_wherever_it_stands() {
        let object = json!({ "properties": { "a": { "type": "integer" } } });
        let shut = json!({ "properties": { "a": { "type": "integer" } }, "additionalProperties": false });
        for (schema, expected) in [
            (object.clone(), shut.clone()),
            (json!({ "items": object }), json!({ "items": shut })),
            (json!({ "anyOf": [object, true] }), json!({ "anyOf": [shut, true] })),
            (
                json!({ "$ref": "#/$defs/x", "$defs": { "x": object } }),
                json!({ "$ref": "#/$defs/x", "$defs": { "x": shut } }),
            ),
            (json!({ "additionalProperties": object }), json!({ "additionalProperties": shut })),
        ] {
            assert_eq!(closed(schema), expected);
        }
    }

    #[test]
    fn a_property_may_have_the_name_of_a_keyword() {
        let schema = json!({ "properties": { "allOf": {}, "additionalProperties": { "properties": {} } } });
        let shut = json!({ "properties": {}, "additionalProperties": false });
        let expected =
            json!({ "properties": { "allOf": {}, "additionalProperties": shut }, "additionalProperties": false });
        assert_eq!(closed(schema), expected);
    }

    #[test]
    fn what_is_open_on_purpose_combined_or_data_stays() {
        for schema in [
            json!({ "properties": {}, "additionalProperties": true }),
            json!({ "properties": {}, "patternProperties": { "^x": {} } }),
            json!({ "allOf": [{ "properties": {} }, { "properties": {} }] }),
            json!({ "properties": { "a": {} }, "oneOf": [{ "required": ["a"] }] }),
            json!({ "items": { "properties": {}, "$ref": "#/$defs/x" }, "$defs": { "x": { "properties": {} } } }),
            json!({ "enum": [{ "properties": {} }] }),
            json!({ "type": "object" }),
            json!(true),
        ] {
            assert_eq!(closed(schema.clone()), schema);
        }
    }
}
