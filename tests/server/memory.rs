//! What models take in memory: estimated, limited, told.

use crate::harness::{CHAT, Client, EMBED, HUGE, SLOW, Server, cmd, field, int};

fn fact(client: &mut Client, model: &str, name: &str) -> i64 {
    int(field(&client.ok(&cmd!["INFER.MODEL", model]), name))
}

/// Bytes of `name:` in INFO infer.
fn info(client: &mut Client, name: &str) -> u64 {
    let text = client.text(&cmd!["INFO", "infer_models"]);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn the_estimate_of_the_cache_is_what_llama_cpp_takes_and_that_of_the_buffers_is_near() {
    let server = Server::start();
    for mut client in [server.client(), server.resp3()] {
        for kv_type in ["F16", "Q8_0"] {
            let path = SLOW.path().to_str().unwrap();
            let size = ["CTX", "8192", "PARALLEL", "4", "WORKERS", "2", "THREADS", "1", "KVTYPE", kv_type];
            let mut load = cmd!["INFER.LOAD", "m", path];
            client.ok(load.arg(&size));
            let [kv, guessed] = ["kv_bytes", "estimated_kv_bytes"].map(|name| fact(&mut client, "m", name));
            assert!((kv - guessed).abs() < 1 << 16, "{kv_type}: {kv}, estimated {guessed}");
            let [compute, guessed] =
                ["compute_bytes", "estimated_compute_bytes"].map(|name| fact(&mut client, "m", name));
            assert!(
                compute > 0 && guessed > compute / 4 && guessed < 16 * compute,
                "{kv_type}: {compute}, estimated {guessed}"
            );
            assert_eq!(info(&mut client, "infer_kv_bytes"), u64::try_from(kv).unwrap());
            client.ok(&cmd!["INFER.UNLOAD", "m"]);
        }
    }
}

/// Bytes that the server has in mappings with all `flags`, as `/proc/PID/smaps` names them.
fn mapped_with(server: &Server, flags: &[&str]) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", server.pid())).unwrap();
    let (mut kilobytes, mut sum) = (0, 0);
    for line in smaps.lines() {
        if let Some(size) = line.strip_prefix("Size:") {
            kilobytes = size.trim().trim_end_matches(" kB").parse().unwrap();
        }
        if let Some(all) = line.strip_prefix("VmFlags:")
            && flags.iter().all(|flag| all.split_whitespace().any(|other| other == *flag))
        {
            sum += kilobytes * 1024;
        }
    }
    sum
}

#[test]
fn weights_and_cache_ask_for_huge_pages_and_stay_behind_when_redis_forks() {
    // `hg` is MADV_HUGEPAGE, `dc` MADV_DONTFORK.
    const FLAGS: [&str; 2] = ["hg", "dc"];
    let server = Server::start();
    let mut client = server.client();
    let mut load = |options: &[&str]| {
        let before = mapped_with(&server, &FLAGS);
        client.ok(SLOW.load().arg(options));
        let [weights, kv] = ["size_bytes", "kv_bytes"].map(|name| fact(&mut client, SLOW.name, name));
        let advised = mapped_with(&server, &FLAGS) - before;
        client.ok(&cmd!["INFER.UNLOAD", SLOW.name]);
        (advised, u64::try_from(weights).unwrap(), u64::try_from(kv).unwrap())
    };
    let (read, weights, kv) = load(&[]);
    assert!(read >= weights + kv, "{read} of {weights} and {kv}");
    let (mapped, ..) = load(&["MMAP"]);
    assert!((kv..weights + kv).contains(&mapped), "{mapped} of {weights} and {kv}");
    assert!(mapped_with(&server, &FLAGS) < kv, "unloaded memory is forked again");
}

#[test]
fn models_together_take_no_more_than_the_limit() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let taken = info(&mut client, "infer_estimated_bytes");
    assert!(taken > 0);
    client.ok(&cmd!["CONFIG", "SET", "infer.max-memory", taken]);
    let refusal = client.refused(&CHAT.load(), "OOM", "model 'chat' needs about");
    assert!(refusal.text.contains(&format!("beside the {taken} of other models")), "{}", refusal.text);
    assert!(refusal.text.contains(&format!("infer.max-memory, {taken};")), "{}", refusal.text);
    client.refused(&cmd!["INFER.MODEL", "chat"], "NOMODEL", "");
    // What a model took can be used when it has gone.
    client.ok(&cmd!["CONFIG", "SET", "infer.max-memory", 0]);
    client.ok(&CHAT.load());
    let both = info(&mut client, "infer_estimated_bytes");
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    assert_eq!(info(&mut client, "infer_estimated_bytes"), taken);
    client.ok(&cmd!["CONFIG", "SET", "infer.max-memory", both]);
    client.ok(&CHAT.load());
}

#[test]
fn a_model_larger_than_the_free_memory_is_refused_before_it_is_loaded() {
    let mut server = Server::start();
    let mut client = server.client();
    client.refused(&HUGE.load(), "OOM", "are free here; use a smaller CTX, PARALLEL or WORKERS");
    server.assert_alive();
}
