//! Who may wait for whom: every lock of `src/` is listed here with the threads that take it.
//!
//! A niced thread that loses its CPU while it holds a lock holds up whoever wants it, for seconds on a busy machine. So there
//! is no lock that both the main thread (or the keyspace thread, which holds Redis' lock) and a niced thread take. What they share is in
//! atomics, snapshots and mailboxes; a `MainLock` says at run time when a niced thread takes it, or when somebody works while
//! he holds it, and the tests of the server fail then. This reads the source text: a new lock fails the test until somebody has thought about
//! who takes it.
#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

/// The locks of the engine's own threads: the main thread takes none of them.
const OF_ENGINE_THREADS: [(&str, &[&str]); 12] = [
    ("commands/chunk_rows.rs", &["Mutex<Gathering>", "Mutex<Queue>"]),
    ("engine/block_reads.rs", &["Mutex<HashMap<Block, Vec<ReadJob>>>"]),
    ("engine/budget.rs", &["Mutex<State>", "Condvar", "Mutex<HashMap<(String, Question), u32>>"]),
    ("engine/chat_template.rs", &["Mutex<HashMap<Vec<Role>, Arc<str>>>"]),
    ("engine/context.rs", &["Mutex<Vec<Arc<AtomicBool>>>", "Mutex<Option<Instant>>", "Mutex<()>"]),
    ("engine/desk.rs", &["Mutex<Lanes>"]),
    ("engine/forms.rs", &["Mutex<Option<Sender<Waiting>>>"]),
    ("engine/kv_store.rs", &["Mutex<Kept<Arc<Key>, Arc<KvRows>, Saved>>"]),
    ("engine/model.rs", &["Mutex<Memo>", "Mutex<Memo>", "Mutex<Memo>"]),
    ("engine/pool.rs", &["Mutex<Vec<JoinHandle<()>>>"]),
    ("engine/queue.rs", &["Mutex<State<J>>", "Condvar"]),
    ("sync/main_lock.rs", &["Mutex<T>"]),
];

/// Locks that the main thread takes and niced threads too, and why it does not wait for them.
const SHARED: [(&str, &[&str]); 4] = [
    // The main thread only tries to take the first; the second is its own.
    ("engine/metrics.rs", &["Mutex<Times>", "Mutex<Latencies>", "Mutex<T>"]),
    // A crash report only tries to take it; the main thread writes it.
    ("commands/runtime.rs", &["RwLock<Option<Arc<Metrics>>>"]),
    // Of a node that is in nobody else's hands.
    ("sync/mailbox.rs", &["Mutex<Option<T>>", "Mutex<Option<Arc<Self>>>", "Mutex<Option<T>>"]),
    // Redis calls the main thread's side when the other side is done with it.
    ("redis_api/pending.rs", &["Mutex<Slot>"]),
];

/// The types of the locks that stand in the code of a file, in their order; imports and unit tests aside.
fn locks(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines().take_while(|line| !line.starts_with("mod tests {")) {
        let line = line.trim_start();
        if line.starts_with("//") || line.starts_with("use ") || line.starts_with("pub use ") {
            continue;
        }
        found.extend(
            line.match_indices("Condvar").filter(|(at, _)| is_type(line, at + 7)).map(|_| "Condvar".to_owned()),
        );
        for kind in ["Mutex<", "RwLock<"] {
            for (at, _) in line.match_indices(kind) {
                let before = line[..at].chars().next_back();
                if before.is_none_or(|c| !c.is_alphanumeric() && c != '_') {
                    found.push(whole(&line[at..]).to_owned());
                }
            }
        }
    }
    found
}

/// Whether a name that ends here is that of a field's type.
fn is_type(line: &str, end: usize) -> bool {
    line[end..].starts_with(',') || line[end..].is_empty()
}

/// A type with its parameters, with which `text` begins.
fn whole(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => {
                depth -= 1;
                if depth == 0 {
                    return &text[..=at];
                }
            }
            _ => {}
        }
    }
    text
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(of).filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn no_lock_is_taken_by_the_main_thread_and_by_niced_threads() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let known: Vec<(&str, &[&str])> = OF_ENGINE_THREADS.into_iter().chain(SHARED).collect();
    let mut wrong = Vec::new();
    for file in files(&src) {
        let place = file.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        // Programs and models of their own.
        if ["bench/", "bin/", "gguf/", "stress/", "toolcheck/"].iter().any(|room| place.starts_with(room))
            || place.contains("/tests")
        {
            continue;
        }
        let found = locks(&fs::read_to_string(&file).unwrap());
        let listed = known.iter().find(|(listed, _)| *listed == place).map_or(&[][..], |(_, locks)| *locks);
        if found != listed {
            wrong.push(format!("{place}: {found:?}, listed {listed:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "who takes these locks? A `MainLock` is for threads of the main thread's priority, the lists here are for the others:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_form_of_a_lock_is_seen() {
    let code = "use std::sync::{Mutex, Condvar};\n\
        // A Mutex<u8>.\n\
        static A: RwLock<Option<u8>> = RwLock::new(None);\n\
        struct B {\n    one: Arc<Mutex<HashMap<u8, Vec<u8>>>>,\n    two: Condvar,\n}\n\
        fn guard() -> MutexGuard<'static, u8> { MainLock::<u8>::new(1) }\n\
        mod tests {\n    static C: Mutex<u8> = Mutex::new(1);\n}\n";
    assert_eq!(locks(code), ["RwLock<Option<u8>>", "Mutex<HashMap<u8, Vec<u8>>>", "Condvar"]);
}
