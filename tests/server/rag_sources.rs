//! INFER.RAG: which chunks an answer is made from, and what is told of them.

use redis::Value;

use crate::harness::{ANIMALS, CHAT, Client, EMBED, FRANCE, Server, array, cmd, field, float, int, text};

const QUEUE: &str = "redis server memory and the queue of the worker thread";

/// A server with an empty index whose chunks hold about two paragraphs.
fn empty() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 32]);
    (server, client)
}

/// With three documents of one chunk each.
fn indexed() -> (Server, Client) {
    let (server, mut client) = empty();
    for (path, document) in [("animals.txt", ANIMALS), ("france.txt", &format!("\n\n{FRANCE}\n")), ("queue.md", QUEUE)]
    {
        client.ok(&cmd!["INFER.INGEST", "docs", path, document]);
    }
    (server, client)
}

/// The question about France with everything told.
fn ask(client: &mut Client, options: &[&str]) -> Value {
    let question = "what is the capital of france";
    let told = ["WITHSOURCES", "WITHPROMPT", "WITHSTATS", "MAXTOKENS", "2"];
    client.ok(&cmd!["INFER.RAG", "docs", question, &told, options])
}

fn ints(value: &Value) -> Vec<i64> {
    array(value).iter().map(int).collect()
}

fn paths(reply: &Value, used: i64) -> Vec<&str> {
    let sources = array(field(reply, "sources")).iter().filter(|source| int(field(source, "used")) == used);
    sources.map(|source| text(field(source, "path"))).collect()
}

#[test]
fn sources_are_named_best_first() {
    let (server, mut client) = indexed();
    for client in [&mut client, &mut server.client()] {
        let reply = ask(client, &["K", "2"]);
        assert!(!text(field(&reply, "text")).is_empty());
        let [first, second] = array(field(&reply, "sources")) else { panic!("not two: {reply:?}") };
        assert_eq!(text(field(first, "path")), "france.txt");
        assert_eq!(text(field(first, "id")), "france.txt:chunk_0");
        assert_eq!(ints(field(first, "chunks")), [0]);
        assert_eq!(ints(field(first, "lines")), [3, 3]);
        assert_eq!(int(field(first, "used")), 1);
        assert!(float(field(first, "score")) > float(field(second, "score")));
    }
}

#[test]
fn the_reply_with_sources_is_a_map_in_resp3_and_a_flat_array_in_resp2() {
    let (server, mut client) = indexed();
    let command = cmd!["INFER.RAG", "docs", "the dog", "WITHSOURCES", "MAXTOKENS", 2];
    let Value::Map(fields) = client.ok(&command) else { panic!("not a map") };
    let names: Vec<&str> = fields.iter().map(|(name, _)| text(name)).collect();
    assert_eq!(names, ["text", "finish_reason", "sources"]);
    assert!(matches!(server.client().ok(&command), Value::Array(flat) if flat.len() == 6));
}

#[test]
fn the_tokens_of_a_source_are_what_it_adds_to_the_prompt() {
    let (_server, mut client) = indexed();
    let (one, two) = (ask(&mut client, &["K", "1"]), ask(&mut client, &["K", "2"]));
    let more = int(field(&two, "prompt_tokens")) - int(field(&one, "prompt_tokens"));
    assert_eq!(int(field(&array(field(&two, "sources"))[1], "tokens")), more);
}

#[test]
fn filter_minscore_and_ef_choose_the_sources() {
    let (_server, mut client) = indexed();
    assert_eq!(paths(&ask(&mut client, &["FILTER", ".ext == 'md'", "EF", "1000"]), 1), ["queue.md"]);
    let all = ask(&mut client, &[]);
    let second = float(field(&array(field(&all, "sources"))[1], "score")).to_string();
    assert_eq!(paths(&ask(&mut client, &["MINSCORE", &second]), 1), &paths(&all, 1)[..2]);
}

#[test]
fn neighbours_are_one_source_with_what_they_share_once() {
    let (server, mut client) = empty();
    let document = format!("{ANIMALS}\n\n{FRANCE}\n\n{QUEUE}\n");
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", &document]);
    for client in [&mut client, &mut server.client()] {
        let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the capital", "WITHTEXT"]);
        let texts: Vec<&str> = array(&found).iter().map(|hit| text(field(hit, "text"))).collect();
        assert_eq!(texts.iter().filter(|text| text.contains(FRANCE)).count(), 2, "{texts:?}");
        let reply = ask(client, &[]);
        let [source] = array(field(&reply, "sources")) else { panic!("not one: {reply:?}") };
        assert_eq!(ints(field(source, "chunks")), [0, 1]);
        assert_eq!(ints(field(source, "lines")), [1, 5]);
        let best = float(field(
            &array(&client.ok(&cmd!["INFER.SEARCH", "docs", "what is the capital of france"]))[0],
            "score",
        ));
        assert_eq!(float(field(source, "score")).to_bits(), best.to_bits());
        let prompt = text(field(&reply, "prompt"));
        assert!(prompt.contains(&format!("a.txt lines 1-5\n{}\n\nQuestion:", document.trim_end())), "{prompt}");
        assert_eq!(int(field(&reply, "used_chunks")), 2);
    }
}

#[test]
fn a_budget_takes_the_best_that_fit_and_tells_the_others() {
    let (server, mut client) = indexed();
    for client in [&mut client, &mut server.client()] {
        let all = ask(client, &[]);
        let tokens: Vec<i64> =
            array(field(&all, "sources")).iter().map(|source| int(field(source, "tokens"))).collect();
        assert_eq!((int(field(&all, "used_chunks")), int(field(&all, "dropped_chunks"))), (3, 0));
        for used in 1..=3 {
            let enough: i64 = tokens[..used].iter().sum();
            for (budget, expected) in [(enough, used), (enough - 1, used - 1)] {
                if expected == 0 {
                    continue;
                }
                let reply = ask(client, &["BUDGET", &budget.to_string()]);
                assert_eq!(paths(&reply, 1), &paths(&all, 1)[..expected], "{budget} of {tokens:?}");
                assert_eq!(paths(&reply, 0), &paths(&all, 1)[expected..]);
                assert_eq!(int(field(&reply, "used_chunks")), i64::try_from(expected).unwrap());
                assert_eq!(int(field(&reply, "dropped_chunks")), i64::try_from(3 - expected).unwrap());
                let prompt = text(field(&reply, "prompt"));
                for (place, path) in paths(&all, 1).iter().enumerate() {
                    assert_eq!(prompt.contains(path), place < expected);
                }
            }
        }
    }
}

#[test]
fn a_budget_without_room_for_the_best_chunk_is_refused_with_both_numbers() {
    let (_server, mut client) = indexed();
    let needed = int(field(&array(field(&ask(&mut client, &["K", "1"]), "sources"))[0], "tokens"));
    let command =
        |budget: i64| cmd!["INFER.RAG", "docs", "what is the capital of france", "BUDGET", budget, "MAXTOKENS", 2];
    client.ok(&command(needed));
    let refusal = client.refused(&command(needed - 1), "CTXLIMIT", &format!("BUDGET is {} tokens", needed - 1));
    assert!(refusal.text.contains(&format!("the best chunk takes {needed}")), "{}", refusal.text);
}

#[test]
fn more_chunks_than_the_context_holds_are_refused_or_chosen_from() {
    let (server, mut client) = empty();
    let document: Vec<String> = (0..120).map(|number| format!("{QUEUE} {number} {ANIMALS}")).collect();
    for (number, part) in document.iter().enumerate() {
        client.ok(&cmd!["INFER.INGEST", "docs", format!("{number}.txt"), part]);
    }
    for client in [&mut client, &mut server.client()] {
        let refusal =
            client.refused(&cmd!["INFER.RAG", "docs", "the queue", "K", 100], "CTXLIMIT", "with 100 chunks has");
        assert!(refusal.text.contains("add BUDGET AUTO") && refusal.text.contains("holds 2048"), "{}", refusal.text);
        let reply = client.ok(&cmd![
            "INFER.RAG",
            "docs",
            "the queue",
            "K",
            100,
            "BUDGET",
            "AUTO",
            "MAXTOKENS",
            9,
            "WITHSOURCES",
            "WITHSTATS"
        ]);
        let (used, dropped) = (int(field(&reply, "used_chunks")), int(field(&reply, "dropped_chunks")));
        assert!(used > 5 && used + dropped == 100, "{used} and {dropped}");
        let next = array(field(&reply, "sources")).iter().find(|source| int(field(source, "used")) == 0).unwrap();
        let room = 2048 - 9 - int(field(&reply, "prompt_tokens"));
        assert!((0..int(field(next, "tokens"))).contains(&room), "{room} left, {next:?}");
        let refusal = client.refused(
            &cmd!["INFER.RAG", "docs", "the queue", "BUDGET", "AUTO", "MAXTOKENS", 2040],
            "CTXLIMIT",
            "",
        );
        assert!(refusal.text.contains("the room for chunks beside question and MAXTOKENS is 0"), "{}", refusal.text);
    }
}

/// The names of a map's fields, in order.
fn names(reply: &Value) -> Vec<&str> {
    match reply {
        Value::Map(fields) => fields.iter().map(|(name, _)| text(name)).collect(),
        flat => array(flat).iter().step_by(2).map(text).collect(),
    }
}

#[test]
fn without_sources_the_model_is_not_asked() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["INFER.INDEX", "empty", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    for client in [&mut client, &mut server.client()] {
        let answered = ask(client, &["WITHTOKENS", "LOGPROBS", "1"]);
        let asked = |client: &mut Client| client.text(&cmd!["INFO", "infer_throughput"]);
        let prompts =
            |info: &str| info.lines().find(|line| line.starts_with("infer_prompt_tokens")).unwrap().to_owned();
        let before = prompts(&asked(client));
        for nothing in [
            cmd!["INFER.RAG", "empty", "the dog"],
            cmd!["INFER.RAG", "docs", "the dog", "MINSCORE", 1],
            cmd!["INFER.RAG", "docs", "the dog", "FILTER", ".nothing", "BUDGET", "AUTO"],
        ] {
            assert_eq!(client.ok(&nothing), Value::Nil);
        }
        let reply = ask(client, &["MINSCORE", "1", "WITHTOKENS", "LOGPROBS", "1"]);
        assert_eq!(names(&reply), names(&answered));
        assert_eq!((field(&reply, "text"), field(&reply, "prompt")), (&Value::Nil, &Value::Nil));
        assert_eq!(text(field(&reply, "finish_reason")), "no_sources");
        for empty in ["sources", "tokens", "logprobs"] {
            assert_eq!(array(field(&reply, empty)), []);
        }
        for none in ["prompt_tokens", "completion_tokens", "used_chunks", "dropped_chunks", "missing_chunks"] {
            assert_eq!(int(field(&reply, none)), 0, "{none}");
        }
        assert_eq!(prompts(&asked(client)), before);
        assert_eq!(server.requests("chat"), 0);
    }
}

#[test]
fn stats_tell_the_time_of_each_step_and_what_was_missing() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["DEL", "tokens:{docs}:animals.txt:chunk_0"]);
    for client in [&mut client, &mut server.client()] {
        let reply = ask(client, &[]);
        assert!(int(field(&reply, "embed_us")) > 0 && int(field(&reply, "search_us")) > 0, "{reply:?}");
        assert!(int(field(&reply, "copy_us")) >= 0);
        assert!(int(field(&reply, "prepare_us")) >= int(field(&reply, "embed_us")));
        assert_eq!((int(field(&reply, "used_chunks")), int(field(&reply, "missing_chunks"))), (2, 1));
        assert_eq!(paths(&reply, 1), ["france.txt", "queue.md"]);
    }
}

#[test]
fn when_all_tokens_are_gone_there_is_nothing_to_answer_from() {
    let (_server, mut client) = indexed();
    for path in ["animals.txt", "france.txt", "queue.md"] {
        client.ok(&cmd!["DEL", format!("tokens:{{docs}}:{path}:chunk_0")]);
    }
    let reply = ask(&mut client, &[]);
    assert_eq!((field(&reply, "text"), int(field(&reply, "missing_chunks"))), (&Value::Nil, 3));
}

#[test]
fn tokens_that_the_model_does_not_have_are_refused() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["SET", "tokens:{docs}:france.txt:chunk_0", b"\xff\xff\xff\x7f"]);
    client.refused(&cmd!["INFER.RAG", "docs", "the capital of france"], "BADTOKENS", "outside the vocabulary");
}
