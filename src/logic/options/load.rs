//! `INFER.LOAD`, `INFER.UNLOAD`, `INFER.MODEL`.

use std::path::Path;

use crate::logic::args::{ArgError, Args, check_name, model_name, non_empty, utf8};
use crate::logic::limits;
use crate::logic::payoff::DRAFTS_MAX;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// What its file says.
    Auto,
    /// Generation of text.
    Generate,
    /// Embedding of texts.
    Embed,
    /// Scores of texts for a query.
    Rerank,
}

impl ModelKind {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Generate, Self::Embed, Self::Rerank];

    /// The word in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "AUTO",
            Self::Generate => "GENERATE",
            Self::Embed => "EMBED",
            Self::Rerank => "RERANK",
        }
    }
}

/// Type of the values in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    /// 16-bit floating point.
    F16,
    /// Blocks of 8-bit integers: about half the memory.
    Q8_0,
}

impl KvType {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::F16, Self::Q8_0];

    /// The word in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::Q8_0 => "Q8_0",
        }
    }
}

/// Where guesses of an answer's next tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speculation {
    /// From where the last tokens stood before, in the prompt or in the answer.
    Lookup,
    /// There are none.
    None,
}

impl Speculation {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::Lookup, Self::None];

    /// The word in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "LOOKUP",
            Self::None => "NONE",
        }
    }
}

/// How the vectors of a text's tokens become the vector of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
}

impl Pooling {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Mean, Self::Cls, Self::Last];

    /// The word in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "MEAN",
            Self::Cls => "CLS",
            Self::Last => "LAST",
        }
    }
}

/// `LORA path scale`: a change to the weights that comes in a file of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// The GGUF file of the adapter.
    pub path: String,
    /// What the change is multiplied with; 1 is as it was trained.
    pub scale: f32,
}

/// `INFER.LOAD [name] path [option ...]`; owned, because loading outlives the command.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// The name other commands use.
    pub name: String,
    /// The GGUF file.
    pub path: String,
    /// `TYPE`.
    pub kind: ModelKind,
    /// `CTX`: tokens per request; `None` to choose.
    pub ctx: Option<u32>,
    /// `PARALLEL`: requests that one worker advances together; `None` for the default.
    pub parallel: Option<u32>,
    /// `WORKERS`; `None` to choose.
    pub workers: Option<u32>,
    /// `THREADS` of one worker; `None` to choose.
    pub threads: Option<u32>,
    /// `KVTYPE`; `None` for F16.
    pub kv_type: Option<KvType>,
    /// `SPECULATION`; `None` for LOOKUP.
    pub speculation: Option<Speculation>,
    /// `GPULAYERS`.
    pub gpu_layers: u32,
    /// `POOLING`; `None` for the model's own.
    pub pooling: Option<Pooling>,
    /// `LORA`.
    pub lora: Option<Lora>,
    /// `MMAP`: map the file into memory instead of reading it.
    pub mmap: bool,
    /// `MLOCK`: keep the weights from being swapped out.
    pub mlock: bool,
    /// `DEFAULT`: also answers to `*`, though another model was loaded first.
    pub default: bool,
    /// `ASYNC`: nobody waits for it.
    pub background: bool,
}

impl LoadOptions {
    /// The files it names.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        [self.path.as_str()].into_iter().chain(self.lora.as_ref().map(|lora| lora.path.as_str()))
    }

    /// Parses the arguments after the command's name. With one argument, that is the path and its file stem the name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &[&[u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.LOAD", args);
        let given_name = if args.remaining() == 1 { None } else { Some(args.name("model name")?) };
        let path = model_path("path", args.required("path")?)?;
        let name = match given_name {
            Some(name) => name,
            None => name_from(path)?,
        };
        let mut parsed = Self::new(name, path);
        let mut is_read = false;
        while let Some(option) = args.option()? {
            match option.as_str() {
                "TYPE" => parsed.kind = args.word("TYPE", &ModelKind::ALL, ModelKind::name)?,
                "CTX" => parsed.ctx = Some(args.integer("CTX", limits::CTX_MIN, limits::CTX_MAX)?),
                "PARALLEL" => {
                    parsed.parallel = Some(args.integer("PARALLEL", limits::PARALLEL_MIN, limits::PARALLEL_MAX)?)
                }
                "WORKERS" => {
                    parsed.workers = args.integer_or_auto("WORKERS", limits::WORKERS_MIN, limits::WORKERS_MAX)?
                }
                "THREADS" => {
                    parsed.threads = args.integer_or_auto("THREADS", limits::THREADS_MIN, limits::THREADS_MAX)?
                }
                "KVTYPE" => parsed.kv_type = Some(args.word("KVTYPE", &KvType::ALL, KvType::name)?),
                "SPECULATION" => {
                    parsed.speculation = Some(args.word("SPECULATION", &Speculation::ALL, Speculation::name)?)
                }
                "GPULAYERS" => {
                    parsed.gpu_layers = args.integer("GPULAYERS", limits::GPU_LAYERS_MIN, limits::GPU_LAYERS_MAX)?
                }
                "POOLING" => parsed.pooling = Some(args.word("POOLING", &Pooling::ALL, Pooling::name)?),
                "LORA" => {
                    let path = model_path("LORA path", args.required("LORA path")?)?.to_owned();
                    let scale = args.number("LORA scale", limits::LORA_SCALE_MIN, limits::LORA_SCALE_MAX)?;
                    parsed.lora = Some(Lora { path, scale });
                }
                "MMAP" => parsed.mmap = true,
                "NOMMAP" => is_read = true,
                "MLOCK" => parsed.mlock = true,
                "DEFAULT" => parsed.default = true,
                "ASYNC" => parsed.background = true,
                _ => return Err(option.unknown()),
            }
        }
        match (parsed.kind, parsed.pooling) {
            (ModelKind::Generate, Some(_)) => Err(ArgError::Conflict { a: "TYPE GENERATE", b: "POOLING" }),
            (ModelKind::Rerank, Some(_)) => Err(ArgError::Conflict { a: "TYPE RERANK", b: "POOLING" }),
            (ModelKind::Embed, _) if parsed.lora.is_some() => Err(ArgError::Conflict { a: "TYPE EMBED", b: "LORA" }),
            (ModelKind::Rerank, _) if parsed.lora.is_some() => Err(ArgError::Conflict { a: "TYPE RERANK", b: "LORA" }),
            _ if parsed.mmap && is_read => Err(ArgError::Conflict { a: "MMAP", b: "NOMMAP" }),
            _ => Ok(parsed),
        }
    }

    /// Requests that one worker of a generation model advances together; see [`Layout`](crate::logic::layout::Layout), which
    /// may join those of two.
    pub fn slots(&self) -> u32 {
        self.parallel.unwrap_or(limits::PARALLEL_DEFAULT)
    }

    /// How a generation model stores keys and values.
    pub fn cache_type(&self) -> KvType {
        self.kv_type.unwrap_or(KvType::F16)
    }

    /// Whether a generation model's answers are guessed.
    pub fn speculates(&self) -> bool {
        self.speculation != Some(Speculation::None)
    }

    /// Rows of logits that one forward pass of a generation model makes at most: one for each of `slots` requests, or all
    /// for the drafts of one.
    pub fn logit_rows(&self, slots: u32) -> u32 {
        let drafts = if self.speculates() { DRAFTS_MAX as u32 } else { 0 };
        slots.max(1 + drafts)
    }

    /// `name` from `path` with the default of every option.
    pub fn new(name: &str, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
            kind: ModelKind::Auto,
            ctx: None,
            parallel: None,
            workers: None,
            threads: None,
            kv_type: None,
            speculation: None,
            gpu_layers: limits::GPU_LAYERS_DEFAULT,
            pooling: None,
            lora: None,
            mmap: false,
            mlock: false,
            default: false,
            background: false,
        }
    }
}

fn model_path<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a str, ArgError> {
    let path = non_empty(what, utf8(what, bytes, limits::MODEL_PATH_MAX)?)?;
    // The C library would take the part before a NUL for the whole path.
    if path.contains('\0') { Err(ArgError::Nul { what }) } else { Ok(path) }
}

fn name_from(path: &str) -> Result<&str, ArgError> {
    const WHAT: &str = "the file name, which becomes the model name,";
    let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    check_name(WHAT, stem)?;
    Ok(stem)
}

/// `INFER.MODEL name`; the name may be `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelName<'a> {
    /// The model.
    pub name: &'a str,
}

impl<'a> ModelName<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        const WHAT: &str = "model name";
        let [name] = args else {
            return Err(ArgError::NotOne { what: WHAT });
        };
        Ok(Self { name: model_name(WHAT, name)? })
    }
}

/// `INFER.UNLOAD name [FORCE]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unload<'a> {
    /// The model.
    pub name: &'a str,
    /// `FORCE`: end its requests instead of finishing them.
    pub force: bool,
}

impl<'a> Unload<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.UNLOAD", args);
        let mut parsed = Self { name: args.model("model name")?, force: false };
        while let Some(option) = args.option()? {
            match option.as_str() {
                "FORCE" => parsed.force = true,
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

    fn load(line: &str) -> Result<LoadOptions, ArgError> {
        with_words(line, LoadOptions::parse)
    }

    #[test]
    fn every_option_has_a_default() {
        assert_eq!(load("m /models/a.gguf"), Ok(LoadOptions::new("m", "/models/a.gguf")));
    }

    #[test]
    fn a_path_alone_gives_its_stem_as_the_name() {
        let loaded = load("/models/Llama-3.2-1B.Q4_K_M.gguf").unwrap();
        assert_eq!(loaded, LoadOptions::new("Llama-3.2-1B.Q4_K_M", "/models/Llama-3.2-1B.Q4_K_M.gguf"));
    }

    #[test]
    fn a_path_alone_whose_stem_cannot_be_a_name_is_refused() {
        assert!(matches!(load("/models/{a}.gguf"), Err(ArgError::BadName { .. })));
        assert!(matches!(load("/"), Err(ArgError::Empty { .. })));
        assert!(matches!(load(&format!("/{}.gguf", "x".repeat(129))), Err(ArgError::TooLong { .. })));
    }

    #[test]
    fn all_options_are_taken_in_any_order_and_case() {
        let line = "m p mlock speculation none default async MMAP POOLING cls GpuLayers 99 kvtype q8_0 Threads 3 workers auto parallel 8 CTX 512 lora a.gguf -0.5";
        let expected = LoadOptions {
            ctx: Some(512),
            parallel: Some(8),
            workers: None,
            threads: Some(3),
            kv_type: Some(KvType::Q8_0),
            speculation: Some(Speculation::None),
            gpu_layers: 99,
            pooling: Some(Pooling::Cls),
            lora: Some(Lora { path: "a.gguf".to_owned(), scale: -0.5 }),
            mmap: true,
            mlock: true,
            default: true,
            background: true,
            ..LoadOptions::new("m", "p")
        };
        assert_eq!(load(line), Ok(expected));
    }

    #[test]
    fn wrong_options_are_told_why() {
        for (options, text) in [
            ("CTX 63", "CTX must be from 64 to 1048576"),
            ("CTX", "option CTX needs a value"),
            ("CTX x", "CTX is not an integer"),
            ("PARALLEL 0", "PARALLEL must be from 1 to 64"),
            ("WORKERS 257", "WORKERS must be from 1 to 256"),
            ("THREADS 0", "THREADS must be from 1 to 256"),
            ("TYPE CHAT", "TYPE must be one of AUTO, GENERATE, EMBED, RERANK"),
            ("KVTYPE F32", "KVTYPE must be one of F16, Q8_0"),
            ("SPECULATION DRAFT", "SPECULATION must be one of LOOKUP, NONE"),
            ("POOLING MAX", "POOLING must be one of MEAN, CLS, LAST"),
            ("MLOCK MLOCK", "option MLOCK is given twice"),
            ("DEFAULT default", "option DEFAULT is given twice"),
            ("async ASYNC", "option ASYNC is given twice"),
            ("CTX 64 ctx 64", "option CTX is given twice"),
            ("MAP", "unknown option 'MAP'"),
            ("LORA", "option LORA needs a value"),
            ("LORA a.gguf", "option LORA needs a value"),
            ("LORA '' 1", "LORA path must not be empty"),
            ("LORA a.gguf big", "LORA scale is not a number"),
            ("LORA a.gguf nan", "LORA scale is not a number"),
            ("LORA a.gguf -101", "LORA scale must be from -100 to 100"),
            ("LORA a.gguf 1 LORA b.gguf 1", "option LORA is given twice"),
            ("TYPE EMBED LORA a.gguf 1", "TYPE EMBED and LORA cannot be used together"),
            ("LORA a.gguf 1 TYPE RERANK", "TYPE RERANK and LORA cannot be used together"),
            ("POOLING CLS TYPE GENERATE", "TYPE GENERATE and POOLING cannot be used together"),
            ("TYPE RERANK POOLING CLS", "TYPE RERANK and POOLING cannot be used together"),
            ("NOMMAP MMAP", "MMAP and NOMMAP cannot be used together"),
        ] {
            assert_eq!(load(&format!("m p {options}")).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_path_with_a_nul_or_too_many_bytes_is_refused() {
        let load = |path: &[u8]| LoadOptions::parse(&[b"m", path]).map(drop);
        assert_eq!(load(b"a.gguf\0.txt"), Err(ArgError::Nul { what: "path" }));
        assert_eq!(load(b""), Err(ArgError::Empty { what: "path" }));
        assert_eq!(load(b"\xff"), Err(ArgError::NotUtf8 { what: "path", offset: 0 }));
        assert_eq!(load(&[b'x'; 4097]), Err(ArgError::TooLong { what: "path", max: 4096 }));
        assert_eq!(load(&[b'x'; 4096]), Ok(()));
    }

    #[test]
    fn unloading_waits_unless_it_is_forced() {
        for (line, force) in [("m", false), ("m force", true)] {
            assert_eq!(with_words(line, |args| Unload::parse(args).map(|parsed| parsed.force)), Ok(force));
        }
        for (line, text) in [
            ("", "wrong number of arguments for 'INFER.UNLOAD' command: model name is missing"),
            ("''", "model name must not be empty"),
            ("m NOW", "unknown option 'NOW'"),
            ("m FORCE FORCE", "option FORCE is given twice"),
        ] {
            assert_eq!(with_words(line, |args| Unload::parse(args).map(|_| ())).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_model_name_is_the_only_argument() {
        assert_eq!(with_words("m", |args| ModelName::parse(args).map(|parsed| parsed.name == "m")), Ok(true));
        for line in ["", "m n"] {
            let error = with_words(line, |args| ModelName::parse(args).map(|_| ())).unwrap_err();
            assert_eq!(error.to_string(), "wrong number of arguments: exactly one is taken, the model name");
        }
        assert_eq!(with_words("*", |args| ModelName::parse(args).map(|parsed| parsed.name == "*")), Ok(true));
        assert!(with_words("{m}", |args| ModelName::parse(args).is_err()));
    }
}
