//! `INFER.RAG`.

use super::GenerateOptions;
use crate::logic::args::{ArgError, Args};
use crate::logic::limits;

/// `INFER.RAG index query [K n] [SYSTEM text] [WITHSOURCES] [generation options]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rag<'a> {
    /// The index.
    pub index: &'a str,
    /// The question; not empty.
    pub query: &'a str,
    /// `K`: most chunks to give to the model.
    pub k: u32,
    /// `SYSTEM`: replaces the default system text; may be empty.
    pub system: Option<&'a str>,
    /// `WITHSOURCES`: answer with a map that names the chunks.
    pub with_sources: bool,
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
            query: args.non_empty_text("query")?,
            k: limits::K_DEFAULT,
            system: None,
            with_sources: false,
            options: GenerateOptions::default(),
        };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "K" => parsed.k = args.integer("K", limits::K_MIN, limits::K_MAX)?,
                "SYSTEM" => parsed.system = Some(args.text("SYSTEM")?),
                "WITHSOURCES" => parsed.with_sources = true,
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
                k: 5,
                system: None,
                with_sources: false,
                options: GenerateOptions::default(),
            };
            assert_eq!(Rag::parse(args), Ok(expected));
        });
    }

    #[test]
    fn generation_options_mix_with_its_own() {
        with_words("docs question TEMP 0 k 3 withstats SYSTEM '' STOP 1 K WITHSOURCES", |args| {
            let parsed = Rag::parse(args).unwrap();
            assert_eq!((parsed.k, parsed.system, parsed.with_sources), (3, Some(""), true));
            assert_eq!((parsed.options.sampling.temperature, parsed.options.with_stats), (0.0, true));
            assert_eq!(parsed.options.stop, ["K"]);
        });
    }

    #[test]
    fn wrong_arguments_are_told_why() {
        for (line, text) in [
            ("docs", "wrong number of arguments for 'INFER.RAG' command: query is missing"),
            ("docs ''", "query must not be empty"),
            ("docs q TEMP 1 TEMP 1", "option TEMP is given twice"),
            ("docs q RAW", "unknown option 'RAW'"),
            ("docs q SYSTEM", "option SYSTEM needs a value"),
        ] {
            assert_eq!(with_words(line, |args| Rag::parse(args).map(drop)).unwrap_err().to_string(), text);
        }
    }
}
