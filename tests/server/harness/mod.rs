//! What every test needs: a server, clients, models, and readers of replies.

mod client;
mod cluster;
mod contents;
mod index;
mod models;
mod reply;
mod server;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use client::{Client, Refusal};
pub use cluster::Cluster;
pub use contents::contents;
pub use index::{ANIMALS, Documents, FRANCE, crowd, documents, keys_of, paragraph_index};
pub use models::{BASE, CHAT, EMBED, HUGE, Model, RANK, SLOW, SLOW_EMBED, STEADY, STRICT};
pub use reply::{array, bytes, doubles, field, float, floats, int, pairs, text};
pub use server::{Server, free_port, module};

/// Longer than anything here takes, also when the machine is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(30);

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
