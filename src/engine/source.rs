//! The files of a model before llama.cpp sees them: found, checked, and opened so that later changes are noticed.

use std::io;
use std::path::{Path, PathBuf};

use redis_infer_gguf::{Header, check_adapter, check_file_and_parts, part_paths};

use super::error::EngineError;
use super::mapped::Mapped;
use super::model::Purpose;
use super::{confine, reranker};
use crate::logic::options::{LoadOptions, Lora, ModelKind};

/// A model that llama.cpp may see.
#[derive(Debug)]
pub(super) struct Checked {
    pub path: PathBuf,
    pub header: Header,
    pub purpose: Purpose,
    pub adapter: Option<CheckedAdapter>,
    /// Its files, those of the adapter excepted.
    pub mapped: Mapped,
    /// All files, that of the adapter included.
    pub files: Vec<PathBuf>,
}

/// A LoRA adapter for the model.
#[derive(Debug)]
pub(super) struct CheckedAdapter {
    pub path: PathBuf,
    pub scale: f32,
    /// Size of the file.
    pub bytes: u64,
}

/// Finds and checks the files; of their tensors nothing is read.
///
/// # Errors
/// `LOADFAIL` with the reason.
pub(super) fn check(options: &LoadOptions, folder: Option<&Path>) -> Result<Checked, EngineError> {
    let refused = |reason: &dyn std::fmt::Display| EngineError::LoadFailed(format!("{reason} ({})", options.path));
    let path = confine::resolve(Path::new(&options.path), folder)?;
    let place = |part: &Path| confine::resolve(part, folder).map(drop).map_err(|_| confine::ELSEWHERE.to_owned());
    let header = check_file_and_parts(&path, place).map_err(|error| refused(&error))?;
    let parts = part_paths(&path, &header);
    let purpose = purpose(options.kind, &header);
    if purpose == Purpose::Reranking {
        reranker::check(&header)?;
    }
    check_options(options, purpose)?;
    let adapter = options.lora.as_ref().map(|lora| adapter(lora, &header, folder)).transpose()?;
    let unreadable = |error: io::Error| refused(&format!("the file cannot be read: {error}"));
    let files: Vec<PathBuf> = parts.into_iter().chain([path.clone()]).collect();
    let mapped = Mapped::open(files.clone()).map_err(unreadable)?;
    let files = files.into_iter().chain(adapter.as_ref().map(|adapter| adapter.path.clone())).collect();
    Ok(Checked { path, header, purpose, adapter, mapped, files })
}

fn adapter(lora: &Lora, base: &Header, folder: Option<&Path>) -> Result<CheckedAdapter, EngineError> {
    let path = confine::resolve(Path::new(&lora.path), folder)?;
    let adapter = check_adapter(&path, base)
        .map_err(|error| EngineError::LoadFailed(format!("LORA: {error} ({})", lora.path)))?;
    if adapter.ignored > 0 {
        log::warn!("llama.cpp leaves out the {} norm tensors of the LoRA adapter {}", adapter.ignored, lora.path);
    }
    Ok(CheckedAdapter { path, scale: lora.scale, bytes: adapter.header.file_size })
}

/// Refuses options that the model would ignore. What it is for may be known only from its file.
fn check_options(options: &LoadOptions, purpose: Purpose) -> Result<(), EngineError> {
    let (ignored, other) = match purpose {
        Purpose::Generation | Purpose::Reranking if options.pooling.is_some() => (true, "POOLING is for embedding"),
        Purpose::Generation => (false, ""),
        Purpose::Embedding | Purpose::Reranking => (
            options.parallel.is_some()
                || options.kv_type.is_some()
                || options.speculation.is_some()
                || options.lora.is_some(),
            "PARALLEL, KVTYPE, SPECULATION and LORA are for generation",
        ),
    };
    if ignored {
        return Err(EngineError::LoadFailed(format!("{other}, but this is a model for {}", purpose.name())));
    }
    Ok(())
}

/// `llama_pooling_type` of models that make a score.
const POOLING_RANK: u32 = 4;

/// AUTO: files that name the pooling RANK are for reranking, encoders and files that name another pooling for embedding,
/// all others for generation.
fn purpose(kind: ModelKind, header: &Header) -> Purpose {
    let architecture = header.architecture().unwrap_or_default();
    let pooling = header.get_u32(&format!("{architecture}.pooling_type"));
    match kind {
        ModelKind::Generate => Purpose::Generation,
        ModelKind::Embed => Purpose::Embedding,
        ModelKind::Rerank => Purpose::Reranking,
        ModelKind::Auto if pooling == Some(POOLING_RANK) => Purpose::Reranking,
        ModelKind::Auto if pooling.is_some_and(|kind| kind != 0) || is_encoder(header) => Purpose::Embedding,
        ModelKind::Auto => Purpose::Generation,
    }
}

/// Whether the file describes a BERT-like encoder, whose tokens all see each other.
pub(super) fn is_encoder(header: &Header) -> bool {
    let architecture = header.architecture().unwrap_or_default();
    architecture.contains("bert") || header.get_bool(&format!("{architecture}.attention.causal")) == Some(false)
}
