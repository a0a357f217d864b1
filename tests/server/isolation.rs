//! What one client's work costs the others: nothing they notice.

use std::time::{Duration, Instant};

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, SLOW, Server, array, cmd, eventually, field, int, report, text};

/// How long latencies are taken.
const SAMPLING: Duration = Duration::from_secs(2);

/// The product's promise for every PING.
const LATENCY: Duration = Duration::from_millis(50);

/// A server with the slow model and these options of INFER.LOAD.
fn slow_server(options: &[&str]) -> Server {
    let server = Server::start();
    server.client().ok(&cmd!["INFER.LOAD", "slow", SLOW.path().to_str().unwrap(), "CTX", 16_384, options]);
    server
}

/// Room for four requests at once; on one CPU for two.
fn busy_server() -> Server {
    slow_server(&["PARALLEL", "2"])
}

fn endless() -> redis::Cmd {
    cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000]
}

/// Four clients that generate until they are dropped.
fn four_generating(server: &Server) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(&endless());
    }
    eventually("four requests are accepted", || server.requests("slow") == 4);
    clients
}

#[test]
fn ping_answers_within_50_ms_while_four_clients_generate() {
    let server = slow_server(&["PARALLEL", "4"]);
    let generating = four_generating(&server);
    let mut client = server.client();
    // The machine may stop the server or this test for longer; hardly three times with a while in between.
    let mut longest: Vec<Duration> = Vec::new();
    while longest.len() < 3 && longest.last().is_none_or(|longest| *longest > LATENCY) {
        if !longest.is_empty() {
            std::thread::sleep(SAMPLING);
        }
        longest.push(longest_ping(&mut client));
    }
    assert_eq!(server.requests("slow"), 4, "the clients did not generate all the time");
    drop(generating);
    assert!(longest.last().is_some_and(|longest| *longest <= LATENCY), "longest PING of each window: {longest:?}");
}

/// Sends PING for a while; how long the longest took.
fn longest_ping(client: &mut Client) -> Duration {
    let mut taken = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < SAMPLING {
        let sent = Instant::now();
        client.ok(&cmd!["PING"]);
        taken.push(sent.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    taken.sort_unstable();
    let [middle, most] = [taken.len() / 2, taken.len() * 99 / 100].map(|i| taken[i]);
    let longest = taken[taken.len() - 1];
    report(&format!(
        "{} PINGs while 4 clients generate: p50 {middle:?}, p99 {most:?}, longest {longest:?}",
        taken.len()
    ));
    longest
}

#[test]
fn commands_of_other_clients_work_while_four_clients_generate() {
    let server = busy_server();
    let mut client = server.client();
    for model in [CHAT, EMBED] {
        client.ok(&model.load());
    }
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    let generating = four_generating(&server);
    client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "the cat"]);
    assert_eq!(client.text(&cmd!["INFER.DETOKENIZE", "chat", 1, "k"]), "the cat");
    assert_eq!(array(&client.ok(&cmd!["INFER.EMBED", "embed", 2, "the cat", "the dog"])).len(), 2);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
    assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", "docs", "the cat"])).len(), 1);
    client.ok(&cmd!["INFER.RAG", "docs", "the cat", "MAXTOKENS", 2]);
    client.ok(&cmd!["INFER.GENERATE", "chat", 1, "k", "MAXTOKENS", 2]);
    for i in 0..200 {
        let (key, value) = (format!("key:{i}"), format!("value {i}"));
        client.ok(&cmd!["SET", &key, &value]);
        assert_eq!(client.text(&cmd!["GET", &key]), value);
        client.ok(&cmd!["LPUSH", "list", &value]);
        client.ok(&cmd!["VADD", "v", "VALUES", 2, 1, i, &key]);
    }
    assert_eq!(client.ok(&cmd!["LLEN", "list"]), Value::Int(200));
    assert_eq!(client.ok(&cmd!["VCARD", "v"]), Value::Int(200));
    assert_eq!(server.requests("slow"), 4, "the clients did not generate all the time");
    drop(generating);
}

/// Whether a short answer comes while a long one of `model` is still being made.
#[track_caller]
fn assert_overtakes(server: &Server) {
    let mut long = server.client();
    long.send(&endless());
    eventually("the long request is accepted", || server.requests("slow") == 1);
    let mut short = server.client();
    short.ok(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "be brief", "MAXTOKENS", 8]);
    eventually("only the long answer is still being made", || server.requests("slow") == 1);
}

#[test]
fn two_generations_share_a_batch_and_neither_waits_for_the_other_to_finish() {
    assert_overtakes(&slow_server(&["WORKERS", "1", "PARALLEL", "2"]));
}

#[test]
fn two_generations_share_a_pool_and_neither_waits_for_the_other_to_finish() {
    // A pool of two workers is refused on a machine with one CPU.
    if std::thread::available_parallelism().unwrap().get() > 1 {
        assert_overtakes(&slow_server(&["WORKERS", "2", "PARALLEL", "1"]));
    }
}

#[test]
fn a_long_prompt_does_not_stop_an_answer_that_is_being_made() {
    let server = slow_server(&["WORKERS", "1", "THREADS", "1", "PARALLEL", "2"]);
    let mut answer = server.client();
    answer.send(&endless());
    let mut control = server.client();
    // The answer's tokens so far, and whether the long prompt is being read.
    let mut seen = || {
        let requests = control.ok(&cmd!["INFER.PS"]);
        let [answer, long @ ..] = array(&requests) else { return (0, false) };
        let is_read = long.first().is_some_and(|request| text(field(request, "state")) == "prefilling");
        (int(field(answer, "generated_tokens")), is_read)
    };
    eventually("the answer is being made", || seen().0 > 0);
    // About 12,000 tokens to read before the first one is written.
    let mut long = server.client();
    long.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "x".repeat(12_000), "MAXTOKENS", 1000]);
    let mut begun = 0;
    eventually("the long prompt is being read", || {
        let (tokens, is_read) = seen();
        begun = tokens;
        is_read
    });
    let mut last = 0;
    eventually("the answer goes on, or the prompt is read", || {
        let (tokens, is_read) = seen();
        last = if is_read { tokens } else { last };
        !is_read || last > begun + 10
    });
    assert!(last > begun + 10, "{} tokens while the prompt was read", last - begun);
}

#[test]
fn many_clients_at_once_all_get_their_own_answer() {
    let server = Server::with(&[CHAT]);
    let ask = |client: &mut Client, prompt: &str| {
        client.text(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", prompt, "RAW", "TEMP", 0, "MAXTOKENS", 16])
    };
    let prompts: Vec<String> = (0..8).map(|i| format!("client number {i}")).collect();
    let alone: Vec<String> = prompts.iter().map(|prompt| ask(&mut server.client(), prompt)).collect();
    assert!(alone.iter().skip(1).all(|answer| *answer != alone[0]), "all prompts have the same answer");
    std::thread::scope(|scope| {
        for (prompt, alone) in prompts.iter().zip(&alone) {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..10 {
                    assert_eq!(ask(&mut client, prompt), *alone);
                }
            });
        }
    });
}
