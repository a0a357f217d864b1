//! `GRAMMAR` and `JSONSCHEMA`: the form that an answer must have.
//!
//! On the main thread its text is copied, and nothing else: translating it grows with its size.

use serde_json::Value;
use thiserror::Error;

use crate::logic::args::{ArgError, Args};
use crate::logic::json_schema::SchemaError;
use crate::logic::{gbnf, json_schema, limits};

/// The form of an answer, as it was given.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputForm {
    /// `GRAMMAR`, in GBNF.
    Grammar(String),
    /// `JSONSCHEMA`.
    JsonSchema(String),
}

/// The form of an answer as llguidance is to have it, within the limits.
#[derive(Debug, Clone, PartialEq)]
pub enum PlainForm {
    /// In the notation of [`gbnf::to_lark`].
    Lark(String),
    /// See [`json_schema::plain`].
    JsonSchema(Value),
}

/// Why a form cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormError {
    /// It is wrong, or beyond a limit.
    #[error("{option}: {problem}")]
    Malformed {
        /// The option.
        option: &'static str,
        /// What is wrong with it, in printable ASCII.
        problem: String,
    },
    /// It asks for what cannot be enforced.
    #[error("{option} cannot be used: {reason}")]
    Unusable {
        /// The option.
        option: &'static str,
        /// Why not, in printable ASCII.
        reason: String,
    },
}

impl OutputForm {
    /// The option it was given with.
    pub fn option(&self) -> &'static str {
        match self {
            Self::Grammar(_) => "GRAMMAR",
            Self::JsonSchema(_) => "JSONSCHEMA",
        }
    }

    /// Translates it. Takes some milliseconds for the longest; not for the main thread.
    ///
    /// # Errors
    /// See [`FormError`].
    pub fn plain(&self) -> Result<PlainForm, FormError> {
        let option = self.option();
        match self {
            Self::Grammar(text) => gbnf::to_lark(text)
                .map(PlainForm::Lark)
                .map_err(|error| FormError::Malformed { option, problem: error.to_string() }),
            Self::JsonSchema(text) => {
                json_schema::plain(text).map(PlainForm::JsonSchema).map_err(|error| match error {
                    SchemaError::Malformed(problem) => FormError::Malformed { option, problem },
                    SchemaError::Unusable(reason) => FormError::Unusable { option, reason },
                })
            }
        }
    }

    pub(super) fn grammar(args: &mut Args<'_>) -> Result<Self, ArgError> {
        Ok(Self::Grammar(args.limited_text("GRAMMAR", limits::GRAMMAR_BYTES_MAX)?.to_owned()))
    }

    pub(super) fn json_schema(args: &mut Args<'_>) -> Result<Self, ArgError> {
        Ok(Self::JsonSchema(args.limited_text("JSONSCHEMA", limits::GRAMMAR_BYTES_MAX)?.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> Result<PlainForm, String> {
        OutputForm::JsonSchema(text.to_owned()).plain().map_err(|error| error.to_string())
    }

    #[test]
    fn a_schema_nested_too_deeply_is_refused() {
        let nested = |levels: usize| format!("{}{{}}{}", r#"{"items":"#.repeat(levels), "}".repeat(levels));
        assert!(schema(&nested(63)).is_ok());
        assert_eq!(schema(&nested(64)), Err("JSONSCHEMA: nested more than 64 deep".to_owned()));
        // The parser of JSON has a limit of its own.
        assert!(schema(&nested(5_000)).unwrap_err().starts_with("JSONSCHEMA: not JSON"));
    }

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        let text = format!("\"{}\"", "x".repeat(64 << 10));
        let args = [text.as_bytes()];
        let error = OutputForm::json_schema(&mut Args::new("TEST", &args)).unwrap_err();
        assert_eq!(error.to_string(), "JSONSCHEMA is longer than 65536 bytes");
        let error = OutputForm::grammar(&mut Args::new("TEST", &args)).unwrap_err();
        assert_eq!(error.to_string(), "GRAMMAR is longer than 65536 bytes");
    }

    #[test]
    fn the_main_thread_only_copies_the_text() {
        for text in ["root ::= (", "{'a'}", "\u{6f22}"] {
            let args = [text.as_bytes()];
            let form = OutputForm::grammar(&mut Args::new("TEST", &args)).unwrap();
            assert_eq!(form, OutputForm::Grammar(text.to_owned()));
            assert!(form.plain().unwrap_err().to_string().starts_with("GRAMMAR: line 1: "));
            let form = OutputForm::json_schema(&mut Args::new("TEST", &args)).unwrap();
            assert_eq!(form, OutputForm::JsonSchema(text.to_owned()));
            assert_eq!(
                form.plain().unwrap_err().to_string(),
                format!("JSONSCHEMA: not JSON at line 1 column {}", if text == "{'a'}" { 2 } else { 1 })
            );
        }
    }
}
