//! Models for reranking: which files llama.cpp makes one score of, and how they read a query with a text.

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use redis_infer_gguf::Header;

use super::error::EngineError;
use crate::logic::pair::PairLayout;

/// Checks what llama.cpp does not: without the last matrix, or with several labels, it would answer with a number that
/// is no score, or end the process.
///
/// # Errors
/// `LOADFAIL` with the reason.
pub(super) fn check(header: &Header) -> Result<(), EngineError> {
    let architecture = header.architecture().unwrap_or_default();
    let Some(head) = head(architecture) else {
        return refuse(format!("llama.cpp knows no reranker of architecture '{architecture}'"));
    };
    if header.tensor(head).is_none() {
        return refuse(format!(
            "it is no reranker, or was converted without what makes the score: the tensor {head} is missing"
        ));
    }
    match labels(header, architecture) {
        0 | 1 => Ok(()),
        labels => refuse(format!("it is a classifier with {labels} labels; a reranker has one")),
    }
}

fn refuse<T>(reason: String) -> Result<T, EngineError> {
    Err(EngineError::LoadFailed(format!("this file cannot be used for reranking: {reason}")))
}

/// The tensor whose product is the score (`build_pooling` of llama-graph.cpp, with what the architectures load).
fn head(architecture: &str) -> Option<&'static str> {
    match architecture {
        "bert" | "modern-bert" | "neo-bert" => Some("cls.output.weight"),
        "jina-bert-v2" => Some("cls.weight"),
        _ => None,
    }
}

/// Scores that llama.cpp makes of one sequence, where the file names them.
fn labels(header: &Header, architecture: &str) -> u64 {
    let named = header.metadata.get(&format!("{architecture}.classifier.output_labels"));
    named.and_then(|value| value.as_array()).map_or(0, |labels| labels.len)
}

/// The key with which `redis-infer convert` says that the second half of the vocabulary are copies of the first for the
/// second segment of BERT, which llama.cpp does not know; the distance of a copy from its token.
const SECOND_SEGMENT: &str = "redis_infer.second_segment";

/// The special tokens around a query and a text, as the model's tokenizer wants them.
///
/// # Errors
/// `LOADFAIL` when there would be none between them, or the file names copies that it lacks.
pub(super) fn pair_layout(model: &LlamaModel, header: &Header) -> Result<PairLayout, EngineError> {
    let vocab = model.vocab();
    let id = |token: LlamaToken| u32::try_from(token.0).ok();
    // As llama.cpp's server: a tokenizer without EOS, such as WordPiece, ends a text with SEP.
    let eos = id(vocab.eos()).or_else(|| id(vocab.sep()));
    let added = |adds: bool, token: Option<u32>| token.filter(|_| adds);
    let bos = added(vocab.should_add_bos(), id(vocab.bos()));
    let layout =
        PairLayout::new(bos, added(vocab.should_add_eos(), eos), added(vocab.should_add_sep(), id(vocab.sep())));
    let Some(layout) = layout else {
        return refuse("its tokenizer adds no token between a query and a text".to_owned());
    };
    let Some(distance) = header.metadata.get(SECOND_SEGMENT) else {
        return Ok(layout);
    };
    match distance.as_u64().and_then(|distance| u32::try_from(distance).ok()) {
        Some(distance) if u32::try_from(vocab.n_tokens()).ok() == distance.checked_mul(2) => {
            Ok(layout.with_second_segment(distance))
        }
        _ => refuse(format!("{SECOND_SEGMENT} is not half of its vocabulary")),
    }
}
