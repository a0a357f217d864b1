//! INFER.PS and INFER.CANCEL.

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, RANK, SLOW, Server, array, cmd, eventually, field, int, text};

fn requests(client: &mut Client) -> Vec<Value> {
    array(&client.ok(&cmd!["INFER.PS"])).to_vec()
}

/// Sends a request of `client` that would run for minutes, and waits until it is listed; its id.
fn begin(client: &mut Client, watcher: &mut Client) -> i64 {
    let known = requests(watcher).len();
    client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "do not show this", "MAXTOKENS", 16_000]);
    eventually("the request is listed", || requests(watcher).len() > known);
    int(field(requests(watcher).last().unwrap(), "id"))
}

fn until_decoding(watcher: &mut Client) {
    eventually("a request decodes", || requests(watcher).iter().any(|r| text(field(r, "state")) == "decoding"));
}

/// A connection of a user who may ask and do nothing else.
fn asker(server: &Server, name: &str) -> Client {
    server.client().ok(&cmd!["ACL", "SETUSER", name, "reset", "on", ">pw", "+@infer", "-@admin", "+ping", "~*"]);
    let mut client = server.client();
    client.ok(&cmd!["AUTH", name, "pw"]);
    client
}

#[test]
fn ps_shows_who_runs_and_who_waits_and_no_prompt() {
    let server = Server::with(&[SLOW]);
    for mut watcher in [server.client(), server.resp3()] {
        let (mut first, mut second) = (server.client(), server.client());
        let client = first.id();
        second.ok(&cmd!["SELECT", 3]);
        assert_eq!(requests(&mut watcher), []);
        let id = begin(&mut first, &mut watcher);
        let next = begin(&mut second, &mut watcher);
        assert!(next > id);
        until_decoding(&mut watcher);
        let listed = requests(&mut watcher);
        let (running, waiting) = (&listed[0], &listed[1]);
        assert_eq!(int(field(running, "id")), id);
        assert_eq!(int(field(running, "client")), client);
        for (name, value) in
            [("command", "INFER.GENERATE"), ("user", "default"), ("model", "slow"), ("state", "decoding")]
        {
            assert_eq!(text(field(running, name)), value);
        }
        assert_eq!((int(field(running, "db")), int(field(waiting, "db"))), (0, 3));
        assert!(int(field(running, "prompt_tokens")) > 10);
        assert!(int(field(running, "generated_tokens")) > 0);
        assert_eq!(text(field(waiting, "state")), "queued");
        assert_eq!(int(field(waiting, "generated_tokens")), 0);
        eventually("it ages", || int(field(&requests(&mut watcher)[0], "age_ms")) > 0);
        assert!(!format!("{listed:?}").contains("do not"));
        drop((first, second));
        eventually("the list is empty", || requests(&mut watcher).is_empty());
        eventually("the places are free", || server.requests("slow") == 0);
    }
}

#[test]
fn cancel_answers_the_client_at_once_and_ends_the_work() {
    let server = Server::with(&[SLOW]);
    let mut watcher = server.client();
    let (mut running, mut waiting) = (server.client(), server.resp3());
    let first = begin(&mut running, &mut watcher);
    let second = begin(&mut waiting, &mut watcher);
    until_decoding(&mut watcher);
    // The one that waits is answered although the worker is busy with the other one.
    assert_eq!(watcher.ok(&cmd!["INFER.CANCEL", second]), Value::Int(1));
    let refusal = waiting.receive().unwrap_err();
    assert_eq!(refusal.code, "CANCELLED");
    assert!(refusal.text.contains("INFER.GENERATE was cancelled by INFER.CANCEL"), "{}", refusal.text);
    assert_eq!(watcher.ok(&cmd!["INFER.CANCEL", first]), Value::Int(1));
    assert_eq!(running.receive().unwrap_err().code, "CANCELLED");
    assert_eq!(requests(&mut watcher), []);
    assert_eq!(watcher.ok(&cmd!["INFER.CANCEL", first]), Value::Int(0));
    for client in [&mut running, &mut waiting, &mut watcher] {
        client.assert_in_step();
    }
    eventually("nothing is left of the requests", || server.requests("slow") == 0);
    // Numbers are not used again.
    assert!(begin(&mut running, &mut watcher) > second);
}

#[test]
fn an_old_number_does_not_hit_the_next_request_of_the_same_client() {
    let server = Server::with(&[SLOW]);
    let (mut client, mut watcher) = (server.client(), server.client());
    let client_id = client.id();
    for _ in 0..10 {
        let old = begin(&mut client, &mut watcher);
        watcher.ok(&cmd!["CLIENT", "UNBLOCK", client_id]);
        assert_eq!(client.receive().unwrap_err().code, "CANCELLED");
        // The worker may still hold the old request while the client waits for the new one.
        let new = begin(&mut client, &mut watcher);
        assert_eq!(watcher.ok(&cmd!["INFER.CANCEL", old]), Value::Int(0));
        assert_eq!(int(field(&requests(&mut watcher)[0], "id")), new);
        assert_eq!(watcher.ok(&cmd!["INFER.CANCEL", new]), Value::Int(1));
        assert_eq!(client.receive().unwrap_err().code, "CANCELLED");
    }
    client.assert_in_step();
}

#[test]
fn cancel_works_inside_multi_and_scripts() {
    let server = Server::with(&[SLOW]);
    let (mut client, mut watcher) = (server.client(), server.client());
    let id = begin(&mut client, &mut watcher);
    watcher.ok(&cmd!["MULTI"]);
    watcher.ok(&cmd!["INFER.CANCEL", id]);
    assert_eq!(watcher.ok(&cmd!["EXEC"]), Value::Array(vec![Value::Int(1)]));
    assert_eq!(client.receive().unwrap_err().code, "CANCELLED");
    let id = begin(&mut client, &mut watcher);
    let script = "return redis.call('INFER.CANCEL', ARGV[1])";
    assert_eq!(watcher.ok(&cmd!["EVAL", script, 0, id]), Value::Int(1));
    assert_eq!(client.receive().unwrap_err().code, "CANCELLED");
    client.assert_in_step();
    watcher.assert_in_step();
}

#[test]
fn a_user_without_admin_rights_sees_and_cancels_only_its_own_requests() {
    let server = Server::with(&[SLOW]);
    let mut admin = server.client();
    let (mut ann, mut ann_watches, mut bob) = (asker(&server, "ann"), asker(&server, "ann"), asker(&server, "bob"));
    let id = begin(&mut ann, &mut admin);
    assert_eq!(requests(&mut bob), []);
    assert_eq!(bob.ok(&cmd!["INFER.CANCEL", id]), Value::Int(0));
    assert_eq!(requests(&mut ann_watches).len(), 1);
    assert_eq!(text(field(&requests(&mut admin)[0], "user")), "ann");
    assert_eq!(ann_watches.ok(&cmd!["INFER.CANCEL", id]), Value::Int(1));
    assert_eq!(ann.receive().unwrap_err().code, "CANCELLED");
    let id = begin(&mut ann, &mut admin);
    assert_eq!(admin.ok(&cmd!["INFER.CANCEL", id]), Value::Int(1));
    assert_eq!(ann.receive().unwrap_err().code, "CANCELLED");
    // Looking is no offence that belongs into the log of denials.
    assert_eq!(array(&admin.ok(&cmd!["ACL", "LOG"])), []);
}

#[test]
fn finished_requests_of_every_kind_leave_the_list() {
    let server = Server::with(&[CHAT, EMBED, RANK]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    for command in [
        cmd!["INFER.INGEST", "docs", "a.txt", "the cat"],
        cmd!["INFER.SEARCH", "docs", "the cat"],
        cmd!["INFER.RAG", "docs", "the cat", "MAXTOKENS", 2],
        cmd!["INFER.EMBED", "embed", 1, "the cat"],
        cmd!["INFER.RERANK", "rank", "the cat", 1, "the dog"],
        cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 2],
    ] {
        client.ok(&command);
        assert_eq!(requests(&mut client), []);
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    client.refused(&cmd!["INFER.PS", "x"], "ERR", "wrong number of arguments");
    client.refused(&cmd!["INFER.CANCEL"], "ERR", "wrong number of arguments");
    client.refused(&cmd!["INFER.CANCEL", 1, 2], "ERR", "wrong number of arguments");
    client.refused(&cmd!["INFER.CANCEL", "x"], "ERR", "id is not an integer");
    client.refused(&cmd!["INFER.CANCEL", -1], "ERR", "id must be from 0");
    for id in ["0", "1", "9223372036854775807"] {
        assert_eq!(client.ok(&cmd!["INFER.CANCEL", id]), Value::Int(0));
    }
}
