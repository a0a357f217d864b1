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
    for (number, command) in
        [cmd!["INFER.GENERATE", "chat", 0, "TEXT", &prompt, "MAXTOKENS", 1], cmd!["INFER.EMBED", "embed", 1, &prompt]]
            .iter()
            .enumerate()
    {
        let before = wide_passes(&mut client);
        // Not the first time if other processes have the CPUs just then.
        eventually("a pass of several threads", || {
            client.ok(command);
            !several || wide_passes(&mut client) > before
        });
        let facts = client.ok(&cmd!["INFER.MODEL", ["chat", "embed"][number]]);
        assert_eq!(text(field(&facts, "threads_option")), "AUTO");
        assert!(int(field(&facts, "latest_threads")) >= 1);
        assert_eq!(int(field(&facts, "workers")), if several { 2 } else { 1 });
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

/// Two workers that generate at once never take a CPU from each other.
fn assert_shares(server: &Server) {
    let mut client = server.client();
    load(&mut client, &SLOW, &["PARALLEL", "1", "CTX", "16384"]);
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
        load(&mut client, &CHAT, &["WORKERS", "1", "THREADS", threads]);
        let prompt = "one two three four five six seven eight nine ten ".repeat(8);
        let answer = client.text(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", prompt, "TEMP", 0, "MAXTOKENS", 100]);
        client.ok(&cmd!["INFER.UNLOAD", "chat"]);
        answer
    });
    assert_eq!(answers[0], answers[1]);
}
