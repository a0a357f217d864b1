//! Redis' own statistics: SLOWLOG, commandstats, errorstats, LATENCY, and the log.

use std::time::Instant;

use crate::harness::{CHAT, Client, EMBED, SLOW, Server, array, cmd, eventually, int, text};

/// `usec=1` and its like in the line of INFO that begins with `name`.
#[track_caller]
fn stat(client: &mut Client, section: &str, name: &str, part: &str) -> u64 {
    let info = client.text(&cmd!["INFO", section]);
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.unwrap_or_else(|| panic!("no {name} in {info}"));
    let value = line.split(',').find_map(|pair| pair.strip_prefix(part)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {part} in {line}")).parse().unwrap()
}

/// Whether a call of this command is in the slow log. Another one may be on a machine that stands still for a moment.
fn in_slow_log(client: &mut Client, command: &str) -> bool {
    let entries = client.ok(&cmd!["SLOWLOG", "GET", -1]);
    array(&entries).iter().any(|entry| text(&array(&array(entry)[3])[0]) == command)
}

/// A generation takes most of its time on a worker, where it holds up nobody.
fn assert_waiting_is_no_command_time(server: &Server) {
    let mut client = server.client();
    client.ok(&SLOW.load());
    client.ok(&cmd!["CONFIG", "RESETSTAT"]);
    client.ok(&cmd!["CONFIG", "SET", "slowlog-log-slower-than", 100_000]);
    client.ok(&cmd!["SLOWLOG", "RESET"]);
    let begun = Instant::now();
    client.ok(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "x", "RAW", "MAXTOKENS", 300]);
    client.refused(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "x", "MAXTOKENS", 4000, "TIMEOUT", 50], "TIMEOUT", "");
    let waited = u64::try_from(begun.elapsed().as_micros()).unwrap();
    let counted = stat(&mut client, "commandstats", "cmdstat_infer.generate", "usec");
    assert!(0 < counted && counted < waited / 4, "{counted} of {waited} us");
    assert_eq!(stat(&mut client, "commandstats", "cmdstat_infer.generate", "calls"), 2);
    assert_eq!(stat(&mut client, "commandstats", "cmdstat_infer.generate", "failed_calls"), 1);
    assert!(!in_slow_log(&mut client, "INFER.GENERATE"));
}

#[test]
fn waiting_for_a_worker_is_no_command_time_and_not_in_the_slow_log() {
    assert_waiting_is_no_command_time(&Server::start());
}

#[test]
fn waiting_is_no_command_time_in_redis_7_4_and_valkey_9() {
    for variable in ["REDIS_INFER_REDIS74_SERVER", "REDIS_INFER_VALKEY_SERVER"] {
        if let Some(server) = crate::servers::server(variable) {
            assert_waiting_is_no_command_time(&server);
        }
    }
}

/// A server with an index of several hundred chunks.
fn indexed(options: &[&str]) -> (Server, Client) {
    let server = Server::configured(&[CHAT, EMBED], options);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 16]);
    let document: String = (0..500).map(|i| format!("line {i}\n\n")).collect();
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", document]);
    (server, client)
}

#[test]
fn writing_a_document_is_command_time() {
    // Less than the writing takes anywhere, more than the checking of arguments.
    let (_server, mut client) = indexed(&["--slowlog-log-slower-than", "100"]);
    assert!(in_slow_log(&mut client, "INFER.INGEST"));
}

fn latency_events(client: &mut Client) -> Vec<String> {
    let latest = client.ok(&cmd!["LATENCY", "LATEST"]);
    array(&latest).iter().map(|event| text(&array(event)[0]).to_owned()).collect()
}

#[test]
fn long_answers_are_latency_events() {
    let server = Server::configured(&[EMBED], &["--latency-monitor-threshold", "1"]);
    let mut client = server.client();
    // Tens of thousands of numbers take every machine milliseconds to write.
    let texts = vec!["the cat"; 1024];
    client.ok(&cmd!["INFER.EMBED", "embed", texts.len(), texts, "FORMAT", "VALUES"]);
    assert!(latency_events(&mut client).contains(&"infer-reply".to_owned()));
}

#[test]
fn long_work_on_keys_is_a_latency_event_and_logged_with_command_and_client() {
    let (server, mut client) = indexed(&["--latency-monitor-threshold", "1"]);
    // 160 MiB of tokens take every machine milliseconds to copy.
    for chunk in 0..40 {
        client.ok(&cmd!["SETRANGE", format!("tokens:{{docs}}:a.txt:chunk_{chunk}"), (4 << 20) - 4, "\0\0\0\0"]);
    }
    client.ok(&cmd!["INFER.SEARCH", "docs", "line 0", "K", 200]);
    assert!(latency_events(&mut client).contains(&"infer-keys".to_owned()));
    let line = format!("while INFER.SEARCH of client {} worked on keys", client.id());
    // Only a long one is; a fast machine may need more than one attempt.
    eventually("a hold is logged", || {
        client.ok(&cmd!["INFER.SEARCH", "docs", "line 0", "K", 200]);
        server.log().contains(&line)
    });
    client.assert_in_step();
}

#[test]
fn errors_are_counted_by_their_code() {
    let server = Server::with(&[SLOW]);
    let mut client = server.client();
    let long = cmd!["INFER.GENERATE", "slow", 0, "TEXT", "x", "MAXTOKENS", 4000];
    client.refused(&cmd!["INFER.GENERATE", "nobody", 0, "TEXT", "x"], "NOMODEL", "");
    client.refused(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "x", "MAXTOKENS", 20_000], "CTXLIMIT", "");
    let mut timed = long.clone();
    timed.arg("TIMEOUT").arg(20);
    client.refused(&timed, "TIMEOUT", "");
    let mut other = server.client();
    let id = other.id();
    other.send(&long);
    eventually("it is blocked", || int(&server.client().ok(&cmd!["CLIENT", "UNBLOCK", id])) == 1);
    assert_eq!(other.receive().unwrap_err().code, "CANCELLED");
    for code in ["NOMODEL", "CTXLIMIT", "TIMEOUT", "CANCELLED"] {
        assert_eq!(stat(&mut client, "errorstats", &format!("errorstat_{code}"), "count"), 1, "{code}");
    }
    assert_eq!(stat(&mut client, "commandstats", "cmdstat_infer.generate", "failed_calls"), 4);
}

#[test]
fn a_failure_of_the_server_is_logged_with_command_and_client() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let id = client.id();
    client.ok(&cmd!["INFER.DEBUG", "PANIC", "chat"]);
    client.refused(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x"], "INTERNAL", "");
    client.refused(&cmd!["INFER.LOAD", "m", "/no/such.gguf"], "LOADFAIL", "");
    client.refused(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 4096], "CTXLIMIT", "");
    let log = server.log();
    assert!(log.contains(&format!("INFER.GENERATE of client {id} failed: INTERNAL")), "{log}");
    assert!(log.contains(&format!("INFER.LOAD of client {id} failed: LOADFAIL")), "{log}");
    assert!(!log.contains("CTXLIMIT"), "what only the client did wrong is not logged");
}
