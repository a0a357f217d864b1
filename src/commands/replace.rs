//! Replacing a document: what is there of the new chunks (`survey`), their vectors in the set but hidden (`stage`), and
//! then everything else in one lock scope (`switch`), so that a reader sees the old document or the new one.
//!
//! An element of the vector set is one version of a chunk: its vector never changes, and it is hidden when another version
//! takes its place (see `redis_api::vset` for why it is not removed). Whatever goes wrong before the switch leaves the old
//! document as it was, and hidden elements that the next ingest of the same text finds.

use std::ops::ControlFlow;

use super::document::{Document, Present, Stats, is_listed};
use super::leftovers::{self, Leftovers};
use super::losses;
use super::recount;
use crate::logic::attributes::{ChunkAttributes, UserAttributes};
use crate::logic::keys::{DataKeys, IndexKeys, chunk_id, element};
use crate::logic::token_blob;
use crate::logic::version::Version;
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::{Failure, Value};
use crate::redis_api::vset::{self, Stored};

/// A chunk as it shall be.
#[derive(Debug)]
pub(super) struct Planned {
    pub version: Version,
    attributes: ChunkAttributes,
    pub state: State,
}

/// What is there of a chunk.
#[derive(Debug)]
pub(super) enum State {
    /// Nobody has looked.
    Unknown,
    /// Everything but perhaps the attributes.
    Kept {
        tokens: u64,
        /// Its attributes are as they shall be.
        shown: bool,
    },
    /// Not everything.
    New {
        /// Whether the vector is in the set.
        staged: bool,
        tokens: Vec<u32>,
        vector: Vec<f32>,
    },
}

/// A chunk that was written.
#[derive(Debug)]
pub(super) struct NewChunk {
    /// First and last line in the document, from 1.
    pub lines: (u32, u32),
    pub tokens: Vec<u32>,
}

/// Chunks of a document by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub added: usize,
    pub kept: usize,
    pub removed: usize,
}

impl Counts {
    /// The reply of `INFER.INGEST`.
    pub(super) fn reply(self) -> Value {
        let Self { added, kept, removed } = self;
        Value::Map(vec![("added", added.into()), ("kept", kept.into()), ("removed", removed.into())])
    }
}

/// How a switch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    Done(Counts, Aftermath),
    /// The document, or what was staged, is not what it was any more; nothing was written.
    Overtaken,
}

/// What is still to be done behind a switch, because keys of the index were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Aftermath {
    /// Count the documents.
    pub recount: bool,
    /// Because of something that nobody had noticed before.
    is_new_loss: bool,
    /// Look for elements that are left over of this document.
    pub hide_apart: bool,
}

/// A document that shall become another.
#[derive(Debug)]
pub(super) struct Replacement {
    keys: DataKeys,
    path: String,
    /// As it is given to `VADD`.
    quant: &'static str,
    before: Document,
    hash: String,
    attributes: String,
    pub chunks: Vec<Planned>,
    /// The chunk that the survey, and then the staging, has come to.
    at: usize,
    /// Nothing speaks for lost keys. From the survey.
    is_sound: bool,
}

impl Replacement {
    /// Nothing shall take the place of `before`.
    pub(super) fn by_nothing(keys: DataKeys, path: &str, quant: &'static str, before: Document) -> Self {
        let (hash, attributes) = Default::default();
        Self {
            keys,
            path: path.to_owned(),
            quant,
            before,
            hash,
            attributes,
            chunks: Vec::new(),
            at: 0,
            is_sound: false,
        }
    }

    /// A document with this hash and these chunks shall take the place of this one, which has not begun.
    pub(super) fn by(self, hash: String, more: &UserAttributes, versions: impl Iterator<Item = Version>) -> Self {
        let planned = |(number, version): (u32, Version)| Planned {
            version,
            attributes: ChunkAttributes::new(&self.path, number, version.lines, more),
            state: State::Unknown,
        };
        let chunks = (0..).zip(versions).map(planned).collect();
        Self { hash, attributes: more.to_json(), chunks, ..self }
    }

    /// The chunks that are stored, if they are those of a text with this hash.
    pub(super) fn stored_versions(&self, hash: &str) -> Option<Vec<Version>> {
        if self.before.hash != hash {
            return None;
        }
        self.before.versions.iter().copied().collect()
    }

    /// Whether all is as it shall be. After the survey.
    pub(super) fn is_done(&self) -> bool {
        if !self.is_sound {
            return false;
        }
        if self.chunks.is_empty() && self.before == Document::default() {
            return true;
        }
        self.before.hash == self.hash
            && self.before.attributes == self.attributes
            && self.before.versions.len() == self.chunks.len()
            && self.chunks.iter().all(|chunk| matches!(chunk.state, State::Kept { shown: true, .. }))
    }

    /// Whether chunks have to be written whose text is needed for it. After the survey.
    pub(super) fn needs_text(&self) -> bool {
        self.chunks.iter().any(|chunk| matches!(chunk.state, State::New { .. }))
    }

    /// Looks what is there of the next chunk; breaks after the last.
    pub(super) fn survey(&mut self, keyspace: &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> {
        let Some(planned) = self.chunks.get(self.at) else {
            self.at = 0;
            let signs = Signs::read(keyspace, &self.keys, &self.path)?;
            self.is_sound = signs.is_listed != self.chunks.is_empty() && !signs.stats.unsure;
            return Ok(ControlFlow::Break(()));
        };
        let is_current = self.before.versions.get(self.at) == Some(&Some(planned.version));
        let element = self.element(planned);
        let stored = vset::stored(keyspace, &self.keys.vectors(), element.as_bytes())?;
        // Anybody can delete the keys of an unchanged chunk, let them expire, or add members to its attributes.
        let state = match &stored {
            Stored::Shown(attributes) if is_current => match keyspace.token_count(&self.tokens_key(planned))? {
                0 => State::new(true),
                tokens => {
                    let wanted = &planned.attributes;
                    let shown = self.before.attributes == self.attributes
                        && ChunkAttributes::from_json(attributes).is_ok_and(|stored| wanted.are_in(&stored));
                    State::Kept { tokens, shown }
                }
            },
            stored => State::new(*stored != Stored::Nothing),
        };
        if let Some(planned) = self.chunks.get_mut(self.at) {
            planned.state = state;
        }
        self.at += 1;
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the caller may write everything, before anything is written. Memory is asked for too.
    pub(super) fn check_rights(&self, keyspace: &Keyspace<'_>) -> Result<(), Failure> {
        let document = self.keys.document(&self.path);
        vset::check_showing(keyspace, &self.keys.vectors())?;
        keyspace.check_write("HSET", &[&self.keys.stats(), b"", b""])?;
        let most = self.chunks.len().max(self.before.versions.len());
        let keys = (0..).take(most).map(|number| self.keys.tokens(&chunk_id(&self.path, number)));
        let keys: Vec<Vec<u8>> = std::iter::once(document.clone()).chain(keys).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        keyspace.check_write("UNLINK", &keys)?;
        if self.chunks.is_empty() {
            vset::check_removing(keyspace, &self.keys.vectors())?;
            return keyspace.check_write("SREM", &[&self.keys.paths(), b""]);
        }
        keyspace.check_write("HSET", &[&document, b"", b""])?;
        keyspace.check_write("HDEL", &[&document, b""])?;
        keyspace.check_write("SADD", &[&self.keys.paths(), b""])?;
        if self.needs_text() {
            vset::check_staging(keyspace, &self.keys.vectors())?;
            keyspace.check_write("SET", &[&self.keys.tokens(&chunk_id(&self.path, 0)), b""])?;
        }
        Ok(())
    }

    /// Puts the next vector into the set, unless it is there; breaks after the last.
    pub(super) fn stage(&mut self, keyspace: &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> {
        if self.at == 0 {
            self.check_rights(keyspace)?;
        }
        let (key, quant) = (self.keys.vectors(), self.quant);
        // Chunks whose vector is there cost nothing, so they are no step of their own.
        while let Some(planned) = self.chunks.get_mut(self.at) {
            self.at += 1;
            if let State::New { staged: staged @ false, vector, .. } = &mut planned.state {
                let element = element(&self.path, planned.attributes.chunk, planned.version);
                if let Err(failure) = vset::stage(keyspace, &key, element.as_bytes(), vector, quant) {
                    // Of a first document nothing shall be left. If this fails too, the first reason is the one to tell.
                    let _same_reason = vset::remove_if_all_hidden(keyspace, &key);
                    return Err(failure);
                }
                *staged = true;
                return Ok(ControlFlow::Continue(()));
            }
        }
        Ok(ControlFlow::Break(()))
    }

    /// Makes the document what it shall be, all in this lock scope. What can be refused is refused before anything is
    /// written.
    pub(super) fn switch(&self, keyspace: &Keyspace<'_>) -> Result<Switch, Failure> {
        let document_key = self.keys.document(&self.path);
        if Document::read(keyspace, &document_key)? != self.before {
            return Ok(Switch::Overtaken);
        }
        self.check_rights(keyspace)?;
        // All of the right type?
        vset::attributes(keyspace, &self.keys.vectors(), b"")?;
        let signs = Signs::read(keyspace, &self.keys, &self.path)?;
        let left = self.leftovers(keyspace, &signs)?;
        // Memory was asked for above: from here on it may not run out.
        let keyspace = &keyspace.above_maxmemory();
        if !self.show(keyspace)? {
            return Ok(Switch::Overtaken);
        }
        self.hide_old(keyspace)?;
        left.remove(keyspace, &self.keys, &self.path)?;
        let after = self.after();
        if self.chunks.is_empty() {
            keyspace.write("UNLINK", &[&document_key])?;
            keyspace.write("SREM", &[&self.keys.paths(), self.path.as_bytes()])?;
        } else {
            after.write(keyspace, &document_key, &self.before)?;
            keyspace.write("SADD", &[&self.keys.paths(), self.path.as_bytes()])?;
        }
        // A document of which something is there and no hash: what was counted of it is not known.
        let is_lost = self.before == Document::default() && (signs.is_listed || !left.chunks.is_empty());
        let is_new_loss = is_lost || (!signs.is_listed && self.before != Document::default());
        let recount = signs.stats.unsure || is_new_loss;
        if is_lost || !(self.chunks.is_empty() && self.before == Document::default()) {
            let stats = Stats { unsure: recount, ..signs.stats };
            stats.changed(&self.before, &after).write(keyspace, &self.keys)?;
        }
        if self.chunks.is_empty() {
            vset::remove_if_all_hidden(keyspace, &self.keys.vectors())?;
        }
        Ok(Switch::Done(self.counts_with(&left), Aftermath { recount, is_new_loss, hide_apart: left.apart }))
    }

    /// Notes a switch where it has to be known, and begins what is still to be done behind it. In the same lock scope.
    pub(super) fn follow_up(&self, aftermath: Aftermath, caller: &Caller, index: &IndexKeys) {
        losses::healed(caller.db, index.name(), &self.path);
        recount::changed(caller.db, &self.keys, &self.path, self.before.size(), self.after().size());
        if aftermath.hide_apart {
            leftovers::hide_apart(caller.clone(), self.keys.clone(), self.path.clone());
        }
        if aftermath.recount {
            recount::begin(caller, index, &self.keys, aftermath.is_new_loss);
        }
    }

    /// What is left over of the document, if anything speaks for that.
    fn leftovers(&self, keyspace: &Keyspace<'_>, signs: &Signs) -> Result<Leftovers, Failure> {
        let known = self.chunks.len();
        let is_unknown = self.before == Document::default();
        let has_tokens = || keyspace.is_present(&self.keys.tokens(&chunk_id(&self.path, 0)));
        let has_signs = signs.stats.unsure || (is_unknown && (signs.is_listed || has_tokens()));
        // What nobody knows of, where there are too many vectors or somebody wants it to be gone, is looked for all the same if that
        // takes no thread of its own: there may be others of which vectors are left over, and they may stay so for ever.
        let may_have = is_unknown && (self.chunks.is_empty() || signs.has_too_many_vectors());
        if !has_signs && !may_have {
            return Ok(Leftovers::default());
        }
        let planned = self.chunks.iter().map(|planned| Some(planned.version));
        let mut kept = leftovers::elements(&self.path, planned);
        kept.extend(leftovers::elements(&self.path, self.before.versions.iter().copied()));
        let known = known.max(self.before.versions.len());
        let mut left = Leftovers::find(keyspace, &self.keys, &self.path, known, &kept)?;
        left.apart &= has_signs;
        Ok(left)
    }

    /// Shows the new elements, writes their tokens, and attributes that changed. If a new element is not there all of them
    /// are hidden again, and nothing has changed.
    fn show(&self, keyspace: &Keyspace<'_>) -> Result<bool, Failure> {
        let vectors = self.keys.vectors();
        let show = |planned: &Planned| {
            vset::show(keyspace, &vectors, self.element(planned).as_bytes(), &planned.attributes.to_json())
        };
        let new = || self.chunks.iter().filter(|planned| matches!(planned.state, State::New { .. }));
        for (done, planned) in new().enumerate() {
            if !show(planned)? {
                for planned in new().take(done) {
                    vset::hide(keyspace, &vectors, self.element(planned).as_bytes())?;
                }
                return Ok(false);
            }
        }
        for planned in &self.chunks {
            match &planned.state {
                State::New { tokens, .. } => {
                    keyspace.write("SET", &[&self.tokens_key(planned), &token_blob::encode(tokens)])?;
                }
                State::Kept { shown: false, .. } => {
                    show(planned)?;
                }
                State::Kept { shown: true, .. } | State::Unknown => {}
            }
        }
        Ok(true)
    }

    /// Hides the versions that others take the place of, and removes the tokens of chunks that go.
    fn hide_old(&self, keyspace: &Keyspace<'_>) -> Result<(), Failure> {
        for (number, old) in (0..).zip(&self.before.versions) {
            let new = self.chunks.get(number as usize).map(|planned| planned.version);
            if let Some(old) = old.filter(|old| new != Some(*old)) {
                vset::hide(keyspace, &self.keys.vectors(), element(&self.path, number, old).as_bytes())?;
            }
        }
        let gone = (0..).take(self.before.versions.len()).skip(self.chunks.len());
        let gone: Vec<Vec<u8>> = gone.map(|number| self.keys.tokens(&chunk_id(&self.path, number))).collect();
        if !gone.is_empty() {
            keyspace.write("UNLINK", &gone.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn after(&self) -> Document {
        let tokens = |planned: &Planned| match &planned.state {
            State::Unknown => 0,
            State::Kept { tokens, .. } => *tokens,
            State::New { tokens, .. } => tokens.len() as u64,
        };
        Document {
            tokens: self.chunks.iter().map(tokens).sum(),
            hash: self.hash.clone(),
            attributes: self.attributes.clone(),
            versions: self.chunks.iter().map(|planned| Some(planned.version)).collect(),
        }
    }

    /// The chunks that were not there before.
    pub(super) fn into_new(self) -> Vec<NewChunk> {
        let new = |planned: Planned| match planned.state {
            State::New { tokens, .. } => Some(NewChunk { lines: planned.version.lines, tokens }),
            State::Kept { .. } | State::Unknown => None,
        };
        self.chunks.into_iter().filter_map(new).collect()
    }

    /// What becomes of the chunks.
    pub(super) fn counts(&self) -> Counts {
        let kept = self.chunks.iter().filter(|chunk| matches!(chunk.state, State::Kept { .. })).count();
        let removed = self.before.versions.len().saturating_sub(self.chunks.len());
        Counts { added: self.chunks.len() - kept, kept, removed }
    }

    /// The same, with those of which something was left over.
    fn counts_with(&self, left: &Leftovers) -> Counts {
        let counts = self.counts();
        let before = self.before.versions.len().max(self.chunks.len());
        let others = left.chunks.iter().filter(|number| **number as usize >= before).count();
        Counts { removed: counts.removed + others, ..counts }
    }

    fn element(&self, planned: &Planned) -> String {
        element(&self.path, planned.attributes.chunk, planned.version)
    }

    fn tokens_key(&self, planned: &Planned) -> Vec<u8> {
        self.keys.tokens(&chunk_id(&self.path, planned.attributes.chunk))
    }
}

/// What tells whether keys of the index were lost.
#[derive(Debug)]
struct Signs {
    stats: Stats,
    present: Present,
    is_listed: bool,
}

impl Signs {
    fn read(keyspace: &Keyspace<'_>, keys: &DataKeys, path: &str) -> Result<Self, Failure> {
        let present = Present::read(keyspace, keys)?;
        let stats = Stats::read(&keyspace.as_server(), keys)?.beside(present);
        Ok(Self { stats, present, is_listed: is_listed(keyspace, keys, path)? })
    }

    /// Whether elements are left over, of this document or of others.
    fn has_too_many_vectors(&self) -> bool {
        self.present.visible > self.stats.size.chunks
    }
}

impl State {
    fn new(staged: bool) -> Self {
        Self::New { staged, tokens: Vec::new(), vector: Vec::new() }
    }
}
