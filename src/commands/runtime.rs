//! The engine of this process: made when the module is loaded, ended when the server stops or the module is unloaded.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::Builder;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use crossbeam_channel::bounded;

use crate::engine::{
    Engine, EngineError, EngineSettings, Manners, Metrics, at_exit, available_cpus, end_without_destructors,
    missing_instructions, system_info,
};
use crate::logic::cpu_list::CpuList;
use crate::logic::options::models_at_start;
use crate::redis_api::reply::Failure;
use crate::redis_api::{config, delivery, keyspace_thread};

/// Read by all threads: without a lock, because the main thread changes it.
static ENGINE: ArcSwapOption<Engine> = ArcSwapOption::const_empty();

/// What a crash report reads, on whatever thread that is made. Written when the engine is made and ended, and read by nobody else.
static METRICS: RwLock<Option<Arc<Metrics>>> = RwLock::new(None);

/// How long a shutdown waits for threads that are inside llama.cpp. Redis itself has saved its data by then.
const STOP_PATIENCE: Duration = Duration::from_millis(1500);
/// How much longer for the news that they have ended.
const STOP_GRACE: Duration = Duration::from_millis(100);

/// Makes the engine. It has no threads until the first model is loaded, so that a refused load of the module leaves
/// nothing behind.
///
/// # Errors
/// When llama.cpp was compiled for another CPU, or a setting cannot be used; the log says which.
pub fn start() -> Result<(), Failure> {
    // Before all else: what it lacks may be used anywhere in llama.cpp.
    let instructions = missing_instructions();
    if !instructions.is_empty() {
        let reason = format!(
            "redis-infer was compiled for another CPU: this one lacks {}; build it on this machine, or with REDIS_INFER_CPU=portable",
            instructions.join(", ")
        );
        log::error!("{reason}");
        return Err(Failure::err(reason));
    }
    log::info!(
        "redis-infer {} ({}), llama-cpp-sys-2 {}, {}",
        env!("CARGO_PKG_VERSION"),
        env!("REDIS_INFER_COMMIT"),
        env!("REDIS_INFER_LLAMA_VERSION"),
        system_info()
    );
    let keep_to = cpu_list(&config::CPU_LIST.get()).map_err(|error| unusable("infer.cpulist", &error))?;
    let cpus = keep_to.map_or_else(num_cpus::get, |list| list.iter().count());
    let cpus = u32::try_from(cpus).unwrap_or(1);
    let manners = Manners { nice: config::snapshot().nice, cpus: keep_to };
    let models = models_at_start(&config::MODELS.get()).map_err(|error| unusable("infer.models", &error))?;
    let model_dir = model_dir(&config::MODEL_DIR.get()).map_err(|error| unusable("infer.model-dir", &error))?;
    let engine = Engine::new(EngineSettings { manners, cpus, model_dir, kv_budget: kv_budget() });
    engine.load_all(models, max_memory());
    *crash_metrics() = Some(Arc::clone(&engine.metrics));
    ENGINE.store(Some(engine));
    if debug_commands_enabled() {
        at_exit(tell_of_exit);
    }
    Ok(())
}

extern "C" fn tell_of_exit() {
    log::info!("the destructors of the process are run");
}

/// The CPUs to keep to; `None` for all.
fn cpu_list(setting: &str) -> Result<Option<CpuList>, String> {
    if setting.is_empty() {
        return Ok(None);
    }
    let list = CpuList::parse(setting).map_err(|error| error.to_string())?;
    let available = available_cpus().ok_or("threads cannot be bound to CPUs on this system")?;
    match list.iter().find(|&cpu| !available.contains(cpu)) {
        Some(cpu) => Err(format!("this process may use the CPUs {available}, not {cpu}")),
        None => Ok(Some(list)),
    }
}

/// The folder without symbolic links in its path; `None` for no folder.
fn model_dir(setting: &str) -> io::Result<Option<PathBuf>> {
    if setting.is_empty() {
        return Ok(None);
    }
    let folder = Path::new(setting).canonicalize()?;
    if folder.is_dir() { Ok(Some(folder)) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

fn unusable(setting: &str, error: &dyn Display) -> Failure {
    log::error!("{setting} cannot be used: {error}");
    Failure::err(format!("{setting} cannot be used: {error}"))
}

/// Ends all work and all threads. What has not ended after the patience is left behind and named in the log.
pub fn stop() {
    let ended = ENGINE.swap(None).is_none_or(|engine| stop_within(engine, STOP_PATIENCE));
    *crash_metrics() = None;
    keyspace_thread::stop();
    delivery::stop();
    // Nothing happens at the end when no thread is left by then.
    end_without_destructors();
    if !ended {
        log::warn!("some threads were still busy after {} ms and were left behind", STOP_PATIENCE.as_millis());
    }
}

/// Ends the engine on a thread of its own, for the main thread must not wait for a lock of the workers; whether it has ended in time.
fn stop_within(engine: Arc<Engine>, patience: Duration) -> bool {
    let (tell, told) = bounded(1);
    let deadline = Instant::now() + patience;
    let stop = move || {
        // The receiver may be gone.
        let _ = tell.send(engine.stop(deadline));
    };
    match Builder::new().name("infer-stop".to_owned()).spawn(stop) {
        Ok(_) => told.recv_deadline(deadline + STOP_GRACE).unwrap_or(false),
        Err(error) => {
            log::error!("could not start a thread: {error}");
            false
        }
    }
}

/// Whether `INFER.DEBUG` may be used: only when the server was started with `REDIS_INFER_DEBUG=1` in its environment.
pub(super) fn debug_commands_enabled() -> bool {
    std::env::var_os("REDIS_INFER_DEBUG").is_some_and(|value| value == "1")
}

/// The engine, for a command that needs it.
pub(super) fn engine() -> Result<Arc<Engine>, EngineError> {
    ENGINE.load_full().ok_or(EngineError::Cancelled("the server is stopping"))
}

/// What the engine has counted, for a crash report. Never waits.
pub(super) fn try_metrics<R>(read: impl FnOnce(&Metrics) -> R) -> Option<R> {
    METRICS.try_read().ok()?.as_deref().map(read)
}

fn crash_metrics() -> RwLockWriteGuard<'static, Option<Arc<Metrics>>> {
    METRICS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that all models may take together; 0 for any number.
pub(super) fn max_memory() -> u64 {
    config::snapshot().max_memory
}

/// Called when `infer.kv-budget` was set, also before there is an engine.
pub fn kv_budget_changed() {
    if let Ok(engine) = engine()
        && let Err(error) = engine.set_kv_budget(kv_budget())
    {
        log::debug!("what infer.kv-budget has no room for goes with the server: {error}");
    }
}

/// Bytes that keys and values kept for later prompts may take; 0 for none.
pub(super) fn kv_budget() -> u64 {
    config::snapshot().kv_budget
}

/// Requests that may wait for one model.
pub(super) fn queue_limit() -> usize {
    config::snapshot().queue_limit
}

/// The time of day.
pub(super) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
