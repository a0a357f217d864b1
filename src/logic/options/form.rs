//! `GRAMMAR` and `JSONSCHEMA`: the form that an answer must have. What is wrong with one is said before a client waits.

use serde_json::Value;

use crate::logic::args::{ArgError, Args};
use crate::logic::{gbnf, json_schema, limits};

/// The form of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputForm {
    /// `GRAMMAR`, in the notation of [`gbnf::to_lark`].
    Lark(String),
    /// `JSONSCHEMA`: an object or a boolean, its objects closed.
    JsonSchema(Value),
}

impl OutputForm {
    /// The option it was given with.
    pub fn option(&self) -> &'static str {
        match self {
            Self::Lark(_) => "GRAMMAR",
            Self::JsonSchema(_) => "JSONSCHEMA",
        }
    }

    pub(super) fn grammar(args: &mut Args<'_>) -> Result<Self, ArgError> {
        let grammar = args.limited_text("GRAMMAR", limits::GRAMMAR_BYTES_MAX)?;
        gbnf::to_lark(grammar)
            .map(Self::Lark)
            .map_err(|error| ArgError::BadForm { option: "GRAMMAR", problem: error.to_string() })
    }

    pub(super) fn json_schema(args: &mut Args<'_>) -> Result<Self, ArgError> {
        let bad = |problem: String| ArgError::BadForm { option: "JSONSCHEMA", problem };
        let text = args.limited_text("JSONSCHEMA", limits::GRAMMAR_BYTES_MAX)?;
        // It refuses more than 128 levels by itself, so the recursion below is safe.
        let mut schema: Value = serde_json::from_str(text)
            .map_err(|error| bad(format!("not JSON at line {} column {}", error.line(), error.column())))?;
        if !schema.is_object() && !schema.is_boolean() {
            return Err(bad("a schema is an object, true or false".to_owned()));
        }
        if depth(&schema) > limits::GRAMMAR_DEPTH_MAX {
            return Err(bad(format!("nested more than {} deep", limits::GRAMMAR_DEPTH_MAX)));
        }
        json_schema::close_objects(&mut schema);
        Ok(Self::JsonSchema(schema))
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> Result<OutputForm, ArgError> {
        let args = [text.as_bytes()];
        OutputForm::json_schema(&mut Args::new("TEST", &args))
    }

    #[test]
    fn a_schema_nested_too_deeply_is_refused() {
        let nested = |levels: usize| format!("{}1{}", r#"{"not":"#.repeat(levels), "}".repeat(levels));
        assert!(schema(&nested(64)).is_ok());
        assert_eq!(schema(&nested(65)).unwrap_err().to_string(), "JSONSCHEMA: nested more than 64 deep");
        // The parser of JSON has a limit of its own.
        assert!(schema(&nested(5_000)).unwrap_err().to_string().starts_with("JSONSCHEMA: not JSON"));
    }

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        let text = format!("\"{}\"", "x".repeat(64 << 10));
        assert_eq!(schema(&text).unwrap_err().to_string(), "JSONSCHEMA is longer than 65536 bytes");
        let args = [text.as_bytes()];
        let error = OutputForm::grammar(&mut Args::new("TEST", &args)).unwrap_err();
        assert_eq!(error.to_string(), "GRAMMAR is longer than 65536 bytes");
    }
}
