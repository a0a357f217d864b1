//! `INFER.CACHEGET`, `INFER.CACHESET`, `INFER.CACHEDEL`, `INFER.CACHEINFO`.

use crate::logic::args::{ArgError, Args};
use crate::logic::limits;

const CACHE: &str = "cache name";
const PROMPT: &str = "prompt";
const ANSWER: &str = "answer";
const SCOPE: &str = "SCOPE";

/// `INFER.CACHEGET cache prompt [THRESHOLD f] [SCOPE s] [WITHSTATS]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheGet<'a> {
    /// The cache.
    pub cache: &'a str,
    /// What is asked; not empty.
    pub prompt: &'a str,
    /// `THRESHOLD`: the lowest score of a similar prompt, from 0 to 1; 1 is for the very prompt only.
    pub threshold: f64,
    /// `SCOPE`, any bytes; empty for none.
    pub scope: &'a [u8],
    /// `WITHSTATS`: with how it was found.
    pub with_stats: bool,
}

impl<'a> CacheGet<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.CACHEGET", args);
        let (cache, prompt) = (args.name(CACHE)?, args.limited_text(PROMPT, limits::QUERY_MAX)?);
        let mut parsed = Self { cache, prompt, threshold: limits::THRESHOLD_DEFAULT, scope: b"", with_stats: false };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "THRESHOLD" => parsed.threshold = threshold("THRESHOLD", &mut args)?,
                "SCOPE" => parsed.scope = scope(&mut args)?,
                "WITHSTATS" => parsed.with_stats = true,
                _ => return Err(option.unknown()),
            }
        }
        Ok(parsed)
    }

    /// Whether a similar prompt would do.
    pub fn wants_similar(&self) -> bool {
        self.threshold < limits::MINSCORE_MAX
    }
}

/// `INFER.CACHESET cache prompt answer [EMBEDMODEL m] [TTL s] [SCOPE s]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSet<'a> {
    /// The cache.
    pub cache: &'a str,
    /// What was asked; not empty.
    pub prompt: &'a str,
    /// What was answered, any bytes.
    pub answer: &'a [u8],
    /// `EMBEDMODEL`: makes the vectors of the cache; `None` for the cache's own, or the default one.
    pub embed_model: Option<&'a str>,
    /// `TTL` in seconds; `None` for ever.
    pub ttl: Option<u32>,
    /// `SCOPE`, any bytes; empty for none.
    pub scope: &'a [u8],
}

impl<'a> CacheSet<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.CACHESET", args);
        let (cache, prompt) = (args.name(CACHE)?, args.limited_text(PROMPT, limits::QUERY_MAX)?);
        let answer = bytes(ANSWER, limits::TEXT_MAX, &mut args)?;
        let mut parsed = Self { cache, prompt, answer, embed_model: None, ttl: None, scope: b"" };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "EMBEDMODEL" => parsed.embed_model = Some(args.model("EMBEDMODEL")?),
                "TTL" => parsed.ttl = Some(seconds("TTL", &mut args)?),
                "SCOPE" => parsed.scope = scope(&mut args)?,
                _ => return Err(option.unknown()),
            }
        }
        Ok(parsed)
    }
}

/// `INFER.CACHEDEL cache [SCOPE s]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheDel<'a> {
    /// The cache.
    pub cache: &'a str,
    /// `SCOPE`, any bytes; `None` for the whole cache, which an empty one is not.
    pub scope: Option<&'a [u8]>,
}

impl<'a> CacheDel<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.CACHEDEL", args);
        let mut parsed = Self { cache: args.name(CACHE)?, scope: None };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "SCOPE" => parsed.scope = Some(scope(&mut args)?),
                _ => return Err(option.unknown()),
            }
        }
        Ok(parsed)
    }
}

/// `INFER.CACHEINFO cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheInfo<'a> {
    /// The cache.
    pub cache: &'a str,
}

impl<'a> CacheInfo<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.CACHEINFO", args);
        let cache = args.name(CACHE)?;
        args.end()?;
        Ok(Self { cache })
    }
}

/// The lowest score of a similar prompt, from 0 to 1.
pub(super) fn threshold(option: &'static str, args: &mut Args<'_>) -> Result<f64, ArgError> {
    args.double(option, limits::MINSCORE_MIN, limits::MINSCORE_MAX)
}

/// How long an answer is kept.
pub(super) fn seconds(option: &'static str, args: &mut Args<'_>) -> Result<u32, ArgError> {
    args.integer(option, limits::EXPIRE_SECONDS_MIN, limits::EXPIRE_SECONDS_MAX)
}

/// `SCOPE`, any bytes.
pub(super) fn scope<'a>(args: &mut Args<'a>) -> Result<&'a [u8], ArgError> {
    bytes(SCOPE, limits::SCOPE_MAX, args)
}

/// The next argument, at most `max` bytes of any kind.
fn bytes<'a>(what: &'static str, max: usize, args: &mut Args<'a>) -> Result<&'a [u8], ArgError> {
    let bytes = args.required(what)?;
    if bytes.len() > max { Err(ArgError::TooLong { what, max }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_words;
    use super::*;

    #[test]
    fn a_prompt_is_asked_in_no_scope_and_for_what_is_nearly_the_same_unless_told() {
        with_words("faq question", |args| {
            let expected =
                CacheGet { cache: "faq", prompt: "question", threshold: 0.95, scope: b"", with_stats: false };
            assert_eq!(CacheGet::parse(args), Ok(expected));
        });
        with_words("faq question withstats SCOPE a threshold 1", |args| {
            let request = CacheGet::parse(args).unwrap();
            assert!(!request.wants_similar() && request.with_stats && request.scope == b"a");
        });
        with_words("faq question THRESHOLD 0.9999", |args| assert!(CacheGet::parse(args).unwrap().wants_similar()));
    }

    #[test]
    fn an_answer_may_be_empty_and_stays_for_ever_unless_told() {
        with_words("faq question ''", |args| {
            let (embed_model, ttl) = (None, None);
            let expected = CacheSet { cache: "faq", prompt: "question", answer: b"", embed_model, ttl, scope: b"" };
            assert_eq!(CacheSet::parse(args), Ok(expected));
        });
        with_words("faq question answer TTL 60 scope x EMBEDMODEL *", |args| {
            let request = CacheSet::parse(args).unwrap();
            assert_eq!((request.ttl, request.scope, request.embed_model), (Some(60), &b"x"[..], Some("*")));
        });
    }

    #[test]
    fn an_empty_scope_is_not_the_whole_cache() {
        with_words("faq", |args| assert_eq!(CacheDel::parse(args), Ok(CacheDel { cache: "faq", scope: None })));
        with_words("faq SCOPE ''", |args| {
            assert_eq!(CacheDel::parse(args), Ok(CacheDel { cache: "faq", scope: Some(b"") }));
        });
        with_words("faq", |args| assert_eq!(CacheInfo::parse(args), Ok(CacheInfo { cache: "faq" })));
    }

    #[test]
    fn wrong_arguments_are_told_why() {
        let failure = |line: &str| with_words(line, |args| CacheGet::parse(args).map(drop)).unwrap_err().to_string();
        for (line, text) in [
            ("faq ''", "prompt must not be empty"),
            ("a{b} x", "cache name must not contain control characters or braces, and must not be '*'"),
            ("faq q THRESHOLD NaN", "THRESHOLD is not a number"),
            ("faq q THRESHOLD 2", "THRESHOLD must be from 0 to 1"),
            ("faq q THRESHOLD -1", "THRESHOLD must be from 0 to 1"),
            ("faq q SCOPE", "option SCOPE needs a value"),
            ("faq q TTL 5", "unknown option 'TTL'"),
        ] {
            assert_eq!(failure(line), text);
        }
        let failure = |line: &str| with_words(line, |args| CacheSet::parse(args).map(drop)).unwrap_err().to_string();
        for (line, text) in [
            ("faq '' a", "prompt must not be empty"),
            ("faq q", "wrong number of arguments for 'INFER.CACHESET' command: answer is missing"),
            ("faq q a TTL 0", "TTL must be from 1 to 315360000"),
            ("faq q a TTL -5", "TTL must be from 1 to 315360000"),
            ("faq q a TTL 99999999999999999999", "TTL must be from 1 to 315360000"),
            ("faq q a TTL soon", "TTL is not an integer"),
            ("faq q a THRESHOLD 1", "unknown option 'THRESHOLD'"),
            ("faq q a SCOPE x SCOPE y", "option SCOPE is given twice"),
        ] {
            assert_eq!(failure(line), text);
        }
        let failure = |line: &str| with_words(line, |args| CacheDel::parse(args).map(drop)).unwrap_err().to_string();
        assert_eq!(failure("faq x"), "unknown option 'X'");
        let error = with_words("faq x", |args| CacheInfo::parse(args).map(drop)).unwrap_err();
        assert_eq!(error, ArgError::WrongArity { command: "INFER.CACHEINFO" });
    }

    #[test]
    fn prompts_answers_and_scopes_have_a_largest_size_and_all_but_prompts_hold_any_bytes() {
        let long = vec![0xff; limits::TEXT_MAX + 1];
        let set = |prompt: &[u8], answer: &[u8], scope: &[u8]| {
            CacheSet::parse(&[b"faq", prompt, answer, b"SCOPE", scope]).map(drop)
        };
        assert_eq!(set(b"a\0b", &long[1..], &long[..limits::SCOPE_MAX]), Ok(()));
        assert_eq!(set(b"q", &long, b""), Err(ArgError::TooLong { what: "answer", max: limits::TEXT_MAX }));
        let scope = set(b"q", b"", &long[..=limits::SCOPE_MAX]);
        assert_eq!(scope, Err(ArgError::TooLong { what: "SCOPE", max: limits::SCOPE_MAX }));
        assert_eq!(set(b"\xff", b"", b""), Err(ArgError::NotUtf8 { what: "prompt", offset: 0 }));
        let prompt = vec![b'x'; limits::QUERY_MAX + 1];
        assert_eq!(set(&prompt, b"", b""), Err(ArgError::TooLong { what: "prompt", max: limits::QUERY_MAX }));
    }
}
