//! Which CPUs the threads of the engine use, and with what priority. Linux only: elsewhere neither belongs to a thread.
#![cfg(target_os = "linux")]

use crate::harness::{CHAT, EMBED, Server, cmd, eventually, field, int};

/// Name, allowed CPUs and nice value of each thread of the server.
fn threads(server: &Server) -> Vec<(String, String, i32)> {
    let pid = server.pid();
    let of = |folder: std::path::PathBuf| {
        let status = std::fs::read_to_string(folder.join("status")).unwrap();
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        let stat = std::fs::read_to_string(folder.join("stat")).unwrap();
        // Fields are counted behind the name, which may have blanks; see proc_pid_stat(5).
        let nice = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap();
        (line("Name:"), line("Cpus_allowed_list:"), nice)
    };
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| of(entry.unwrap().path())).collect()
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
    let threads = threads(&server);
    let (engine, redis): (Vec<_>, Vec<_>) = threads.iter().partition(|thread| thread.0.starts_with("infer-"));
    assert!(engine.iter().any(|thread| thread.0 == "infer-gen-0"), "{threads:?}");
    // The thread that works on keys for a moment belongs to Redis' side.
    assert!(engine.iter().filter(|thread| thread.0 != "infer-keys").all(|thread| thread.1 == "0"), "{threads:?}");
    let all = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = all.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    assert!(redis.iter().any(|thread| thread.1 == all), "{threads:?}");
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
