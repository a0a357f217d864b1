//! What every test needs: a server, clients, models, and readers of replies.

mod client;
mod cluster;
mod contents;
mod index;
mod models;
mod reply;
mod server;
mod slot;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use client::{Client, Refusal};
pub use cluster::Cluster;
pub use contents::contents;
pub use index::{ANIMALS, Documents, FRANCE, crowd, documents, keys_of, paragraph_index};
pub use models::{BASE, CHAT, EMBED, HUGE, Model, RANK, SLOW, SLOW_EMBED, SLOW_RANK, STEADY, STRICT};
pub use reply::{array, bytes, doubles, field, float, floats, int, pairs, text};
pub use server::{Server, free_port, module};
pub use slot::{Follower, Slot};

/// Longer than anything here takes, also when other programs leave the engine, which is niced, a tenth of a CPU.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Options of a server whose engine gets its share of a busy machine: for what has to end in time.
pub const NOT_NICED: [&str; 2] = ["--infer.nice", "0"];

/// A command from words, numbers and bytes.
macro_rules! cmd {
    ($($arg:expr),+ $(,)?) => {{
        let mut command = redis::Cmd::new();
        $(command.arg($arg);)+
        command
    }};
}
pub(crate) use cmd;

/// Waits until `holds`, and fails after [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the answer is being made of the only request, which was sent when `infer_requests_done` was `done`; its id.
/// `None` when it was over before anybody looked.
#[track_caller]
pub fn until_decoding(control: &mut Client, done: i64) -> Option<i64> {
    let mut id = None;
    eventually("the answer is being made, or is made", || {
        let over = control.info("infer_requests_done") > done;
        let listed = control.ok(&cmd!["INFER.PS"]);
        let found = array(&listed).first().filter(|request| text(field(request, "state")) == "decoding");
        id = found.map(|request| int(field(request, "id")));
        id.is_some() || over
    });
    id
}

/// For a promise about time: the machine may stop a server or a test for a while, but hardly each time in three attempts.
#[track_caller]
pub fn once_in_three(promise: &str, mut is_kept: impl FnMut() -> bool) {
    assert!((0..3).any(|_| is_kept()), "not kept in three attempts: {promise}");
}

/// Sets a flag when it goes, so that the threads of a scope which wait for it end also when a test fails.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What random tests start from: another number in each run, or what the environment says in order to repeat one.
/// Always the same in continuous integration, which judges a change and is not the place to find old faults.
pub fn seed() -> u64 {
    match std::env::var("REDIS_INFER_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) if std::env::var_os("CI").is_some() => 1,
        Err(_) => fastrand::u64(..1 << 40),
    }
}

/// Prints a figure. Not with println: what a test that passes prints is not shown.
pub fn report(figure: &str) {
    let _ = writeln!(std::io::stderr(), "\n{figure}");
}

/// Prints how long the work of this module has held up other clients at most, on the server of `client`.
pub fn report_locks(client: &mut Client, what: &str) {
    let info = client.text(&cmd!["INFO", "infer_locks"]);
    let fields: Vec<&str> = info.lines().filter(|line| line.contains(':')).collect();
    report(&format!("{what}: {}", fields.join(" ")));
}

/// The file or folder that the environment variable `name` names.
pub fn required(name: &str) -> PathBuf {
    let Some(path) = optional(name) else {
        panic!("{name} is not set: run these tests with `make test` or `make test-redis`, which set it");
    };
    path
}

/// As [`required`], for what a machine may lack.
pub fn optional(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(name)?);
    assert!(path.exists(), "{name} names {}, which does not exist: run `make test`", path.display());
    Some(path)
}
