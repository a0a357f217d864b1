//! A loaded model: its weights (shared by all contexts), facts, tokenizer and chat template.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use redis_infer_gguf::Header;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::adapter::Adapter;
use super::catalogue::Load;
use super::chat_template::ChatTemplate;
use super::error::EngineError;
use super::llama_log::Sizes;
use super::mapped::Mapped;
use super::memory::MemoryUse;
use super::rope::rope;
use super::source::{Checked, is_encoder};
use super::{huge_pages, llama_log, reranker, trampoline, weights};
use crate::logic::kv_rows::Rope;
use crate::logic::memo::Memo;
use crate::logic::pair::PairLayout;
use crate::logic::prompt::{Message, Segment};
use crate::logic::token_blob;
use crate::logic::{hangul, limits};

/// What a model is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Text generation.
    Generation,
    /// Sentence embeddings.
    Embedding,
    /// Scores of texts for a query.
    Reranking,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Generation, Self::Embedding, Self::Reranking];

    /// The word used in replies and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Embedding => "embedding",
            Self::Reranking => "reranking",
        }
    }
}

/// What `INFER.MODEL` tells about the weights.
#[derive(Debug, Clone)]
pub struct Facts {
    /// `general.architecture` of the file.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub size_bytes: u64,
    /// Context length of the training, in tokens.
    pub train_context: u32,
    /// Width of the residual stream; the length of an embedding.
    pub embedding_dim: u32,
    /// Number of token ids.
    pub vocabulary: u32,
    /// Hash over the whole tokenizer: equal for models that share one.
    pub tokenizer: String,
    /// Hash over what tells models apart without reading their weights: name, architecture, sizes, tokenizer.
    pub fingerprint: String,
}

/// Whether the model's own begin and end tokens are added to a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// As the model's metadata asks.
    Add,
    /// Only what the text itself gives.
    None,
}

/// Weights and tokenizer of one GGUF file. Shared by every context of the model.
#[derive(Debug)]
pub struct Model {
    /// Name it was loaded under.
    pub name: String,
    /// What it was loaded for.
    pub purpose: Purpose,
    /// What is known about it.
    pub facts: Facts,
    /// Tells other weights of the same sizes apart, those of an adapter included.
    pub sample: u64,
    llama: LlamaModel,
    is_wordpiece: bool,
    /// Whether every byte of a text but white space is in one of its tokens.
    keeps_bytes: bool,
    /// Bytes of the longest token, counted when it is first asked for.
    longest_token: OnceLock<usize>,
    /// Which texts would overflow the stack of llama.cpp's tokenizer.
    longest_run: Run,
    template: Result<ChatTemplate, String>,
    /// Tokens of its template's own text.
    of_template: Mutex<Memo>,
    /// Tokens of [`Segment::Common`].
    of_common: Mutex<Memo>,
    /// How a reranker reads a query and a text; `None` for other models.
    pair_layout: Option<PairLayout>,
    /// How it turns keys, or why its rows cannot be put elsewhere in a prompt.
    rope: Result<Rope, String>,
    adapter: Option<Adapter>,
    mapped: Mapped,
    kv_bytes: AtomicU64,
    compute_bytes: AtomicU64,
    /// The last field: tells when the memory of all others is free.
    _freed: Freed,
}

/// Writes into the log which thread has freed a model.
#[derive(Debug)]
struct Freed {
    name: String,
}

impl Drop for Freed {
    fn drop(&mut self) {
        let thread = std::thread::current();
        log::info!("the memory of model '{}' was freed by thread {}", self.name, thread.name().unwrap_or("main"));
    }
}

/// llama.cpp's process-wide state: made once, and never torn down, because the library stays mapped.
fn backend() -> Result<&'static LlamaBackend, EngineError> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    BACKEND
        .get_or_init(|| {
            llama_log::install();
            trampoline::catch_aborts();
            if let Some(obstacle) = huge_pages::obstacle() {
                log::warn!("models will answer up to a fifth slower than they could: {obstacle}");
            }
            LlamaBackend::init().map_err(|e| e.to_string())
        })
        .as_ref()
        .map_err(|e| EngineError::Internal(format!("llama.cpp did not start: {e}")))
}

impl Model {
    /// Lets llama.cpp load a checked file. The load's own `stop` ends it early.
    ///
    /// # Errors
    /// `LOADFAIL` with the reason when the file is not a model that this build can run; `CANCELLED` when it was stopped.
    pub(super) fn load(file: Checked, load: &Arc<Load>) -> Result<Self, EngineError> {
        let backend = backend()?;
        let options = &load.options;
        let Checked { path, header, purpose, adapter, mapped, files } = file;

        let watched = Arc::clone(load);
        let params = LlamaModelParams::default()
            .with_use_mmap(options.mmap)
            .with_use_mlock(options.mlock)
            .with_n_gpu_layers(options.gpu_layers)
            .with_progress_callback(move |share| {
                watched.note_progress(share);
                watched.stop.reason().is_none()
            });
        llama_log::take_error();
        let (loaded, _) = trampoline::catching(|| LlamaModel::load_from_file(backend, &path, &params));
        let llama = loaded.map_err(|_| {
            if let Some(reason) = load.stop.reason() {
                return EngineError::Cancelled(reason);
            }
            let reason = llama_log::take_error().unwrap_or_else(|| "no reason given; see the server log".to_owned());
            EngineError::LoadFailed(format!("llama.cpp cannot load this file: {reason} ({})", options.path))
        })?;
        let sample = weights::sample(files.iter().map(PathBuf::as_path))
            .map_err(|error| EngineError::LoadFailed(format!("the file cannot be read: {error} ({})", options.path)))?;
        if let Some(path) = mapped.replaced() {
            let path = path.display();
            return Err(EngineError::LoadFailed(format!(
                "the file was changed while it was loaded; try again ({path})"
            )));
        }
        let facts = facts(&llama, &header)?;
        if has_encoder(&llama) && has_decoder(&llama) {
            return Err(EngineError::LoadFailed(format!(
                "architecture '{}' has an encoder and a decoder, which this module does not run",
                facts.architecture
            )));
        }
        if purpose == Purpose::Generation && (!has_decoder(&llama) || is_encoder(&header)) {
            return Err(EngineError::LoadFailed(format!(
                "architecture '{}' is an encoder, which cannot generate text; load it with TYPE EMBED",
                facts.architecture
            )));
        }
        // SAFETY: nobody else has the model yet, and both end with the `Model` made below.
        let load_adapter = |file| unsafe { Adapter::load(model_ptr(&llama), &file) };
        let adapter = adapter.map(load_adapter).transpose()?;
        let template = match header.get_str("tokenizer.chat_template") {
            Some(source) => {
                let vocab = llama.vocab();
                ChatTemplate::compile(
                    source.to_owned(),
                    token_text(&llama, vocab.bos()),
                    token_text(&llama, vocab.eos()),
                )
            }
            None => Err("the file carries none".to_owned()),
        };
        let pair_layout = match purpose {
            Purpose::Reranking => Some(reranker::pair_layout(&llama, &header)?),
            Purpose::Generation | Purpose::Embedding => None,
        };
        let rope = rope_of(&header, &path, &llama);
        Ok(Self {
            name: options.name.clone(),
            purpose,
            facts,
            sample,
            llama,
            is_wordpiece: header.get_str(TOKENIZER_KEY) == Some(WORDPIECE),
            keeps_bytes: matches!(header.get_str(TOKENIZER_KEY), Some("gpt2" | "llama")),
            longest_token: OnceLock::new(),
            longest_run: longest_run_of(&header),
            template,
            of_template: Mutex::new(Memo::new(limits::TOKEN_MEMO_BYTES)),
            of_common: Mutex::new(Memo::new(limits::TOKEN_MEMO_BYTES)),
            pair_layout,
            rope,
            adapter,
            mapped: if options.mmap { mapped } else { Mapped::default() },
            kv_bytes: AtomicU64::new(0),
            compute_bytes: AtomicU64::new(0),
            _freed: Freed { name: options.name.clone() },
        })
    }

    /// Counts the buffers of a context that was made for this model.
    pub(super) fn note_buffers(&self, sizes: Sizes) {
        self.kv_bytes.fetch_add(sizes.kv, Ordering::Relaxed);
        self.compute_bytes.fetch_add(sizes.compute, Ordering::Relaxed);
    }

    /// Takes back [`Model::note_buffers`].
    pub(super) fn forget_buffers(&self, sizes: Sizes) {
        self.kv_bytes.fetch_sub(sizes.kv, Ordering::Relaxed);
        self.compute_bytes.fetch_sub(sizes.compute, Ordering::Relaxed);
    }

    /// The LoRA adapter that belongs to it.
    pub(super) fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// Whether the weights in memory are still those that were loaded.
    ///
    /// # Errors
    /// `NOMODEL` when somebody has written into a file that is mapped.
    pub(super) fn check_files(&self) -> Result<(), EngineError> {
        match self.mapped.changed() {
            None => Ok(()),
            Some(path) => {
                // Whoever uses the model need not know where its files are.
                let file = path.file_name().unwrap_or_default().display().to_string();
                Err(EngineError::FileChanged { name: self.name.clone(), file })
            }
        }
    }

    /// Bytes of the weights, of the adapter and of all contexts.
    pub(super) fn memory(&self) -> MemoryUse {
        MemoryUse {
            weights: self.facts.size_bytes.saturating_add(self.adapter.as_ref().map_or(0, |adapter| adapter.bytes)),
            kv: self.kv_bytes.load(Ordering::Relaxed),
            compute: self.compute_bytes.load(Ordering::Relaxed),
        }
    }

    /// Whether its memory can go back to an earlier position; recurrent state cannot.
    pub(super) fn can_rewind(&self) -> bool {
        // SAFETY: the model is live.
        let is_recurrent = unsafe { llama_cpp_sys_2::llama_model_is_recurrent(self.as_ptr()) };
        // SAFETY: the model is live.
        !is_recurrent && !unsafe { llama_cpp_sys_2::llama_model_is_hybrid(self.as_ptr()) }
    }

    /// Tokens that attention looks back in the layers with a sliding window; 0 without such layers.
    pub(super) fn sliding_window(&self) -> i32 {
        // SAFETY: the model is live.
        unsafe { llama_cpp_sys_2::llama_model_n_swa(self.as_ptr()) }
    }

    /// The longest saved sequence that can be cut anywhere, in tokens: of a sliding window only what the next token sees is
    /// saved.
    pub(super) fn longest_cut(&self) -> usize {
        usize::try_from(self.sliding_window()).ok().filter(|&window| window > 0).unwrap_or(usize::MAX)
    }

    /// How it turns keys by their positions; the reason when that cannot be done from here.
    pub(super) fn rope(&self) -> Result<&Rope, &str> {
        self.rope.as_ref().map_err(String::as_str)
    }

    /// Whether the model has a chat template that works.
    #[must_use]
    pub fn has_template(&self) -> bool {
        self.template.is_ok()
    }

    /// Token ids of `text`. Special tokens written in `text` stay ordinary text.
    ///
    /// # Errors
    /// `INTERNAL` when llama.cpp throws.
    pub fn tokenize(&self, text: &str, special: Special) -> Result<Vec<u32>, EngineError> {
        self.tokenize_with(text, special, ParseSpecial::No)
    }

    /// A number of tokens that `text` has in any case, known without tokenizing it; 0 where nothing is known.
    pub(super) fn least_tokens(&self, text: &str) -> usize {
        if !self.keeps_bytes {
            return 0;
        }
        // White space goes where a token says that it swallows what is around it.
        let bytes = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).count();
        bytes.checked_div(*self.longest_token.get_or_init(|| self.longest_token())).unwrap_or(0)
    }

    /// Bytes of the longest token; 0 where a byte has no token of its own, so that it may be lost.
    fn longest_token(&self) -> usize {
        let (mut longest, mut single, mut piece) = (0, [false; 256], Vec::new());
        for token in 0..self.facts.vocabulary {
            piece.clear();
            if self.piece(token, &mut piece).is_err() {
                return 0;
            }
            longest = longest.max(piece.len());
            if let [byte] = piece[..] {
                single[usize::from(byte)] = true;
            }
        }
        if single.iter().all(|&known| known) { longest } else { 0 }
    }

    /// As [`Model::tokenize`] without special tokens, for a text that is asked about again and again: its tokens are kept.
    /// llama.cpp splits each text with expressions that it compiles anew, which takes longer than a heading deserves.
    ///
    /// # Errors
    /// As there.
    pub fn tokenize_common(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.remembered(&self.of_common, text, ParseSpecial::No)
    }

    fn remembered(&self, memo: &Mutex<Memo>, text: &str, parse: ParseSpecial) -> Result<Vec<u32>, EngineError> {
        let lock = || memo.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokens) = lock().get(text) {
            return Ok(tokens.to_vec());
        }
        let tokens = self.tokenize_with(text, Special::None, parse)?;
        lock().put(text, &tokens);
        Ok(tokens)
    }

    /// How a query and a text become one sequence.
    ///
    /// # Errors
    /// When the model was not loaded for reranking.
    pub(super) fn pair_layout(&self) -> Result<&PairLayout, EngineError> {
        self.pair_layout.as_ref().ok_or_else(|| self.wrong_kind(Purpose::Reranking))
    }

    /// The error of a command that needs a model for something else.
    pub(super) fn wrong_kind(&self, needs: Purpose) -> EngineError {
        EngineError::WrongKind { name: self.name.clone(), is: self.purpose.name(), needs: needs.name() }
    }

    /// Text of `tokens`; special tokens are left out. Bytes, because tokens may end inside a character.
    ///
    /// # Errors
    /// `BADTOKENS` for an id outside the vocabulary, `CTXLIMIT` for a text that is longer than [`limits::DETOKENIZED_MAX`].
    pub fn detokenize(&self, tokens: &[u32]) -> Result<Vec<u8>, EngineError> {
        let mut text = Vec::with_capacity(tokens.len() * 4);
        self.detokenize_onto(tokens, &mut text)?;
        Ok(text)
    }

    /// As [`Model::detokenize`], behind what `text` has.
    ///
    /// # Errors
    /// As there.
    pub fn detokenize_onto(&self, tokens: &[u32], text: &mut Vec<u8>) -> Result<(), EngineError> {
        self.check_tokens(tokens)?;
        for &token in tokens {
            self.piece(token, text)?;
            if text.len() > limits::DETOKENIZED_MAX {
                return Err(EngineError::TextTooLarge { max: limits::DETOKENIZED_MAX });
            }
        }
        Ok(())
    }

    /// Appends the bytes of one token to `text`; a special token has none.
    ///
    /// # Errors
    /// `INTERNAL` when llama.cpp throws, as it does for an unknown id.
    pub fn piece(&self, token: u32, text: &mut Vec<u8>) -> Result<(), EngineError> {
        self.append(token, text, false)
    }

    /// Text of `tokens` with the names of special tokens, for people to read. An unknown id has none.
    #[must_use]
    pub fn show(&self, tokens: &[u32]) -> Vec<u8> {
        let mut text = Vec::with_capacity(tokens.len() * 4);
        for &token in tokens {
            if let Err(error) = self.append(token, &mut text, true) {
                log::warn!("a prompt is shown without token {token}: {error}");
            }
        }
        text
    }

    fn append(&self, token: u32, text: &mut Vec<u8>, special: bool) -> Result<(), EngineError> {
        let mut buffer = [0_u8; 64];
        let id =
            i32::try_from(token).map_err(|_| EngineError::BadTokens(format!("token id {token} does not exist")))?;
        // SAFETY: the vocabulary lives as long as `self.llama`.
        let written = unsafe { trampoline::token_to_piece(self.vocab_ptr(), id, &mut buffer, special) }?;
        if let Ok(written) = usize::try_from(written) {
            text.extend_from_slice(&buffer[..written]);
            return Ok(());
        }
        let mut large = vec![0_u8; usize::try_from(written.unsigned_abs()).unwrap_or_default()];
        // SAFETY: as above.
        let written = unsafe { trampoline::token_to_piece(self.vocab_ptr(), id, &mut large, special) }?;
        text.extend_from_slice(large.get(..usize::try_from(written).unwrap_or_default()).unwrap_or_default());
        Ok(())
    }

    /// # Errors
    /// `BADTOKENS` naming the first id that the vocabulary does not have.
    pub fn check_tokens(&self, tokens: &[u32]) -> Result<(), EngineError> {
        token_blob::check_vocab(tokens, self.facts.vocabulary).map_err(|e| EngineError::BadTokens(e.to_string()))
    }

    /// Whether generation ends at `token`.
    #[must_use]
    pub fn is_end(&self, token: u32) -> bool {
        i32::try_from(token).is_ok_and(|id| self.llama.vocab().is_eog(LlamaToken(id)))
    }

    /// The conversation in the model's own format, ending where the answer begins.
    ///
    /// # Errors
    /// When the model has no usable chat template, or its template refuses the messages.
    pub fn chat_prompt(&self, messages: &[Message]) -> Result<Vec<Segment>, EngineError> {
        let name = || self.name.clone();
        let template = self.template.as_ref();
        template
            .map_err(|reason| EngineError::NoTemplate { name: name(), reason: reason.clone() })?
            .render(messages)
            .map_err(|reason| EngineError::TemplateRefused { name: name(), reason })
    }

    /// Token ids of a whole prompt. Special tokens are recognised in template segments only; the begin token is added
    /// when the model wants one and the prompt does not begin with it.
    ///
    /// # Errors
    /// `BADTOKENS` for an unknown id in a token segment.
    pub fn encode(&self, prompt: &[Segment]) -> Result<Vec<u32>, EngineError> {
        let mut tokens = Vec::new();
        for segment in prompt {
            match segment {
                Segment::Template(text) => {
                    tokens.append(&mut self.remembered(&self.of_template, text, ParseSpecial::Yes)?);
                }
                Segment::Common(text) => tokens.append(&mut self.tokenize_common(text)?),
                Segment::Text(text) => tokens.append(&mut self.tokenize_with(text, Special::None, ParseSpecial::No)?),
                Segment::Tokens(ids) => {
                    self.check_tokens(ids)?;
                    tokens.extend_from_slice(ids);
                }
            }
        }
        let vocab = self.llama.vocab();
        if vocab.should_add_bos()
            && let Ok(bos) = u32::try_from(vocab.bos().0)
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    pub(super) fn as_ptr(&self) -> *mut llama_cpp_sys_2::llama_model {
        model_ptr(&self.llama)
    }

    fn vocab_ptr(&self) -> *const llama_cpp_sys_2::llama_vocab {
        // SAFETY: the model is live; llama.cpp returns a pointer into it.
        unsafe { llama_cpp_sys_2::llama_model_get_vocab(self.as_ptr()) }
    }

    fn tokenize_with(&self, text: &str, special: Special, parse: ParseSpecial) -> Result<Vec<u32>, EngineError> {
        let run = match self.longest_run {
            Run::Unbounded => 0,
            Run::OfWords => longest_run(text),
            Run::OfText => text.chars().count(),
        };
        if run > limits::RECURSIVE_RUN_MAX {
            return Err(EngineError::RunTooLong { name: self.name.clone(), max: limits::RECURSIVE_RUN_MAX });
        }
        let (add, parse) = (special == Special::Add, parse == ParseSpecial::Yes);
        let spelled = if self.is_wordpiece { hangul::spell_out(text) } else { Cow::Borrowed(text) };
        let text = &*spelled;
        // A token is at least a byte, except for what `add` puts around the text.
        let mut ids = vec![0_i32; text.len() / 2 + 8];
        for _ in 0..2 {
            // SAFETY: the vocabulary lives as long as `self.llama`.
            let count = unsafe { trampoline::tokenize(self.vocab_ptr(), text.as_bytes(), &mut ids, add, parse) }?;
            if let Ok(count) = usize::try_from(count) {
                return Ok(ids[..count.min(ids.len())].iter().map(|id| id.cast_unsigned()).collect());
            }
            ids.resize(usize::try_from(count.unsigned_abs()).unwrap_or_default(), 0);
        }
        Err(EngineError::Internal("the tokenizer asked for more room twice".to_owned()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ParseSpecial {
    Yes,
    No,
}

/// llama-cpp-2 keeps its pointer private; `LlamaModel` is `repr(transparent)` over it.
fn model_ptr(model: &LlamaModel) -> *mut llama_cpp_sys_2::llama_model {
    // SAFETY: `repr(transparent)` over a non-null pointer to the C model, checked by
    // `a_model_pointer_is_the_models_own` below.
    unsafe { *std::ptr::from_ref(model).cast::<*mut llama_cpp_sys_2::llama_model>() }
}

/// What must not be longer than [`limits::RECURSIVE_RUN_MAX`] characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Nothing: the tokenizer does not recurse.
    Unbounded,
    /// What is all white space or has none: std::regex, with which the text is split, recurses for each character.
    OfWords,
    /// All of the text: the expression matches across single spaces.
    OfText,
}

fn longest_run_of(header: &Header) -> Run {
    let pre = header.get_str(PRETOKENIZER_KEY).unwrap_or_default();
    match header.get_str(TOKENIZER_KEY) {
        Some("gpt2" | "whitespace" | "hybriddna") if PRETOKENIZERS_WITHOUT_RECURSION.contains(&pre) => Run::Unbounded,
        Some("gpt2") if pre == "exaone-moe" => Run::OfText,
        Some("gpt2" | "whitespace" | "hybriddna") => Run::OfWords,
        _ => Run::Unbounded,
    }
}

/// Characters of the longest piece of `text` that is all white space or has none.
fn longest_run(text: &str) -> usize {
    let (mut longest, mut run, mut in_space) = (0, 0, false);
    for c in text.chars() {
        run = if c.is_whitespace() == in_space { run + 1 } else { 1 };
        in_space = c.is_whitespace();
        longest = longest.max(run);
    }
    longest
}

fn rope_of(header: &Header, path: &Path, model: &LlamaModel) -> Result<Rope, String> {
    // SAFETY: the model is live.
    let kind = unsafe { llama_cpp_sys_2::llama_model_rope_type(model_ptr(model)) };
    // SAFETY: as above.
    rope(header, path, kind, unsafe { llama_cpp_sys_2::llama_model_n_swa(model_ptr(model)) })
}

fn has_encoder(model: &LlamaModel) -> bool {
    // SAFETY: the model is live.
    unsafe { llama_cpp_sys_2::llama_model_has_encoder(model_ptr(model)) }
}

fn has_decoder(model: &LlamaModel) -> bool {
    // SAFETY: the model is live.
    unsafe { llama_cpp_sys_2::llama_model_has_decoder(model_ptr(model)) }
}

fn facts(model: &LlamaModel, header: &Header) -> Result<Facts, EngineError> {
    let vocab = model.vocab();
    let vocabulary = u32::try_from(vocab.n_tokens()).unwrap_or_default();
    if vocabulary == 0 || matches!(header.get_str(TOKENIZER_KEY), None | Some("no_vocab" | "none")) {
        return Err(EngineError::LoadFailed("the file carries no tokenizer".to_owned()));
    }
    let tokenizer = tokenizer_fingerprint(model, header);
    let architecture = header.architecture().unwrap_or("unknown");
    let name = header.get_str("general.name").unwrap_or_default();
    let identity = format!("{name:?} {architecture:?} {} {} {tokenizer}", model.n_params(), model.size());
    Ok(Facts {
        architecture: architecture.to_owned(),
        fingerprint: format!("{:016x}", xxh3_64(identity.as_bytes())),
        parameters: model.n_params(),
        size_bytes: model.size(),
        train_context: model.n_ctx_train(),
        embedding_dim: u32::try_from(model.n_embd_out()).unwrap_or_default(),
        vocabulary,
        tokenizer,
    })
}

/// The GGUF key that names the kind of tokenizer.
const TOKENIZER_KEY: &str = "tokenizer.ggml.model";

/// The pre-tokenizers of byte-pair encoders for which llama.cpp has code of its own instead of std::regex
/// (`unicode_regex_split_custom`), or whose expressions match single characters only.
const PRETOKENIZERS_WITHOUT_RECURSION: [&str; 20] = [
    "llama3",
    "llama-v3",
    "llama-bpe",
    "falcon3",
    "pixtral",
    "lfm2",
    "qwen2",
    "qwen35",
    "deepseek-r1-qwen",
    "stablelm2",
    "gpt-2",
    "phi-2",
    "smollm",
    "starcoder",
    "refact",
    "command-r",
    "olmo",
    "mpt",
    "chatglm-bpe",
    "glm4",
];

/// How the text is cut before a byte-pair encoder sees it.
const PRETOKENIZER_KEY: &str = "tokenizer.ggml.pre";

/// Its value for the tokenizer of BERT.
const WORDPIECE: &str = "bert";

/// XXH3 over tokenizer kind, every token text and the special ids: stored token ids may be used with any model of the
/// same fingerprint.
fn tokenizer_fingerprint(model: &LlamaModel, header: &Header) -> String {
    let vocab = model.vocab();
    let mut hash = Xxh3::new();
    for key in [TOKENIZER_KEY, PRETOKENIZER_KEY] {
        hash.update(header.get_str(key).unwrap_or_default().as_bytes());
        hash.update(&[0]);
    }
    for id in 0..vocab.n_tokens() {
        if let Some(text) = vocab.text(LlamaToken(id)) {
            hash.update(text.to_bytes_with_nul());
        }
    }
    for special in [vocab.bos(), vocab.eos(), vocab.eot()] {
        hash.update(&special.0.to_le_bytes());
    }
    format!("{:016x}", hash.digest())
}

fn token_text(model: &LlamaModel, token: LlamaToken) -> String {
    if token.0 < 0 {
        return String::new();
    }
    model.vocab().text(token).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
