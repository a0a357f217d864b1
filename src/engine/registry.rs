//! The models by name: loading, finding, unloading, and the end of everything.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::budget::Budget;
use super::catalogue::{Catalogue, Listing, Load, Underway};
use super::desk::Desk;
use super::error::EngineError;
use super::free_memory::free_memory;
use super::job::Done;
use super::kv_store::KvStore;
use super::memory::Memory;
use super::metrics::Metrics;
use super::model::{Model, Purpose};
use super::served::{Host, Served};
use super::stop::Stop;
use super::threads::Manners;
use super::{memory, source, threads};
use crate::logic::kept::KvUse;
use crate::logic::layout::Layout;
use crate::logic::options::LoadOptions;

/// What the engine needs to know about its host.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Nice value and CPUs of all threads.
    pub manners: Manners,
    /// CPUs it may use.
    pub cpus: u32,
    /// The only folder whose files may be loaded, without symbolic links in its path; `None` for all folders.
    pub model_dir: Option<PathBuf>,
    /// Bytes that keys and values kept for later prompts may take, until [`Engine::set_kv_budget`].
    pub kv_budget: u64,
}

/// What becomes of the requests of a model that is unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    /// They are finished.
    Finish,
    /// They are answered with `CANCELLED` at once.
    Cancel,
}

/// All models of the process.
#[derive(Debug)]
pub struct Engine {
    /// What was done since the engine was made.
    pub metrics: Arc<Metrics>,
    settings: EngineSettings,
    budget: Arc<Budget>,
    memory: Arc<Memory>,
    kept: Arc<KvStore>,
    models: Mutex<Catalogue>,
    desk: Desk,
    /// Set once, when the server stops or the module is unloaded.
    stop: Arc<AtomicBool>,
    loaders: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// An engine without models and without threads: they come with the first model.
    #[must_use]
    pub fn new(settings: EngineSettings) -> Arc<Self> {
        memory::share_freed_memory(settings.cpus);
        let metrics = Arc::default();
        Arc::new(Self {
            budget: Budget::new(settings.cpus, &metrics),
            memory: Arc::default(),
            kept: KvStore::new(settings.kv_budget, &metrics),
            models: Mutex::default(),
            desk: Desk::new(settings.manners),
            settings,
            metrics,
            stop: Arc::new(AtomicBool::new(false)),
            loaders: Mutex::default(),
        })
    }

    /// Loads a model on a thread of its own; `done` is called when it is in service, or with the reason why not. All models
    /// together may take `max_memory` bytes; 0 is for any number.
    pub fn load(self: &Arc<Self>, options: LoadOptions, max_memory: u64, done: Done<()>) {
        match self.begin(options, max_memory) {
            Ok(arrival) => {
                self.spawn_loader(move || done(arrival.load()));
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Begins to load a model; how that goes on is told by [`Engine::list`] and the log.
    ///
    /// # Errors
    /// `ERR` when the name is taken.
    pub fn load_in_background(self: &Arc<Self>, options: LoadOptions, max_memory: u64) -> Result<(), EngineError> {
        let arrival = self.begin(options, max_memory)?;
        self.spawn_loader(move || drop(arrival.load()));
        Ok(())
    }

    /// Begins to load these models, one after another. Names that are taken are left out.
    pub fn load_all(self: &Arc<Self>, models: Vec<LoadOptions>, max_memory: u64) {
        if models.is_empty() {
            return;
        }
        let begin = |options| self.begin(options, max_memory).inspect_err(|error| log::warn!("{error}")).ok();
        let arrivals: Vec<Arrival> = models.into_iter().filter_map(begin).collect();
        self.spawn_loader(move || arrivals.into_iter().for_each(|arrival| drop(arrival.load())));
    }

    fn begin(self: &Arc<Self>, options: LoadOptions, max_memory: u64) -> Result<Arrival, EngineError> {
        let (load, underway) = self.models().reserve(options, max_memory, Stop::of_model(&self.stop))?;
        Ok(Arrival { engine: Arc::clone(self), load, settled: false, _underway: underway })
    }

    fn load_now(&self, load: &Arc<Load>) -> Result<Served, EngineError> {
        let options = &load.options;
        let file = source::check(options, self.settings.model_dir.as_deref())?;
        let cpus = self.settings.cpus;
        let layout = Layout::choose(options, cpus);
        if layout.needs() > cpus {
            let (workers, of_each) = (layout.workers, layout.needs() / layout.workers);
            return Err(EngineError::LoadFailed(format!(
                "WORKERS {workers} x THREADS {of_each} is more than the {cpus} CPUs of this machine"
            )));
        }
        let needs = memory::estimate(&file, options, layout);
        let reservation = self.memory.reserve(&options.name, needs, load.max_memory, free_memory())?;
        let model = Model::load(file, load)?;
        let host = Host {
            manners: self.settings.manners,
            budget: &self.budget,
            stop: &load.stop,
            metrics: &self.metrics,
            kept: &self.kept,
        };
        let served = Served::start(model, options.clone(), layout, reservation, host);
        // What was measured has had contexts of its own.
        memory::trim();
        served
    }

    /// Takes a model out of service; `done` is called when its running and queued requests are answered, as `requests`
    /// says, its workers have ended, nobody else holds it and its memory is free. A load that is under way ends early.
    pub fn unload(self: &Arc<Self>, name: &str, requests: Requests, done: Done<()>) {
        if self.models().forget_failed(name) {
            done(Ok(()));
            return;
        }
        let cancelled = self.models().cancel(name);
        if let Some(load) = cancelled {
            self.spawn_loader(move || {
                load.wait();
                memory::trim();
                done(Ok(()));
            });
            return;
        }
        let found = self.find(name);
        let served = match found {
            Ok(served) => served,
            Err(error) => {
                done(Err(error));
                return;
            }
        };
        // First the thread: what it does must never be left to this one, which may be Redis' main thread.
        let (hand, handed) = bounded::<(Arc<Served>, Done<()>)>(1);
        let has_thread = self.spawn_loader(move || {
            /// Requests are answered first; each may generate up to its limit.
            const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
            let Ok((served, done)) = handed.recv() else { return };
            let deadline = Instant::now() + PATIENCE;
            served.drain(deadline);
            served.close();
            served.join(deadline);
            served.free();
            memory::trim();
            done(Ok(()));
        });
        if !has_thread {
            let reason = "there is no thread to be had that could free the model; try again".to_owned();
            return done(Err(EngineError::OutOfMemory(reason)));
        }
        self.models().remove(&served.model.name);
        if requests == Requests::Cancel {
            served.cancel_all();
        }
        // There is room for one, and the thread waits for it.
        let _ = hand.send((served, done));
    }

    /// # Errors
    /// `NOMODEL`, or `MODELLOADING` while it is on its way.
    pub fn find(&self, name: &str) -> Result<Arc<Served>, EngineError> {
        self.models().find(name, None)
    }

    /// A model that was loaded for `purpose`.
    ///
    /// # Errors
    /// As [`Engine::find`], or that the model is of the other kind.
    pub fn find_for(&self, name: &str, purpose: Purpose) -> Result<Arc<Served>, EngineError> {
        let served = self.models().find(name, Some(purpose))?;
        served.require(purpose)?;
        Ok(served)
    }

    /// All models in the order of their names.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Listing)> {
        self.models().list()
    }

    /// Bytes that all models take, by the estimates made before they were loaded.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.memory.reserved()
    }

    /// CPUs that all forward passes together may use, and the threads that one may have now: fewer while other processes
    /// use the CPUs.
    #[must_use]
    pub fn cpus(&self) -> (u32, u32) {
        (self.budget.cpus(), self.budget.allowed())
    }

    /// What keys and values kept for later prompts take. Never waits.
    #[must_use]
    pub fn kept(&self) -> KvUse {
        self.kept.usage()
    }

    /// Sets how many bytes keys and values kept for later prompts may take. What is too much is freed by another thread.
    ///
    /// # Errors
    /// `CANCELLED` when the server is stopping.
    pub fn set_kv_budget(&self, bytes: u64) -> Result<(), EngineError> {
        let kept = Arc::clone(&self.kept);
        if kept.set_budget(bytes) { self.desk.go_on(Box::new(move || kept.shrink())) } else { Ok(()) }
    }

    /// The names of the models that answer to `*`, one for each purpose that there is a model for.
    #[must_use]
    pub fn defaults(&self) -> Vec<String> {
        self.models().defaults()
    }

    /// The model behind `*`, any other name as it is.
    ///
    /// # Errors
    /// `NOMODEL` or `MODELLOADING` when nothing answers to `*`.
    pub fn real_name(&self, name: &str) -> Result<String, EngineError> {
        self.models().real_name(name)
    }

    /// Runs the first `task` of a command off the main thread. A task that cannot run is dropped.
    ///
    /// # Errors
    /// `QUEUEFULL` or `CANCELLED`; then the task has been dropped.
    pub fn run(&self, task: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
        self.metrics.count_refusal(self.desk.run(Box::new(task)))
    }

    /// Runs a later `task` of a command, which [`Engine::run`] has begun, and which is not refused for want of room.
    ///
    /// # Errors
    /// `CANCELLED` when the server is stopping; then the task has been dropped.
    pub fn go_on(&self, task: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
        self.desk.go_on(Box::new(task))
    }

    /// Ends all work and all threads; returns whether every thread had ended by `deadline`.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.stop.store(true, Ordering::Release);
        self.desk.close();
        let served = self.models().take();
        for served in &served {
            served.close();
        }
        let mut ended = self.desk.join(deadline);
        for served in &served {
            ended &= served.join(deadline);
        }
        let loaders = std::mem::take(&mut *self.loaders.lock().unwrap_or_else(PoisonError::into_inner));
        ended & threads::join_until(loaders, deadline)
    }

    fn models(&self) -> MutexGuard<'_, Catalogue> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `task` on a thread of its own; whether there is one. If there is none to have, `task` is dropped, and its sink answers.
    fn spawn_loader(&self, task: impl FnOnce() + Send + 'static) -> bool {
        match threads::spawn("infer-load", self.settings.manners, task) {
            Ok(thread) => {
                let mut loaders = self.loaders.lock().unwrap_or_else(PoisonError::into_inner);
                loaders.retain(|loader| !loader.is_finished());
                loaders.push(thread);
                true
            }
            Err(error) => {
                log::error!("could not start a thread: {error}");
                false
            }
        }
    }
}

/// A model on its way. Whatever happens to the thread that loads it, its name does not stay taken.
struct Arrival {
    engine: Arc<Engine>,
    load: Arc<Load>,
    settled: bool,
    /// The last field, so that all memory is free when it is dropped.
    _underway: Underway,
}

impl Arrival {
    fn load(mut self) -> Result<(), EngineError> {
        let begun = Instant::now();
        let may_begin = self.engine.models().begin(&self.load);
        let loaded = may_begin.and_then(|()| self.engine.load_now(&self.load));
        self.settle(loaded, begun)
    }

    /// Replaces the "loading" entry of the model by the ready one; by the reason, when nobody waits for it; or by
    /// nothing.
    fn settle(&mut self, loaded: Result<Served, EngineError>, begun: Instant) -> Result<(), EngineError> {
        self.settled = true;
        let mut models = self.engine.models();
        let options = &self.load.options;
        match (loaded, self.load.stop.reason()) {
            (loaded, Some(reason)) => {
                models.forget(&self.load);
                drop(models);
                log::info!("loading model '{}' was stopped: {reason}", options.name);
                if let Ok(served) = loaded {
                    served.cancel_all();
                    served.join(Instant::now() + Duration::from_secs(1));
                }
                Err(EngineError::Cancelled(reason))
            }
            (Ok(served), None) => {
                log::info!(
                    "model '{}' is ready for {} after {} ms: {} workers, {} threads, {} tokens per request",
                    options.name,
                    served.model.purpose.name(),
                    begun.elapsed().as_millis(),
                    served.layout.workers,
                    served.threads(),
                    served.context
                );
                models.admit(&options.name, Arc::new(served));
                Ok(())
            }
            (Err(error), None) if options.background => {
                log::warn!("model '{}' could not be loaded: {} {error}", options.name, error.code());
                models.fail(&self.load, error.clone());
                Err(error)
            }
            (Err(error), None) => {
                models.forget(&self.load);
                Err(error)
            }
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.settled {
            // The thread did not come so far, for instance because there was none to have.
            let error = EngineError::Internal("the load ended early".to_owned());
            let _ = self.settle(Err(error), Instant::now());
        }
    }
}
