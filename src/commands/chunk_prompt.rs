//! The prompt of `INFER.RAG` for an index with `KV CHUNK`: its beginning, a block of tokens for each chunk that is the same
//! in every prompt, and its end with the question.

use std::sync::Arc;

use crate::engine::{Block, EngineError, Model};
use crate::logic::passages::{Found, label};
use crate::logic::prompt::{Segment, block, frame_messages};

/// What stands around the blocks.
#[derive(Debug)]
pub(super) struct Frame {
    /// Up to the first block.
    pub beginning: Arc<[u32]>,
    /// With the question.
    pub end: Vec<u32>,
}

impl Frame {
    /// # Errors
    /// As [`Model::chat_prompt`].
    pub(super) fn new(model: &Model, system: &str, question: &str) -> Result<Self, EngineError> {
        let segments = model.chat_prompt(&frame_messages(system, question))?;
        let place = segments.iter().position(|segment| matches!(segment, Segment::Tokens(_))).unwrap_or_default();
        // Segments are tokenized one by one, so that the tokens of the first ones are the first of all.
        let beginning = model.encode(segments.get(..place).unwrap_or_default())?;
        let end = model.encode(&segments)?.split_off(beginning.len());
        Ok(Self { beginning: beginning.into(), end })
    }

    /// Tokens of both parts.
    pub(super) fn tokens(&self) -> usize {
        self.beginning.len() + self.end.len()
    }
}

/// The tokens of a chunk in every prompt.
///
/// # Errors
/// `INTERNAL` when llama.cpp throws.
pub(super) fn block_tokens(
    model: &Model,
    path: &str,
    lines: (u32, u32),
    tokens: &[u32],
) -> Result<Vec<u32>, EngineError> {
    let (before, behind) = block(&label(path, lines));
    let mut block = model.tokenize_common(&before)?;
    block.extend_from_slice(tokens);
    block.append(&mut model.tokenize_common(behind)?);
    Ok(block)
}

/// The block of each chunk.
pub(super) fn blocks(model: &Model, found: &[Found]) -> Result<Vec<Vec<u32>>, EngineError> {
    found.iter().map(|chunk| block_tokens(model, &chunk.attributes.path, chunk.lines(), &chunk.tokens)).collect()
}

/// Blocks of a prompt behind its beginning.
#[derive(Debug)]
pub(super) struct Blocks {
    pub beginning: Arc<[u32]>,
    pub blocks: Vec<Vec<u32>>,
    /// Tokens of each but the first that are read again.
    pub reread: usize,
}

impl Blocks {
    /// The beginning, unless it is empty, and each block.
    pub(super) fn all(&self) -> Vec<Block> {
        let beginning = Block { before: [].into(), tokens: self.beginning.to_vec() };
        let blocks = self.blocks.iter();
        let blocks = blocks.map(|tokens| Block { before: Arc::clone(&self.beginning), tokens: tokens.clone() });
        std::iter::once(beginning).filter(|beginning| !beginning.tokens.is_empty()).chain(blocks).collect()
    }
}
