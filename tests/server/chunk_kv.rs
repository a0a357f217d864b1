//! KV CHUNK: chunks that are read by themselves, kept, and put together for a question.

use redis::Value;

use crate::harness::{ANIMALS, CHAT, Client, EMBED, FRANCE, Server, array, cmd, eventually, field, int, text};

const QUEUE: &str = "redis server memory and the queue of the worker thread";
const QUESTION: &str = "what is the capital of france";

/// A server with an empty index of such chunks.
fn empty(options: &[&str]) -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "KV", "CHUNK", options]);
    (server, client)
}

/// With three documents of one chunk each, none of them read yet.
fn indexed(options: &[&str]) -> (Server, Client) {
    let (server, mut client) = empty(options);
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", 0]);
    for (path, document) in [("animals.txt", ANIMALS), ("france.txt", FRANCE), ("queue.md", QUEUE)] {
        client.ok(&cmd!["INFER.INGEST", "docs", path, document]);
    }
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", "1gb"]);
    (server, client)
}

fn ask(client: &mut Client, options: &[&str]) -> Value {
    client.ok(&cmd!["INFER.RAG", "docs", QUESTION, "WITHSTATS", "MAXTOKENS", 12, "TEMP", 0, options])
}

fn number(reply: &Value, name: &str) -> i64 {
    int(field(reply, name))
}

fn info(client: &mut Client, name: &str) -> i64 {
    let all = client.text(&cmd!["INFO", "infer"]);
    let value = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {all}")).parse().unwrap()
}

/// What is answered when the whole prompt is read.
fn exact(client: &mut Client, options: &[&str]) -> Value {
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", 0]);
    let reply = ask(client, options);
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", "1gb"]);
    assert_eq!(number(&reply, "spliced_tokens"), 0);
    reply
}

#[test]
fn a_question_is_answered_the_same_whether_its_chunks_were_read_before_or_not() {
    let (_server, mut client) = indexed(&[]);
    let cold = ask(&mut client, &[]);
    // The beginning of the prompt and three chunks.
    assert_eq!(number(&cold, "read_blocks"), 4);
    let warm = ask(&mut client, &[]);
    assert_eq!(number(&warm, "read_blocks"), 0);
    assert_eq!(text(field(&cold, "text")), text(field(&warm, "text")));
    for reply in [&cold, &warm] {
        let (prompt, spliced) = (number(reply, "prompt_tokens"), number(reply, "spliced_tokens"));
        assert!(spliced > 0 && spliced < prompt, "{spliced} of {prompt}");
        assert_eq!(number(reply, "cached_tokens"), 0);
    }
    assert_eq!((info(&mut client, "infer_kv_hits"), info(&mut client, "infer_kv_misses")), (4, 4));
}

#[test]
fn chunks_are_found_again_in_another_order_and_behind_another_question() {
    let (_server, mut client) = indexed(&[]);
    ask(&mut client, &[]);
    for question in ["the cat", "the queue of the server", "paris"] {
        let reply = client.ok(&cmd!["INFER.RAG", "docs", question, "WITHSTATS", "MAXTOKENS", 2]);
        assert_eq!(number(&reply, "read_blocks"), 0);
    }
}

#[test]
fn new_chunks_are_read_ahead_of_the_first_question() {
    let (_server, mut client) = empty(&[]);
    for (path, document) in [("animals.txt", ANIMALS), ("france.txt", FRANCE)] {
        client.ok(&cmd!["INFER.INGEST", "docs", path, document]);
    }
    // The beginning of the prompt is one.
    eventually("all chunks are read", || info(&mut client, "infer_kv_chunks") == 3);
    assert_eq!(number(&ask(&mut client, &[]), "read_blocks"), 0);
}

#[test]
fn with_one_chunk_the_answer_is_that_of_a_prompt_that_is_read() {
    let (_server, mut client) = indexed(&[]);
    let reply = ask(&mut client, &["K", "1"]);
    assert!(number(&reply, "spliced_tokens") > 20);
    assert_eq!(text(field(&reply, "text")), text(field(&exact(&mut client, &["K", "1"]), "text")));
}

#[test]
fn chunks_that_are_read_again_as_a_whole_give_the_answer_of_a_prompt_that_is_read() {
    let (_server, mut client) = indexed(&["REREAD", "8192"]);
    let all = ask(&mut client, &[]);
    let first = ask(&mut client, &["K", "1"]);
    assert_eq!(number(&all, "spliced_tokens"), number(&first, "spliced_tokens"));
    assert_eq!(text(field(&all, "text")), text(field(&exact(&mut client, &[]), "text")));
}

#[test]
fn of_all_chunks_but_the_first_so_many_tokens_are_read_again() {
    let spliced = |reread: &str| {
        let (_server, mut client) = indexed(&["REREAD", reread]);
        number(&ask(&mut client, &[]), "spliced_tokens")
    };
    assert_eq!(spliced("0") - spliced("5"), 2 * 5);
}

#[test]
fn the_prompt_is_that_of_chunks_one_behind_the_other() {
    let (_server, mut client) = indexed(&[]);
    let reply = ask(&mut client, &["WITHPROMPT", "SYSTEM", "be brief"]);
    let prompt = text(field(&reply, "prompt"));
    let begins =
        format!("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nfrance.txt lines 1-1\n{FRANCE}\n\n");
    assert!(prompt.starts_with(&begins), "{prompt}");
    assert!(prompt.ends_with(&format!("\n\nQuestion: {QUESTION}<|im_end|>\n<|im_start|>assistant\n")), "{prompt}");
    assert!(number(&reply, "spliced_tokens") > 0);
}

#[test]
fn neighbours_stay_chunks_of_their_own_and_a_budget_counts_their_tokens() {
    let (_server, mut client) = empty(&["MAXTOKENS", "16", "OVERLAP", "0"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", format!("{ANIMALS}\n\n{FRANCE}")]);
    let reply = ask(&mut client, &["WITHSOURCES"]);
    let [one, two] = array(field(&reply, "sources")) else { panic!("not two: {reply:?}") };
    let tokens = [one, two].map(|source| number(source, "tokens"));
    let budget = (tokens[0] + tokens[1] - 1).to_string();
    let reply = ask(&mut client, &["BUDGET", &budget]);
    assert_eq!((number(&reply, "used_chunks"), number(&reply, "dropped_chunks")), (1, 1));
    let too_little = (tokens[0] - 1).to_string();
    client.refused(&cmd!["INFER.RAG", "docs", QUESTION, "BUDGET", too_little], "CTXLIMIT", "the best chunk takes");
    assert_eq!(number(&ask(&mut client, &["BUDGET", "AUTO"]), "used_chunks"), 2);
}

#[test]
fn a_changed_document_is_answered_from_as_it_is_now() {
    let (_server, mut client) = indexed(&[]);
    ask(&mut client, &[]);
    let other = "the capital of france is the city of the cat";
    client.ok(&cmd!["INFER.INGEST", "docs", "france.txt", other]);
    let changed = ask(&mut client, &["K", "1", "WITHPROMPT"]);
    assert!(text(field(&changed, "prompt")).contains(other));
    assert_eq!(text(field(&changed, "text")), text(field(&exact(&mut client, &["K", "1"]), "text")));
}

#[test]
fn what_is_kept_stays_within_its_budget() {
    let (_server, mut client) = indexed(&[]);
    ask(&mut client, &[]);
    let all = info(&mut client, "infer_kv_chunk_bytes");
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", all - 1]);
    let before = info(&mut client, "infer_kv_misses");
    let text_before = ask(&mut client, &[]);
    assert!(info(&mut client, "infer_kv_chunk_bytes") < all);
    assert!(info(&mut client, "infer_kv_misses") > before);
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", "1gb"]);
    assert_eq!(text(field(&text_before, "text")), text(field(&ask(&mut client, &[]), "text")));
}

#[test]
fn without_a_budget_nothing_is_kept_and_prompts_are_read() {
    let (_server, mut client) = indexed(&[]);
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", 0]);
    let reply = ask(&mut client, &[]);
    assert_eq!((number(&reply, "spliced_tokens"), number(&reply, "read_blocks")), (0, 0));
    assert_eq!(info(&mut client, "infer_kv_chunks"), 0);
}

#[test]
fn what_was_put_together_is_nobody_elses_cache() {
    let (_server, mut client) = indexed(&[]);
    ask(&mut client, &[]);
    let again = exact(&mut client, &[]);
    let first = ask(&mut client, &["K", "1"]);
    // Only the beginning and the first chunk are what the same prompt would read.
    assert!(number(&again, "cached_tokens") <= number(&first, "spliced_tokens"));
    let (_other, mut fresh) = indexed(&[]);
    assert_eq!(text(field(&again, "text")), text(field(&exact(&mut fresh, &[]), "text")));
}

#[test]
fn what_is_kept_goes_with_its_model() {
    let (server, mut client) = indexed(&[]);
    ask(&mut client, &[]);
    assert!(info(&mut client, "infer_kv_chunks") > 0);
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    eventually("nothing is kept", || {
        (info(&mut client, "infer_kv_chunks"), info(&mut client, "infer_kv_chunk_bytes")) == (0, 0)
    });
    server.client().ok(&CHAT.load());
    assert_eq!(number(&ask(&mut client, &[]), "read_blocks"), 4);
}

#[test]
fn a_model_can_be_unloaded_while_chunks_are_read_ahead() {
    let (_server, mut client) = empty(&["MAXTOKENS", "16", "OVERLAP", "0"]);
    let paragraphs: Vec<String> = (0..200).map(|number| format!("{ANIMALS} {number}")).collect();
    client.ok(&cmd!["INFER.INGEST", "docs", "many.txt", paragraphs.join("\n\n")]);
    eventually("the first one is read", || info(&mut client, "infer_kv_chunks") > 0);
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    eventually("nothing waits any more", || number(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), "kv_pending") == 0);
    eventually("nothing is kept", || info(&mut client, "infer_kv_chunks") == 0);
}

#[test]
fn an_index_tells_how_its_chunks_are_read() {
    let (_server, mut client) = empty(&["REREAD", "3"]);
    let told = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    assert_eq!((text(field(&told, "kv")), number(&told, "reread")), ("CHUNK", 3));
    let other = cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"];
    client.refused(&other, "ERR", "kv is CHUNK, not EXACT");
}

#[test]
fn a_model_that_cannot_do_it_is_refused_with_the_reason() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let mut load = CHAT.load();
    load.arg("KVTYPE").arg("Q8_0");
    client.ok(&load);
    let index = cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "KV", "CHUNK"];
    client.refused(&index, "ERR", "it was loaded with another KVTYPE than F16");
    assert_eq!(int(&client.ok(&cmd!["EXISTS", "docs"])), 0);
}

#[test]
fn questions_beside_each_other_get_the_answers_they_get_alone() {
    let (server, mut client) = indexed(&["REREAD", "4"]);
    let questions = ["the cat", "the queue of the server", "paris", "what is the capital of france"];
    let command = |question: &str| cmd!["INFER.RAG", "docs", question, "MAXTOKENS", 24, "TEMP", 0];
    let alone: Vec<String> = questions.iter().map(|question| client.text(&command(question))).collect();
    let mut clients: Vec<Client> = (0..16).map(|_| server.client()).collect();
    for _ in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&command(questions[number % 4]));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(text(&client.receive().unwrap()), alone[number % 4]);
        }
    }
}
