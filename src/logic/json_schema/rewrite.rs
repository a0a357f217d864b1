//! A schema as numbered definitions without what llguidance does not know, each object closed.
//!
//! Objects that several places speak about (`allOf`, a `$ref` beside other keywords, `properties` beside `anyOf`) are closed by
//! one of these places, with the names of the others; so a definition may be needed closed and open. With one choice (`anyOf`,
//! `oneOf`) among the places it is each of the choices that closes. With more of them the first one does, and what the others
//! name may be anything in it: more than was meant, but nothing that the standard forbids.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::SchemaError;
use super::keywords::{Holds, allows_all, count, enforced, not_enforced};
use super::references::{Key, Places, key};
use crate::logic::limits::{
    JSON_MULTIPLES_MAX, JSON_ONE_OF_MAX, JSON_PATTERN_PROPERTIES_MAX, JSON_PATTERNS_MAX, JSON_PROPERTIES_MAX,
    JSON_REFERENCE_DEPTH_MAX, JSON_SCHEMAS_MAX, JSON_STEPS_MAX,
};
use crate::logic::nesting::{Mention, deeper_than};

/// The definitions that `schema` comes to; the first one is itself.
pub(super) fn definitions(schema: &Value) -> Result<Vec<Value>, SchemaError> {
    let anything = Map::new();
    let mut rewriter = Rewriter {
        anything: &anything,
        places: Places::of(schema),
        numbers: HashMap::new(),
        wanted: Vec::new(),
        definitions: Vec::new(),
        mentions: Vec::new(),
        summaries: HashMap::new(),
        schemas: 0,
        patterns: 0,
        multiples: 0,
        steps: 0,
    };
    rewriter.number(schema, Mode::alone());
    while let Some((schema, mode)) = rewriter.wanted.get(rewriter.definitions.len()).cloned() {
        rewriter.mentions.push(Vec::new());
        let definition = rewriter.schema(schema, &mode, 0)?;
        rewriter.definitions.push(definition);
    }
    if deeper_than(JSON_REFERENCE_DEPTH_MAX, &rewriter.mentions, 0).is_some() {
        let text = format!("schemas are nested more than {JSON_REFERENCE_DEPTH_MAX} deep through '$ref'");
        return Err(SchemaError::Malformed(text));
    }
    check_circles(&rewriter.definitions)?;
    Ok(rewriter.definitions)
}

/// The reference to a definition.
pub(super) fn reference(number: usize) -> String {
    format!("#/$defs/{number}")
}

/// The number of the definition that a plain schema refers to.
pub(super) fn referred(schema: &Map<String, Value>) -> Option<usize> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?.parse().ok()
}

/// Refuses definitions that are nothing but references to each other.
fn check_circles(definitions: &[Value]) -> Result<(), SchemaError> {
    let next =
        |number: usize| definitions.get(number)?.as_object().filter(|members| members.len() == 1).and_then(referred);
    let mut settled = HashSet::new();
    for start in 0..definitions.len() {
        let (mut way, mut at) = (HashSet::new(), Some(start));
        while let Some(number) = at.filter(|number| !settled.contains(number)) {
            if !way.insert(number) {
                return Err(SchemaError::Unusable("'$ref' leads back to itself".to_owned()));
            }
            at = next(number);
        }
        settled.extend(way);
    }
    Ok(())
}

/// What other places say about the same object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Mode<'a> {
    /// Another place closes it, or it is open on purpose.
    Open,
    /// It is closed here.
    Closed(Rc<Others<'a>>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Others<'a> {
    /// One of them lists properties.
    list: bool,
    /// The properties that they list.
    names: BTreeSet<&'a str>,
}

impl Mode<'_> {
    /// Nothing else speaks about it.
    fn alone() -> Self {
        Self::Closed(Rc::default())
    }
}

/// What a schema says about the properties of an object.
#[derive(Debug, Default)]
struct Summary<'a> {
    /// It lists properties.
    lists: bool,
    /// The properties that it lists.
    names: BTreeSet<&'a str>,
    /// Those that its choices list.
    choice_names: BTreeSet<&'a str>,
    /// Its choices that list or open.
    choices: usize,
    /// Such choices stand beside others somewhere.
    is_loose: bool,
    /// It says itself what else an object may have.
    opens: bool,
    /// Its `pattern`, `format` and `multipleOf`, of choices those of the one with most.
    forms: usize,
}

/// A keyword that speaks about the same value as what stands beside it, or a member of `allOf`.
struct Part<'a> {
    keyword: &'a str,
    /// Of `allOf`.
    member: usize,
    summary: Rc<Summary<'a>>,
}

/// Who closes an object.
enum Closer<'a> {
    Nobody,
    /// The keywords beside the parts, which are to know these names too.
    Own(BTreeSet<&'a str>),
    /// One of the parts.
    Part(usize, Mode<'a>),
}

struct Rewriter<'a> {
    /// The members of `true`.
    anything: &'a Map<String, Value>,
    places: Places<'a>,
    numbers: HashMap<(Key, Mode<'a>), usize>,
    /// By number.
    wanted: Vec<(&'a Value, Mode<'a>)>,
    definitions: Vec<Value>,
    /// By number, with the levels of schemas on the way.
    mentions: Vec<Vec<Mention>>,
    summaries: HashMap<Key, Rc<Summary<'a>>>,
    schemas: usize,
    patterns: usize,
    multiples: usize,
    steps: usize,
}

impl<'a> Rewriter<'a> {
    fn number(&mut self, schema: &'a Value, mode: Mode<'a>) -> usize {
        let next = self.wanted.len();
        let number = *self.numbers.entry((key(schema), mode.clone())).or_insert(next);
        if number == next {
            self.wanted.push((schema, mode));
        }
        number
    }

    fn spend(&mut self, steps: usize) -> Result<(), SchemaError> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > JSON_STEPS_MAX {
            let text =
                format!("the properties of combined objects take more than {JSON_STEPS_MAX} steps to put together");
            return Err(SchemaError::Malformed(text));
        }
        Ok(())
    }

    fn schema(&mut self, schema: &'a Value, mode: &Mode<'a>, depth: usize) -> Result<Value, SchemaError> {
        self.schemas += 1;
        if self.schemas > JSON_SCHEMAS_MAX {
            return Err(SchemaError::Malformed(format!("there are more than {JSON_SCHEMAS_MAX} schemas")));
        }
        let members = match schema {
            Value::Bool(false) => return Ok(Value::Bool(false)),
            Value::Object(members) => members,
            _ => self.anything,
        };
        let kept = enforced(members)?;
        let parts = self.parts(schema, &kept)?;
        check_forms(&kept, &parts)?;
        let closer = self.closer(&kept, &parts, mode)?;
        let mode_of = |keyword: &str, member: usize| match &closer {
            Closer::Part(at, mode)
                if parts.get(*at).is_some_and(|part| part.keyword == keyword && part.member == member) =>
            {
                mode.clone()
            }
            _ => Mode::Open,
        };
        let mut plain = Map::new();
        for &(keyword, value) in &kept {
            match (keyword, value) {
                ("$ref", value) => {
                    let to = self.places.find(schema, value.as_str().unwrap_or_default())?;
                    require_schema("$ref", to)?;
                    let number = self.number(to, mode_of(keyword, 0));
                    if let Some(mentions) = self.mentions.last_mut() {
                        mentions.push(Mention { definition: number, depth: depth + 1, times: 1 });
                    }
                    plain.insert(keyword.to_owned(), Value::String(reference(number)));
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                    if keyword == "oneOf" && schemas.len() > JSON_ONE_OF_MAX {
                        return Err(SchemaError::Malformed(format!("'oneOf' has more than {JSON_ONE_OF_MAX} choices")));
                    }
                    let mut made = Vec::with_capacity(schemas.len());
                    for (member, schema) in schemas.iter().enumerate() {
                        let mode = mode_of(keyword, if keyword == "allOf" { member } else { 0 });
                        made.push(self.child(keyword, schema, &mode, depth)?);
                    }
                    match <[Value; 1]>::try_from(made) {
                        // The only one speaks for itself, also when it leads back to itself.
                        Ok([Value::Object(only)]) if kept.len() == 1 && !matches!(closer, Closer::Own(_)) => {
                            plain.extend(only)
                        }
                        Ok(made) => _ = plain.insert(keyword.to_owned(), Value::Array(made.into())),
                        Err(made) => _ = plain.insert(keyword.to_owned(), Value::Array(made)),
                    }
                }
                ("unevaluatedProperties", _) => {}
                ("properties" | "patternProperties", Value::Object(named)) => {
                    let most = if keyword == "properties" { JSON_PROPERTIES_MAX } else { JSON_PATTERN_PROPERTIES_MAX };
                    if named.len() > most {
                        let text = format!("an object has more than {most} {}", quoted_unless_plain(keyword));
                        return Err(SchemaError::Malformed(text));
                    }
                    let mut made = Map::new();
                    for (name, schema) in named {
                        made.insert(name.clone(), self.child(keyword, schema, &Mode::alone(), depth)?);
                    }
                    if keyword == "patternProperties" {
                        self.count_patterns(named.len())?;
                    }
                    plain.insert(keyword.to_owned(), Value::Object(made));
                }
                // As drafts before 2020-12 write it.
                ("items", Value::Array(schemas)) | ("prefixItems", Value::Array(schemas)) => {
                    let mut made = Vec::with_capacity(schemas.len());
                    for schema in schemas {
                        made.push(self.child(keyword, schema, &Mode::alone(), depth)?);
                    }
                    if plain.insert("prefixItems".to_owned(), Value::Array(made)).is_some() {
                        let text = "'prefixItems' cannot be enforced beside an array of 'items'";
                        return Err(SchemaError::Unusable(text.to_owned()));
                    }
                }
                ("items" | "additionalItems" | "additionalProperties", schema) => {
                    let made = self.child(keyword, schema, &Mode::alone(), depth)?;
                    let name = if keyword == "additionalItems" { "items" } else { keyword };
                    plain.insert(name.to_owned(), made);
                }
                (_, value) => {
                    if keyword == "multipleOf" {
                        self.count_multiple(value)?;
                    }
                    self.count_patterns(usize::from(matches!(keyword, "pattern" | "format")))?;
                    // 2.0 is a count too, but not to llguidance.
                    let counted =
                        keyword.ends_with("Items") || keyword.ends_with("Length") || keyword.ends_with("Properties");
                    let whole = if counted { count(value).map(Value::from) } else { None };
                    plain.insert(keyword.to_owned(), whole.unwrap_or_else(|| value.clone()));
                }
            }
        }
        if let Closer::Own(names) = closer {
            self.close(&mut plain, &names)?;
        }
        Ok(Value::Object(plain))
    }

    fn child(&mut self, keyword: &str, schema: &'a Value, mode: &Mode<'a>, depth: usize) -> Result<Value, SchemaError> {
        require_schema(keyword, schema)?;
        self.schema(schema, mode, depth + 1)
    }

    fn count_multiple(&mut self, value: &Value) -> Result<(), SchemaError> {
        self.multiples = self.multiples.saturating_add(digits_of(value));
        if self.multiples > JSON_MULTIPLES_MAX {
            let text = format!("the values of 'multipleOf' come to more than {JSON_MULTIPLES_MAX} together");
            return Err(SchemaError::Malformed(text));
        }
        Ok(())
    }

    fn count_patterns(&mut self, patterns: usize) -> Result<(), SchemaError> {
        self.patterns += patterns;
        if self.patterns > JSON_PATTERNS_MAX {
            let text = format!("there are more than {JSON_PATTERNS_MAX} values of 'pattern' and 'format'");
            return Err(SchemaError::Malformed(text));
        }
        Ok(())
    }

    /// Lets an object have what it lists, and `names`, and nothing else.
    fn close(&mut self, plain: &mut Map<String, Value>, names: &BTreeSet<&'a str>) -> Result<(), SchemaError> {
        self.spend(names.len())?;
        let properties = plain.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            for &name in names {
                properties.entry(name).or_insert(Value::Bool(true));
            }
            if properties.len() > JSON_PROPERTIES_MAX {
                let text = format!("an object has more than {JSON_PROPERTIES_MAX} properties");
                return Err(SchemaError::Malformed(text));
            }
        }
        plain.insert("additionalProperties".to_owned(), Value::Bool(false));
        Ok(())
    }

    fn closer(
        &mut self,
        kept: &[(&'a str, &'a Value)],
        parts: &[Part<'a>],
        mode: &Mode<'a>,
    ) -> Result<Closer<'a>, SchemaError> {
        let own = own_summary(kept);
        let all = || std::iter::once(&own).chain(parts.iter().map(|part| &*part.summary));
        let (opens, choices) = (all().any(|one| one.opens), all().map(|one| one.choices).sum::<usize>());
        let asks = kept.iter().any(|&(keyword, value)| keyword == "unevaluatedProperties" && !allows_all(value));
        if asks {
            let is_false =
                kept.iter().any(|&(keyword, value)| keyword == "unevaluatedProperties" && value == &Value::Bool(false));
            let is_loose = choices > 1 || all().any(|one| one.is_loose);
            if !is_false || is_loose || opens || mode != &Mode::alone() {
                return Err(not_enforced("unevaluatedProperties"));
            }
        }
        let Mode::Closed(others) = mode else { return Ok(Closer::Nobody) };
        if opens || !(asks || others.list || all().any(|one| one.lists || one.choices > 0)) {
            return Ok(Closer::Nobody);
        }
        let part = match parts {
            [_] if !own.lists && !asks => Some(0),
            parts => parts.iter().position(|part| part.summary.choices > 0),
        };
        let but =
            |at: Option<usize>| parts.iter().enumerate().filter(move |&(i, _)| Some(i) != at).map(|(_, part)| part);
        let mut names = others.names.clone();
        self.spend(names.len())?;
        for one in std::iter::once(&own).chain(but(part).map(|part| &*part.summary)) {
            self.spend(one.names.len() + one.choice_names.len())?;
            names.extend(one.names.iter().chain(&one.choice_names));
        }
        let list =
            asks || others.list || own.lists || but(part).any(|part| part.summary.lists || part.summary.choices > 0);
        Ok(match part {
            Some(at) => Closer::Part(at, Mode::Closed(Rc::new(Others { list, names }))),
            None => Closer::Own(names),
        })
    }

    fn parts(&mut self, schema: &'a Value, kept: &[(&'a str, &'a Value)]) -> Result<Vec<Part<'a>>, SchemaError> {
        let mut parts = Vec::new();
        for &(keyword, value) in kept {
            match (keyword, value) {
                ("$ref", value) => {
                    let to = self.places.find(schema, value.as_str().unwrap_or_default())?;
                    parts.push(Part { keyword, member: 0, summary: self.summary(to)? });
                }
                ("allOf", Value::Array(schemas)) => {
                    for (member, schema) in schemas.iter().enumerate() {
                        parts.push(Part { keyword, member, summary: self.summary(schema)? });
                    }
                }
                ("anyOf" | "oneOf", Value::Array(schemas)) => {
                    let mut choices = Summary::default();
                    for schema in schemas {
                        let one = self.summary(schema)?;
                        self.spend(one.names.len() + one.choice_names.len())?;
                        choices.choice_names.extend(one.names.iter().chain(&one.choice_names));
                        choices.is_loose |= one.is_loose;
                        choices.forms = choices.forms.max(one.forms);
                        if one.lists || one.opens || one.choices > 0 {
                            choices.choices = 1;
                        }
                    }
                    parts.push(Part { keyword, member: 0, summary: Rc::new(choices) });
                }
                _ => {}
            }
        }
        Ok(parts)
    }

    fn summary(&mut self, schema: &'a Value) -> Result<Rc<Summary<'a>>, SchemaError> {
        if let Some(summary) = self.summaries.get(&key(schema)) {
            return Ok(Rc::clone(summary));
        }
        let Some(members) = schema.as_object() else { return Ok(Rc::default()) };
        // A schema that leads back to itself adds nothing.
        self.summaries.insert(key(schema), Rc::default());
        let kept = enforced(members)?;
        let parts = self.parts(schema, &kept)?;
        let mut summary = own_summary(&kept);
        for part in parts {
            let part = part.summary;
            self.spend(1 + part.names.len() + part.choice_names.len())?;
            summary.lists |= part.lists;
            summary.opens |= part.opens;
            summary.is_loose |= part.is_loose;
            summary.choices += part.choices;
            summary.forms += part.forms;
            summary.names.extend(&part.names);
            summary.choice_names.extend(&part.choice_names);
        }
        summary.is_loose |= summary.choices > 1;
        let summary = Rc::new(summary);
        self.summaries.insert(key(schema), Rc::clone(&summary));
        Ok(summary)
    }
}

/// What the keywords of a schema say without its parts.
fn own_summary<'a>(kept: &[(&'a str, &'a Value)]) -> Summary<'a> {
    let mut own = Summary::default();
    for &(keyword, value) in kept {
        match keyword {
            "properties" => {
                own.lists = true;
                own.names.extend(value.as_object().into_iter().flat_map(Map::keys).map(String::as_str));
            }
            "additionalProperties" | "patternProperties" => own.opens = true,
            "pattern" | "format" | "multipleOf" => own.forms += 1,
            "unevaluatedProperties" if allows_all(value) => own.opens = true,
            "unevaluatedProperties" => own.lists = true,
            _ => {}
        }
    }
    own
}

/// Refuses to look for a value that meets several patterns: the compiler tries them all in all states of the others, in no bounded
/// time.
fn check_forms<'a>(kept: &[(&'a str, &'a Value)], parts: &[Part<'a>]) -> Result<(), SchemaError> {
    let parts: usize = parts.iter().map(|part| part.summary.forms).sum();
    if own_summary(kept).forms + parts > 1 {
        let text = "of 'pattern', 'format' and 'multipleOf' only one can be enforced for one value";
        return Err(SchemaError::Unusable(text.to_owned()));
    }
    Ok(())
}

/// The digits of a number without its sign, its point and its exponent, as a number: a compiled `multipleOf` has as many states.
fn digits_of(value: &Value) -> usize {
    let text = value.to_string();
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = if mantissa.contains('.') { digits.trim_end_matches('0') } else { digits.as_str() };
    digits.parse().unwrap_or(if digits.is_empty() { 0 } else { usize::MAX })
}

fn require_schema(keyword: &str, schema: &Value) -> Result<(), SchemaError> {
    if schema.is_object() || schema.is_boolean() {
        return Ok(());
    }
    let what = match (keyword, Holds::of(keyword)) {
        ("$ref", _) => "'$ref' must lead to a schema".to_owned(),
        (_, Holds::Named | Holds::Schemas) => format!("each value in '{keyword}' must be a schema"),
        _ => format!("'{keyword}' must be a schema"),
    };
    Err(SchemaError::Unusable(format!("{what}: an object, true or false")))
}

fn quoted_unless_plain(keyword: &str) -> &str {
    if keyword == "properties" { "properties" } else { "'patternProperties'" }
}
