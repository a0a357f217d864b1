//! `INFER.SEARCH`, and the options that say which chunks are looked for, which `INFER.RAG` has too.

use crate::logic::args::{ArgError, Args, Keyword};
use crate::logic::limits;

/// Which chunks of an index are wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// `K`: most chunks.
    pub k: u32,
    /// `FILTER`: an expression of `VSIM` that their attributes must meet; not empty, without NUL.
    pub filter: Option<String>,
    /// `EF`: how many candidates a search keeps at hand; `None` for the default of `VSIM`.
    pub ef: Option<u32>,
    /// `MINSCORE`: the lowest score, from 0 (opposite) to 1 (same direction).
    pub min_score: f64,
    /// `RERANK`: the model that puts what was found into its order.
    pub rerank: Option<String>,
}

impl Default for Selection {
    fn default() -> Self {
        Self { k: limits::K_DEFAULT, filter: None, ef: None, min_score: limits::MINSCORE_MIN, rerank: None }
    }
}

impl Selection {
    /// Takes `option` with its values from `args`, if it is one of these; else `false`, with nothing taken.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn accept(&mut self, option: &Keyword, args: &mut Args<'_>) -> Result<bool, ArgError> {
        match option.as_str() {
            "K" => self.k = args.integer("K", limits::K_MIN, limits::K_MAX)?,
            "FILTER" => self.filter = Some(filter(args)?.to_owned()),
            "EF" => self.ef = Some(args.integer("EF", limits::EF_MIN, limits::EF_MAX)?),
            "MINSCORE" => self.min_score = args.double("MINSCORE", limits::MINSCORE_MIN, limits::MINSCORE_MAX)?,
            "RERANK" => self.rerank = Some(args.model("RERANK")?.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Chunks to look for. A reranker chooses from more than are kept.
    pub fn candidates(&self) -> u32 {
        match self.rerank {
            None => self.k,
            Some(_) => self
                .k
                .saturating_mul(limits::RERANK_CANDIDATES_PER_K)
                .clamp(limits::RERANK_CANDIDATES_MIN, limits::RERANK_CANDIDATES_MAX),
        }
    }
}

/// Redis reads the expression up to the first NUL, so one with a NUL would be cut without a word.
fn filter<'a>(args: &mut Args<'a>) -> Result<&'a str, ArgError> {
    let filter = args.limited_text("FILTER", limits::FILTER_MAX)?;
    if filter.contains('\0') { Err(ArgError::Nul { what: "FILTER" }) } else { Ok(filter) }
}

/// The `FILTER-EF` of `VSIM` for `filter`, so that a search takes about the same time whatever the filter: a condition
/// costs a fifth of what the distance to an element does.
#[must_use]
pub fn filter_effort(filter: &str) -> u32 {
    const WITHOUT: u32 = 5;
    let bytes = u32::try_from(filter.len()).unwrap_or(u32::MAX);
    // Each condition looks a member up, which takes longest; what else there is goes by its length.
    let conditions = u32::try_from(filter.matches('.').count()).unwrap_or(u32::MAX).saturating_add(bytes / 64);
    let shares = limits::FILTER_EFFORT_MAX.saturating_mul(WITHOUT + 1);
    let effort = shares / conditions.saturating_add(WITHOUT);
    effort.clamp(limits::FILTER_EFFORT_MIN, limits::FILTER_EFFORT_MAX)
}

/// `INFER.SEARCH index query [K n] [FILTER expr] [EF n] [MINSCORE f] [RERANK model] [WITHTEXT] [WITHATTRS]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Search<'a> {
    /// The index.
    pub index: &'a str,
    /// What to look for; not empty.
    pub query: &'a str,
    /// Which chunks.
    pub selection: Selection,
    /// `WITHTEXT`: with the text of the chunks.
    pub with_text: bool,
    /// `WITHATTRS`: with their attributes.
    pub with_attributes: bool,
}

impl<'a> Search<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.SEARCH", args);
        let mut parsed = Self {
            index: args.name("index name")?,
            query: args.limited_text("query", limits::QUERY_MAX)?,
            selection: Selection::default(),
            with_text: false,
            with_attributes: false,
        };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "WITHTEXT" => parsed.with_text = true,
                "WITHATTRS" => parsed.with_attributes = true,
                _ if parsed.selection.accept(&option, &mut args)? => {}
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

    fn failure(line: &str) -> String {
        with_words(line, |args| Search::parse(args).map(drop)).unwrap_err().to_string()
    }

    #[test]
    fn a_search_has_a_query_and_a_default_for_the_rest() {
        with_words("docs question", |args| {
            let selection = Selection::default();
            let expected =
                Search { index: "docs", query: "question", selection, with_text: false, with_attributes: false };
            assert_eq!(Search::parse(args), Ok(expected));
        });
    }

    #[test]
    fn all_options_are_taken_in_any_order_and_case() {
        with_words("docs question WithAttrs MINSCORE 0.75 rerank m WITHTEXT filter .chunk==1 ef 1000 k 200", |args| {
            let (filter, rerank) = (Some(".chunk==1".into()), Some("m".into()));
            let selection = Selection { k: 200, filter, ef: Some(1000), min_score: 0.75, rerank };
            let expected =
                Search { index: "docs", query: "question", selection, with_text: true, with_attributes: true };
            assert_eq!(Search::parse(args), Ok(expected));
        });
    }

    #[test]
    fn a_reranker_chooses_from_four_times_as_many_chunks_but_from_some_and_not_too_many() {
        let candidates = |line: &str| with_words(line, |args| Search::parse(args).unwrap().selection.candidates());
        assert_eq!(candidates("docs q K 7"), 7);
        for (k, expected) in [(1, 20), (5, 20), (6, 24), (50, 200), (51, 200), (200, 200)] {
            assert_eq!(candidates(&format!("docs q rerank * K {k}")), expected);
        }
    }

    #[test]
    fn a_score_that_a_search_has_told_is_kept_to_its_last_digit() {
        with_words("docs q MINSCORE 0.8555330336093903", |args| {
            let told: f64 = 0.855_533_033_609_390_3;
            assert_eq!(Search::parse(args).unwrap().selection.min_score.to_bits(), told.to_bits());
        });
    }

    #[test]
    fn wrong_options_are_told_why() {
        for (line, text) in [
            ("docs ''", "query must not be empty"),
            ("docs q K 0", "K must be from 1 to 200"),
            ("docs q K 201", "K must be from 1 to 200"),
            ("docs q K 1000000000", "K must be from 1 to 200"),
            ("docs q K 99999999999999999999", "K must be from 1 to 200"),
            ("docs q K -1", "K must be from 1 to 200"),
            ("docs q K five", "K is not an integer"),
            ("docs q RERANK", "option RERANK needs a value"),
            ("docs q RERANK ''", "RERANK must not be empty"),
            ("docs q EF 0", "EF must be from 1 to 1000"),
            ("docs q EF 1001", "EF must be from 1 to 1000"),
            ("docs q EF", "option EF needs a value"),
            ("docs q MINSCORE -0.1", "MINSCORE must be from 0 to 1"),
            ("docs q MINSCORE 1.01", "MINSCORE must be from 0 to 1"),
            ("docs q MINSCORE nan", "MINSCORE is not a number"),
            ("docs q FILTER ''", "FILTER must not be empty"),
            ("docs q FILTER", "option FILTER needs a value"),
            ("docs q FILTER a\0b", "FILTER must not contain a NUL byte"),
            ("docs q FILTER a FILTER b", "option FILTER is given twice"),
            ("docs q BUDGET 5", "unknown option 'BUDGET'"),
            ("docs q WITHSOURCES", "unknown option 'WITHSOURCES'"),
        ] {
            assert_eq!(failure(line), text);
        }
    }

    #[test]
    fn the_more_a_filter_asks_the_fewer_elements_are_tried() {
        assert_eq!(filter_effort(".chunk >= 0"), 1000);
        assert_eq!(filter_effort("1"), 1000);
        assert_eq!(filter_effort(&".pct == 7 or ".repeat(20)), 206);
        assert_eq!(filter_effort(&".a+".repeat(limits::FILTER_MAX / 3)), 50);
        assert_eq!(filter_effort(&"1+".repeat(limits::FILTER_MAX / 2)), 285);
    }

    #[test]
    fn queries_and_filters_have_a_largest_size() {
        let query = vec![b'x'; limits::QUERY_MAX + 1];
        let search = |query: &[u8], filter: &[u8]| Search::parse(&[b"docs", query, b"FILTER", filter]).map(drop);
        assert_eq!(search(&query[1..], &[b'1'; limits::FILTER_MAX]), Ok(()));
        assert_eq!(search(&query, b"1"), Err(ArgError::TooLong { what: "query", max: 1 << 20 }));
        let too_long = Err(ArgError::TooLong { what: "FILTER", max: limits::FILTER_MAX });
        assert_eq!(search(b"q", &[b'1'; limits::FILTER_MAX + 1]), too_long);
    }
}
