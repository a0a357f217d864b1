//! `INFER.INDEX`, `INFER.INGEST`, `INFER.SEARCH`.

use crate::logic::args::{ArgError, Args, non_empty, utf8};
use crate::logic::limits;

/// How a vector set stores vectors; the words are options of `VADD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quant {
    /// 32-bit floating point.
    Fp32,
    /// 8-bit integers; the default of `VADD`.
    Q8,
    /// One bit per value.
    Bin,
}

impl Quant {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Q8, Self::Bin];

    /// The word in commands and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "NOQUANT",
            Self::Q8 => "Q8",
            Self::Bin => "BIN",
        }
    }

    /// The inverse of [`Quant::name`]; exactly that word, in upper case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quant| quant.name() == name)
    }
}

/// `INFER.INDEX index EMBEDMODEL m GENMODEL g [MAXTOKENS n] [OVERLAP n] [QUANT NOQUANT|Q8|BIN]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateIndex<'a> {
    /// The index.
    pub index: &'a str,
    /// `EMBEDMODEL`: makes the vectors.
    pub embed_model: &'a str,
    /// `GENMODEL`: answers.
    pub gen_model: &'a str,
    /// `MAXTOKENS`: most tokens of a chunk.
    pub max_tokens: u32,
    /// `OVERLAP`: pieces repeated from one chunk to the next.
    pub overlap: u32,
    /// `QUANT`.
    pub quant: Quant,
}

impl<'a> CreateIndex<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.INDEX", args);
        let index = args.name("index name")?;
        let (mut embed_model, mut gen_model) = (None, None);
        let (mut max_tokens, mut overlap, mut quant) =
            (limits::CHUNK_TOKENS_DEFAULT, limits::OVERLAP_DEFAULT, Quant::Q8);
        while let Some(option) = args.option()? {
            match option.as_str() {
                "EMBEDMODEL" => embed_model = Some(args.model("EMBEDMODEL")?),
                "GENMODEL" => gen_model = Some(args.model("GENMODEL")?),
                "MAXTOKENS" => {
                    max_tokens = args.integer("MAXTOKENS", limits::CHUNK_TOKENS_MIN, limits::CHUNK_TOKENS_MAX)?
                }
                "OVERLAP" => overlap = args.integer("OVERLAP", limits::OVERLAP_MIN, limits::OVERLAP_MAX)?,
                "QUANT" => quant = args.word("QUANT", &Quant::ALL, Quant::name)?,
                _ => return Err(option.unknown()),
            }
        }
        let embed_model = embed_model.ok_or(ArgError::Required { what: "EMBEDMODEL" })?;
        let gen_model = gen_model.ok_or(ArgError::Required { what: "GENMODEL" })?;
        Ok(Self { index, embed_model, gen_model, max_tokens, overlap, quant })
    }
}

/// `INFER.INGEST index path text`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingest<'a> {
    /// The index.
    pub index: &'a str,
    /// Names the document in the index; no file is read.
    pub path: &'a str,
    /// The document; an empty one has no chunks.
    pub text: &'a str,
}

impl<'a> Ingest<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        const PATH: &str = "path";
        let mut args = Args::new("INFER.INGEST", args);
        let index = args.name("index name")?;
        let path = non_empty(PATH, utf8(PATH, args.required(PATH)?, limits::PATH_MAX)?)?;
        if path.chars().any(char::is_control) {
            return Err(ArgError::ControlCharacter { what: PATH });
        }
        let text = utf8("text", args.required("text")?, limits::DOCUMENT_MAX)?;
        args.end()?;
        Ok(Self { index, path, text })
    }
}

/// `INFER.SEARCH index query [K n] [WITHTEXT]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search<'a> {
    /// The index.
    pub index: &'a str,
    /// What to look for; not empty.
    pub query: &'a str,
    /// `K`: most chunks to answer.
    pub k: u32,
    /// `WITHTEXT`: with the text of the chunks.
    pub with_text: bool,
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
            query: args.non_empty_text("query")?,
            k: limits::K_DEFAULT,
            with_text: false,
        };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "K" => parsed.k = args.integer("K", limits::K_MIN, limits::K_MAX)?,
                "WITHTEXT" => parsed.with_text = true,
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
    fn an_index_needs_both_models_and_has_defaults_for_the_rest() {
        with_words("docs GENMODEL g EMBEDMODEL e", |args| {
            let expected = CreateIndex {
                index: "docs",
                embed_model: "e",
                gen_model: "g",
                max_tokens: 256,
                overlap: 1,
                quant: Quant::Q8,
            };
            assert_eq!(CreateIndex::parse(args), Ok(expected));
        });
        for (line, text) in
            [("docs GENMODEL g", "EMBEDMODEL is required"), ("docs embedmodel e", "GENMODEL is required")]
        {
            assert_eq!(with_words(line, |args| CreateIndex::parse(args).map(|_| ())).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn wrong_options_of_an_index_are_told_why() {
        for (options, text) in [
            ("MAXTOKENS 15", "MAXTOKENS must be from 16 to 8192"),
            ("OVERLAP 9", "OVERLAP must be from 0 to 8"),
            ("QUANT FP16", "QUANT must be one of NOQUANT, Q8, BIN"),
            ("EMBEDMODEL e2", "option EMBEDMODEL is given twice"),
            ("DIM 4", "unknown option 'DIM'"),
        ] {
            let line = format!("docs EMBEDMODEL e GENMODEL g {options}");
            assert_eq!(with_words(&line, |args| CreateIndex::parse(args).map(|_| ())).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn every_quantization_is_found_by_its_name() {
        for quant in Quant::ALL {
            assert_eq!(Quant::from_name(quant.name()), Some(quant));
        }
        assert_eq!(Quant::from_name("bin"), None);
    }

    #[test]
    fn a_document_has_a_path_without_control_characters() {
        let ingest = |path: &[u8]| Ingest::parse(&[b"docs", path, b"text"]).map(|_| ());
        assert_eq!(ingest("notes/{一} a.md".as_bytes()), Ok(()));
        assert_eq!(ingest(b""), Err(ArgError::Empty { what: "path" }));
        assert_eq!(ingest(b"a\nb"), Err(ArgError::ControlCharacter { what: "path" }));
        assert_eq!(ingest(b"a\0"), Err(ArgError::ControlCharacter { what: "path" }));
        assert_eq!(ingest(&[b'x'; 1024]), Ok(()));
        assert_eq!(ingest(&[b'x'; 1025]), Err(ArgError::TooLong { what: "path", max: 1024 }));
    }

    #[test]
    fn a_document_has_at_most_one_mebibyte_and_may_be_empty() {
        let longest = vec![b'x'; limits::DOCUMENT_MAX + 1];
        let ingest = |text: &[u8]| Ingest::parse(&[b"docs", b"a.md", text]).map(|_| ());
        assert_eq!(ingest(&longest[1..]), Ok(()));
        assert_eq!(ingest(&longest), Err(ArgError::TooLong { what: "text", max: 1 << 20 }));
        assert_eq!(ingest(b""), Ok(()));
    }

    #[test]
    fn ingest_takes_no_options() {
        let error = with_words("docs a.md text FORCE", |args| Ingest::parse(args).map(|_| ())).unwrap_err();
        assert_eq!(error, ArgError::WrongArity { command: "INFER.INGEST" });
    }

    #[test]
    fn a_search_has_a_query_and_returns_five_unless_told() {
        with_words("docs question", |args| {
            assert_eq!(Search::parse(args), Ok(Search { index: "docs", query: "question", k: 5, with_text: false }));
        });
        with_words("docs question WITHTEXT k 200", |args| {
            assert_eq!(Search::parse(args), Ok(Search { index: "docs", query: "question", k: 200, with_text: true }));
        });
        for (line, text) in [("docs ''", "query must not be empty"), ("docs q K 201", "K must be from 1 to 200")] {
            assert_eq!(with_words(line, |args| Search::parse(args).map(|_| ())).unwrap_err().to_string(), text);
        }
    }
}
