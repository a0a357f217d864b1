//! One thread, `infer-keys`, that holds Redis' lock for the steps of a job that need keys in mid-flight.
//!
//! Workers never take the lock: they run at a raised nice value, and a niced thread that is preempted while it
//! holds the lock stops the whole server. This thread has the main thread's priority, takes the lock once per
//! piece of work, and does nothing but short key accesses while it holds it.
//!
//! A bare lock would see database 0 with the rights of user `default`. So each piece of work comes with the
//! [`Caller`] it is for, and runs with the caller's database selected and as the caller's ACL user.
//!
//! # Stopping
//!
//! [`stop`] is called on the main thread, which holds the lock, so it must not simply join: the thread may be
//! waiting for that same lock. It sets a flag that the thread looks at before and after taking the lock, waits
//! for the thread's end only until a deadline, and else leaves it behind. A thread left behind either never gets
//! the lock (the process exits) or gets it after an unload, sees the flag, and ends without touching Redis; its
//! code is still there, because the module is linked so that it is never unmapped. Rejected: `TryLock` in a
//! loop, because a busy server gives the lock away for a few microseconds per loop turn, which polling misses.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use redis_infer_sync::{Mailbox, MainLock, begins_work};
use redis_module::{Context, RedisString, raw};

use super::call_apart::Coming;
use super::caller::Caller;
use super::guard::guarded;
use super::keyspace::{Keyspace, Reply};
use super::lock_times::KEYSPACE_THREAD;
use super::relay::Relay;
use super::reply::Failure;
use crate::logic::limits;

/// At most 15 bytes, the longest thread name of the kernel.
const NAME: &str = "infer-keys";

/// Pieces of work that may wait; a request has one at a time, so the queue limit of requests is enough.
const WAITING_LIMIT: i64 = limits::QUEUE_LIMIT_MAX;

/// A lock scope this long is logged: clients have felt it. Nothing here takes that long by itself, so either the CPU was
/// busy with something else or keys are larger than they should be.
const LONG_HOLD: Duration = Duration::from_millis(50);

/// How long one scope of [`run_in_slices`] goes on with another step.
const SLICE: Duration = Duration::from_millis(1);

/// After a scope longer than this the thread pauses, because the lock is not fair: taken again at once, it would never
/// come to the main thread, which has to be woken up first.
const NOTICEABLE_HOLD: Duration = Duration::from_micros(300);

/// The pause: a few times what it takes to wake a thread up.
const PAUSE: Duration = Duration::from_micros(100);

/// How often the thread looks whether it is to stop while it waits for a command.
const STOP_INTERVAL: Duration = Duration::from_millis(10);

/// How long [`stop`] waits for the thread to end.
const STOP_DEADLINE: Duration = Duration::from_millis(100);

/// The running thread, for those who have work for it; niced ones among them, so it is no lock.
static RUNNING: ArcSwapOption<Running> = ArcSwapOption::const_empty();

/// What the main thread starts and ends.
static STARTED: MainLock<Option<Started>> = MainLock::new(None);

struct Running {
    posted: Mailbox<Job>,
    /// What was posted, in its order. Of this thread, and of the main thread when it is left behind.
    queue: MainLock<VecDeque<Job>>,
    /// Pieces of work that are not begun.
    waiting: AtomicI64,
    stop: AtomicBool,
    thread: Thread,
}

struct Started {
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    handle: JoinHandle<Detached>,
}

/// Work with the lock held.
type Work = Box<dyn FnOnce(Result<&Keyspace<'_>, Failure>) -> Option<Waiting> + Send>;

/// A command goes on without the lock.
struct Waiting {
    reply: Coming,
    then: Then,
}

/// What follows, with the lock held again.
type Then = Box<dyn FnOnce(Result<&Keyspace<'_>, Failure>, Result<Reply, Failure>) + Send>;

struct Job {
    caller: Caller,
    work: Work,
}

/// A context without a client, for use under the lock. It knows the module, without which no command may go on without the lock.
struct Detached(NonNull<raw::RedisModuleCtx>);

// SAFETY: the context is used by one thread at a time: by `infer-keys`, and by the main thread once that ended.
unsafe impl Send for Detached {}

/// Starts the thread unless it runs. In each handler that will have work for it: on the main thread, whose nice value the thread
/// inherits, and not while the module loads, because a failed load unmaps the code.
///
/// # Errors
/// `INTERNAL` if the system gives no thread, or the server no context.
pub fn start(ctx: &Context) -> Result<(), Failure> {
    if RUNNING.load().is_some() {
        return Ok(());
    }
    let context = Detached::new(ctx)?;
    let (running_signal, ended) = bounded(0);
    let (give, given) = bounded::<Arc<Running>>(1);
    let handle = thread::Builder::new()
        .name(NAME.to_owned())
        .spawn(move || {
            if let Ok(running) = given.recv() {
                serve(&context, &running);
            }
            drop::<Sender<()>>(running_signal);
            context
        })
        .map_err(|error| Failure::internal(format!("cannot start the thread {NAME}: {error}")))?;
    let running = Arc::new(Running {
        posted: Mailbox::new(),
        queue: MainLock::default(),
        waiting: AtomicI64::new(0),
        stop: AtomicBool::new(false),
        thread: handle.thread().clone(),
    });
    // It waits for this, and there is room for one.
    let _ = give.send(Arc::clone(&running));
    *STARTED.lock() = Some(Started { ended, handle });
    RUNNING.store(Some(running));
    Ok(())
}

/// Runs `work` on the thread, with the lock held, in `caller`'s database and as `caller`'s ACL user. Returns at
/// once; any thread may call it.
///
/// `work` must be short: all clients wait while it runs. It gets a failure instead of the keyspace if the caller's
/// user is gone (`NOPERM`) or too much work is waiting (`QUEUEFULL`, then on the calling thread). After [`stop`],
/// `work` is dropped unrun, so what it holds must answer on drop, as a `PendingReply` does.
pub fn run(caller: Caller, work: impl FnOnce(Result<&Keyspace<'_>, Failure>) + Send + 'static) {
    let work = |keyspace: Result<&Keyspace<'_>, Failure>| {
        work(keyspace);
        None
    };
    submit(Job { caller, work: Box::new(work) });
}

/// Runs `begin` as [`run`] does. If it gives back a reply to wait for, the thread waits for that without the lock, and does nothing
/// else, so that nothing that goes through it changes what the command reads. Then it runs what is to follow, with the lock held.
pub fn run_around<T: FnOnce(Result<&Keyspace<'_>, Failure>, Result<Reply, Failure>) + Send + 'static>(
    caller: Caller,
    begin: impl FnOnce(Result<&Keyspace<'_>, Failure>) -> Option<(Coming, T)> + Send + 'static,
) {
    let work = |keyspace: Result<&Keyspace<'_>, Failure>| {
        begin(keyspace).map(|(reply, then)| Waiting { reply, then: Box::new(then) })
    };
    submit(Job { caller, work: Box::new(work) });
}

fn submit(job: Job) {
    begins_work("work for the keyspace is queued");
    let Some(running) = RUNNING.load_full() else { return };
    if running.waiting.fetch_add(1, Ordering::AcqRel) >= WAITING_LIMIT {
        running.waiting.fetch_sub(1, Ordering::AcqRel);
        let text = "too many requests wait for the keyspace; try again later";
        return refuse(job, Failure::new("QUEUEFULL", text));
    }
    running.posted.post(job);
    if running.stop.load(Ordering::SeqCst) {
        // The thread may have ended meanwhile; then the job is dropped, like all others after `stop`.
        drop(running.posted.take());
    }
    running.thread.unpark();
}

/// Runs `step` again and again until it says that it is done or fails, a millisecond at a time: the lock is given back in
/// between, and other work has its turn. Then `done` gets `state` and how it ended, with the lock held.
///
/// Between two steps anything may have happened to the keys. As [`run`] otherwise.
pub fn run_in_slices<T: Send + 'static>(
    caller: Caller,
    mut state: T,
    mut step: impl FnMut(&mut T, &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> + Send + 'static,
    done: impl FnOnce(T, Result<(), Failure>) + Send + 'static,
) {
    run(caller.clone(), move |keyspace| {
        let keyspace = match keyspace {
            Ok(keyspace) => keyspace,
            Err(failure) => return done(state, Err(failure)),
        };
        let since = Instant::now();
        loop {
            match step(&mut state, keyspace) {
                Ok(ControlFlow::Continue(())) if since.elapsed() < SLICE => {}
                Ok(ControlFlow::Continue(())) => return run_in_slices(caller, state, step, done),
                Ok(ControlFlow::Break(())) => return done(state, Ok(())),
                Err(failure) => return done(state, Err(failure)),
            }
        }
    });
}

fn refuse(job: Job, failure: Failure) {
    // Without the keyspace nothing begins that could be waited for.
    let _nothing = guarded("work on the keyspace", || (job.work)(Err(failure)));
}

/// Ends the thread and drops the work that waits for it. Call it on the main thread with the lock held; takes at
/// most about 100 ms. [`start`] starts it again.
pub fn stop() {
    let Some(running) = RUNNING.swap(None) else { return };
    running.stop.store(true, Ordering::SeqCst);
    running.thread.unpark();
    let started = STARTED.lock().take();
    let Some(Started { ended, handle }) = started else { return };
    let has_ended = matches!(ended.recv_timeout(STOP_DEADLINE), Err(RecvTimeoutError::Disconnected));
    if has_ended {
        if let Ok(context) = handle.join() {
            context.free();
        }
    } else {
        ::log::info!("the thread {NAME} waits for the server's lock and is left behind");
    }
    let queued = std::mem::take(&mut *running.queue.lock());
    drop((queued, running.posted.take()));
}

fn serve(context: &Detached, running: &Running) {
    leave_signals_to_the_main_thread();
    take_the_main_threads_nice();
    // What is left in the queue is dropped by `stop`.
    while !running.stop.load(Ordering::SeqCst) {
        match running.next() {
            Some(job) => context.run(job, &running.stop),
            None => thread::park(),
        }
    }
}

impl Running {
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        if queue.is_empty() {
            queue.extend(self.posted.take());
        }
        let job = queue.pop_front()?;
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        Some(job)
    }
}

impl Detached {
    fn new(ctx: &Context) -> Result<Self, Failure> {
        let context = api!(RedisModule_GetDetachedThreadSafeContext).and_then(|create| {
            // SAFETY: the lock is held, and the context is that of a handler.
            NonNull::new(unsafe { create(ctx.ctx) })
        });
        context.map(Self).ok_or_else(|| Failure::internal("this server gave no context for background work"))
    }

    /// Only with the lock held, since it also frees the client that Redis keeps for the context.
    fn free(self) {
        if let Some(free) = api!(RedisModule_FreeThreadSafeContext) {
            // SAFETY: made by GetDetachedThreadSafeContext, not used again.
            unsafe { free(self.0.as_ptr()) };
        }
    }

    fn run(&self, job: Job, stop: &AtomicBool) {
        let caller = job.caller.clone();
        let Some(waiting) = self.run_scope(job, stop) else { return };
        // Dropped, what follows answers.
        let Some(reply) = wait_for(&waiting.reply, stop) else { return };
        let then = waiting.then;
        let work = |keyspace: Result<&Keyspace<'_>, Failure>| {
            then(keyspace, reply);
            None
        };
        self.run_scope(Job { caller, work: Box::new(work) }, stop);
    }

    /// One scope under the lock.
    fn run_scope(&self, job: Job, stop: &AtomicBool) -> Option<Waiting> {
        if let Some(relay) = job.caller.relay.clone() {
            return run_there(&relay, job, stop);
        }
        let Some(locked) = Locked::take(self.0) else {
            refuse(job, Failure::internal("this server does not let modules lock it"));
            return None;
        };
        if stop.load(Ordering::SeqCst) {
            // The module may be gone by now; nothing but the unlock may follow.
            return None;
        }
        let Caller { command, client, .. } = job.caller;
        let since = Instant::now();
        let waiting = guarded("work on the keyspace", || locked.work(job)).flatten();
        KEYSPACE_THREAD.record(since.elapsed());
        // The unlock is part of the hold: Redis replicates the writes in it.
        drop(locked);
        let held = since.elapsed();
        if held > LONG_HOLD {
            let held = held.as_micros();
            ::log::warn!("all clients waited for {held} us while {command} of client {client} worked on keys");
        }
        if held > NOTICEABLE_HOLD {
            thread::sleep(PAUSE);
        }
        waiting
    }
}

/// The reply of a command that works without the lock; `None` when the thread is to stop.
fn wait_for(reply: &Coming, stop: &AtomicBool) -> Option<Result<Reply, Failure>> {
    loop {
        match reply.recv_timeout(STOP_INTERVAL) {
            Ok(reply) => return Some(reply),
            Err(RecvTimeoutError::Disconnected) => {
                return Some(Err(Failure::internal("the server dropped a command that it had begun")));
            }
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::SeqCst) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Redis' lock, held until drop.
struct Locked(NonNull<raw::RedisModuleCtx>);

impl Locked {
    fn take(context: NonNull<raw::RedisModuleCtx>) -> Option<Self> {
        let lock = api!(RedisModule_ThreadSafeContextLock)?;
        // SAFETY: this thread does not hold the lock, and the context is its own.
        unsafe { lock(context.as_ptr()) };
        Some(Self(context))
    }

    fn work(&self, job: Job) -> Option<Waiting> {
        act(&Context::new(self.0.as_ptr()), job)
    }
}

fn act(context: &Context, job: Job) -> Option<Waiting> {
    let Job { caller, work } = job;
    let acting = match ActingAs::new(context, &caller) {
        Ok(acting) => acting,
        Err(failure) => return work(Err(failure)),
    };
    let waiting = work(Ok(&Keyspace::of(context)));
    drop(acting);
    waiting
}

/// One scope on the main thread, for a caller whose flags count (see `relay`); this thread waits for its end.
fn run_there(relay: &Relay, job: Job, stop: &AtomicBool) -> Option<Waiting> {
    let (sender, ended) = bounded(1);
    relay.run(Box::new(move |context: &Context| {
        let since = Instant::now();
        let waiting = act(context, job);
        KEYSPACE_THREAD.record(since.elapsed());
        // There is room for it; nobody waits any more when the server stops.
        let _stopped = sender.try_send(waiting);
    }));
    loop {
        match ended.recv_timeout(STOP_INTERVAL) {
            Ok(waiting) => return waiting,
            // A job that was dropped has answered.
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::SeqCst) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(unlock) = api!(RedisModule_ThreadSafeContextUnlock) {
            // SAFETY: the lock was taken by this thread in `take`.
            unsafe { unlock(self.0.as_ptr()) };
        }
    }
}

/// The caller's database and user on a context; back to database 0 and no user on drop.
struct ActingAs<'a> {
    context: &'a Context,
    user: NonNull<raw::RedisModuleUser>,
}

impl<'a> ActingAs<'a> {
    fn new(context: &'a Context, caller: &Caller) -> Result<Self, Failure> {
        let (Some(find_user), Some(set_user)) =
            (api!(RedisModule_GetModuleUserFromUserName), api!(RedisModule_SetContextUser))
        else {
            return Err(Failure::internal("this server has no ACL functions for modules"));
        };
        let Some(name) = caller.user.as_deref() else {
            return Err(Failure::new("NOPERM", "the caller has no ACL user to act as"));
        };
        if !select(context, caller.db) {
            return Err(Failure::internal("the caller's database does not exist"));
        }
        let name = RedisString::create_from_slice(std::ptr::null_mut(), name.as_bytes());
        // SAFETY: the lock is held; the name is a live string.
        let user = unsafe { find_user(name.inner) };
        let Some(user) = NonNull::new(user) else {
            select(context, 0);
            return Err(Failure::new("NOPERM", "the user that sent the command was deleted"));
        };
        // SAFETY: both are live, and the context is reset before the user handle is freed (Drop).
        unsafe { set_user(context.ctx, user.as_ptr()) };
        Ok(Self { context, user })
    }
}

impl Drop for ActingAs<'_> {
    fn drop(&mut self) {
        if let Some(set_user) = api!(RedisModule_SetContextUser) {
            // SAFETY: the context is live; NULL means no user.
            unsafe { set_user(self.context.ctx, std::ptr::null()) };
        }
        if let Some(free) = api!(RedisModule_FreeModuleUser) {
            // SAFETY: the handle made in `new`, freed once; the user itself stays with Redis.
            unsafe { free(self.user.as_ptr()) };
        }
        select(self.context, 0);
    }
}

fn select(context: &Context, db: i32) -> bool {
    api!(RedisModule_SelectDb).is_some_and(|select| {
        // SAFETY: the lock is held; Redis refuses a number that is out of range.
        unsafe { select(context.ctx, db) == 0 }
    })
}

/// SIGTERM and its like should wake the main thread, which acts on them.
pub(super) fn leave_signals_to_the_main_thread() {
    // SAFETY: an all-zero sigset_t is valid memory; sigemptyset initialises it.
    let mut signals: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: signals is valid for writes.
    unsafe { libc::sigemptyset(&raw mut signals) };
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: signals is an initialised set.
        unsafe { libc::sigaddset(&raw mut signals, signal) };
    }
    // SAFETY: changes only this thread's mask; the old mask is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) };
}

/// A thread inherits the nice value of its creator; if a niced worker was first, this one would hold the lock at
/// the worker's priority. Going back needs a privilege, so [`start`] is better called early on the main thread.
fn take_the_main_threads_nice() {
    // SAFETY: no arguments.
    let main_thread = unsafe { libc::getpid() }.cast_unsigned();
    // SAFETY: plain system call about this process's first thread.
    let wanted = unsafe { libc::getpriority(libc::PRIO_PROCESS, main_thread) };
    // SAFETY: plain system call about the calling thread (0).
    let mine = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    if mine <= wanted {
        return;
    }
    // SAFETY: plain system call about the calling thread (0).
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, wanted) } != 0 {
        ::log::warn!("the thread {NAME} runs at nice {mine} instead of {wanted}; key accesses may hold up clients");
    }
}
