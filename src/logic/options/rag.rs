//! `INFER.RAG`.

use super::{GenerateOptions, Selection};
use crate::logic::args::{ArgError, Args};
use crate::logic::limits;

/// How much of the prompt the chunks may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// All of them go in, or the question is refused: nobody asked for fewer.
    All,
    /// `BUDGET n`: the best, of at most so many tokens with what stands around them.
    Tokens(u32),
    /// `BUDGET AUTO`: the best that fit beside the question and the longest answer.
    Auto,
}

/// `INFER.RAG index query [K n] [FILTER expr] [EF n] [MINSCORE f] [RERANK model] [BUDGET n|AUTO] [SYSTEM text]
/// [WITHSOURCES] [WITHPROMPT] [generation options]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rag<'a> {
    /// The index.
    pub index: &'a str,
    /// The question; not empty.
    pub query: &'a str,
    /// Which chunks to give to the model.
    pub selection: Selection,
    /// How many of them.
    pub budget: Budget,
    /// `SYSTEM`: replaces the default system text; may be empty.
    pub system: Option<&'a str>,
    /// `WITHSOURCES`: answer with a map that names the chunks.
    pub with_sources: bool,
    /// `WITHPROMPT`: answer with a map that has the prompt.
    pub with_prompt: bool,
    /// The generation options.
    pub options: GenerateOptions,
}

impl<'a> Rag<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.RAG", args);
        let mut parsed = Self {
            index: args.name("index name")?,
            query: args.limited_text("query", limits::QUERY_MAX)?,
            selection: Selection::default(),
            budget: Budget::All,
            system: None,
            with_sources: false,
            with_prompt: false,
            options: GenerateOptions::default(),
        };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "BUDGET" => {
                    let tokens = args.integer_or_auto("BUDGET", limits::BUDGET_MIN, limits::BUDGET_MAX)?;
                    parsed.budget = tokens.map_or(Budget::Auto, Budget::Tokens);
                }
                "SYSTEM" => parsed.system = Some(args.text("SYSTEM")?),
                "WITHSOURCES" => parsed.with_sources = true,
                "WITHPROMPT" => parsed.with_prompt = true,
                _ if parsed.selection.accept(&option, &mut args)? => {}
                _ if parsed.options.accept(&option, &mut args)? => {}
                _ => return Err(option.unknown()),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_words;
    use super::*;

    #[test]
    fn every_option_has_a_default() {
        with_words("docs question", |args| {
            let expected = Rag {
                index: "docs",
                query: "question",
                selection: Selection::default(),
                budget: Budget::All,
                system: None,
                with_sources: false,
                with_prompt: false,
                options: GenerateOptions::default(),
            };
            assert_eq!(Rag::parse(args), Ok(expected));
        });
    }

    #[test]
    fn generation_options_mix_with_its_own() {
        let line =
            "docs question TEMP 0 k 3 withstats SYSTEM '' STOP 1 K WITHSOURCES minscore 1 WITHPROMPT budget 9 EF 7";
        with_words(line, |args| {
            let parsed = Rag::parse(args).unwrap();
            let selection = Selection { k: 3, ef: Some(7), min_score: 1.0, ..Selection::default() };
            assert_eq!(parsed.selection, selection);
            assert_eq!((parsed.system, parsed.budget), (Some(""), Budget::Tokens(9)));
            assert!(parsed.with_sources && parsed.with_prompt);
            assert_eq!((parsed.options.sampling.temperature, parsed.options.with_stats), (0.0, true));
            assert_eq!(parsed.options.stop, ["K"]);
        });
    }

    #[test]
    fn a_budget_may_be_what_is_left_of_the_context() {
        with_words("docs question BUDGET auto", |args| assert_eq!(Rag::parse(args).unwrap().budget, Budget::Auto));
    }

    #[test]
    fn wrong_arguments_are_told_why() {
        for (line, text) in [
            ("docs", "wrong number of arguments for 'INFER.RAG' command: query is missing"),
            ("docs ''", "query must not be empty"),
            ("docs q TEMP 1 TEMP 1", "option TEMP is given twice"),
            ("docs q RAW", "unknown option 'RAW'"),
            ("docs q WITHTEXT", "unknown option 'WITHTEXT'"),
            ("docs q SYSTEM", "option SYSTEM needs a value"),
            ("docs q K 0", "K must be from 1 to 200"),
            ("docs q BUDGET 0", "BUDGET must be from 1 to 1048576"),
            ("docs q BUDGET 1048577", "BUDGET must be from 1 to 1048576"),
            ("docs q BUDGET much", "BUDGET is not an integer"),
        ] {
            assert_eq!(with_words(line, |args| Rag::parse(args).map(drop)).unwrap_err().to_string(), text);
        }
    }
}
