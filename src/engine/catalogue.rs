//! The models by name, and which of them answer to `*`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::error::EngineError;
use super::model::Purpose;
use super::served::Served;
use super::stop::Stop;
use crate::logic::args::DEFAULT_MODEL;
use crate::logic::file_names::without_folders;
use crate::logic::limits;
use crate::logic::options::LoadOptions;

/// One line of `INFER.MODELS`.
#[derive(Debug, Clone)]
pub enum Listing {
    /// Being loaded, or about to be.
    Loading(Arc<Load>),
    /// In service.
    Ready(Arc<Served>),
    /// Loaded in the background without success; nobody was told.
    Failed(Arc<FailedLoad>),
}

/// A load that runs or waits for its turn.
#[derive(Debug)]
pub struct Load {
    /// What is loaded, and how.
    pub options: LoadOptions,
    /// When it was asked for.
    pub since: Instant,
    /// Bytes that it and all other models may take together; 0 for any number.
    pub max_memory: u64,
    /// Set when it must end; later the flag of the model that came of it.
    pub(super) stop: Stop,
    percent: AtomicU32,
    /// Whether its turn has come.
    begun: AtomicBool,
    /// Closed when it has ended and all its memory is free.
    ended: Receiver<Infallible>,
}

/// Held by whoever loads; dropped when the load has ended.
pub(super) type Underway = Sender<Infallible>;

impl Load {
    /// A load that has no name yet, see [`Catalogue::reserve`].
    pub(super) fn new(options: LoadOptions, max_memory: u64, stop: Stop) -> (Arc<Self>, Underway) {
        let (underway, ended) = bounded(0);
        let load = Self {
            options,
            since: Instant::now(),
            max_memory,
            stop,
            percent: AtomicU32::new(0),
            begun: AtomicBool::new(false),
            ended,
        };
        (Arc::new(load), underway)
    }

    /// How much of the weights has been read, in percent.
    #[must_use]
    pub fn percent(&self) -> u32 {
        self.percent.load(Ordering::Relaxed)
    }

    /// Orders it to end.
    pub(super) fn cancel(&self) {
        self.stop.end_model();
        // Against `begin`: it sees the order, or `wait` sees that it has begun.
        fence(Ordering::SeqCst);
    }

    /// Notes that its turn has come.
    ///
    /// # Errors
    /// `CANCELLED` when it must not begin any more.
    pub(super) fn begin(&self) -> Result<(), EngineError> {
        self.begun.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.stop.reason().map_or(Ok(()), |reason| Err(EngineError::Cancelled(reason)))
    }

    /// Waits for the end of a load that was cancelled; one whose turn has not come has nothing to end.
    pub(super) fn wait(&self) {
        if self.begun.load(Ordering::Acquire) {
            // Nothing is ever sent.
            let _ = self.ended.recv();
        }
    }

    /// Notes that a `share` of the weights, 0 to 1, has been read.
    pub(super) fn note_progress(&self, share: f32) {
        // A float becomes the nearest number that the integer can have; NaN becomes 0.
        self.percent.store(((share * 100.0) as u32).min(100), Ordering::Relaxed);
    }
}

/// What is left of a load in the background that failed.
#[derive(Debug)]
pub struct FailedLoad {
    /// What was to be loaded.
    pub options: LoadOptions,
    /// Why it was not.
    pub error: EngineError,
    /// When it ended.
    ended: Instant,
}

/// All models of an engine. The engine has a snapshot of it, and changes a copy.
#[derive(Debug, Default, Clone)]
pub(super) struct Catalogue {
    models: BTreeMap<String, Listing>,
    /// Names of the models in service: the first of the kind that a command needs answers to `*`.
    precedence: Vec<String>,
}

impl Catalogue {
    /// Takes a name for a model that begins to load; that of one which failed is free.
    ///
    /// # Errors
    /// `ERR` when it is taken.
    pub(super) fn reserve(&mut self, load: &Arc<Load>) -> Result<(), EngineError> {
        let name = &load.options.name;
        if matches!(self.models.get(name), Some(Listing::Loading(_) | Listing::Ready(_))) {
            return Err(EngineError::NameTaken(name.clone()));
        }
        self.models.insert(name.clone(), Listing::Loading(Arc::clone(load)));
        Ok(())
    }

    /// Frees the name of a load that is then to be cancelled ([`Load::cancel`]); [`Load::wait`] waits for its memory.
    pub(super) fn take_load(&mut self, name: &str) -> Option<Arc<Load>> {
        let Some(Listing::Loading(load)) = self.models.get(name) else { return None };
        let load = Arc::clone(load);
        self.models.remove(name);
        Some(load)
    }

    /// Forgets a load that came to nothing. Another model may have its name already.
    pub(super) fn forget(&mut self, load: &Arc<Load>) {
        if self.has(load) {
            self.models.remove(&load.options.name);
        }
    }

    /// Keeps the reason why a model could not be loaded, for those who ask for it: until its name is loaded again or unloaded, or
    /// [`limits::FAILED_LOADS`] others have failed since.
    pub(super) fn fail(&mut self, load: &Arc<Load>, error: &EngineError) {
        if !self.has(load) {
            return;
        }
        let failed = FailedLoad { options: load.options.clone(), error: error.clone(), ended: Instant::now() };
        self.models.insert(load.options.name.clone(), Listing::Failed(Arc::new(failed)));
        let failed = self.models.iter().filter_map(|(name, listing)| match listing {
            Listing::Failed(failed) => Some((failed.ended, name)),
            Listing::Loading(_) | Listing::Ready(_) => None,
        });
        let mut failed: Vec<(Instant, &String)> = failed.collect();
        failed.sort();
        let many = failed.len().saturating_sub(limits::FAILED_LOADS);
        let old: Vec<String> = failed.into_iter().take(many).map(|(_, name)| name.clone()).collect();
        old.iter().for_each(|name| drop(self.models.remove(name)));
    }

    /// Whether this load has its name still.
    fn has(&self, load: &Arc<Load>) -> bool {
        matches!(self.models.get(&load.options.name), Some(Listing::Loading(listed)) if Arc::ptr_eq(listed, load))
    }

    /// Forgets a model that could not be loaded; whether there was one.
    pub(super) fn forget_failed(&mut self, name: &str) -> bool {
        let failed = matches!(self.models.get(name), Some(Listing::Failed(_)));
        if failed {
            self.models.remove(name);
        }
        failed
    }

    /// Puts the model of a load into service, unless that was cancelled; whether it is. One loaded with DEFAULT goes before all
    /// others, the rest behind.
    pub(super) fn admit(&mut self, load: &Arc<Load>, served: &Arc<Served>) -> bool {
        if !self.has(load) {
            return false;
        }
        let (name, place) = (&load.options.name, if load.options.default { 0 } else { self.precedence.len() });
        self.precedence.insert(place, name.clone());
        self.models.insert(name.clone(), Listing::Ready(Arc::clone(served)));
        true
    }

    /// Forgets a model.
    pub(super) fn remove(&mut self, name: &str) {
        self.models.remove(name);
        self.precedence.retain(|listed| listed != name);
    }

    /// Forgets all models; returns those in service.
    pub(super) fn take(&mut self) -> Vec<Arc<Served>> {
        let ready = |listing| if let Listing::Ready(served) = listing { Some(served) } else { None };
        std::mem::take(self).models.into_values().filter_map(ready).collect()
    }

    /// The model in service under this name. `*` is the default model for `purpose`; where any kind will do, that for
    /// generation is preferred.
    ///
    /// # Errors
    /// `NOMODEL`, or `MODELLOADING` while it is on its way.
    pub(super) fn find(&self, name: &str, purpose: Option<Purpose>) -> Result<Arc<Served>, EngineError> {
        if name == DEFAULT_MODEL {
            return self.default_for(purpose).ok_or_else(|| self.no_default(purpose));
        }
        match self.models.get(name) {
            Some(Listing::Ready(served)) => Ok(Arc::clone(served)),
            Some(Listing::Loading(_)) => Err(EngineError::ModelLoading(name.to_owned())),
            Some(Listing::Failed(failed)) => {
                // Whoever asks need not know where files are.
                let reason = without_folders(&failed.error.to_string(), failed.options.paths());
                Err(EngineError::NotLoaded { name: name.to_owned(), reason })
            }
            None => Err(EngineError::NoModel(name.to_owned())),
        }
    }

    /// The name behind `*`, any other as it is.
    pub(super) fn real_name(&self, name: &str) -> Result<String, EngineError> {
        if name == DEFAULT_MODEL { Ok(self.find(name, None)?.model.name.clone()) } else { Ok(name.to_owned()) }
    }

    /// The names of the default models.
    pub(super) fn defaults(&self) -> Vec<String> {
        let models = Purpose::ALL.iter().filter_map(|&purpose| self.default_for(Some(purpose)));
        models.map(|served| served.model.name.clone()).collect()
    }

    /// All models in the order of their names.
    pub(super) fn list(&self) -> Vec<(String, Listing)> {
        self.models.iter().map(|(name, listing)| (name.clone(), listing.clone())).collect()
    }

    fn default_for(&self, purpose: Option<Purpose>) -> Option<Arc<Served>> {
        let mut ready = self.precedence.iter().filter_map(|name| match self.models.get(name) {
            Some(Listing::Ready(served)) => Some(served),
            _ => None,
        });
        let wanted = purpose.unwrap_or(Purpose::Generation);
        let found = ready.clone().find(|served| served.model.purpose == wanted);
        found.or_else(|| if purpose.is_none() { ready.next() } else { None }).cloned()
    }

    fn no_default(&self, purpose: Option<Purpose>) -> EngineError {
        if self.models.values().any(|listing| matches!(listing, Listing::Loading(_))) {
            return EngineError::ModelLoading(DEFAULT_MODEL.to_owned());
        }
        EngineError::NoDefault { needs: purpose.map(Purpose::name) }
    }
}
