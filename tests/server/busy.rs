//! What is done to a server that is busy: too many clients, clients that vanish, loads that race, and the commands with
//! which Redis itself saves, reloads and empties its data.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use redis::{Cmd, Value};

use crate::harness::{CHAT, Client, EMBED, SLOW, STEADY, Server, array, cmd, eventually, field, int, until_decoding};

fn endless() -> Cmd {
    cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000]
}

/// A server with the slow model, which advances this many requests together.
fn slow_server(parallel: u32) -> Server {
    let server = Server::start();
    let path = SLOW.path().to_str().unwrap();
    let options = ["WORKERS", "1", "THREADS", "1", "CTX", "16384", "PARALLEL"];
    server.client().ok(&cmd!["INFER.LOAD", "slow", path, &options, parallel]);
    server
}

#[test]
fn two_hundred_clients_at_once_are_answered_or_refused_at_once() {
    let server = slow_server(4);
    let mut control = server.client();
    for (queue_limit, refused) in [(128, 200 - 128), (200, 0)] {
        control.ok(&cmd!["CONFIG", "SET", "infer.queue-limit", queue_limit]);
        // Nobody is done before the last one has come.
        let mut first: Vec<Client> = (0..4).map(|_| server.client()).collect();
        first.iter_mut().for_each(|client| client.send(&endless()));
        eventually("four requests are accepted", || server.requests("slow") == 4);
        let mut clients: Vec<Client> = (0..200).map(|_| server.client()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let prompt = format!("client {number}");
            client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", prompt, "MAXTOKENS", 4, "WITHSTATS"]);
        }
        eventually("the queue is full", || server.requests("slow") == 4 + 200 - refused);
        drop(first);
        let mut full = 0;
        for client in &mut clients {
            match client.receive() {
                Ok(answer) => assert!(int(field(&answer, "completion_tokens")) > 0),
                Err(refusal) => {
                    assert_eq!(refusal.code, "QUEUEFULL", "{refusal:?}");
                    full += 1;
                }
            }
            client.assert_in_step();
        }
        assert_eq!(full, refused);
        assert_eq!(server.requests("slow"), 0);
        assert_eq!(control.ok(&cmd!["INFER.PS"]), Value::Array(vec![]));
    }
}

/// A process of its own that waits for the answer to [`endless`].
fn process(server: &Server) -> Child {
    let line = "INFER.GENERATE slow 0 TEXT go MAXTOKENS 16000";
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}; echo {line} >&3; read -r answer <&3", server.port);
    Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap()
}

#[test]
fn clients_that_are_killed_leave_nothing_behind() {
    let mut server = slow_server(4);
    for _ in 0..3 {
        let mut processes: Vec<Child> = (0..8).map(|_| process(&server)).collect();
        eventually("eight requests are accepted", || server.requests("slow") == 8);
        for process in &mut processes {
            // This is kill -9.
            process.kill().unwrap();
            process.wait().unwrap();
        }
        eventually("every place is free", || server.requests("slow") == 0);
    }
    server.assert_alive();
}

#[test]
fn connections_that_are_reset_leave_nothing_behind() {
    let mut server = slow_server(4);
    let mut control = server.client();
    for _ in 0..3 {
        let mut streams = Vec::new();
        for _ in 0..8 {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            stream.write_all(b"PING\r\nINFER.GENERATE slow 0 TEXT go MAXTOKENS 16000\r\n").unwrap();
            streams.push(stream);
        }
        eventually("eight requests are accepted", || server.requests("slow") == 8);
        // A socket that is closed with something unread, the answer of PING, resets the connection.
        drop(streams);
        eventually("every place is free", || server.requests("slow") == 0);
        assert_eq!(control.ok(&cmd!["INFER.PS"]), Value::Array(vec![]));
    }
    server.assert_alive();
}

#[test]
fn of_two_loads_of_one_name_one_wins() {
    let server = Server::start();
    let mut clients = [server.client(), server.client()];
    for _ in 0..10 {
        for client in &mut clients {
            client.send(&CHAT.load());
        }
        let outcomes = clients.each_mut().map(Client::receive);
        let refusals: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert_eq!(refusals.len(), 1, "{outcomes:?}");
        assert!(refusals[0].text.contains("a model named 'chat' is already loaded"), "{refusals:?}");
        clients[0].ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 1]);
        assert_eq!(array(&clients[1].ok(&cmd!["INFER.MODELS"])).len(), 1);
        clients[1].ok(&cmd!["INFER.UNLOAD", "chat"]);
    }
}

/// Commands that empty, save, reload and inspect what Redis holds.
fn upheavals() -> Vec<Cmd> {
    vec![
        cmd!["FLUSHALL"],
        cmd!["FLUSHALL", "ASYNC"],
        cmd!["BGSAVE", "SCHEDULE"],
        cmd!["BGREWRITEAOF"],
        cmd!["CONFIG", "SET", "infer.queue-limit", 200],
        cmd!["CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru"],
        cmd!["MEMORY", "DOCTOR"],
        cmd!["MEMORY", "PURGE"],
        cmd!["DEBUG", "RELOAD"],
        cmd!["SAVE"],
        cmd!["SWAPDB", 0, 1],
        cmd!["SCRIPT", "FLUSH"],
        cmd!["INFO", "everything"],
    ]
}

/// Until no child of the server saves or rewrites anything.
fn wait_for_children(control: &mut Client) {
    eventually("everything is saved", || {
        let info = control.text(&cmd!["INFO", "persistence"]);
        ["rdb_bgsave_in_progress:0", "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"]
            .iter()
            .all(|line| info.contains(line))
    });
}

#[test]
fn redis_saves_reloads_and_empties_its_data_while_answers_are_made() {
    let mut server = Server::configured(&[STEADY], &["--appendonly", "yes"]);
    let mut control = server.client();
    let question = |tokens: u32| cmd!["INFER.GENERATE", "slow", 1, "k", "TEMP", 0, "MAXTOKENS", tokens];
    control.ok(&cmd!["INFER.TOKENIZESTORE", "k", "slow", "the prompt"]);
    control.ok(&question(1));
    // Where a long one was made before the end of the upheaval, a longer one is not.
    let mut answers = [400, 1600, 6400].map(|tokens| (tokens, None));
    for upheaval in upheavals() {
        let met = answers.iter_mut().any(|(tokens, undisturbed)| {
            control.ok(&cmd!["SELECT", 0]);
            control.ok(&cmd!["INFER.TOKENIZESTORE", "k", "slow", "the prompt"]);
            let undisturbed = undisturbed.get_or_insert_with(|| control.ok(&question(*tokens)));
            let (mut client, done) = (server.client(), control.info("infer_requests_done"));
            client.send(&question(*tokens));
            let is_begun = until_decoding(&mut control, done).is_some();
            control.ok(&upheaval);
            let is_going_on = server.requests("slow") == 1;
            assert_eq!(client.receive().as_ref(), Ok(&*undisturbed));
            client.assert_in_step();
            wait_for_children(&mut control);
            is_begun && is_going_on
        });
        assert!(met, "the answers were made before {upheaval:?}");
    }
    let info = control.text(&cmd!["INFO", "persistence"]);
    for line in ["rdb_last_bgsave_status:ok", "aof_last_bgrewrite_status:ok", "aof_last_write_status:ok"] {
        assert!(info.contains(line), "{info}");
    }
    server.assert_alive();
}

#[test]
fn redis_saves_reloads_and_empties_its_data_while_a_document_is_embedded() {
    let mut server = Server::configured(&[CHAT, EMBED], &["--appendonly", "yes"]);
    let mut control = server.client();
    let document = "the cat and the dog in the city\n\n".repeat(1000);
    for upheaval in upheavals() {
        control.ok(&cmd!["FLUSHALL"]);
        control.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 16]);
        let (mut client, before) = (server.client(), control.info("infer_embedded_texts"));
        client.send(&cmd!["INFER.INGEST", "docs", "a.txt", &document]);
        eventually("the document is being embedded", || control.info("infer_embedded_texts") > before);
        control.ok(&upheaval);
        // The index is there, or it is not; never a part of the document without its index.
        match client.receive() {
            Ok(_) => assert_eq!(array(&control.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 3])).len(), 3),
            Err(refusal) => {
                assert_eq!(refusal.code, "NOINDEX", "{upheaval:?}: {refusal:?}");
                assert_eq!(control.ok(&cmd!["DBSIZE"]), Value::Int(0));
            }
        }
        client.assert_in_step();
        wait_for_children(&mut control);
    }
    server.assert_alive();
}

#[test]
fn places_come_back_after_a_storm_of_cancelled_requests() {
    let server = slow_server(4);
    let mut control = server.client();
    for _ in 0..20 {
        let mut clients: Vec<Client> = (0..10).map(|_| server.client()).collect();
        clients.iter_mut().for_each(|client| client.send(&endless()));
        eventually("ten requests are accepted", || server.requests("slow") == 10);
        let listed: Vec<i64> =
            array(&control.ok(&cmd!["INFER.PS"])).iter().map(|request| int(field(request, "id"))).collect();
        for id in listed.iter().step_by(2) {
            control.ok(&cmd!["INFER.CANCEL", *id]);
        }
        drop(clients);
        eventually("every place is free", || server.requests("slow") == 0);
    }
    assert_eq!(control.ok(&cmd!["INFER.PS"]), Value::Array(vec![]));
    assert!(control.text(&cmd!["INFO", "clients"]).contains("blocked_clients:0"));
}
