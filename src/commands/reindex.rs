//! `INFER.REINDEX`: an index anew, with other models or without what has gathered in its vector set.
//!
//! In the background every document is made from its stored tokens once more, under keys of the next generation, while
//! the present one is searched and changed. Documents that change meanwhile are noted (`index_work`) and made again. When
//! none is left, one HSET of the settings makes the next generation the present one, and the old one is removed.
//!
//! Steps and where they run: `next` (keyspace thread) chooses a document; `read` (keyspace thread, in slices) copies its
//! tokens; `texts` (desk) makes text of them; `writing` does the rest. All of it as the caller. If anything fails, the
//! next generation is removed again. After a crash the next INFER.REINDEX or INFER.DROPINDEX does that.

use std::ops::ControlFlow;
use std::sync::Arc;

use redis_module::Context;

use super::clearing::{self, Extent, clear};
use super::document::{Document, Present, Stats, documents};
use super::index::{check_models, write_settings};
use super::index_work::Reindexing;
use super::leftovers;
use super::live;
use super::losses;
use super::recount;
use super::replace::Replacement;
use super::retrieval::require_settings;
use super::runtime::{engine, queue_limit};
use super::waiting::Embedding;
use super::writing::{Ended, Owner, Writing, on_desk};
use crate::engine::{EngineError, Listing, Purpose, Served, Special, Ticket};
use crate::logic::attributes::UserAttributes;
use crate::logic::index::IndexSettings;
use crate::logic::keys::{DataKeys, IndexKeys, chunk_id};
use crate::logic::limits;
use crate::logic::options;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::{Failure, Value, shown};
use crate::redis_api::vset;

const COMMAND: &str = "INFER.REINDEX";

/// Paths that one step takes from the set; the reply of SSCAN is copied with the lock held.
const PATHS: &[u8] = b"100";

/// How often the documents are counted before it is given up.
const COUNTS: u32 = 3;

/// A re-index that runs.
struct Reindex {
    caller: Caller,
    keys: IndexKeys,
    old: IndexSettings,
    new: IndexSettings,
    /// A model with the tokenizer that made the stored tokens.
    reader: Arc<Served>,
    generator: Arc<Served>,
    embedding: Embedding,
    work: Reindexing,
    /// Of SSCAN; `None` when it has been through all paths.
    cursor: Option<Vec<u8>>,
    /// Documents that are to be made next.
    paths: Vec<String>,
    /// The one that is being made.
    path: String,
    /// The tokens of the document that is being made.
    tokens: Vec<Vec<u32>>,
    /// Keeps it in the list of INFER.PS.
    listed: live::Listed,
}

/* INFER.REINDEX index [EMBEDMODEL m] [GENMODEL g] */
/// Begins to make an index anew in the background. INFER.INDEXINFO tells how far it is.
pub fn reindex(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = options::Reindex::parse(args)?;
    vset::require(ctx)?;
    keyspace_thread::start(ctx)?;
    let (keyspace, keys) = (Keyspace::of(ctx), IndexKeys::new(request.index));
    let old = require_settings(&keyspace, &keys)?;
    let engine = engine()?;
    let embedder = engine.find_for(request.embed_model.unwrap_or(&old.embed_model), Purpose::Embedding)?;
    let generator = engine.find_for(request.gen_model.unwrap_or(&old.gen_model), Purpose::Generation)?;
    check_models(&embedder, &generator, old.max_tokens, old.kv)?;
    let generation = old.generation.checked_add(1).ok_or_else(|| Failure::err("this index was made anew too often"))?;
    let new = IndexSettings {
        embed_model: embedder.model.name.clone(),
        gen_model: generator.model.name.clone(),
        embedder: embedder.embedder_fingerprint(),
        dim: embedder.model.facts.embedding_dim,
        tokenizer: generator.model.facts.tokenizer.clone(),
        generation,
        ..old.clone()
    };
    let reader = reader(&old, &generator)?;
    let (now, next) = (keys.data(old.generation), keys.data(generation));
    keyspace.check_write("HSET", &[keys.settings(), b"", b""])?;
    clearing::check_rights(&keyspace, &now)?;
    clearing::check_rights(&keyspace, &next)?;
    let permit = embedder.permit(queue_limit())?;
    let caller = Caller::of(ctx, COMMAND).with_key(ctx, keys.settings());
    let count = documents(&keyspace, &now)?.unsigned_abs();
    let work = Reindexing::begin(caller.db, request.index, count)
        .ok_or_else(|| Failure::err(format!("index {} is being made anew already", shown(keys.settings()))))?;
    let ticket = Ticket::default();
    let reindex = Reindex {
        listed: live::list_background(ctx, COMMAND, &embedder.model.name, &ticket),
        caller: caller.clone(),
        keys: keys.clone(),
        reader,
        generator,
        embedding: Embedding { served: embedder, permit, ticket },
        work,
        cursor: Some(b"0".to_vec()),
        paths: Vec::new(),
        path: String::new(),
        tokens: Vec::new(),
        old,
        new,
    };
    // What an earlier one left behind: of the generation before, or of one that did not end.
    let before = reindex.old.generation.checked_sub(1).filter(|before| *before > 0);
    let left = before.into_iter().chain([generation]).map(|generation| keys.data(generation)).collect();
    clear(caller, keys, left, Extent::Generations, move |cleared| match cleared {
        Ok(_) => reindex.prepare(0),
        Err(failure) => reindex.give_up(failure),
    });
    Ok(Outcome::Reply(Value::OK))
}

/// A loaded model with the tokenizer of the stored tokens, by preference the one that the index names.
fn reader(settings: &IndexSettings, generator: &Arc<Served>) -> Result<Arc<Served>, Failure> {
    let engine = engine()?;
    let named = engine.find_for(&settings.gen_model, Purpose::Generation).ok();
    let others = engine.list().into_iter().filter_map(|(_, listing)| match listing {
        Listing::Ready(served) => Some(served),
        Listing::Loading(_) | Listing::Failed(_) => None,
    });
    let fits = |served: &Arc<Served>| served.model.facts.tokenizer == settings.tokenizer;
    named.into_iter().chain([Arc::clone(generator)]).chain(others).find(fits).ok_or_else(|| {
        Failure::new(
            "MISMATCH",
            format!(
                "no loaded model has the tokenizer that made the stored tokens (that of '{}' when the index was made), so \
                 they cannot be read; load it, or drop the index and ingest again",
                settings.gen_model
            ),
        )
    })
}

impl Reindex {
    fn now(&self) -> DataKeys {
        self.keys.data(self.old.generation)
    }

    /// Makes sure that the set of paths and the counters are those of all documents, which are counted anew if anything speaks against
    /// it, for at most some times. May be called from any thread.
    fn prepare(self, counted: u32) {
        keyspace_thread::run(self.caller.clone(), move |keyspace| {
            let signs = keyspace.and_then(|keyspace| {
                self.check(keyspace)?;
                let present = Present::read(keyspace, &self.now())?;
                let vectors = vset::counts(&keyspace.as_server(), &self.now().vectors())?;
                Ok((Stats::read(keyspace, &self.now())?.beside(present), present, vectors))
            });
            match signs {
                Ok((stats, present, _)) if counted == 0 && present.listed != stats.size.documents => self.count(counted),
                Ok((stats, ..)) if stats.unsure && counted < COUNTS => self.count(counted),
                Ok((stats, ..)) if stats.unsure => self.give_up(Failure::err(
                    "keys of the index were lost, and its documents could not be counted because they change all the time; \
                     send it again when they do not",
                )),
                Ok((stats, present, vectors)) if present.visible > stats.size.chunks => self.look_for_leftovers(vectors),
                Ok(_) => self.next(),
                Err(failure) => self.give_up(failure),
            }
        });
    }

    fn count(self, counted: u32) {
        let (caller, index, now) = (self.caller.clone(), self.keys.clone(), self.now());
        recount::begin_and_then(&caller, &index, &now, move |ended| match ended {
            Ok(()) => self.prepare(counted + 1),
            Err(failure) => self.give_up(failure),
        });
    }

    /// Looks for a vector of a document whose hash is gone. Such a document would be lost here without a word.
    fn look_for_leftovers(self, all: (i64, i64)) {
        let looking = (self, leftovers::random_steps(all), None);
        let step = |(reindex, steps, found): &mut (Self, u64, Option<String>), keyspace: &Keyspace<'_>| {
            reindex.check(keyspace)?;
            *found = leftovers::any(keyspace, &reindex.now())?;
            *steps = steps.saturating_sub(1);
            Ok(if found.is_some() || *steps == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        keyspace_thread::run_in_slices(looking.0.caller.clone(), looking, step, |(reindex, _, found), ended| {
            match (ended, found) {
                (Ok(()), Some(path)) => {
                    let path = shown(path.as_bytes());
                    reindex.give_up(Failure::err(format!(
                        "there are vectors of documents whose hashes are gone, or name fewer chunks, for instance of {path}; ingest or \
                         forget it, then this"
                    )));
                }
                // Those that others have put there are no documents.
                (Ok(()), None) => reindex.next(),
                (Err(failure), _) => reindex.give_up(failure),
            }
        });
    }

    /// Chooses the next document, or makes the switch when there is none. May be called from any thread.
    fn next(mut self) {
        keyspace_thread::run(self.caller.clone(), move |keyspace| {
            match keyspace.and_then(|keyspace| self.choose(keyspace)) {
                Ok(Next::Document) => self.read(),
                Ok(Next::More) => self.next(),
                Ok(Next::Switched) => self.clear_old(),
                Err(failure) => self.give_up(failure),
            }
        });
    }

    fn choose(&mut self, keyspace: &Keyspace<'_>) -> Result<Next, Failure> {
        self.check(keyspace)?;
        if let Some(path) = self.paths.pop() {
            self.path = path;
            return Ok(Next::Document);
        }
        if let Some(cursor) = self.cursor.take() {
            self.scan(keyspace, &cursor)?;
            return Ok(Next::More);
        }
        self.paths = self.work.take_changed();
        if !self.paths.is_empty() {
            return Ok(Next::More);
        }
        self.switch(keyspace)?;
        Ok(Next::Switched)
    }

    /// Whether the index is still there and nobody has cancelled this.
    fn check(&self, keyspace: &Keyspace<'_>) -> Result<(), Failure> {
        if self.embedding.ticket.is_cancelled() {
            return Err(cancelled());
        }
        self.reader.check_in_service()?;
        self.generator.check_in_service()?;
        if require_settings(keyspace, &self.keys)? != self.old {
            return Err(Failure::err("the index was made anew or changed by somebody else"));
        }
        Ok(())
    }

    /// Takes the next paths from the set. What is in it all the time is found; what comes or goes meanwhile is noted.
    fn scan(&mut self, keyspace: &Keyspace<'_>, cursor: &[u8]) -> Result<(), Failure> {
        let unexpected = || Failure::internal("SSCAN answered in a form that this module does not know");
        let reply = keyspace.read("SSCAN", &[&self.now().paths(), cursor, b"COUNT", PATHS])?;
        let Reply::Array(parts) = reply else { return Err(unexpected()) };
        let mut parts = parts.into_iter();
        let (Some(Reply::Bytes(cursor)), Some(Reply::Array(paths))) = (parts.next(), parts.next()) else {
            return Err(unexpected());
        };
        self.cursor = (cursor != b"0").then_some(cursor);
        let text = |path| if let Reply::Bytes(path) = path { String::from_utf8(path).ok() } else { None };
        self.paths = paths.into_iter().filter_map(text).collect();
        Ok(())
    }

    /// Copies the tokens of a document. It may change meanwhile; then it is noted, and made again.
    fn read(self) {
        let reading = Reading { reindex: self, document: None, before: Document::default() };
        let step = |reading: &mut Reading, keyspace: &Keyspace<'_>| reading.step(keyspace);
        keyspace_thread::run_in_slices(reading.reindex.caller.clone(), reading, step, |reading, ended| match ended {
            // Its tokens may be those of two versions. It is in the list of what is to be made again.
            Ok(()) if reading.reindex.work.has_changed(&reading.reindex.path) => reading.reindex.next(),
            Ok(()) => {
                let tokens: usize = reading.reindex.tokens.iter().map(Vec::len).sum();
                on_desk(&reading.reindex.caller.clone(), tokens * size_of::<u32>(), move || reading.texts());
            }
            Err(failure) => reading.reindex.give_up(failure),
        });
    }

    /// Makes the next generation the present one, in the lock scope in which nothing was left to do.
    fn switch(&mut self, keyspace: &Keyspace<'_>) -> Result<(), Failure> {
        let (now, next) = (self.now(), self.keys.data(self.new.generation));
        keyspace.check_write("HSET", &[self.keys.settings(), b"", b""])?;
        // Keys that are evicted, or an index that SWAPDB puts in the place of this one, must not make anything vanish.
        let (all, made) = (Present::read(keyspace, &now)?, Present::read(keyspace, &next)?);
        let (old, new) = (Stats::read(keyspace, &now)?.beside(all), Stats::read(keyspace, &next)?.beside(made));
        let is_whole = !old.unsure && !new.unsure && old.size.documents == made.listed;
        let is_there = new.size.documents == made.listed && new.size.chunks == made.visible;
        if all.listed != made.listed || !is_whole || !is_there {
            let text = format!(
                "the index has {} documents but {} were made; were its keys evicted or changed by somebody else? Send it again",
                all.listed.max(old.size.documents),
                made.listed.min(new.size.documents),
            );
            return Err(Failure::err(text));
        }
        let epoch = Stats::read(keyspace, &now)?.epoch.saturating_add(1);
        Stats { epoch, ..new }.write(keyspace, &next)?;
        write_settings(keyspace, &self.keys, &self.new)?;
        losses::forget(self.caller.db, self.keys.name());
        self.work.switched();
        Ok(())
    }

    fn clear_old(self) {
        let (caller, old) = (self.caller.clone(), self.now());
        clear(caller, self.keys.clone(), vec![old], Extent::Generations, move |cleared| match cleared {
            Ok(_) => self.end(None),
            Err(failure) => {
                let text = format!(
                    "{failure} (the index is made anew; the old keys are left, the next INFER.REINDEX removes them)"
                );
                self.end(Some(text));
            }
        });
    }

    fn give_up(self, failure: Failure) {
        log::warn!("{COMMAND} of client {} was given up: {failure}", self.caller.client);
        let (caller, next) = (self.caller.clone(), self.keys.data(self.new.generation));
        // What cannot be removed now is removed by the next one.
        clear(caller, self.keys.clone(), vec![next], Extent::Generations, move |_cleared| {
            self.end(Some(failure.to_string()))
        });
    }

    fn end(self, error: Option<String>) {
        let Self { caller, embedding, generator, reader, listed, work, .. } = self;
        drop(listed);
        work.end(error);
        // If a model was unloaded meanwhile its memory is freed here, which is not for a thread that holds Redis' lock.
        on_desk(&caller, 0, move || drop((embedding, generator, reader)));
    }
}

/// What comes next.
enum Next {
    Document,
    /// Nothing in this lock scope.
    More,
    Switched,
}

/// A document whose tokens are being copied.
struct Reading {
    reindex: Reindex,
    /// As it is in the present generation.
    document: Option<Document>,
    /// As it is in the next one, if it was made before and has changed since.
    before: Document,
}

impl Reading {
    fn step(&mut self, keyspace: &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> {
        let (now, reindex) = (self.reindex.now(), &mut self.reindex);
        let Some(document) = &self.document else {
            reindex.check(keyspace)?;
            reindex.tokens.clear();
            self.before = Document::read(keyspace, &reindex.keys.data(reindex.new.generation).document(&reindex.path))?;
            let document = Document::read(keyspace, &now.document(&reindex.path))?;
            let is_listed = keyspace.read("SISMEMBER", &[&now.paths(), reindex.path.as_bytes()])? != Reply::Int(0);
            if is_listed && document.versions.is_empty() {
                let path = shown(reindex.path.as_bytes());
                let text = format!("the hash of document {path} is gone; ingest the document again, then this");
                return Err(Failure::err(text));
            }
            self.document = Some(document);
            return Ok(ControlFlow::Continue(()));
        };
        let number = reindex.tokens.len();
        if number >= document.versions.len() {
            return Ok(ControlFlow::Break(()));
        }
        let id = chunk_id(&reindex.path, u32::try_from(number).unwrap_or(u32::MAX));
        let tokens = keyspace.token_key_if_present(&now.tokens(&id), limits::KEY_TOKENS_MAX)?;
        reindex.tokens.push(tokens.unwrap_or_default());
        Ok(ControlFlow::Continue(()))
    }

    fn texts(self) {
        let Self { reindex, document, before } = self;
        let document = document.unwrap_or_default();
        match reindex.chunks(&document) {
            Ok((texts, more)) => {
                let keys = reindex.keys.data(reindex.new.generation);
                let replacement = Replacement::by_nothing(keys, &reindex.path, reindex.new.quant.name(), before);
                let replacement = if texts.is_empty() {
                    replacement
                } else {
                    replacement.by(document.hash, &more, document.versions.into_iter().flatten())
                };
                Writing::begin(reindex, replacement, texts);
            }
            Err(_) if reindex.embedding.ticket.is_cancelled() => reindex.give_up(cancelled()),
            Err(failure) => reindex.give_up(failure),
        }
    }
}

impl Reindex {
    /// The texts of a document's chunks, and what its user added to their attributes.
    fn chunks(&self, document: &Document) -> Result<(Vec<String>, UserAttributes), Failure> {
        if document.versions.is_empty() {
            return Ok((Vec::new(), UserAttributes::default()));
        }
        let path = &self.path;
        let of = |number: usize| shown(chunk_id(path, u32::try_from(number).unwrap_or(u32::MAX)).as_bytes());
        let more = UserAttributes::parse(&document.attributes).map_err(|_| changed_by_hand(path))?;
        let mut texts = Vec::with_capacity(document.versions.len());
        for (number, (tokens, version)) in self.tokens.iter().zip(&document.versions).enumerate() {
            self.embedding.ticket.check()?;
            version.ok_or_else(|| changed_by_hand(path))?;
            if tokens.is_empty() {
                let text = format!("the tokens of chunk {} are gone; ingest the document again, then this", of(number));
                return Err(Failure::err(text));
            }
            let text = String::from_utf8_lossy(&self.reader.model.detokenize(tokens)?).into_owned();
            let (count, reads) = (
                self.embedding.served.model.tokenize(&text, Special::Add)?.len(),
                self.embedding.served.context as usize,
            );
            if count > reads {
                let name = &self.embedding.served.model.name;
                let text = format!(
                    "chunk {} has {count} tokens for model '{name}', which reads {reads}; make a new index with a smaller \
                     MAXTOKENS, or load the model with a larger CTX",
                    of(number)
                );
                return Err(Failure::new("CTXLIMIT", text));
            }
            texts.push(text);
        }
        Ok((texts, more))
    }
}

fn cancelled() -> Failure {
    Failure::new("CANCELLED", "INFER.REINDEX was cancelled by INFER.CANCEL")
}

fn changed_by_hand(path: &str) -> Failure {
    let path = shown(path.as_bytes());
    Failure::err(format!("the hash of document {path} was changed by hand; ingest the document again, then this"))
}

impl Owner for Reindex {
    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn index(&self) -> (&IndexKeys, &IndexSettings) {
        (&self.keys, &self.old)
    }

    fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    fn tokens(&self, chunk: usize, text: &str) -> Result<Vec<u32>, EngineError> {
        match self.tokens.get(chunk) {
            Some(tokens) if self.new.tokenizer == self.old.tokenizer => Ok(tokens.clone()),
            _ => self.generator.model.tokenize(text, Special::None),
        }
    }

    fn ended(mut self, how: Result<Ended, Failure>) {
        match how {
            Ok(Ended::Written(..)) => {
                self.work.advance();
                self.next();
            }
            // If the index is not the same any more, the next check tells it.
            Ok(Ended::Overtaken) => {
                self.paths.push(self.path.clone());
                self.next();
            }
            Ok(Ended::NoTexts(_)) => self.give_up(Failure::internal("a document without texts was to be made anew")),
            Err(_) if self.embedding.ticket.is_cancelled() => self.give_up(cancelled()),
            Err(failure) => self.give_up(failure),
        }
    }
}
