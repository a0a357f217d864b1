//! The prompt of `INFER.RAG`: which of the found chunks go into it, and what the client is told of them.

use std::sync::Arc;

use super::chunk_prompt::{self, Blocks, Frame};
use crate::engine::{EngineError, Model, Served};
use crate::logic::kept_answer::Source;
use crate::logic::options::{Budget, Kv};
use crate::logic::passages::{Found, Passage, Passages, Vocabulary, label};
use crate::logic::prompt::{ContextPassage, asked, rag_messages};
use crate::redis_api::reply::Failure;

/// What is asked, and how much room the chunks have.
#[derive(Debug)]
pub(super) struct PromptPlan {
    pub system: String,
    pub question: Arc<str>,
    pub budget: Budget,
    /// Of the answer.
    pub max_tokens: usize,
    /// How chunks are read.
    pub kv: Kv,
}

/// A prompt with chunks in it.
#[derive(Debug)]
pub(super) struct RagPrompt {
    pub tokens: Vec<u32>,
    /// For an index with `KV CHUNK`: those of the chunks, which are read by themselves.
    pub blocks: Option<Blocks>,
    passages: Vec<Passage>,
    pub left_out: Vec<LeftOut>,
}

/// A chunk for which there was no room.
#[derive(Debug)]
pub(super) struct LeftOut {
    /// Its place among the found ones.
    place: usize,
    /// What it would have taken.
    tokens: usize,
}

/// Bytes of a question whose tokens are not remembered; few models that embed read one so long.
const LONG_QUESTION: usize = 8 << 10;

impl PromptPlan {
    /// The prompt with the best of `found`, which are at least one.
    ///
    /// # Errors
    /// `CTXLIMIT` with the numbers when not one chunk fits into the budget, or when the prompt does not fit into the
    /// context; `BADTOKENS`.
    pub(super) fn prompt(&self, served: &Served, found: &[Found]) -> Result<RagPrompt, Failure> {
        let model = &served.model;
        found.iter().try_for_each(|chunk| model.check_tokens(&chunk.tokens))?;
        if let Kv::Chunk { reread } = self.kv {
            return self.prompt_of_blocks(served, found, reread as usize);
        }
        let piece = |token| {
            let mut bytes = Vec::new();
            // Fails for ids outside the vocabulary alone, which are ruled out by now.
            if let Err(error) = model.piece(token, &mut bytes) {
                log::error!("INFER.RAG: {error}");
            }
            bytes
        };
        // A text that cannot be tokenized fails once more, and for good, when the prompt is.
        let count = |text: &str| model.tokenize_common(text).map_or(0, |tokens| tokens.len());
        let mut passages = Passages::new(found, Vocabulary { piece: &piece, count: &count });
        let best = self.room(served, &mut passages, found.len())?.map_or(found.len(), |room| passages.fitting(room));
        let chosen = passages.of(best);
        let tokens = self.encode(served, &chosen)?;
        self.check_context(served, tokens.len(), best)?;
        let left_out = (best..found.len()).map(|place| LeftOut { place, tokens: passages.tokens_alone(place) });
        Ok(RagPrompt { tokens, blocks: None, left_out: left_out.collect(), passages: chosen })
    }

    /// Tokenizes what can be before the chunks are found: the model remembers it for [`PromptPlan::prompt`].
    pub(super) fn begin(&self, model: &Model) {
        if self.question.len() > LONG_QUESTION {
            return;
        }
        let begun = match self.kv {
            Kv::Exact => model.encode(&[asked(&self.question)]).map(drop),
            Kv::Chunk { .. } => Frame::new(model, &self.system, &self.question).map(drop),
        };
        if let Err(error) = begun {
            log::debug!("INFER.RAG: {error}");
        }
    }

    /// Each chunk is a block of its own, also beside its neighbours.
    fn prompt_of_blocks(&self, served: &Served, found: &[Found], reread: usize) -> Result<RagPrompt, Failure> {
        let frame = Frame::new(&served.model, &self.system, &self.question)?;
        let mut blocks = chunk_prompt::blocks(&served.model, found)?;
        let room = match self.budget {
            Budget::All => None,
            Budget::Tokens(budget) => Some((budget as usize, "BUDGET is")),
            Budget::Auto => {
                let room = (served.context as usize).saturating_sub(self.max_tokens + frame.tokens());
                Some((room, ROOM_LEFT))
            }
        };
        let tokens: Vec<usize> = blocks.iter().map(Vec::len).collect();
        let best = room.map_or(tokens.len(), |(room, _)| {
            let sums = tokens.iter().scan(0, |sum, tokens| {
                *sum += tokens;
                Some(*sum)
            });
            sums.take_while(|&sum| sum <= room).count()
        });
        if let (0, Some((room, what)), Some(least)) = (best, room, tokens.first()) {
            return Err(no_room(what, room, *least));
        }
        blocks.truncate(best);
        let prompt = [&frame.beginning[..], &blocks.concat(), &frame.end].concat();
        self.check_context(served, prompt.len(), best)?;
        let passage = |(place, (chunk, &tokens)): (usize, (&Found, &usize))| Passage {
            chunks: vec![place],
            lines: chunk.lines(),
            score: chunk.score,
            tokens,
            text: ContextPassage { label: label(&chunk.attributes.path, chunk.lines()), content: Vec::new() },
        };
        let left_out = tokens.iter().enumerate().skip(best).map(|(place, &tokens)| LeftOut { place, tokens });
        Ok(RagPrompt {
            tokens: prompt,
            blocks: Some(Blocks { beginning: frame.beginning, blocks, reread }),
            left_out: left_out.collect(),
            passages: found.iter().zip(&tokens).enumerate().take(best).map(passage).collect(),
        })
    }

    fn check_context(&self, served: &Served, prompt: usize, chunks: usize) -> Result<(), Failure> {
        let (context, max, name) = (served.context as usize, self.max_tokens, &served.model.name);
        if prompt + max <= context {
            return Ok(());
        }
        Err(Failure::new(
            "CTXLIMIT",
            format!(
                "the prompt with {chunks} chunks has {prompt} tokens and MAXTOKENS is {max}, but the context of model \
                 '{name}' holds {context}; add BUDGET AUTO, lower K or MAXTOKENS, or load the model with a larger CTX"
            ),
        ))
    }

    /// Tokens that the chunks may take, which is enough for the best one; `None` for any number.
    fn room(&self, served: &Served, passages: &mut Passages<'_>, all: usize) -> Result<Option<usize>, Failure> {
        let (room, what) = match self.budget {
            Budget::All => return Ok(None),
            Budget::Tokens(budget) => (budget as usize, "BUDGET is"),
            Budget::Auto => {
                let whole = self.encode(served, &passages.of(all))?.len();
                let around = whole.saturating_sub(passages.tokens(all));
                let room = (served.context as usize).saturating_sub(self.max_tokens + around);
                (room, ROOM_LEFT)
            }
        };
        let least = passages.tokens(1);
        if least > room {
            return Err(no_room(what, room, least));
        }
        Ok(Some(room))
    }

    fn encode(&self, served: &Served, passages: &[Passage]) -> Result<Vec<u32>, EngineError> {
        let passages = passages.iter().map(|passage| passage.text.clone()).collect();
        let prompt = served.model.chat_prompt(&rag_messages(&self.system, &self.question, passages))?;
        served.model.encode(&prompt)
    }
}

/// What is told of the room that BUDGET AUTO gives.
const ROOM_LEFT: &str = "the room for chunks beside question and MAXTOKENS is";

fn no_room(what: &str, room: usize, least: usize) -> Failure {
    Failure::new(
        "CTXLIMIT",
        format!("{what} {room} tokens, but the best chunk takes {least}; nothing would be left to answer from"),
    )
}

impl RagPrompt {
    /// What `WITHSOURCES` tells: the passages of the prompt, then the chunks that were left out; best first.
    pub(super) fn sources(&self, found: &[Found]) -> Vec<Source> {
        let used = self.passages.iter().filter_map(|passage| {
            let best = found.get(*passage.chunks.iter().min()?)?;
            let chunks = passage.chunks.iter().filter_map(|&place| found.get(place));
            let chunks = chunks.map(|chunk| chunk.attributes.chunk).collect();
            Some(source(best, chunks, passage.lines, passage.tokens, true))
        });
        let left_out = self.left_out.iter().filter_map(|&LeftOut { place, tokens }| {
            let chunk = found.get(place)?;
            Some(source(chunk, vec![chunk.attributes.chunk], chunk.lines(), tokens, false))
        });
        used.chain(left_out).collect()
    }
}

/// `best` is the best chunk of the source.
fn source(best: &Found, chunks: Vec<u32>, lines: (u32, u32), tokens: usize, used: bool) -> Source {
    let (id, path) = (best.id.clone(), best.attributes.path.clone());
    Source { id, path, chunks, lines, score: best.score, rerank_score: best.rerank_score, tokens, used }
}
