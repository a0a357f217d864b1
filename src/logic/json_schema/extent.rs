//! How much comes of combining schemas, counted before llguidance does it.
//!
//! llguidance works out what schemas have in common by copying: each choice of an `anyOf` with each of another, and the
//! properties of each object with those of the others. The same walk here copies nothing, and ends at a limit.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value};

use super::SchemaError;
use super::rewrite::referred;
use crate::logic::limits::{JSON_COMBINED_DEPTH_MAX, JSON_COMBINED_MAX};

/// Refuses plain definitions, of which the first is the schema, that come to too much.
pub(super) fn check(definitions: &[Value]) -> Result<(), SchemaError> {
    let sizes = definitions.iter().map(size).collect();
    let mut extent = Extent { definitions, sizes, begun: HashSet::from([0]), wanted: vec![0], steps: 0 };
    while let Some(definition) = extent.wanted.pop().and_then(|number| definitions.get(number)) {
        extent.together(&[definition], 0)?;
    }
    Ok(())
}

fn size(schema: &Value) -> usize {
    match schema {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// Keywords that only bring schemas together.
const COMBINE: [&str; 4] = ["$ref", "allOf", "anyOf", "oneOf"];

struct Extent<'a> {
    definitions: &'a [Value],
    sizes: Vec<usize>,
    /// Definitions that are looked at, or are about to be.
    begun: HashSet<usize>,
    wanted: Vec<usize>,
    steps: usize,
}

/// What is known of one value while its choices are gone through.
#[derive(Clone, Default)]
struct Known<'a> {
    objects: Vec<&'a Map<String, Value>>,
    choices: Vec<&'a [Value]>,
}

impl<'a> Extent<'a> {
    fn spend(&mut self, steps: usize) -> Result<(), SchemaError> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > JSON_COMBINED_MAX {
            return Err(SchemaError::Malformed(format!(
                "what 'allOf', 'anyOf', 'oneOf' and '$ref' combine comes to more than {JSON_COMBINED_MAX} schemas"
            )));
        }
        Ok(())
    }

    /// Goes through what `schemas` say about the same value.
    fn together(&mut self, schemas: &[&'a Value], level: usize) -> Result<(), SchemaError> {
        let says = |schema: &&'a Value| {
            **schema != Value::Bool(true) && schema.as_object().is_none_or(|members| !members.is_empty())
        };
        let schemas: Vec<&'a Value> = schemas.iter().copied().filter(says).collect();
        if schemas.is_empty() {
            return Ok(());
        }
        // A reference by itself stays one, and what it leads to is looked at once.
        if let [Value::Object(only)] = schemas.as_slice()
            && let (1, Some(number)) = (only.len(), referred(only))
        {
            if self.begun.insert(number) {
                self.wanted.push(number);
            }
            return Ok(());
        }
        self.add(Known::default(), &schemas, level)
    }

    fn add(&mut self, mut known: Known<'a>, schemas: &[&'a Value], level: usize) -> Result<(), SchemaError> {
        if level > JSON_COMBINED_DEPTH_MAX {
            return Err(SchemaError::Malformed(format!(
                "schemas that 'allOf', 'anyOf', 'oneOf' and '$ref' bring together are combined more than {JSON_COMBINED_DEPTH_MAX} deep"
            )));
        }
        let mut open = schemas.to_vec();
        let mut seen = HashSet::new();
        while let Some(schema) = open.pop() {
            self.spend(1)?;
            // `true` says nothing, and nothing comes of `false`.
            let Some(members) = schema.as_object() else { continue };
            if let Some(number) = referred(members).filter(|&number| seen.insert(number)) {
                self.spend(self.sizes.get(number).copied().unwrap_or_default())?;
                open.extend(self.definitions.get(number));
            }
            for keyword in ["allOf", "anyOf", "oneOf"] {
                match members.get(keyword).and_then(Value::as_array) {
                    Some(schemas) if keyword == "allOf" => open.extend(schemas),
                    Some(schemas) => known.choices.push(schemas),
                    None => {}
                }
            }
            if members.keys().any(|keyword| !COMBINE.contains(&keyword.as_str())) {
                known.objects.push(members);
            }
        }
        if types(&known.objects) == 0 {
            return Ok(());
        }
        let Some(choices) = known.choices.pop() else { return self.objects(&known.objects, level) };
        for choice in choices {
            self.spend(known.objects.len())?;
            if known.objects.is_empty() && known.choices.is_empty() {
                // Nothing else is said.
                self.together(&[choice], level + 1)?;
                continue;
            }
            self.add(known.clone(), &[choice], level + 1)?;
        }
        Ok(())
    }

    /// Goes through the values inside of one value that `schemas`, without choices, speak about.
    fn objects(&mut self, schemas: &[&'a Map<String, Value>], level: usize) -> Result<(), SchemaError> {
        let values = schemas.iter().filter_map(|schema| schema.get("enum")?.as_array()).map(Vec::len);
        self.spend(values.fold(1, usize::saturating_mul).saturating_mul(schemas.len()))?;
        let under = |keyword: &'static str| schemas.iter().filter_map(move |schema| schema.get(keyword));
        let named = |keyword| under(keyword).filter_map(Value::as_object);
        let names: BTreeSet<&'a String> = named("properties").flat_map(Map::keys).collect();
        self.spend(names.len().saturating_mul(schemas.len()))?;
        for name in names {
            let mut said: Vec<&Value> = Vec::new();
            for schema in schemas {
                let own = schema.get("properties").and_then(|properties| properties.get(name));
                // More than there is: a name has at most one of the patterns.
                said.extend(
                    schema.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values),
                );
                said.extend(own.or_else(|| schema.get("additionalProperties")));
            }
            self.together(&said, level + 1)?;
        }
        for schema in named("patternProperties").flat_map(Map::values) {
            let said: Vec<&Value> = std::iter::once(schema).chain(under("additionalProperties")).collect();
            self.together(&said, level + 1)?;
        }
        let places = under("prefixItems").filter_map(Value::as_array).map(Vec::len).max().unwrap_or(0);
        self.spend(places.saturating_mul(schemas.len()))?;
        for place in 0..places {
            let said: Vec<&Value> = schemas
                .iter()
                .filter_map(|schema| {
                    let own = schema.get("prefixItems").and_then(|items| items.get(place));
                    own.or_else(|| schema.get("items"))
                })
                .collect();
            self.together(&said, level + 1)?;
        }
        for keyword in ["items", "additionalProperties"] {
            let said: Vec<&Value> = under(keyword).collect();
            self.together(&said, level + 1)?;
        }
        Ok(())
    }
}

/// The types that all of the schemas allow, one bit each.
fn types(schemas: &[&Map<String, Value>]) -> u8 {
    let bit = |kind: &Value| match kind.as_str() {
        Some("array") => 1,
        Some("boolean") => 2,
        Some("null") => 4,
        Some("object") => 8,
        Some("string") => 16,
        _ => 32,
    };
    schemas.iter().filter_map(|schema| schema.get("type")).fold(u8::MAX, |all, kinds| {
        all & kinds.as_array().map_or_else(|| bit(kinds), |kinds| kinds.iter().fold(0, |some, kind| some | bit(kind)))
    })
}
