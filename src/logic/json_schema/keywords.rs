//! Keywords of JSON schemas: which are enforced, which change nothing, and of what kind their values must be.

use serde_json::{Map, Value};

use super::{SchemaError, shown};
use crate::logic::limits::JSON_COUNT_MAX;

/// What the value of a keyword is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A schema.
    Schema,
    /// An array of schemas.
    Schemas,
    /// A schema, or, in old drafts, an array of them.
    Either,
    /// An object whose values are schemas.
    Named,
    /// Anything else, such as the values of `enum`.
    Data,
}

impl Holds {
    pub(super) fn of(keyword: &str) -> Self {
        match keyword {
            "additionalProperties"
            | "additionalItems"
            | "contains"
            | "contentSchema"
            | "not"
            | "if"
            | "then"
            | "else"
            | "propertyNames"
            | "unevaluatedItems"
            | "unevaluatedProperties" => Self::Schema,
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => Self::Schemas,
            "items" => Self::Either,
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" | "dependencies" => {
                Self::Named
            }
            _ => Self::Data,
        }
    }

    /// The schemas in the value of such a keyword.
    pub(super) fn schemas<'a>(self, value: &'a Value) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
        match (self, value) {
            (Self::Schema | Self::Either, Value::Object(_) | Value::Bool(_)) => Box::new(std::iter::once(value)),
            (Self::Schemas | Self::Either, Value::Array(schemas)) => Box::new(schemas.iter()),
            (Self::Named, Value::Object(named)) => Box::new(named.values()),
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// Keywords that llguidance enforces.
const ENFORCED: [&str; 27] = [
    "$ref",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "required",
    "type",
];

/// Keywords that it does not, each with the type of the values that it says something about, if it is only one.
const NOT_ENFORCED: [(&str, Option<&str>); 15] = [
    ("$dynamicRef", None),
    ("$recursiveRef", None),
    ("contains", Some("array")),
    ("dependencies", Some("object")),
    ("dependentRequired", Some("object")),
    ("dependentSchemas", Some("object")),
    ("else", None),
    ("if", None),
    ("not", None),
    ("propertyNames", Some("object")),
    ("then", None),
    ("unevaluatedItems", Some("array")),
    ("unevaluatedProperties", Some("object")),
    ("uniqueItems", Some("array")),
    ("disallow", None),
];

/// Formats that llguidance knows; any other one is an annotation, as the standard says.
const FORMATS: [&str; 10] =
    ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"];

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// The keywords of a schema that say something about the answer and are enforced, in their order, their values checked.
/// `unevaluatedProperties` is among them, for [`super::rewrite`] to settle.
pub(super) fn enforced(members: &Map<String, Value>) -> Result<Vec<(&str, &Value)>, SchemaError> {
    let mut kept = Vec::new();
    for (keyword, value) in members {
        if ENFORCED.contains(&keyword.as_str()) {
            check(keyword, value)?;
            if says_something(keyword, value, members) {
                kept.push((keyword.as_str(), value));
            }
        } else if let Some(&(_, about)) = NOT_ENFORCED.iter().find(|(name, _)| name == keyword) {
            let applies = about.is_none_or(|about| may_be(members, about));
            if keyword == "unevaluatedProperties" && applies {
                kept.push((keyword.as_str(), value));
            } else if applies && !changes_nothing(keyword, value, members) {
                return Err(not_enforced(keyword));
            }
        }
    }
    Ok(kept)
}

pub(super) fn not_enforced(keyword: &str) -> SchemaError {
    SchemaError::Unusable(format!("'{keyword}' cannot be enforced; leave it out, or say it in another way"))
}

/// Whether a schema allows every value.
pub(super) fn allows_all(schema: &Value) -> bool {
    match schema {
        Value::Bool(all) => *all,
        Value::Object(members) => members.keys().all(|keyword| {
            !ENFORCED.contains(&keyword.as_str()) && !NOT_ENFORCED.iter().any(|(name, _)| name == keyword)
        }),
        _ => false,
    }
}

/// Whether values of a type come into question, by `type` beside the keyword.
fn may_be(members: &Map<String, Value>, kind: &str) -> bool {
    match members.get("type") {
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(kinds)) => kinds.iter().any(|only| only == kind),
        _ => true,
    }
}

fn says_something(keyword: &str, value: &Value, members: &Map<String, Value>) -> bool {
    match keyword {
        "format" => value.as_str().is_some_and(|format| FORMATS.contains(&format)),
        // No answer is as long.
        "maxLength" | "maxItems" | "maxProperties" => count(value).is_some_and(|most| most <= JSON_COUNT_MAX),
        "additionalItems" => members.get("items").is_some_and(Value::is_array),
        _ => true,
    }
}

fn changes_nothing(keyword: &str, value: &Value, members: &Map<String, Value>) -> bool {
    let allow_all = |keywords: &[&str]| keywords.iter().filter_map(|&keyword| members.get(keyword)).all(allows_all);
    match keyword {
        "uniqueItems" => {
            value == &Value::Bool(false) || members.get("maxItems").and_then(count).is_some_and(|most| most <= 1)
        }
        "propertyNames" => allows_all(value) || is_any_string(value),
        "not" => value == &Value::Bool(false),
        "if" => allow_all(&["then", "else"]),
        "then" | "else" => !members.contains_key("if") || allow_all(&[keyword]),
        "contains" => members.get("minContains").and_then(count) == Some(0) && !members.contains_key("maxContains"),
        "dependentRequired" | "dependentSchemas" | "dependencies" => value.as_object().is_some_and(|named| {
            named.values().all(|one| allows_all(one) || one.as_array().is_some_and(Vec::is_empty))
        }),
        "unevaluatedItems" => allows_all(value),
        _ => false,
    }
}

/// Whether a schema for names says no more than that they are strings.
fn is_any_string(schema: &Value) -> bool {
    let Some(members) = schema.as_object() else { return false };
    let mut rest = members.clone();
    let kinds = rest.remove("type");
    let string = match &kinds {
        Some(Value::String(only)) => only == "string",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        _ => false,
    };
    string && allows_all(&Value::Object(rest))
}

/// A count, also when it is written as 2.0.
pub(super) fn count(value: &Value) -> Option<u64> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..=u32::MAX.into()).contains(number);
    // Whole and in range, so nothing is cut off.
    value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64))
}

fn check(keyword: &str, value: &Value) -> Result<(), SchemaError> {
    let is_string = Value::is_string;
    let (right, what) = match keyword {
        "$ref" | "format" | "pattern" => (is_string(value), "a string"),
        "type" => {
            let known = |value: &Value| value.as_str().is_some_and(|kind| TYPES.contains(&kind));
            let several = |kinds: &Vec<Value>| !kinds.is_empty() && kinds.iter().all(known);
            let types = "'array', 'boolean', 'integer', 'null', 'number', 'object', 'string', or an array of them";
            (known(value) || value.as_array().is_some_and(several), types)
        }
        "enum" => (value.as_array().is_some_and(|values| !values.is_empty()), "an array that is not empty"),
        "required" => (value.as_array().is_some_and(|names| names.iter().all(is_string)), "an array of strings"),
        "allOf" | "anyOf" | "oneOf" => {
            (value.as_array().is_some_and(|schemas| !schemas.is_empty()), "an array of schemas that is not empty")
        }
        "prefixItems" => (value.is_array(), "an array of schemas"),
        "properties" | "patternProperties" => (value.is_object(), "an object whose values are schemas"),
        "minItems" | "minLength" | "minProperties" => {
            if count(value).is_some_and(|least| least > JSON_COUNT_MAX) {
                return Err(SchemaError::Malformed(format!("'{keyword}' is more than {JSON_COUNT_MAX}")));
            }
            (count(value).is_some(), "a whole number from 0")
        }
        "maxItems" | "maxLength" | "maxProperties" => {
            (count(value).is_some() || is_large(value), "a whole number from 0")
        }
        "minimum" | "maximum" => (value.is_number(), "a number"),
        "exclusiveMinimum" | "exclusiveMaximum" => (value.is_number() || value.is_boolean(), "a number"),
        "multipleOf" => (value.as_f64().is_some_and(|number| number > 0.0), "a number above 0"),
        _ => return Ok(()),
    };
    if right { Ok(()) } else { Err(SchemaError::Unusable(format!("'{}' must be {what}", shown(keyword)))) }
}

fn is_large(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > f64::from(u32::MAX) && number.fract() == 0.0)
}
