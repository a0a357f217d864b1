//! Which CPUs the threads of the engine use, and with what priority. Linux only: elsewhere neither belongs to a thread.
#![cfg(target_os = "linux")]

use crate::harness::{CHAT, EMBED, Server, cmd, eventually, field, int};

/// Name, allowed CPUs and nice value of each thread of the server.
fn threads(server: &Server) -> Vec<(String, String, i32)> {
    let pid = server.pid();
    // `None` for a thread that has ended meanwhile.
    let of = |folder: std::path::PathBuf| {
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
        // Fields are counted behind the name, which may have blanks; see proc_pid_stat(5).
        let nice = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap();
        Some((line("Name:"), line("Cpus_allowed_list:"), nice))
    };
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(|entry| of(entry.unwrap().path())).collect()
}

#[test]
fn engine_threads_are_niced_and_redis_own_are_not() {
    let server = Server::configured(&[CHAT, EMBED], &["--infer.nice", "7"]);
    server.client().ok(&cmd!["INFER.TOKENIZE", "chat", "x"]);
    // A thread gives itself its name and its nice value when it begins to run.
    for name in ["infer-gen-0", "infer-emb-0", "infer-desk-0"] {
        eventually(name, || threads(&server).iter().any(|thread| thread.0 == name && thread.2 == 7));
    }
    let threads = threads(&server);
    assert!(threads.iter().filter(|thread| !thread.0.starts_with("infer-")).all(|thread| thread.2 == 0), "{threads:?}");
}

#[test]
fn engine_threads_keep_to_the_listed_cpus_and_redis_own_do_not() {
    let server = Server::configured(&[], &["--infer.cpulist", "0"]);
    let mut client = server.client();
    client.ok(&CHAT.load());
    client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 2]);
    let facts = client.ok(&cmd!["INFER.MODEL", "chat"]);
    assert_eq!(int(field(&facts, "workers")) * int(field(&facts, "threads")), 1);
    // The threads that work on keys and hand over answers belong to Redis' side.
    let is_engine = |thread: &(String, String, i32)| {
        thread.0.starts_with("infer-") && !["infer-keys", "infer-reply"].contains(&thread.0.as_str())
    };
    // A thread gives itself its name before it keeps to CPUs.
    eventually("all threads of the engine keep to the CPU", || {
        let engine: Vec<_> = threads(&server).into_iter().filter(is_engine).collect();
        engine.iter().any(|thread| thread.0 == "infer-gen-0") && engine.iter().all(|thread| thread.1 == "0")
    });
    let threads = threads(&server);
    let all = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = all.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    assert!(threads.iter().any(|thread| !thread.0.starts_with("infer-") && thread.1 == all), "{threads:?}");
}

#[test]
fn a_list_that_is_none_or_names_a_cpu_that_is_not_there_keeps_the_server_from_starting() {
    for (list, reason) in [
        ("x", "a list of CPUs is numbers and ranges"),
        ("1-0", "a list of CPUs is numbers and ranges"),
        ("1023", "this process may use the CPUs"),
    ] {
        let log = Server::refuses_to_start(&["--infer.cpulist", list]);
        assert!(log.contains(reason), "{list}: {log}");
    }
}
