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
    client.refused(&HUGE.load(), "OOM", "are free on this machine; use a smaller CTX, PARALLEL or WORKERS");
    server.assert_alive();
}
