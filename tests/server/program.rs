//! The companion program `redis-infer` against a real server.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value as Json;

use crate::harness::{CHAT, Client, EMBED, RANK, Server, array, cmd, eventually, field, module, text};

/// The companion program with these arguments. It is built with the module, into the same folder.
pub fn program(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(module().with_file_name("redis-infer"));
    command.args(arguments).env("REDIS_URL", format!("redis://127.0.0.1:{}", server.port));
    command
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    program(server, arguments).output().unwrap()
}

/// What a run printed that must end with status 0.
#[track_caller]
fn fine(server: &Server, arguments: &[&str]) -> String {
    let output = run(server, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    stdout(&output)
}

/// The JSON document of a run that must end with status 0.
#[track_caller]
fn document(server: &Server, arguments: &[&str]) -> Json {
    let printed = fine(server, &[arguments, &["--json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn ingest(server: &Server, folder: &Path, options: &[&str]) -> String {
    fine(server, &[&["ingest", folder.to_str().unwrap(), "--index", "docs"], options].concat())
}

/// A server with the index `docs`, and a folder `notes` with three files of which git ignores one.
fn prepared() -> (Server, Client, tempfile::TempDir, PathBuf) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    for (name, content) in [
        ("cat.txt", "the cat and the dog\n"),
        ("sub/line.md", "the line of the queue\n"),
        ("out.log", "the worker\n"),
        (".gitignore", "*.log\n"),
    ] {
        let path = notes.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    (server, client, folder, notes)
}

fn paths(client: &mut Client) -> Vec<String> {
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the", "K", 10]);
    let mut paths: Vec<String> = array(&found).iter().map(|hit| text(field(hit, "path")).to_owned()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn a_folder_is_ingested_and_then_kept() {
    let (server, mut client, _folder, notes) = prepared();
    for expected in ["chunks   2 added, 0 kept", "chunks   0 added, 2 kept"] {
        let printed = ingest(&server, &notes, &[]);
        assert!(printed.contains(expected), "{printed}");
        assert_eq!(paths(&mut client), ["notes/cat.txt", "notes/sub/line.md"]);
    }
}

#[test]
fn a_file_that_changed_is_ingested_again() {
    let (server, mut client, _folder, notes) = prepared();
    ingest(&server, &notes, &[]);
    std::fs::write(notes.join("cat.txt"), "the capital of france is paris\n").unwrap();
    let printed = ingest(&server, &notes, &[]);
    assert!(printed.contains("1 added"), "{printed}");
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the capital of france", "K", 1, "WITHTEXT"]);
    assert_eq!(text(field(&array(&found)[0], "text")), "the capital of france is paris");
}

#[test]
fn delete_forgets_what_is_gone_below_the_folder_only() {
    let (server, mut client, _folder, notes) = prepared();
    ingest(&server, &notes, &[]);
    client.ok(&cmd!["INFER.INGEST", "docs", "other/cat.txt", "the cat"]);
    std::fs::remove_file(notes.join("cat.txt")).unwrap();
    let planned = ingest(&server, &notes, &["--delete", "--dry-run"]);
    assert!(planned.contains("forget notes/cat.txt\n"), "{planned}");
    assert_eq!(paths(&mut client).len(), 3, "a dry run changes nothing");
    let printed = ingest(&server, &notes, &["--delete"]);
    assert!(printed.starts_with("files    1 ingested, 1 forgotten\n"), "{printed}");
    assert_eq!(paths(&mut client), ["notes/sub/line.md", "other/cat.txt"]);
}

#[test]
fn delete_finds_the_documents_of_an_index_that_was_made_anew() {
    let (server, mut client, _folder, notes) = prepared();
    ingest(&server, &notes, &[]);
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    let generation = |client: &mut Client| client.text(&cmd!["HGET", "docs", "generation"]);
    eventually("the index is the new one", || generation(&mut client) == "2");
    std::fs::remove_file(notes.join("cat.txt")).unwrap();
    ingest(&server, &notes, &["--delete"]);
    assert_eq!(paths(&mut client), ["notes/sub/line.md"]);
}

#[test]
fn attributes_given_to_the_files_can_be_searched_by() {
    let (server, _client, _folder, notes) = prepared();
    ingest(&server, &notes, &["--include", "*.md", "--attrs", r#"{"kind": "queue"}"#]);
    ingest(&server, &notes, &["--exclude", "sub", "--attrs", r#"{"kind": "animal"}"#]);
    let found = document(&server, &["search", "docs", "the", "--filter", r#".kind == "queue""#]);
    assert_eq!((found.as_array().unwrap().len(), &found[0]["path"]), (1, &"notes/sub/line.md".into()));
}

#[test]
fn watching_goes_on_until_it_is_interrupted() {
    let (server, mut client, _folder, notes) = prepared();
    let mut command = program(&server, &["ingest", notes.to_str().unwrap(), "--index", "docs", "--watch"]);
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut printed = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(printed.next().unwrap().starts_with("2 ingested, 0 forgotten"));
    assert_eq!(printed.next().unwrap(), "watching; Ctrl-C ends it");
    std::fs::write(notes.join("new.md"), "the worker\n").unwrap();
    std::fs::remove_file(notes.join("cat.txt")).unwrap();
    eventually("the changes are in the index", || paths(&mut client) == ["notes/new.md", "notes/sub/line.md"]);
    assert!(Command::new("kill").args(["-INT", &child.0.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = printed.collect();
    assert_eq!(child.0.wait().unwrap().code(), Some(0), "{rest:?}");
    assert!(rest.contains(&"files    3 ingested, 1 forgotten".to_owned()), "{rest:?}");
}

/// A child that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_search_is_told_to_people_and_to_programs() {
    let (server, _client, _folder, notes) = prepared();
    ingest(&server, &notes, &[]);
    let printed = fine(&server, &["search", "docs", "the cat and the dog", "--k", "1", "--text"]);
    assert!(printed.contains("  notes/cat.txt:1-1\n       the cat and the dog\n"), "{printed}");
    let found = document(&server, &["search", "docs", "the cat and the dog", "--k", "1"]);
    assert_eq!((&found[0]["path"], &found[0]["lines"]), (&"notes/cat.txt".into(), &serde_json::json!([1, 1])));
    assert!(found[0]["score"].as_f64().unwrap() > 0.9, "{found}");
}

#[test]
fn an_answer_is_followed_by_its_sources() {
    let (server, _client, _folder, notes) = prepared();
    ingest(&server, &notes, &[]);
    let question = ["ask", "docs", "the cat", "--k", "1", "--max-tokens", "8", "--temp", "0", "--stats"];
    let answer = document(&server, &question);
    assert_eq!(answer["completion_tokens"], 8, "{answer}");
    let printed = fine(&server, &question);
    assert!(printed.contains("\n\nsources\n  0."), "{printed}");
    assert!(printed.contains("\n\nstatistics\n") && printed.contains("finish_reason"), "{printed}");
    assert!(printed.lines().all(|line| line.chars().count() <= 80), "{printed}");
}

#[test]
fn the_limits_of_a_question_reach_the_server() {
    let (server, _client, _folder, notes) = prepared();
    ingest(&server, &notes, &["--attrs", r#"{"year": 2026}"#]);
    let ask = |options: &[&str]| {
        document(&server, &[&["ask", "docs", "the", "--max-tokens", "1", "--system", "short"], options].concat())
    };
    let sources = |answer: Json| answer["sources"].as_array().unwrap().len();
    assert_eq!(sources(ask(&["--k", "2", "--filter", ".year == 2026", "--min-score", "0"])), 2);
    assert_eq!(sources(ask(&["--filter", r#".path == "notes/cat.txt""#])), 1);
    let output = run(&server, &["ask", "docs", "the", "--budget", "0"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("BUDGET"), "{output:?}");
}

#[test]
fn a_cross_encoder_can_choose_the_chunks() {
    let (server, mut client, _folder, notes) = prepared();
    client.ok(&RANK.load());
    ingest(&server, &notes, &[]);
    let found = document(&server, &["search", "docs", "the cat", "--rerank", "rank"]);
    assert!(found[0]["rerank_score"].is_f64(), "{found}");
    let answer = document(&server, &["ask", "docs", "the cat", "--rerank", "rank", "--max-tokens", "1"]);
    assert!(answer["sources"][0]["rerank_score"].is_f64(), "{answer}");
}

#[test]
fn the_status_of_server_and_index_is_shown() {
    let (server, _client, _folder, notes) = prepared();
    ingest(&server, &notes, &[]);
    let printed = fine(&server, &["status"]);
    for part in ["chat   generation  ready", "embed  embedding   ready", "\nqueue\n", "embedded_texts", "\nlatency\n"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert!(printed.lines().all(|line| line.chars().count() <= 80), "{printed}");
    let status = document(&server, &["status"]);
    assert_eq!((&status["models"][0]["name"], &status["info"]["queue"]["requests"]), (&"chat".into(), &0.into()));
    let index = document(&server, &["status", "docs"]);
    assert_eq!((&index["documents"], &index["embed_model"]), (&2.into(), &"embed".into()));
    assert!(fine(&server, &["status", "docs"]).starts_with("documents     2\n"));
}

#[test]
fn nothing_found_is_status_4() {
    let (server, _client, _folder, _notes) = prepared();
    for command in ["search", "ask"] {
        let output = run(&server, &[command, "docs", "the cat"]);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(stderr(&output).contains("nothing found") && output.stdout.is_empty(), "{output:?}");
        let output = run(&server, &[command, "docs", "the cat", "--json"]);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(4), ""));
        serde_json::from_str::<Json>(&stdout(&output)).unwrap();
    }
}

#[test]
fn what_goes_wrong_is_said_with_a_status_of_its_own() {
    let (server, mut client, folder, notes) = prepared();
    client.ok(&cmd!["DEL", "docs"]);
    let (notes, none) = (notes.to_str().unwrap(), folder.path().join("none"));
    for (arguments, status, part) in [
        (&["ingest", notes, "--index", "docs"][..], 1, "NOINDEX"),
        (&["ingest", notes, "--index", "docs", "--delete"], 1, "NOINDEX"),
        (&["ingest", none.to_str().unwrap(), "--index", "docs"], 1, "cannot read"),
        (&["search", "docs", "the"], 1, "NOINDEX"),
        (&["ask", "docs", "the", "--k", "0"], 1, "K must be"),
        (&["search", "docs"], 2, "Usage"),
        (&["status", "--url", "redis://127.0.0.1:1"], 3, "check --url"),
        (&["ingest", notes, "--index", "docs", "--url", "redis://127.0.0.1:1"], 3, "check --url"),
        (&["search", "docs", "the", "--url", "nonsense"], 1, "give redis://host:port"),
    ] {
        let output = run(&server, arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(part), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn errors_are_json_when_the_output_is() {
    let server = Server::start();
    let output = run(&server, &["search", "docs", "the", "--json"]);
    let error: Json = serde_json::from_str(&stderr(&output)).unwrap();
    assert_eq!((&error["error"]["code"], output.stdout.is_empty()), (&"NOINDEX".into(), true));
}

#[test]
fn a_server_without_the_module_is_told_what_it_lacks() {
    let mut server = Server::start();
    server.client().ok(&cmd!["MODULE", "UNLOAD", "infer"]);
    let output = run(&server, &["status"]);
    assert!(stderr(&output).contains("does not know INFER.MODELS; load the redis-infer module"), "{output:?}");
    server.assert_alive();
}

#[test]
fn a_password_lets_in_and_is_never_shown() {
    let server = Server::start();
    server.client().ok(&cmd!["ACL", "SETUSER", "ann", "on", ">geheim", "+@all", "~*"]);
    server.client().ok(&cmd!["CONFIG", "SET", "requirepass", "other"]);
    let url = |login: &str| format!("redis://{login}127.0.0.1:{}/1", server.port);
    for (login, status) in [("ann:geheim@", 0), (":other@", 0), ("ann:geheimnis@", 3), ("", 3)] {
        let output = run(&server, &["status", "--url", &url(login)]);
        assert_eq!(output.status.code(), Some(status), "{login}: {output:?}");
        assert!(!format!("{output:?}").contains("geheim"), "{output:?}");
        assert!(status == 0 || stderr(&output).contains("check user and password"), "{output:?}");
    }
}

#[test]
fn a_unix_socket_is_as_good_as_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let server = Server::configured(&[CHAT], &["--unixsocket", socket.to_str().unwrap()]);
    let printed = fine(&server, &["status", "--url", &format!("unix://{}", socket.display())]);
    assert!(printed.contains("chat"), "{printed}");
}
