//! JSON schemas made plain for llguidance, or refused in words before it sees them.
//!
//! What comes out has only keywords that are enforced, with values of the right kinds; its references lead to `$defs` that
//! are numbered; its objects are closed: to the standard an object with `properties` may have any others too. A small model
//! uses that freedom until its tokens are spent, so, as in llama.cpp, it has to be asked for with `additionalProperties`.
//! What is generated then is valid by the standard all the same.
//!
//! A keyword that cannot be enforced is an error that names it, unless it changes nothing about the answers that are allowed.
//! llguidance recurses through references and multiplies out what schemas have in common; both are counted before.

mod extent;
mod keywords;
mod references;
mod rewrite;

use serde_json::Value;
use thiserror::Error;

use super::limits::GRAMMAR_DEPTH_MAX;

/// Why a schema cannot be used; the text is printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// It is not a schema, or beyond a limit, which the text names.
    #[error("{0}")]
    Malformed(String),
    /// It asks for something that cannot be enforced; the text names the keyword.
    #[error("{0}")]
    Unusable(String),
}

/// The schema as llguidance is to have it: `true`, `false`, or an object with references into its own `$defs`.
///
/// # Errors
/// See [`SchemaError`].
pub fn plain(text: &str) -> Result<Value, SchemaError> {
    // It refuses more than 128 levels by itself, so the recursion below is safe.
    let schema: Value = serde_json::from_str(text).map_err(|error| {
        SchemaError::Malformed(format!("not JSON at line {} column {}", error.line(), error.column()))
    })?;
    if !schema.is_object() && !schema.is_boolean() {
        return Err(SchemaError::Malformed("a schema is an object, true or false".to_owned()));
    }
    if depth(&schema) > GRAMMAR_DEPTH_MAX {
        return Err(SchemaError::Malformed(format!("nested more than {GRAMMAR_DEPTH_MAX} deep")));
    }
    if schema.is_boolean() {
        return Ok(schema);
    }
    let definitions = rewrite::definitions(&schema)?;
    extent::check(&definitions)?;
    let named = definitions.into_iter().enumerate().map(|(number, schema)| (number.to_string(), schema)).collect();
    let root = [("$ref".to_owned(), Value::String(rewrite::reference(0))), ("$defs".to_owned(), Value::Object(named))];
    Ok(Value::Object(root.into_iter().collect()))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A word of the schema for an error: what is printable of its beginning.
fn shown(word: &str) -> String {
    const SHOWN_MAX: usize = 64;
    word.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The definitions of the plain schema.
    fn definitions(schema: &Value) -> Vec<Value> {
        let plain = plain(&schema.to_string()).unwrap_or_else(|error| panic!("{error}: {schema}"));
        assert_eq!(plain["$ref"], "#/$defs/0");
        plain["$defs"].as_object().unwrap().values().cloned().collect()
    }

    #[track_caller]
    fn becomes(schema: Value, expected: Value) {
        assert_eq!(definitions(&schema), expected.as_array().unwrap().as_slice(), "{schema}");
    }

    fn refusal(schema: Value) -> String {
        plain(&schema.to_string()).unwrap_err().to_string()
    }

    #[test]
    fn an_object_with_properties_is_closed_wherever_it_stands() {
        let object = json!({ "properties": { "a": { "type": "integer" } } });
        let shut = json!({ "properties": { "a": { "type": "integer" } }, "additionalProperties": false });
        becomes(object.clone(), json!([shut]));
        becomes(json!({ "items": object }), json!([{ "items": shut }]));
        becomes(json!({ "anyOf": [object, true] }), json!([{ "anyOf": [shut, {}] }]));
        becomes(json!({ "$ref": "#/$defs/x", "$defs": { "x": object } }), json!([{ "$ref": "#/$defs/1" }, shut]));
        becomes(json!({ "additionalProperties": object }), json!([{ "additionalProperties": shut }]));
    }

    #[test]
    fn a_property_may_have_the_name_of_a_keyword() {
        becomes(
            json!({ "properties": { "allOf": {}, "additionalProperties": { "properties": {} } } }),
            json!([{
                "properties": { "allOf": {}, "additionalProperties": { "properties": {}, "additionalProperties": false } },
                "additionalProperties": false
            }]),
        );
    }

    #[test]
    fn what_is_open_on_purpose_or_data_stays() {
        for schema in [
            json!({ "properties": {}, "additionalProperties": true }),
            json!({ "properties": {}, "patternProperties": { "^x": {} } }),
            json!({ "enum": [{ "properties": {} }] }),
            json!({ "type": "object" }),
        ] {
            let mut expected = schema.clone();
            if let Some(open) = expected.get_mut("additionalProperties") {
                *open = json!({});
            }
            becomes(schema, json!([expected]));
        }
        assert_eq!(plain("true"), Ok(json!(true)));
    }

    #[test]
    fn objects_that_are_combined_are_closed_together_and_others_by_themselves() {
        let a = json!({ "type": "object", "properties": { "x": {} } });
        let b = json!({ "type": "object", "properties": { "y": {} } });
        let shut = |schema: &Value, more: &[&str]| {
            let mut schema = schema.clone();
            for &name in more {
                schema["properties"][name] = json!(true);
            }
            schema["additionalProperties"] = json!(false);
            schema
        };
        let both = json!({ "allOf": [a, b], "properties": { "x": true, "y": true }, "additionalProperties": false });
        becomes(
            json!({ "properties": { "both": { "allOf": [a, b] }, "one": a } }),
            json!([{ "properties": { "both": both, "one": shut(&a, &[]) }, "additionalProperties": false }]),
        );
        // What is used in both ways is there twice.
        becomes(
            json!({ "$defs": { "a": a }, "prefixItems": [{ "$ref": "#/$defs/a" }, { "allOf": [{ "$ref": "#/$defs/a" }, b] }] }),
            json!([
                { "prefixItems": [{ "$ref": "#/$defs/1" }, {
                    "allOf": [{ "$ref": "#/$defs/2" }, b], "properties": { "x": true, "y": true }, "additionalProperties": false
                }] },
                shut(&a, &[]),
                a
            ]),
        );
        // Each choice is closed with what stands beside it.
        becomes(
            json!({ "properties": { "z": {} }, "anyOf": [a, b] }),
            json!([{ "properties": { "z": {} }, "anyOf": [shut(&a, &["z"]), shut(&b, &["z"])] }]),
        );
        // One that is open on purpose opens what it is combined with.
        let open = json!({ "properties": { "y": {} }, "additionalProperties": {} });
        becomes(json!({ "allOf": [a, open] }), json!([{ "allOf": [a, open] }]));
        // The only one is not combined with anything.
        becomes(json!({ "allOf": [a], "description": "x" }), json!([shut(&a, &[])]));
    }

    #[test]
    fn keywords_that_change_nothing_are_left_out() {
        for (keyword, value) in [
            ("uniqueItems", json!(false)),
            ("propertyNames", json!(true)),
            ("propertyNames", json!({ "type": "string", "description": "a name" })),
            ("propertyNames", json!({ "type": ["null", "string"] })),
            ("format", json!("int32")),
            ("$anchor", json!("here")),
            ("$id", json!("https://example.com/a.json")),
            ("$schema", json!("http://json-schema.org/draft-07/schema#")),
            ("title", json!(5)),
            ("x-guidance", json!({ "lenient": true })),
            ("not", json!(false)),
            ("if", json!({ "type": "string" })),
            ("then", json!({ "type": "string" })),
            ("minContains", json!(3)),
            ("dependentRequired", json!({})),
            ("dependentSchemas", json!({ "a": true })),
            ("dependencies", json!({ "a": [] })),
            ("unevaluatedItems", json!({})),
            ("additionalItems", json!(false)),
            ("nullable", json!(true)),
        ] {
            becomes(
                json!({ "type": ["array", "object", "string"], keyword: value }),
                json!([{ "type": ["array", "object", "string"] }]),
            );
        }
        // It says nothing about values of this type.
        becomes(json!({ "type": "object", "uniqueItems": true, "contains": {} }), json!([{ "type": "object" }]));
    }

    #[test]
    fn what_cannot_be_enforced_is_named() {
        for (keyword, value) in [
            ("uniqueItems", json!(true)),
            ("propertyNames", json!({ "pattern": "^a" })),
            ("not", json!({})),
            ("contains", json!({ "type": "string" })),
            ("dependentRequired", json!({ "a": ["b"] })),
            ("dependentSchemas", json!({ "a": { "required": ["b"] } })),
            ("dependencies", json!({ "a": ["b"] })),
            ("unevaluatedItems", json!(false)),
            ("unevaluatedProperties", json!({ "type": "string" })),
            ("$dynamicRef", json!("#node")),
            ("$recursiveRef", json!("#")),
        ] {
            let text = refusal(json!({ "items": { keyword: value } }));
            assert!(text.starts_with(&format!("'{keyword}' cannot be enforced")), "{text}");
        }
        let text = refusal(json!({ "if": {}, "then": { "type": "string" } }));
        assert!(text.starts_with("'if' cannot be enforced"), "{text}");
    }

    #[test]
    fn values_of_a_wrong_kind_are_refused_by_the_name_of_the_keyword() {
        for (keyword, value) in [
            ("pattern", json!(["\u{6f22}".repeat(60)])),
            ("type", json!("nothing")),
            ("type", json!([])),
            ("enum", json!([])),
            ("enum", json!("a")),
            ("properties", json!([])),
            ("required", json!("a")),
            ("required", json!([1])),
            ("minLength", json!(-1)),
            ("maxItems", json!(1.5)),
            ("minItems", json!(1e20)),
            ("minimum", json!("1")),
            ("multipleOf", json!(0)),
            ("format", json!(1)),
            ("anyOf", json!([])),
            ("allOf", json!({})),
            ("$ref", json!(1)),
        ] {
            let text = refusal(json!({ keyword: value }));
            assert!(text.starts_with(&format!("'{keyword}' ")) && text.is_ascii(), "{text}");
        }
        assert_eq!(refusal(json!({ "items": 1 })), "'items' must be a schema: an object, true or false");
    }

    #[test]
    fn references_resolve_by_pointer_anchor_and_id() {
        let found = json!({ "type": "boolean" });
        for reference in [
            "#/$defs/a~1b~0c",
            "#/%24defs/a~1b~0c",
            "#/$defs/a%7E1b~0c",
            "#there",
            "https://example.com/root.json#there",
            "root.json#/$defs/a~1b~0c",
            "/root.json#there",
        ] {
            let schema = json!({
                "$id": "https://example.com/root.json",
                "$ref": reference,
                "$defs": { "a/b~c": { "$anchor": "there", "type": "boolean" } }
            });
            becomes(schema, json!([{ "$ref": "#/$defs/1" }, found]));
        }
        // Inside of another resource `#` is its own beginning.
        let schema = json!({
            "$id": "https://example.com/root.json",
            "$ref": "inner/x.json",
            "$defs": { "inner": { "$id": "inner/x.json", "$ref": "#/$defs/y", "$defs": { "y": { "type": "boolean" } } } }
        });
        becomes(schema, json!([{ "$ref": "#/$defs/1" }, { "$ref": "#/$defs/2" }, found]));
        for reference in ["#/none", "#none", "file:///etc/passwd", "https://example.com/", "#/$defs/0"] {
            let text = refusal(json!({ "$ref": reference, "$defs": {} }));
            assert!(text.starts_with("'$ref' ") && text.contains(reference), "{text}");
        }
        assert!(refusal(json!({ "$ref": "#" })).starts_with("'$ref' leads back to itself"));
    }

    #[test]
    fn unevaluated_properties_are_what_closing_is_about() {
        let a = json!({ "properties": { "x": {} } });
        becomes(
            json!({ "allOf": [a], "properties": { "y": {} }, "unevaluatedProperties": false }),
            json!([{ "allOf": [a], "properties": { "y": {}, "x": true }, "additionalProperties": false }]),
        );
        becomes(json!({ "properties": {}, "unevaluatedProperties": true }), json!([{ "properties": {} }]));
        let text = refusal(json!({ "unevaluatedProperties": false, "anyOf": [a], "oneOf": [a, true] }));
        assert!(text.starts_with("'unevaluatedProperties' cannot be enforced"), "{text}");
    }

    #[test]
    fn what_is_multiplied_out_is_counted_before() {
        let references: Vec<Value> = (0..1400).map(|_| json!({ "anyOf": [{ "$ref": "#/$defs/a" }, true] })).collect();
        let properties: serde_json::Map<String, Value> = (0..1000).map(|i| (format!("p{i}"), json!({}))).collect();
        let combined = "what 'allOf', 'anyOf', 'oneOf' and '$ref' combine comes to more than 20000 schemas";
        let wide = json!({ "allOf": references, "properties": properties, "$defs": { "a": { "type": "object" } } });
        assert!(refusal(wide).ends_with("are combined more than 128 deep"));
        let choices = |n: usize| json!({ "anyOf": (0..n).map(|i| json!({ "const": i })).collect::<Vec<_>>() });
        assert_eq!(refusal(json!({ "allOf": [choices(30), choices(30), choices(30)] })), combined);
        assert!(plain(&json!({ "allOf": [choices(30), choices(30)] }).to_string()).is_ok());
        let circle = json!({
            "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/b" }],
            "$defs": {
                "a": { "properties": { "child": { "$ref": "#/$defs/a" } } },
                "b": { "properties": { "child": { "$ref": "#/$defs/b" } } },
            }
        });
        assert!(refusal(circle).contains("are combined more than 128 deep"));
    }

    #[test]
    fn limits_are_named() {
        let properties: serde_json::Map<String, Value> = (0..1025).map(|i| (format!("p{i}"), json!(true))).collect();
        assert_eq!(refusal(json!({ "properties": properties })), "an object has more than 1024 properties");
        let chain: serde_json::Map<String, Value> = (0..300)
            .map(|i| (format!("d{i}"), json!({ "items": { "$ref": format!("#/$defs/d{}", i + 1) } })))
            .collect();
        let text = refusal(json!({ "$ref": "#/$defs/d0", "$defs": chain }));
        assert!(text.starts_with("'$ref' "), "{text}");
        let chain: serde_json::Map<String, Value> = (0..300)
            .map(|i| (format!("d{i}"), json!({ "items": { "$ref": format!("#/$defs/d{}", (i + 1) % 300) } })))
            .collect();
        let text = refusal(json!({ "$ref": "#/$defs/d0", "$defs": chain }));
        assert_eq!(text, "schemas are nested more than 256 deep through '$ref'");
        let patterns: Vec<Value> = (0..600).map(|i| json!({ "pattern": format!("a{i}") })).collect();
        assert_eq!(
            refusal(json!({ "prefixItems": patterns })),
            "there are more than 512 values of 'pattern' and 'format'"
        );
        let named: serde_json::Map<String, Value> = (0..17).map(|i| (format!("^p{i}"), json!(true))).collect();
        assert_eq!(refusal(json!({ "patternProperties": named })), "an object has more than 16 'patternProperties'");
        let choices: Vec<Value> = (0..300).map(|i| json!({ "const": i })).collect();
        assert_eq!(refusal(json!({ "oneOf": choices })), "'oneOf' has more than 256 choices");
    }
}
