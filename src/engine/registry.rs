//! The models by name: loading, finding, unloading, and the end of everything.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use redis_infer_sync::{Mailbox, MainLock};

use super::budget::Budget;
use super::catalogue::{Catalogue, Listing, Load, Underway};
use super::desk::{self, Desk, Errand};
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
use super::trim::Trimmer;
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
    /// Read and changed without a lock: the main thread would wait for a loader.
    models: ArcSwap<Catalogue>,
    desk: Desk,
    /// Set once, when the server stops or the module is unloaded.
    stop: Arc<AtomicBool>,
    loaders: MainLock<Vec<JoinHandle<()>>>,
    trimmer: Trimmer,
}

impl Engine {
    /// An engine without models and without threads: they come with the first model.
    #[must_use]
    pub fn new(settings: EngineSettings) -> Arc<Self> {
        memory::share_freed_memory(settings.cpus);
        let metrics: Arc<Metrics> = Arc::default();
        Arc::new(Self {
            budget: Budget::new(settings.cpus, &metrics),
            memory: Arc::default(),
            kept: KvStore::new(settings.kv_budget, &metrics),
            models: ArcSwap::default(),
            desk: Desk::new(settings.manners, &metrics),
            settings,
            metrics,
            stop: Arc::new(AtomicBool::new(false)),
            loaders: MainLock::default(),
            trimmer: Trimmer::default(),
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
        let (load, underway) = Load::new(options, max_memory, Stop::of_model(&self.stop));
        self.change_models(|models| models.reserve(&load))?;
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
        self.trimmer.trim();
        served
    }

    /// Takes a model out of service; `done` is called when its running and queued requests are answered, as `requests`
    /// says, its workers have ended, nobody else holds it and its memory is free. A load that is under way ends early.
    pub fn unload(self: &Arc<Self>, name: &str, requests: Requests, done: Done<()>) {
        if self.change_models(|models| models.forget_failed(name)) {
            done(Ok(()));
            return;
        }
        let cancelled = self.change_models(|models| models.take_load(name));
        if let Some(load) = cancelled {
            load.cancel();
            let engine = Arc::clone(self);
            self.spawn_loader(move || {
                load.wait();
                engine.trimmer.trim();
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
        let hand = Arc::new(Mailbox::<(Arc<Served>, Done<()>)>::new());
        let handed = Arc::clone(&hand);
        let engine = Arc::clone(self);
        let has_thread = self.spawn_loader(move || {
            /// Requests are answered first; each may generate up to its limit.
            const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
            /// It comes at once, in a mailbox because a channel would have the main thread wait for this one.
            const HANDED_CHECK: Duration = Duration::from_millis(1);
            let (served, done) = loop {
                if let Some(pair) = handed.take().pop() {
                    break pair;
                }
                if Arc::strong_count(&handed) == 1 && handed.is_empty() {
                    return;
                }
                std::thread::sleep(HANDED_CHECK);
            };
            let deadline = Instant::now() + PATIENCE;
            // Not on the main thread: it takes the lock of the queue, which the workers have too.
            if requests == Requests::Cancel {
                served.cancel_all();
            }
            served.drain(deadline);
            served.close();
            served.join(deadline);
            served.free();
            engine.trimmer.trim();
            done(Ok(()));
        });
        if !has_thread {
            let reason = "there is no thread to be had that could free the model; try again".to_owned();
            return done(Err(EngineError::OutOfMemory(reason)));
        }
        self.change_models(|models| models.remove(&served.model.name));
        hand.post((served, done));
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
        let errand = Errand::anyway(0, 0);
        if kept.set_budget(bytes) { self.desk.go_on(errand, Box::new(move || kept.shrink())) } else { Ok(()) }
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

    /// Runs the first `task` of a command off the main thread. A task that cannot run, or that nobody wants any more before it
    /// is begun, is dropped.
    ///
    /// # Errors
    /// `QUEUEFULL` or `CANCELLED`; then the task has been dropped.
    pub fn run(&self, errand: Errand, task: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
        self.metrics.count_refusal(self.desk.run(errand, Box::new(task)))
    }

    /// Runs a later `task` of a command, which [`Engine::run`] has begun, and which is not refused for want of room.
    ///
    /// # Errors
    /// `CANCELLED` when the server is stopping; then the task has been dropped.
    pub fn go_on(&self, errand: Errand, task: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
        self.desk.go_on(errand, Box::new(task))
    }

    /// What the preprocess threads have to do. Never waits.
    #[must_use]
    pub fn preprocessing(&self) -> desk::Load {
        self.desk.load()
    }

    /// The test hook behind `INFER.DEBUG HOLD`: no text is tokenized while `held`.
    pub fn hold_preprocessing(&self, held: bool) {
        self.desk.hold(held);
    }

    /// Ends all work and all threads; returns whether every thread had ended by `deadline`. Not for the main thread: it waits for
    /// locks that workers hold, also beyond the deadline.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.stop.store(true, Ordering::Release);
        self.desk.close();
        let served = self.change_models(Catalogue::take);
        for served in &served {
            served.close();
        }
        let mut ended = self.desk.join(deadline);
        for served in &served {
            ended &= served.join(deadline);
        }
        let loaders = std::mem::take(&mut *self.loaders.lock());
        ended &= threads::join_until(loaders, deadline);
        ended & self.trimmer.stop(deadline)
    }

    /// The models at this moment. Never waits.
    fn models(&self) -> Guard<Arc<Catalogue>> {
        self.models.load()
    }

    /// Changes the list of models. Where another thread was faster `change` is made once more, on the list as it is then; nobody
    /// ever waits.
    fn change_models<T>(&self, change: impl Fn(&mut Catalogue) -> T) -> T {
        let mut now = self.models.load();
        loop {
            let mut changed = Catalogue::clone(&now);
            let result = change(&mut changed);
            let before = self.models.compare_and_swap(&*now, Arc::new(changed));
            if Arc::ptr_eq(&before, &now) {
                return result;
            }
            now = before;
        }
    }

    /// Runs `task` on a thread of its own; whether there is one. If there is none to have, `task` is dropped, and its sink answers.
    fn spawn_loader(&self, task: impl FnOnce() + Send + 'static) -> bool {
        self.trimmer.start(self.settings.manners.cpus);
        match threads::spawn("infer-load", self.settings.manners, task) {
            Ok(thread) => {
                let mut loaders = self.loaders.lock();
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
        let loaded = self.load.begin().and_then(|()| self.engine.load_now(&self.load));
        self.settle(loaded, begun)
    }

    /// Replaces the "loading" entry of the model by the ready one; by the reason, when nobody waits for it; or by
    /// nothing.
    fn settle(&mut self, loaded: Result<Served, EngineError>, begun: Instant) -> Result<(), EngineError> {
        self.settled = true;
        let (engine, options) = (&self.engine, &self.load.options);
        match (loaded, self.load.stop.reason()) {
            (loaded, Some(reason)) => {
                engine.change_models(|models| models.forget(&self.load));
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
                let served = Arc::new(served);
                if engine.change_models(|models| models.admit(&self.load, &served)) {
                    return Ok(());
                }
                // It was unloaded, or the server stopped, in this very moment.
                self.settle_late(&served)
            }
            (Err(error), None) if options.background => {
                log::warn!("model '{}' could not be loaded: {} {error}", options.name, error.code());
                engine.change_models(|models| models.fail(&self.load, &error));
                Err(error)
            }
            (Err(error), None) => {
                engine.change_models(|models| models.forget(&self.load));
                Err(error)
            }
        }
    }

    /// Ends a model whose load was stopped when it was ready.
    fn settle_late(&self, served: &Served) -> Result<(), EngineError> {
        let reason = self.load.stop.reason().unwrap_or("the model was unloaded");
        log::info!("loading model '{}' was stopped: {reason}", self.load.options.name);
        served.cancel_all();
        served.join(Instant::now() + Duration::from_secs(1));
        Err(EngineError::Cancelled(reason))
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
