//! What can go wrong in the engine, each with the stable code that clients see.

use crate::logic::kv_rows::KvError;
use crate::logic::limits;
use crate::logic::options::FormError;

/// An error of the engine. Its text says what happened and what to do; [`EngineError::code`] is the first word of the
/// reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No model answers to this name.
    #[error("no model '{0}' is loaded; INFER.MODELS lists the loaded ones, INFER.LOAD loads one")]
    NoModel(String),
    /// No model is there to answer to `*`.
    #[error("no model{} is loaded that could answer to '*'; INFER.LOAD loads one", .needs.map_or_else(String::new, |needs| format!(" for {needs}")))]
    NoDefault {
        /// What the command needs a model for; `None` when any model will do.
        needs: Option<&'static str>,
    },
    /// Loading the model in the background failed.
    #[error("model '{name}' could not be loaded: {reason}; INFER.LOAD tries again")]
    NotLoaded {
        /// Name of the model.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Somebody has written into the file of a loaded model.
    #[error(
        "model '{name}' cannot be used any more: its file was changed on disk while it was mapped into memory ({file}); INFER.UNLOAD it, then INFER.LOAD it again (without MMAP changes do not matter)"
    )]
    FileChanged {
        /// Name of the model.
        name: String,
        /// The name of the file, without its folder.
        file: String,
    },
    /// The model is still being loaded.
    #[error("model '{0}' is still loading; INFER.MODELS shows its state")]
    ModelLoading(String),
    /// `INFER.LOAD` of a name in use.
    #[error("a model named '{0}' is already loaded; choose another name or INFER.UNLOAD it first")]
    NameTaken(String),
    /// The file cannot be used as a model.
    #[error("{0}")]
    LoadFailed(String),
    /// The model is of the wrong kind for the command.
    #[error("model '{name}' is for {is}; this command needs a model for {needs}")]
    WrongKind {
        /// Name of the model.
        name: String,
        /// What it was loaded for.
        is: &'static str,
        /// What the command needs.
        needs: &'static str,
    },
    /// As many requests wait as `infer.queue-limit` allows.
    #[error("{waiting} requests already wait for model '{name}'; try again later or raise infer.queue-limit")]
    QueueFull {
        /// Name of the model, or of the stage that is full.
        name: String,
        /// Requests in the queue.
        waiting: usize,
    },
    /// The texts of as many commands as may, or as many bytes of them, wait for the preprocess threads.
    #[error(
        "{waiting} texts already wait to be tokenized, of at most {} and {} bytes with those at work; try again later",
        limits::PREPROCESS_WAITING_MAX,
        limits::PREPROCESS_BYTES_MAX
    )]
    PreprocessFull {
        /// Commands that wait.
        waiting: usize,
    },
    /// The text of some tokens is longer than a reply may be.
    #[error("the text of these tokens is longer than {max} bytes; ask for fewer tokens at a time")]
    TextTooLarge {
        /// Bytes it may have.
        max: usize,
    },
    /// Prompt and answer together are larger than the context of one sequence.
    #[error(
        "the prompt has {prompt} tokens and MAXTOKENS is {max_tokens}, but the context of model '{name}' holds {context}; shorten the prompt, lower MAXTOKENS, or load the model with a larger CTX"
    )]
    ContextTooSmall {
        /// Name of the model.
        name: String,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Tokens one sequence can hold.
        context: usize,
    },
    /// A prompt so long that its tokens need not be counted.
    #[error(
        "the prompt has at least {at_least} tokens, but the context of model '{name}' holds {context}; shorten the prompt"
    )]
    PromptFarTooLong {
        /// Name of the model.
        name: String,
        /// Tokens that it has if all of them are of the longest.
        at_least: usize,
        /// Tokens one sequence can hold.
        context: usize,
    },
    /// A text so long that its tokens need not be counted.
    #[error(
        "text {index} has at least {at_least} tokens, but model '{name}' reads at most {context} at once; split the text"
    )]
    TextFarTooLong {
        /// Name of the model.
        name: String,
        /// Position of the text in the call, from 1.
        index: usize,
        /// Tokens that it has if all of them are of the longest.
        at_least: usize,
        /// Tokens the model can read.
        context: usize,
    },
    /// One text is larger than an embedding model can read at once.
    #[error("text {index} has {tokens} tokens, but model '{name}' reads at most {context} at once; split the text")]
    TextTooLong {
        /// Name of the model.
        name: String,
        /// Position of the text in the call, from 1.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens the model can read.
        context: usize,
    },
    /// A query and a text are together larger than a reranker can read at once.
    #[error(
        "the query and the text at index {index} have {tokens} tokens together, but model '{name}' reads at most {context} at once; split the text"
    )]
    PairTooLong {
        /// Name of the model.
        name: String,
        /// Position of the text in the call, from 0, as in the reply.
        index: usize,
        /// Tokens of both, with those that the model puts around them.
        tokens: usize,
        /// Tokens the model can read.
        context: usize,
    },
    /// One text has no token at all.
    #[error("text {index} has no tokens for model '{name}', so it has no vector")]
    EmptyText {
        /// Name of the model.
        name: String,
        /// Position of the text in the call, from 1.
        index: usize,
    },
    /// A text that would overflow the stack of llama.cpp's tokenizer.
    #[error(
        "the text has more than {max} characters in a row without white space, or of white space alone, which the tokenizer of model '{name}' cannot take; break it up"
    )]
    RunTooLong {
        /// Name of the model.
        name: String,
        /// Characters it can take.
        max: usize,
    },
    /// The prompt has no token at all.
    #[error("the prompt is empty: give a key with tokens, TEXT or BLOB")]
    EmptyPrompt,
    /// A token id that the vocabulary does not have.
    #[error("{0}")]
    BadTokens(String),
    /// `DIM` larger than the model's own dimension.
    #[error("DIM {asked} is larger than the {has} dimensions of model '{name}'")]
    TooManyDimensions {
        /// Name of the model.
        name: String,
        /// The dimension asked for.
        asked: usize,
        /// The model's dimension.
        has: usize,
    },
    /// The model has no usable chat template.
    #[error("model '{name}' has no usable chat template ({reason}); INFER.GENERATE with RAW sends a prompt as it is")]
    NoTemplate {
        /// Name of the model.
        name: String,
        /// Why there is none.
        reason: String,
    },
    /// A grammar or schema that cannot be used.
    #[error(transparent)]
    BadForm(#[from] FormError),
    /// A grammar or schema that takes too much work for one token.
    #[error("the answer could not follow its GRAMMAR or JSONSCHEMA any further ({0}); make it simpler")]
    FormTooComplex(String),
    /// The model's chat template does not take these messages.
    #[error(
        "the chat template of model '{name}' refuses these messages ({reason}); see which roles and order it takes"
    )]
    TemplateRefused {
        /// Name of the model.
        name: String,
        /// What the template, or the one that renders it, says.
        reason: String,
    },
    /// The model is not one for which `KV CHUNK` works.
    #[error(
        "the chunks of an index with KV CHUNK cannot be put together for model '{name}': {reason}; leave KV CHUNK out, or take another model"
    )]
    NoSplicing {
        /// Name of the model.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The request was cancelled while it waited or ran.
    #[error("the request was cancelled ({0})")]
    Cancelled(&'static str),
    /// llama.cpp could not allocate what the model needs.
    #[error("{0}")]
    OutOfMemory(String),
    /// A call of llama.cpp failed in the middle, for instance by an assertion, which would have ended the process; the context it
    /// was for is made anew.
    #[error(
        "llama.cpp could not compute the forward pass that this request was part of ({0}), and its worker starts afresh: send the request again; if that fails as well, the model's file is damaged or llama.cpp has a bug"
    )]
    ContextLost(String),
    /// The workers of a model have ended, because one of them could not make its context anew.
    #[error(
        "model '{name}' has failed ({reason}); INFER.UNLOAD it, then INFER.LOAD it again; if it fails again its file is damaged, there is too little memory, or llama.cpp has a bug"
    )]
    ModelFailed {
        /// Name of the model.
        name: String,
        /// What went wrong.
        reason: String,
    },
    /// An assertion of llama.cpp failed, which would have ended the process.
    #[error("llama.cpp cannot compute this model ({0}); its file is damaged, or llama.cpp has a bug: INFER.UNLOAD it")]
    Assertion(String),
    /// A bug, in this module or in llama.cpp. The server log has more.
    #[error("{0}; this is a bug, the server log may say more")]
    Internal(String),
}

impl From<KvError> for EngineError {
    fn from(error: KvError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl EngineError {
    /// The stable first word of the error reply.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoModel(_)
            | Self::NoDefault { .. }
            | Self::NotLoaded { .. }
            | Self::FileChanged { .. }
            | Self::ModelFailed { .. } => "NOMODEL",
            Self::ContextLost(_) => "WORKERFAIL",
            Self::ModelLoading(_) => "MODELLOADING",
            Self::LoadFailed(_) => "LOADFAIL",
            Self::QueueFull { .. } | Self::PreprocessFull { .. } => "QUEUEFULL",
            Self::ContextTooSmall { .. }
            | Self::TextTooLong { .. }
            | Self::PairTooLong { .. }
            | Self::PromptFarTooLong { .. }
            | Self::TextFarTooLong { .. }
            | Self::TextTooLarge { .. } => "CTXLIMIT",
            Self::BadTokens(_) => "BADTOKENS",
            Self::Cancelled(_) => "CANCELLED",
            Self::OutOfMemory(_) => "OOM",
            Self::Assertion(_) | Self::Internal(_) => "INTERNAL",
            Self::NameTaken(_)
            | Self::WrongKind { .. }
            | Self::EmptyText { .. }
            | Self::RunTooLong { .. }
            | Self::EmptyPrompt
            | Self::BadForm(_)
            | Self::FormTooComplex(_)
            | Self::TooManyDimensions { .. }
            | Self::NoSplicing { .. }
            | Self::NoTemplate { .. }
            | Self::TemplateRefused { .. } => "ERR",
        }
    }
}
