//! `INFER.RAG`.

use super::{GenerateOptions, Selection, cache};
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

/// `CACHE threshold [CACHETTL s] [SCOPE s]`: an answer may be one that was given before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Caching<'a> {
    /// The lowest score of a similar question, from 0 to 1; 1 is for the very question only.
    pub threshold: f64,
    /// `CACHETTL`, in seconds.
    pub ttl: u32,
    /// `SCOPE`, any bytes; empty for none.
    pub scope: &'a [u8],
}

impl Caching<'_> {
    /// Whether the answer to a similar question would do.
    pub fn wants_similar(&self) -> bool {
        self.threshold < limits::MINSCORE_MAX
    }
}

/// `INFER.RAG index query [K n] [FILTER expr] [EF n] [MINSCORE f] [RERANK model] [BUDGET n|AUTO] [SYSTEM text]
/// [CACHE threshold [CACHETTL s] [SCOPE s]] [WITHSOURCES] [WITHPROMPT] [generation options]`.
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
    /// `CACHE`; `None` for a new answer.
    pub caching: Option<Caching<'a>>,
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
            caching: None,
            with_sources: false,
            with_prompt: false,
            options: GenerateOptions::default(),
        };
        let (mut threshold, mut ttl, mut scope) = (None, None, None);
        while let Some(option) = args.option()? {
            match option.as_str() {
                "BUDGET" => {
                    let tokens = args.integer_or_auto("BUDGET", limits::BUDGET_MIN, limits::BUDGET_MAX)?;
                    parsed.budget = tokens.map_or(Budget::Auto, Budget::Tokens);
                }
                "SYSTEM" => parsed.system = Some(args.text("SYSTEM")?),
                "CACHE" => threshold = Some(cache::threshold("CACHE", &mut args)?),
                "CACHETTL" => ttl = Some(cache::seconds("CACHETTL", &mut args)?),
                "SCOPE" => scope = Some(cache::scope(&mut args)?),
                "WITHSOURCES" => parsed.with_sources = true,
                "WITHPROMPT" => parsed.with_prompt = true,
                _ if parsed.selection.accept(&option, &mut args)? => {}
                _ if parsed.options.accept(&option, &mut args)? => {}
                _ => return Err(option.unknown()),
            }
        }
        match threshold {
            Some(threshold) => {
                let (ttl, scope) = (ttl.unwrap_or(limits::CACHE_TTL_DEFAULT), scope.unwrap_or_default());
                parsed.caching = Some(Caching { threshold, ttl, scope });
                parsed.check_caching()?;
            }
            None if ttl.is_some() => return Err(ArgError::Without { option: "CACHETTL", needs: "CACHE" }),
            None if scope.is_some() => return Err(ArgError::Without { option: "SCOPE", needs: "CACHE" }),
            None => {}
        }
        Ok(parsed)
    }

    /// Refuses what is not known of an answer that was given before.
    fn check_caching(&self) -> Result<(), ArgError> {
        if self.system.is_some_and(|system| system.len() > limits::CACHED_SYSTEM_MAX) {
            return Err(ArgError::TooLong { what: "SYSTEM together with CACHE", max: limits::CACHED_SYSTEM_MAX });
        }
        let unknown = [
            ("WITHPROMPT", self.with_prompt),
            ("WITHTOKENS", self.options.with_tokens),
            ("LOGPROBS", self.options.logprobs.is_some()),
        ];
        match unknown.into_iter().find(|&(_, given)| given) {
            Some((b, _)) => Err(ArgError::Conflict { a: "CACHE", b }),
            None => Ok(()),
        }
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
                caching: None,
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
    fn an_answer_is_kept_for_an_hour_and_for_everybody_unless_told() {
        let caching = |line: &str, expected: Caching<'_>| {
            with_words(line, |args| assert_eq!(Rag::parse(args).unwrap().caching, Some(expected)));
        };
        caching("docs q CACHE 0.9 WITHSOURCES WITHSTATS", Caching { threshold: 0.9, ttl: 3600, scope: b"" });
        caching("docs q scope a cachettl 5 cache 0", Caching { threshold: 0.0, ttl: 5, scope: b"a" });
        assert!(Caching { threshold: 0.999, ttl: 1, scope: b"" }.wants_similar());
        assert!(!Caching { threshold: 1.0, ttl: 1, scope: b"" }.wants_similar());
        let long = [b's'; limits::SCOPE_MAX + 1];
        let parse = |scope: &[u8]| Rag::parse(&[b"docs", b"q", b"CACHE", b"1", b"SCOPE", scope]).map(drop);
        assert_eq!(parse(&long[1..]), Ok(()));
        assert_eq!(parse(&long), Err(ArgError::TooLong { what: "SCOPE", max: limits::SCOPE_MAX }));
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
            ("docs q CACHE", "option CACHE needs a value"),
            ("docs q CACHE nan", "CACHE is not a number"),
            ("docs q CACHE 2", "CACHE must be from 0 to 1"),
            ("docs q CACHE -1", "CACHE must be from 0 to 1"),
            ("docs q CACHE 1 CACHE 1", "option CACHE is given twice"),
            ("docs q CACHE 1 CACHETTL 0", "CACHETTL must be from 1 to 315360000"),
            ("docs q CACHE 1 CACHETTL soon", "CACHETTL is not an integer"),
            ("docs q CACHETTL 5", "CACHETTL needs CACHE"),
            ("docs q SCOPE a", "SCOPE needs CACHE"),
            ("docs q SCOPE a CACHETTL 5", "CACHETTL needs CACHE"),
            ("docs q WITHPROMPT CACHE 1", "CACHE and WITHPROMPT cannot be used together"),
            ("docs q CACHE 1 WITHTOKENS", "CACHE and WITHTOKENS cannot be used together"),
            ("docs q CACHE 1 LOGPROBS 0", "CACHE and LOGPROBS cannot be used together"),
        ] {
            assert_eq!(with_words(line, |args| Rag::parse(args).map(drop)).unwrap_err().to_string(), text);
        }
    }
}
