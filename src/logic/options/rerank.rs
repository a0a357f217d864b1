//! `INFER.RERANK`.

use crate::logic::args::{ArgError, Args, bytes_of, texts};
use crate::logic::limits;

/// `INFER.RERANK model query count text [text ...] [TOP n]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rerank<'a> {
    /// The model.
    pub model: &'a str,
    /// What the texts are compared with; not empty.
    pub query: &'a str,
    /// The texts; one may be empty.
    pub texts: Vec<&'a str>,
    /// `TOP`: how many are answered at most; `None` for all.
    pub top: Option<u32>,
}

impl<'a> Rerank<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.RERANK", args);
        let model = args.model("model name")?;
        let query = args.non_empty_text("query")?;
        let given = args.counted("count", limits::RERANK_COUNT_MIN, limits::RERANK_COUNT_MAX)?;
        if bytes_of(given).saturating_add(query.len()) > limits::TEXT_MAX && bytes_of(given) <= limits::TEXT_MAX {
            return Err(ArgError::TooLong { what: "query and all texts together", max: limits::TEXT_MAX });
        }
        let texts = texts("text", "all texts together", given, limits::TEXT_MAX)?;
        let mut parsed = Self { model, query, texts, top: None };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "TOP" => parsed.top = Some(args.integer("TOP", limits::RERANK_COUNT_MIN, limits::RERANK_COUNT_MAX)?),
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
    fn texts_may_look_like_options_and_be_empty() {
        with_words("m q 3 TOP '' 5", |args| {
            let expected = Rerank { model: "m", query: "q", texts: vec!["TOP", "", "5"], top: None };
            assert_eq!(Rerank::parse(args), Ok(expected));
        });
    }

    #[test]
    fn top_is_taken_in_any_case_and_may_be_more_than_there_are_texts() {
        with_words("m q 1 a top 9", |args| assert_eq!(Rerank::parse(args).map(|parsed| parsed.top), Ok(Some(9))));
    }

    #[test]
    fn wrong_arguments_are_told_why() {
        for (line, text) in [
            ("m", "wrong number of arguments for 'INFER.RERANK' command: query is missing"),
            ("m '' 1 a", "query must not be empty"),
            ("m q", "wrong number of arguments for 'INFER.RERANK' command: count is missing"),
            ("m q 0", "count must be from 1 to 1024"),
            ("m q -1 a", "count is negative"),
            ("m q 3 a b", "count is 3, but the number of arguments after it is 2"),
            ("m q 1 a b", "unknown option 'B'"),
            ("m q 1 a TOP", "option TOP needs a value"),
            ("m q 1 a TOP 0", "TOP must be from 1 to 1024"),
            ("m q 1 a TOP 1 top 1", "option TOP is given twice"),
        ] {
            let error = with_words(line, |args| Rerank::parse(args).map(drop)).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
        let half = "x".repeat(4 << 20);
        let error = Rerank::parse(&[b"m", b"q", b"2", half.as_bytes(), half.as_bytes()]).unwrap_err();
        assert_eq!(error.to_string(), "query and all texts together is longer than 8388608 bytes");
        let error = Rerank::parse(&[b"m", b"q", b"1", b"\xff"]).unwrap_err();
        assert_eq!(error, ArgError::NotUtf8 { what: "text", offset: 0 });
    }
}
