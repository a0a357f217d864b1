//! Answers of a given form: which tokens a grammar or a JSON schema allows next.
//!
//! llguidance does it, not llama.cpp's own grammars: those have no bound on time or memory (an ambiguous grammar grows
//! without end, in a worker that others wait for), throw and abort, and look at the whole vocabulary for each token. Here
//! every step has a budget, and running out of it is an error of the one request.
//!
//! It recurses through what it compiles. `logic::gbnf` and `logic::json_schema` bound that, so that a quarter of the stack of
//! an engine thread is enough.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

#[cfg(test)]
pub(super) mod tests;

use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use super::error::EngineError;
use super::forms::Place;
use super::model::Model;
use crate::logic::options::{FormError, OutputForm, PlainForm};

/// Work for one step, in items of the parser: tens of milliseconds. Enough for the whole vocabulary of a large model
/// under a grammar that allows nearly everything.
const STEP_ITEMS: usize = 1_000_000;
/// Work for one step of the lexer; see `ParserLimits`.
const STEP_FUEL: u64 = 1_000_000;
/// States of the lexer, about 2 KB each.
const LEXER_STATES: usize = 20_000;
/// Symbols of a compiled grammar. llguidance numbers them with 16 bits, and panics when there are more.
const GRAMMAR_SYMBOLS: usize = 60_000;

/// White space between the parts of a JSON text: free, but small models would go on with it for ever.
const JSON_SPACE: &str = r"[ \n\t]{0,16}";

/// What constrained answers of one model share, made when the first is asked for.
#[derive(Default)]
pub(super) struct Constraints(OnceLock<Result<Shared, String>>);

pub(super) struct Shared {
    factory: ParserFactory,
    ends: Arc<[u32]>,
}

impl fmt::Debug for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraints").field("made", &self.0.get().is_some()).finish()
    }
}

impl Constraints {
    /// Compiles `form`. Takes up to a second, the first time for a model perhaps more; not for the main thread.
    pub(super) fn compile(&self, model: &Model, form: &OutputForm) -> Result<Constraint, EngineError> {
        let shared = self.0.get_or_init(|| Shared::new(model));
        let shared = shared.as_ref().map_err(|error| EngineError::Internal(error.clone()))?;
        shared.compile(form)
    }
}

impl Shared {
    pub(super) fn compile(&self, form: &OutputForm) -> Result<Constraint, EngineError> {
        let plain = form.plain()?;
        // It guards itself against its panics, but not everywhere.
        let compiled = catch_unwind(AssertUnwindSafe(|| self.begin(plain)));
        let compiled = compiled.unwrap_or_else(|_| Err("panic".to_owned()));
        compiled.map_err(|reason| FormError::Unusable { option: form.option(), reason }.into())
    }

    fn begin(&self, form: PlainForm) -> Result<Constraint, String> {
        let grammar = match form {
            PlainForm::Lark(lark) => TopLevelGrammar::from_lark(lark),
            PlainForm::JsonSchema(mut schema) => {
                if let Some(members) = schema.as_object_mut() {
                    members.insert("x-guidance".to_owned(), serde_json::json!({ "whitespace_pattern": JSON_SPACE }));
                }
                TopLevelGrammar::from_json_schema(schema)
            }
        };
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        // Also says whether there is a text of this form at all.
        let begins =
            matcher.is_accepting().and_then(|empty| if empty { Ok(()) } else { matcher.compute_mask().map(drop) });
        match begins {
            Ok(()) => Ok(Constraint { matcher, ends: Arc::clone(&self.ends), masked: Vec::new(), _place: None }),
            Err(error) => Err(reason(&error)),
        }
    }

    fn new(model: &Model) -> Result<Self, String> {
        let vocabulary = model.facts.vocabulary;
        let ends: Vec<u32> = (0..vocabulary).filter(|&token| model.is_end(token)).collect();
        let words: Result<Vec<Vec<u8>>, EngineError> = (0..vocabulary)
            .map(|token| {
                let mut word = Vec::new();
                // Control tokens have no text here, so no grammar allows them.
                model.piece(token, &mut word).map(|()| word)
            })
            .collect();
        Self::of(&words.map_err(|error| error.to_string())?, ends)
    }

    /// For tokens with these bytes, of which `ends` end an answer.
    fn of(words: &[Vec<u8>], ends: Vec<u32>) -> Result<Self, String> {
        let vocabulary = u32::try_from(words.len()).map_err(|error| error.to_string())?;
        // Where there is no end token, its place is never asked for.
        let info = TokRxInfo::new(vocabulary, ends.first().copied().unwrap_or(0));
        let environment = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, words)));
        let mut factory = ParserFactory::new(
            &(environment as _),
            InferenceCapabilities::default(),
            &SlicedBiasComputer::general_slices(),
        )
        .map_err(|error| format!("the vocabulary cannot be used for grammars: {error}"))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.step_max_items = STEP_ITEMS;
        limits.step_lexer_fuel = STEP_FUEL;
        limits.max_lexer_states = LEXER_STATES;
        limits.max_grammar_size = GRAMMAR_SYMBOLS;
        limits.verbose_errors = false;
        Ok(Self { factory, ends: ends.into() })
    }
}

/// The form of one answer, and how far the answer has come in it.
pub struct Constraint {
    matcher: Matcher,
    /// Tokens that end an answer.
    ends: Arc<[u32]>,
    /// Logits of the allowed tokens, kept for its memory.
    masked: Vec<f32>,
    /// Held while it waits for a worker.
    _place: Option<Place>,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("stopped", &self.matcher.is_stopped()).finish_non_exhaustive()
    }
}

impl Constraint {
    /// Has it hold `place` until a worker takes it.
    pub(super) fn waiting_at(self, place: Place) -> Self {
        Self { _place: Some(place), ..self }
    }

    /// It waits no longer.
    pub(super) fn taken(self) -> Self {
        Self { _place: None, ..self }
    }

    /// Whether the answer may go on with `token`, or end with it.
    pub(super) fn allows(&mut self, token: u32) -> Result<bool, EngineError> {
        if self.ends.contains(&token) {
            return self.matcher.is_accepting().map_err(failed);
        }
        self.matcher.validate_tokens(&[token]).map(|valid| valid == 1).map_err(failed)
    }

    /// `logits` with minus infinity for what is not allowed.
    pub(super) fn mask(&mut self, logits: &[f32]) -> Result<&[f32], EngineError> {
        let may_end = self.matcher.is_accepting().map_err(failed)?;
        let allowed = self.matcher.compute_mask().map_err(failed)?;
        self.masked.clear();
        self.masked.extend((0_u32..).zip(logits).map(|(token, &logit)| {
            let allowed = if self.ends.contains(&token) {
                may_end
            } else {
                (token as usize) < allowed.len() && allowed.is_allowed(token)
            };
            if allowed { logit } else { f32::NEG_INFINITY }
        }));
        Ok(&self.masked)
    }

    /// Takes note of a chosen token, which must be allowed.
    pub(super) fn accept(&mut self, token: u32) -> Result<(), EngineError> {
        if self.ends.contains(&token) {
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(failed)
    }

    /// Whether nothing can follow.
    pub(super) fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}

fn failed(error: impl fmt::Display) -> EngineError {
    EngineError::FormTooComplex(reason(&error))
}

/// What llguidance says, in words that name what is to be changed; its errors go on with its state and a backtrace.
fn reason(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let says = |part: &str| text.contains(part);
    if line.contains("NoExtension") {
        return "no token can follow".to_owned();
    }
    let words = if line.starts_with("panic") {
        "its parts are too large for the compiler; make it simpler"
    } else if says("oneOf constraints are not supported") {
        "'oneOf' cannot be enforced where two of its choices may hold for one value; use 'anyOf'"
    } else if says("circular references with sibling keys") {
        "'$ref' beside other keywords leads back to itself"
    } else if says("grammar too deeply nested") {
        "parentheses and repetitions are nested too deeply; give some of them a rule of their own"
    } else if says("stack level exceeded") || says("schema too large") {
        "'allOf', 'anyOf', 'oneOf' and '$ref' combine too many schemas"
    } else if says("Unable to determine if regex is empty") {
        "'pattern', 'format' and the lengths of a string are too much together; leave out one of them"
    } else if says("are not disjoint") || says("regexes") && says("are disjoint") {
        "'patternProperties' cannot be enforced where a name may have two of its patterns"
    } else {
        // A regular expression is quoted over several lines.
        let line = text.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or(line);
        let of =
            if says("regex parse error") { "'pattern' is not a regular expression that can be enforced: " } else { "" };
        return of.chars().chain(line.chars()).filter(|&c| c == ' ' || c.is_ascii_graphic()).take(200).collect();
    };
    words.to_owned()
}
