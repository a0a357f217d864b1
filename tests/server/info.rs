//! INFO infer: what an operator sees of the engine.

use std::collections::HashMap;

use crate::harness::{CHAT, Client, EMBED, SLOW, Server, cmd, eventually};

/// The fields of a section of INFO, `section` being `infer` for all of this module.
fn info(client: &mut Client, section: &str) -> HashMap<String, String> {
    let reply = client.text(&cmd!["INFO", section]);
    let fields = reply.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[track_caller]
fn number(client: &mut Client, name: &str) -> u64 {
    let fields = info(client, "infer");
    fields.get(name).unwrap_or_else(|| panic!("no field {name} in {fields:?}")).parse().unwrap()
}

/// The value of `part` in `part=value,part=value`.
#[track_caller]
fn part<'a>(field: &'a str, part: &str) -> &'a str {
    let found = field.split(',').find_map(|pair| pair.strip_prefix(part)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {part} in {field}"))
}

fn assert_counts(server: &Server) {
    let mut client = server.client();
    for command in [CHAT.load(), EMBED.load()] {
        client.ok(&command);
    }
    for _ in 0..3 {
        client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "abc", "RAW", "MAXTOKENS", 5]);
    }
    client.ok(&cmd!["INFER.EMBED", "embed", 2, "the cat", "the dog"]);
    let fields = info(&mut client, "infer");
    let generated: u64 = fields["infer_generated_tokens"].parse().unwrap();
    assert!((3..=15).contains(&generated), "{fields:?}");
    for (name, value) in [
        ("infer_models_loaded", "2"),
        ("infer_models_loading", "0"),
        ("infer_models_failed", "0"),
        ("infer_requests", "0"),
        ("infer_waiting", "0"),
        ("infer_queue_limit", "128"),
        ("infer_requests_done", "4"),
        ("infer_embedded_texts", "2"),
        ("infer_errors", "0"),
        ("infer_cancelled", "0"),
    ] {
        assert_eq!(fields[name], value, "{name}");
    }
    assert!(fields["infer_weights_bytes"].parse::<u64>().unwrap() > 1000);
    assert_eq!(part(&fields["infer_model0"], "name"), "chat");
    assert_eq!(part(&fields["infer_model1"], "type"), "embedding");
    for (name, samples) in [("queue", 3), ("ttft", 3), ("token_gap", generated - 3), ("embed", 1)] {
        let times = &fields[&format!("infer_latency_usec_{name}")];
        assert_eq!(part(times, "samples"), samples.to_string(), "{name}");
        let of = |name| part(times, name).parse::<u64>().unwrap();
        assert!(0 < of("p50") && of("p50") <= of("p99") && of("p99") <= of("max"), "{times}");
    }
}

#[test]
fn finished_work_is_counted_with_its_latencies() {
    assert_counts(&Server::start());
}

#[test]
fn finished_work_is_counted_in_redis_7_4_and_valkey_9() {
    for variable in ["REDIS_INFER_REDIS74_SERVER", "REDIS_INFER_VALKEY_SERVER"] {
        if let Some(server) = crate::servers::server(variable) {
            assert_counts(&server);
        }
    }
}

#[test]
fn a_section_can_be_asked_for_alone_and_info_without_arguments_has_none() {
    let server = Server::start();
    let mut client = server.client();
    let throughput = info(&mut client, "infer_throughput");
    assert!(throughput.contains_key("infer_timeouts") && !throughput.contains_key("infer_requests"));
    assert!(!client.text(&cmd!["INFO"]).contains("infer_"));
}

#[test]
fn work_that_ends_early_is_counted_by_its_reason() {
    let server = Server::with(&[SLOW]);
    let mut client = server.client();
    let long = cmd!["INFER.GENERATE", "slow", 0, "TEXT", "x", "MAXTOKENS", 4000];
    let mut timed = long.clone();
    timed.arg("TIMEOUT").arg(50);
    client.refused(&timed, "TIMEOUT", "");
    eventually("the request is over", || number(&mut server.client(), "infer_cancelled") == 1);

    // As many as run at once, one that waits, and one too many.
    client.ok(&cmd!["CONFIG", "SET", "infer.queue-limit", 1]);
    let running = server.client().ok(&cmd!["INFER.MODEL", "slow"]);
    let slots = ["workers", "parallel"].map(|name| crate::harness::int(crate::harness::field(&running, name)));
    let mut others: Vec<Client> = (0..=slots[0] * slots[1]).map(|_| server.client()).collect();
    others.iter_mut().for_each(|other| other.send(&long));
    eventually("one waits", || number(&mut server.client(), "infer_waiting") == 1);
    client.refused(&long, "QUEUEFULL", "");
    let fields = info(&mut client, "infer");
    assert_eq!(fields["infer_requests"], (slots[0] * slots[1] + 1).to_string());
    assert_eq!(fields["infer_rejected_queuefull"], "1");
    assert_eq!(fields["infer_timeouts"], "1");
    let ended = 1 + others.len() as u64;
    drop(others);
    eventually("they are gone", || number(&mut server.client(), "infer_cancelled") == ended);
    assert_eq!(number(&mut client, "infer_requests_done"), 0);

    client.ok(&cmd!["INFER.DEBUG", "PANIC", "slow"]);
    client.refused(&long, "INTERNAL", "");
    assert_eq!(number(&mut client, "infer_errors"), 1);
}

#[test]
fn a_model_name_cannot_forge_fields() {
    let server = Server::start();
    let mut client = server.client();
    client.ok(&CHAT.load_as("a:1,state=gone #x"));
    let fields = info(&mut client, "infer_models");
    assert_eq!(part(&fields["infer_model0"], "name"), "a_1_state_gone _x");
    assert_eq!(part(&fields["infer_model0"], "state"), "ready");
    assert_eq!(fields["infer_models_loaded"], "1");
}

#[test]
fn locks_held_for_a_search_are_timed() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    assert_eq!(number(&mut client, "infer_longest_lock_hold_usec"), 0);
    let before = number(&mut client, "infer_lock_holds");
    client.ok(&cmd!["INFER.SEARCH", "docs", "the cat"]);
    assert!(number(&mut client, "infer_longest_reply_usec") > 0);
    assert!(number(&mut client, "infer_longest_lock_hold_usec") > 0);
    assert_eq!(number(&mut client, "infer_lock_holds"), before + 1);
    assert!(number(&mut client, "infer_lock_hold_usec") >= number(&mut client, "infer_longest_lock_hold_usec"));
}

#[test]
fn replies_are_counted_and_timed() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.EMBED", "embed", 1, "the cat"]);
    let (count, sum) = (number(&mut client, "infer_replies"), number(&mut client, "infer_reply_usec"));
    assert!(count > 0 && sum > 0);
    client.ok(&cmd!["INFER.EMBED", "embed", 1, "the cat"]);
    assert_eq!(number(&mut client, "infer_replies"), count + 1);
}

#[test]
fn a_crash_report_has_the_counters_and_does_not_hang() {
    let mut server = Server::configured(&[SLOW], &["--crash-memcheck-enabled", "no"]);
    let mut busy = server.client();
    busy.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "x", "MAXTOKENS", 4000]);
    eventually("it generates", || server.requests("slow") == 1);
    server.client().send(&cmd!["DEBUG", "SEGFAULT"]);
    assert!(!server.wait_for_exit(), "a crash is no orderly end");
    let log = server.log();
    let report = log.split_once("BUG REPORT START").expect("no crash report").1;
    assert!(report.contains("infer_requests_done:0"), "{report}");
    assert!(report.contains("BUG REPORT END"), "the report was cut short");
    assert!(!report.contains("infer_model0"), "what needs a lock does not belong into a crash report");
}
