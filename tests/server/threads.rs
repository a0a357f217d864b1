//! How many threads compute a forward pass: what THREADS says, and with AUTO as many CPUs as nobody else needs.

use crate::harness::{CHAT, Client, EMBED, SLOW, Server, array, cmd, eventually, field, int, text};

/// Forward passes of more than one thread so far.
fn wide_passes(client: &mut Client) -> u64 {
    let info = client.text(&cmd!["INFO", "infer"]);
    info.lines().find_map(|line| line.strip_prefix("infer_wide_passes:")).unwrap().trim().parse().unwrap()
}

/// CPUs that the engine counts on.
fn cpus(client: &mut Client) -> u64 {
    let info = client.text(&cmd!["INFO", "infer_cpus"]);
    info.lines().find_map(|line| line.strip_prefix("infer_cpus:")).unwrap().trim().parse().unwrap()
}

fn load(client: &mut Client, model: &crate::harness::Model, options: &[&str]) {
    client.ok(&cmd!["INFER.LOAD", model.name, model.path().to_str().unwrap(), options]);
}

#[test]
fn a_request_alone_has_all_cpus() {
    let server = Server::start();
    let mut client = server.client();
    load(&mut client, &CHAT, &[]);
    load(&mut client, &EMBED, &[]);
    let prompt = "the cat sat on the mat ".repeat(15);
    let several = cpus(&mut client) > 1;
    for model in ["chat", "embed"] {
        let before = wide_passes(&mut client);
        let mut attempt = 0;
        // Not the first time if other processes have the CPUs just then. What was read before would not be read again.
        eventually("a pass of several threads", || {
            attempt += 1;
            let prompt = format!("{attempt} {prompt}");
            client.ok(&match model {
                "chat" => cmd!["INFER.GENERATE", "chat", 0, "TEXT", prompt, "RAW", "MAXTOKENS", 1],
                _ => cmd!["INFER.EMBED", "embed", 1, prompt],
            });
            !several || wide_passes(&mut client) > before
        });
        let facts = client.ok(&cmd!["INFER.MODEL", model]);
        assert_eq!(text(field(&facts, "threads_option")), "AUTO");
        assert!(int(field(&facts, "latest_threads")) >= 1);
    }
}

#[test]
fn two_requests_on_two_cpus_have_one_each() {
    let server = Server::start();
    let mut client = server.client();
    if cpus(&mut client) > 1 {
        let server = Server::configured(&[], &["--infer.cpulist", "0,1"]);
        assert_shares(&server);
    } else {
        assert_shares(&server);
    }
}

/// What INFER.MODEL tells of the model `chat` loaded with these options.
fn facts_with(client: &mut Client, options: &[&str]) -> [i64; 4] {
    load(client, &CHAT, options);
    let facts = client.ok(&cmd!["INFER.MODEL", "chat"]);
    let asked = if options.contains(&"WORKERS") { "1" } else { "AUTO" };
    assert_eq!(text(field(&facts, "workers_option")), asked);
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    ["workers", "parallel", "kv_bytes", "estimated_kv_bytes"].map(|name| int(field(&facts, name)))
}

#[test]
fn auto_serves_as_many_requests_by_one_worker_as_by_two() {
    let server = Server::start();
    let mut client = server.client();
    let requests: u32 = if cpus(&mut client) > 1 { 6 } else { 3 };
    let [workers, parallel, kv_bytes, estimated] = facts_with(&mut client, &["PARALLEL", "3"]);
    assert_eq!(workers * parallel, i64::from(requests), "{workers} workers");
    // Nothing of the measurement is left, and neither layout takes another cache.
    let whole = facts_with(&mut client, &["WORKERS", "1", "PARALLEL", &requests.to_string()]);
    assert_eq!([kv_bytes, estimated], [whole[2], whole[3]]);

    load(&mut client, &SLOW, &["PARALLEL", "3", "CTX", "4096"]);
    let mut busy: Vec<Client> = (0..requests).map(|_| server.client()).collect();
    for (number, client) in busy.iter_mut().enumerate() {
        let prompt = format!("{number} goes on");
        client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", prompt, "MAXTOKENS", 4000]);
    }
    eventually("all generate at once", || {
        let running = client.ok(&cmd!["INFER.PS"]);
        let generated = array(&running).iter().filter(|request| int(field(request, "generated_tokens")) > 0).count();
        generated == busy.len()
    });
}

/// Two workers that generate at once never take a CPU from each other.
fn assert_shares(server: &Server) {
    let mut client = server.client();
    let workers = cpus(&mut client).min(2).to_string();
    load(&mut client, &SLOW, &["WORKERS", &workers, "PARALLEL", "1", "CTX", "16384"]);
    let mut busy: Vec<Client> = (0..cpus(&mut client)).map(|_| server.client()).collect();
    for (number, client) in busy.iter_mut().enumerate() {
        let prompt = format!("{number} goes on");
        client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", prompt, "MAXTOKENS", 16_000]);
    }
    let generated = |client: &mut Client| -> Vec<i64> {
        let running = client.ok(&cmd!["INFER.PS"]);
        array(&running).iter().map(|request| int(field(request, "generated_tokens"))).collect()
    };
    eventually("all generate", || {
        let tokens = generated(&mut client);
        tokens.len() == busy.len() && tokens.iter().all(|&tokens| tokens > 0)
    });
    let (wide, before) = (wide_passes(&mut client), generated(&mut client));
    eventually("they go on", || generated(&mut client).iter().zip(&before).all(|(now, then)| *now > then + 20));
    assert_eq!(wide_passes(&mut client), wide);
}

#[test]
fn threads_that_were_asked_for_are_what_each_pass_has() {
    let server = Server::start();
    let mut client = server.client();
    let most = cpus(&mut client).min(2);
    for threads in [1, most] {
        let option = threads.to_string();
        load(&mut client, &CHAT, &["WORKERS", "1", "THREADS", &option]);
        let before = wide_passes(&mut client);
        client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "the cat ".repeat(50), "MAXTOKENS", 8]);
        assert_eq!(wide_passes(&mut client) > before, threads > 1);
        let facts = client.ok(&cmd!["INFER.MODEL", "chat"]);
        assert_eq!(text(field(&facts, "threads_option")), option);
        for number in ["threads", "latest_threads"] {
            assert_eq!(int(field(&facts, number)).unsigned_abs(), threads, "{number}");
        }
        client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    }
}

#[test]
fn the_number_of_threads_changes_no_answer() {
    let server = Server::start();
    let mut client = server.client();
    let most = cpus(&mut client).to_string();
    let answers = ["1", &most].map(|threads| {
        // Which guesses there are depends on time, and how many tokens are computed at once on guesses.
        load(&mut client, &CHAT, &["WORKERS", "1", "THREADS", threads, "SPECULATION", "NONE"]);
        let prompt = "one two three four five six seven eight nine ten ".repeat(8);
        let answer = client.text(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", prompt, "TEMP", 0, "MAXTOKENS", 100]);
        client.ok(&cmd!["INFER.UNLOAD", "chat"]);
        answer
    });
    assert_eq!(answers[0], answers[1]);
}
