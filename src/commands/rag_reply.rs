//! The reply of `INFER.RAG`: the text alone, or a map with what the client asked for.

use std::time::Duration;

use super::cache_lookup::How;
use super::text_reply::{Detail, Fields, More, us};
use crate::engine::{Generation, Served};
use crate::logic::kept_answer::{KeptAnswer, Source};
use crate::logic::options::{Kv, Rag};
use crate::redis_api::reply::Value;

/// What is told besides the text. Which fields a reply has depends on this alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    detail: Detail,
    sources: bool,
    prompt: bool,
    reranking: bool,
    blocks: bool,
}

/// How an answer came about.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub sources: Vec<Source>,
    /// Its text; `None` where the model was not asked.
    pub prompt: Option<Vec<u8>>,
    pub embedded: Duration,
    pub searched: Duration,
    pub copied: Duration,
    pub reranked: Duration,
    /// Chunks in the prompt, those without room, and those whose tokens are gone.
    pub used: usize,
    pub dropped: usize,
    pub missing: usize,
    /// With `KV CHUNK`.
    pub blocks: BlockCourse,
    /// With `CACHE`.
    pub cache: Option<CacheCourse>,
}

/// How a prompt was put together from blocks.
#[derive(Debug, Default)]
pub(super) struct BlockCourse {
    /// Tokens that were put together and not read.
    pub spliced: usize,
    /// Blocks (the beginning of the prompt is one) that had to be read for that.
    pub read: usize,
    /// How long getting all of them took.
    pub took: Duration,
}

/// What a cache has to do with an answer.
#[derive(Debug, Clone)]
pub(super) struct CacheCourse {
    pub how: How,
    /// The nearest question that was asked before in these circumstances, and how near it is.
    pub nearest: Option<(f64, Vec<u8>)>,
    /// Whether the answer was stored just now.
    pub stored: bool,
}

impl Told {
    pub(super) fn of(request: &Rag<'_>, kv: Kv) -> Self {
        Self {
            detail: Detail::of(&request.options),
            sources: request.with_sources,
            prompt: request.with_prompt,
            reranking: request.selection.rerank.is_some(),
            blocks: kv != Kv::Exact,
        }
    }

    /// Whether the text of the prompt is told.
    pub(super) fn prompt(self) -> bool {
        self.prompt
    }

    /// An answer that was made now; `None` when there was nothing to make it from.
    pub(super) fn answer(self, generation: Option<Generation>, served: &Served, course: Course) -> Value {
        self.detail.reply(generation, served, self.more(course))
    }

    /// An answer that was made before.
    pub(super) fn answer_again(self, kept: KeptAnswer, served: &Served, course: Course) -> Value {
        let course = Course { sources: kept.sources, ..course };
        self.detail.reply_again(kept.text, &kept.finish_reason, served, self.more(course))
    }

    fn more(self, course: Course) -> More {
        let mut more = More::default();
        if self.sources {
            more.fields.push(("sources", Value::Array(course.sources.into_iter().map(source).collect())));
        }
        if self.prompt {
            more.fields.push(("prompt", course.prompt.map_or(Value::Null, Value::from)));
        }
        more.stats =
            vec![("embed_us", us(course.embedded)), ("search_us", us(course.searched)), ("copy_us", us(course.copied))];
        if self.reranking {
            more.stats.push(("rerank_us", us(course.reranked)));
        }
        more.stats.extend([
            ("used_chunks", Value::from(course.used)),
            ("dropped_chunks", Value::from(course.dropped)),
            ("missing_chunks", Value::from(course.missing)),
        ]);
        if self.blocks {
            let BlockCourse { spliced, read, took } = course.blocks;
            let stats = [("spliced_tokens", spliced.into()), ("read_blocks", read.into()), ("blocks_us", us(took))];
            more.stats.extend(stats);
        }
        more.stats.extend(course.cache.into_iter().flat_map(cache_stats));
        more
    }
}

fn cache_stats(course: CacheCourse) -> Fields {
    let (score, question) =
        course.nearest.map_or((Value::Null, Value::Null), |(score, question)| (score.into(), question.into()));
    vec![
        ("cache", course.how.name().into()),
        ("cache_score", score),
        ("cache_question", question),
        ("cache_stored", u32::from(course.stored).into()),
    ]
}

fn source(source: Source) -> Value {
    let chunks = source.chunks.into_iter().map(Value::from).collect();
    let mut fields = vec![
        ("id", Value::from(source.id)),
        ("path", Value::from(source.path)),
        ("chunks", Value::Array(chunks)),
        ("lines", Value::Array(vec![Value::from(source.lines.0), Value::from(source.lines.1)])),
        ("score", Value::Double(source.score)),
    ];
    fields.extend(source.rerank_score.map(|score| ("rerank_score", Value::Double(score.into()))));
    fields.extend([("tokens", Value::from(source.tokens)), ("used", Value::from(u32::from(source.used)))]);
    Value::Map(fields)
}
