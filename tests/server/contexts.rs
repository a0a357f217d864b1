//! Places where Redis cannot block a client: MULTI, scripts, functions.

use redis::{Cmd, Value};

use crate::harness::{CHAT, Client, EMBED, RANK, Server, cmd, text};

const REASON: &str = "cannot run inside MULTI, a script or another module: it waits for a worker thread";

/// Every command that waits, with arguments that would work.
fn waiting_commands() -> Vec<Cmd> {
    vec![
        cmd!["INFER.LOAD", "other", CHAT.path().to_str().unwrap()],
        cmd!["INFER.UNLOAD", "chat"],
        cmd!["INFER.TOKENIZE", "chat", "text"],
        cmd!["INFER.TOKENIZESTORE", "k", "chat", "text"],
        cmd!["INFER.DETOKENIZE", "chat", 1, "q"],
        cmd!["INFER.GENERATE", "chat", 1, "q", "MAXTOKENS", 2],
        cmd!["INFER.CHAT", "chat", 0, "MESSAGE", "user", "hi", "MAXTOKENS", 2],
        cmd!["INFER.EMBED", "embed", 1, "text"],
        cmd!["INFER.RERANK", "rank", "query", 1, "text"],
        cmd!["INFER.INGEST", "docs", "path", "text"],
        cmd!["INFER.SEARCH", "docs", "text"],
        cmd!["INFER.RAG", "docs", "text", "MAXTOKENS", 2],
    ]
}

fn server() -> Server {
    let server = Server::with(&[CHAT, EMBED, RANK]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    client.ok(&cmd!["INFER.TOKENIZESTORE", "q", "chat", "a question"]);
    server
}

fn name(command: &Cmd) -> String {
    let Some(redis::Arg::Simple(name)) = command.args_iter().next() else { panic!("a command without a name") };
    String::from_utf8(name.to_vec()).unwrap()
}

/// Fails unless all commands work now and have changed nothing before.
#[track_caller]
fn assert_nothing_happened(client: &mut Client) {
    client.assert_in_step();
    client.refused(&cmd!["INFER.MODEL", "other"], "NOMODEL", "");
    assert_eq!(client.ok(&cmd!["EXISTS", "k", "vec:{docs}"]), Value::Int(0));
    client.ok(&cmd!["INFER.GENERATE", "chat", 1, "q", "MAXTOKENS", 2]);
}

#[test]
fn multi_gets_one_clear_error_per_command_and_the_rest_of_it_runs() {
    let server = server();
    let mut client = server.client();
    for command in waiting_commands() {
        client.ok(&cmd!["MULTI"]);
        for queued in [&cmd!["SET", "before", 1], &command, &cmd!["SET", "after", 1]] {
            assert_eq!(client.text(queued), "QUEUED");
        }
        client.send(&cmd!["EXEC"]);
        let refusal = client.receive().unwrap_err();
        assert_eq!(refusal.code, "ERR");
        assert!(refusal.text.contains(&format!("{} {REASON}", name(&command))), "{}", refusal.text);
        assert_eq!(client.ok(&cmd!["DEL", "before", "after"]), Value::Int(2));
    }
    assert_nothing_happened(&mut client);
}

#[test]
fn a_script_gets_one_clear_error() {
    let server = server();
    let mut client = server.client();
    for command in waiting_commands() {
        let mut eval = cmd!["EVAL", "return redis.pcall(unpack(ARGV))", 0];
        eval.arg(words(&command));
        client.refused(&eval, "ERR", &format!("{} {REASON}", name(&command)));
    }
    assert_nothing_happened(&mut client);
}

#[test]
fn a_function_gets_one_clear_error() {
    let server = server();
    let mut client = server.client();
    let library =
        "#!lua name=test\nredis.register_function('run', function(keys, args) return redis.pcall(unpack(args)) end)";
    assert_eq!(text(&client.ok(&cmd!["FUNCTION", "LOAD", library])), "test");
    for command in waiting_commands() {
        let mut call = cmd!["FCALL", "run", 0];
        call.arg(words(&command));
        client.refused(&call, "ERR", &format!("{} {REASON}", name(&command)));
    }
    assert_nothing_happened(&mut client);
}

fn words(command: &Cmd) -> Vec<Vec<u8>> {
    let words = command.args_iter().map(|arg| match arg {
        redis::Arg::Simple(bytes) => bytes.to_vec(),
        _ => panic!("an argument of an unknown kind"),
    });
    words.collect()
}

#[test]
fn commands_that_do_not_wait_work_in_multi_and_scripts() {
    let server = server();
    let mut client = server.client();
    client.ok(&cmd!["MULTI"]);
    client.ok(&cmd!["INFER.MODEL", "chat"]);
    client.ok(&cmd!["INFER.MODELS"]);
    client.ok(&cmd!["EXEC"]);
    client.ok(&cmd!["EVAL", "return redis.call('INFER.MODELS')", 0]);
}
