//! `INFER.INDEX`, `INFER.INDEXINFO`, `INFER.INGEST`, `INFER.FORGET`.

use crate::logic::args::{ArgError, Args, utf8};
use crate::logic::attributes::UserAttributes;
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

/// How the chunks in the prompt of a question are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kv {
    /// One after another, each seeing those before it, as any prompt is.
    Exact,
    /// `KV CHUNK`: each by itself and once only; put together for a question. An approximation.
    Chunk {
        /// `REREAD`: tokens of each chunk but the first that are read again in the prompt of the question.
        reread: u32,
    },
}

/// The word of `KV`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KvWord {
    Exact,
    Chunk,
}

impl KvWord {
    const ALL: [Self; 2] = [Self::Exact, Self::Chunk];

    fn name(self) -> &'static str {
        match self {
            Self::Exact => "EXACT",
            Self::Chunk => "CHUNK",
        }
    }
}

impl Kv {
    /// The word in commands and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => KvWord::Exact.name(),
            Self::Chunk { .. } => KvWord::Chunk.name(),
        }
    }

    /// `REREAD`; 0 where there is nothing to read again.
    pub fn reread(self) -> u32 {
        match self {
            Self::Exact => 0,
            Self::Chunk { reread } => reread,
        }
    }

    /// The inverse of [`Kv::name`], exactly that word, and [`Kv::reread`].
    pub fn from_name(name: &str, reread: u32) -> Option<Self> {
        match KvWord::ALL.into_iter().find(|word| word.name() == name)? {
            KvWord::Exact => Some(Self::Exact),
            KvWord::Chunk => Some(Self::Chunk { reread }),
        }
    }
}

/// `INFER.INDEX index EMBEDMODEL m GENMODEL g [MAXTOKENS n] [OVERLAP n] [QUANT NOQUANT|Q8|BIN] [KV EXACT|CHUNK [REREAD n]]`.
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
    /// `KV` and `REREAD`.
    pub kv: Kv,
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
        let (mut kv, mut reread) = (KvWord::Exact, None);
        while let Some(option) = args.option()? {
            match option.as_str() {
                "EMBEDMODEL" => embed_model = Some(args.model("EMBEDMODEL")?),
                "GENMODEL" => gen_model = Some(args.model("GENMODEL")?),
                "KV" => kv = args.word("KV", &KvWord::ALL, KvWord::name)?,
                "REREAD" => reread = Some(args.integer("REREAD", limits::REREAD_MIN, limits::REREAD_MAX)?),
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
        let kv = match (kv, reread) {
            (KvWord::Exact, None) => Kv::Exact,
            (KvWord::Exact, Some(_)) => return Err(ArgError::Required { what: "KV CHUNK (for REREAD)" }),
            (KvWord::Chunk, reread) => Kv::Chunk { reread: reread.unwrap_or(limits::REREAD_DEFAULT) },
        };
        Ok(Self { index, embed_model, gen_model, max_tokens, overlap, quant, kv })
    }
}

/// The name of an index alone: `INFER.INDEXINFO index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexName<'a> {
    /// The index.
    pub index: &'a str,
}

impl<'a> IndexName<'a> {
    /// Parses the arguments after the name of `command`.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(command: &'static str, args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new(command, args);
        let index = args.name("index name")?;
        args.end()?;
        Ok(Self { index })
    }
}

/// `INFER.REINDEX index [EMBEDMODEL m] [GENMODEL g]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reindex<'a> {
    /// The index.
    pub index: &'a str,
    /// `EMBEDMODEL`: makes the vectors; `None` for that of the index.
    pub embed_model: Option<&'a str>,
    /// `GENMODEL`: answers; `None` for that of the index.
    pub gen_model: Option<&'a str>,
}

impl<'a> Reindex<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.REINDEX", args);
        let mut parsed = Self { index: args.name("index name")?, embed_model: None, gen_model: None };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "EMBEDMODEL" => parsed.embed_model = Some(args.model("EMBEDMODEL")?),
                "GENMODEL" => parsed.gen_model = Some(args.model("GENMODEL")?),
                _ => return Err(option.unknown()),
            }
        }
        Ok(parsed)
    }
}

/// `INFER.INGEST index path text [ATTRS json]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest<'a> {
    /// The index.
    pub index: &'a str,
    /// Names the document in the index; no file is read.
    pub path: &'a str,
    /// The document; an empty one has no chunks.
    pub text: &'a str,
    /// `ATTRS`: members for the attributes of each chunk.
    pub attributes: UserAttributes,
}

impl<'a> Ingest<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.INGEST", args);
        let index = args.name("index name")?;
        let path = document_path(&mut args)?;
        let text = utf8("text", args.required("text")?, limits::DOCUMENT_MAX)?;
        let mut attributes = UserAttributes::default();
        while let Some(option) = args.option()? {
            match option.as_str() {
                "ATTRS" => attributes = UserAttributes::parse(args.limited_text("ATTRS", limits::ATTRS_MAX)?)?,
                _ => return Err(option.unknown()),
            }
        }
        Ok(Self { index, path, text, attributes })
    }
}

/// `INFER.FORGET index path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forget<'a> {
    /// The index.
    pub index: &'a str,
    /// The document.
    pub path: &'a str,
}

impl<'a> Forget<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.FORGET", args);
        let index = args.name("index name")?;
        let path = document_path(&mut args)?;
        args.end()?;
        Ok(Self { index, path })
    }
}

fn document_path<'a>(args: &mut Args<'a>) -> Result<&'a str, ArgError> {
    const PATH: &str = "path";
    let path = args.limited_text(PATH, limits::PATH_MAX)?;
    if path.chars().any(char::is_control) {
        return Err(ArgError::ControlCharacter { what: PATH });
    }
    Ok(path)
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
                kv: Kv::Exact,
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
            ("KV FAST", "KV must be one of EXACT, CHUNK"),
            ("KV CHUNK REREAD 8193", "REREAD must be from 0 to 8192"),
            ("REREAD 8", "KV CHUNK (for REREAD) is required"),
            ("EMBEDMODEL e2", "option EMBEDMODEL is given twice"),
            ("DIM 4", "unknown option 'DIM'"),
        ] {
            let line = format!("docs EMBEDMODEL e GENMODEL g {options}");
            assert_eq!(with_words(&line, |args| CreateIndex::parse(args).map(|_| ())).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn chunks_are_read_by_themselves_when_that_is_asked_for() {
        for (options, kv) in [
            ("KV EXACT", Kv::Exact),
            ("kv chunk", Kv::Chunk { reread: limits::REREAD_DEFAULT }),
            ("REREAD 16 KV CHUNK", Kv::Chunk { reread: 16 }),
        ] {
            let line = format!("docs EMBEDMODEL e GENMODEL g {options}");
            with_words(&line, |args| assert_eq!(CreateIndex::parse(args).unwrap().kv, kv));
            assert_eq!(Kv::from_name(kv.name(), kv.reread()), Some(kv));
        }
        assert_eq!(Kv::from_name("chunk", 0), None);
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
    fn attributes_are_an_object_of_at_most_four_kibibytes() {
        let ingest = |json: &[u8]| {
            let args: [&[u8]; 5] = [b"docs", b"a.md", b"text", b"attrs", json];
            Ingest::parse(&args).map(|request| request.attributes)
        };
        assert_eq!(ingest(br#"{"year":1984}"#), UserAttributes::parse(r#"{"year":1984}"#));
        assert_eq!(ingest(b""), Err(ArgError::Empty { what: "ATTRS" }));
        assert_eq!(ingest(b"\xff"), Err(ArgError::NotUtf8 { what: "ATTRS", offset: 0 }));
        assert_eq!(ingest(&[b' '; 4097]), Err(ArgError::TooLong { what: "ATTRS", max: 4096 }));
        let error = ingest(b"[1]").unwrap_err();
        assert!(error.to_string().starts_with("ATTRS: invalid type"), "{error}");
    }

    #[test]
    fn a_document_has_no_option_but_attrs() {
        for (line, text) in
            [("docs a.md text FORCE", "unknown option 'FORCE'"), ("docs a.md text ATTRS", "option ATTRS needs a value")]
        {
            assert_eq!(with_words(line, |args| Ingest::parse(args).map(|_| ())).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_document_is_forgotten_by_its_path() {
        with_words("docs a.md", |args| {
            assert_eq!(Forget::parse(args), Ok(Forget { index: "docs", path: "a.md" }));
        });
        assert_eq!(Forget::parse(&[b"docs", b""]), Err(ArgError::Empty { what: "path" }));
        let error = with_words("docs a.md b.md", |args| Forget::parse(args).map(|_| ())).unwrap_err();
        assert_eq!(error, ArgError::WrongArity { command: "INFER.FORGET" });
    }

    #[test]
    fn an_index_is_made_anew_with_the_same_models_unless_told() {
        with_words("docs", |args| {
            assert_eq!(Reindex::parse(args), Ok(Reindex { index: "docs", embed_model: None, gen_model: None }));
        });
        with_words("docs genmodel g EMBEDMODEL *", |args| {
            let expected = Reindex { index: "docs", embed_model: Some("*"), gen_model: Some("g") };
            assert_eq!(Reindex::parse(args), Ok(expected));
        });
        let error = with_words("docs MAXTOKENS 64", |args| Reindex::parse(args).map(|_| ())).unwrap_err();
        assert_eq!(error.to_string(), "unknown option 'MAXTOKENS'");
    }

    #[test]
    fn an_index_is_named_alone() {
        with_words("docs", |args| {
            assert_eq!(IndexName::parse("INFER.INDEXINFO", args), Ok(IndexName { index: "docs" }));
        });
        let error = with_words("docs x", |args| IndexName::parse("INFER.INDEXINFO", args).map(|_| ())).unwrap_err();
        assert_eq!(error, ArgError::WrongArity { command: "INFER.INDEXINFO" });
    }
}
