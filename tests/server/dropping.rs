//! INFER.DROPINDEX.

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, crowd, eventually, int, text};

fn create(client: &mut Client, index: &str) {
    client.ok(&cmd!["INFER.INDEX", index, "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 16, "OVERLAP", 0]);
}

/// A server with three documents in each of the indexes `docs` and `other`.
fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    for index in ["docs", "other"] {
        create(&mut client, index);
        for path in ["a.txt", "b.txt", "c/d.txt"] {
            client.ok(&cmd!["INFER.INGEST", index, path, "the cat and the dog\n\nparis is the capital of france"]);
        }
    }
    (server, client)
}

fn keys(client: &mut Client, pattern: &str) -> Vec<String> {
    let mut keys: Vec<String> =
        array(&client.ok(&cmd!["KEYS", pattern])).iter().map(|key| text(key).to_owned()).collect();
    keys.sort();
    keys
}

#[test]
fn a_dropped_index_leaves_nothing_and_others_alone() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    client.ok(&cmd!["INFER.UNLOAD", "embed"]);
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 1]);
    let others = keys(&mut client, "*other*");
    assert_eq!(client.ok(&cmd!["INFER.DROPINDEX", "docs"]), Value::Int(3));
    assert_eq!(keys(&mut client, "*"), others);
    client.refused(&cmd!["INFER.DROPINDEX", "docs"], "NOINDEX", "no index 'docs'");
    client.refused(&cmd!["INFER.SEARCH", "docs", "the cat"], "NOINDEX", "");
}

#[test]
fn the_name_of_a_dropped_index_is_free() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["INFER.DROPINDEX", "docs"]);
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 32]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
    assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", "docs", "the cat"])).len(), 1);
}

#[test]
fn an_index_of_which_only_leftovers_exist_is_dropped_and_not_made_anew_before() {
    let (_server, mut client) = indexed();
    let create = cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"];
    client.ok(&cmd!["DEL", "docs"]);
    client.refused(&create, "ERR", "there are keys of an earlier index 'docs'; INFER.DROPINDEX removes them");
    assert_eq!(client.ok(&cmd!["INFER.DROPINDEX", "docs"]), Value::Int(3));
    assert_eq!(keys(&mut client, "*{docs}*").len(), 0);
    client.ok(&create);
}

#[test]
fn a_drop_that_was_cut_off_is_finished_by_the_next() {
    let (_server, mut client) = indexed();
    // As a crash leaves it: the settings are put aside, and the first document is gone.
    client.ok(&cmd!["RENAME", "docs", "drop:{docs}"]);
    client.ok(&cmd!["HSET", "drop:{docs}", "generation", 1]);
    client.ok(&cmd!["DEL", "doc:{docs}:a.txt", "tokens:{docs}:a.txt:chunk_0", "tokens:{docs}:a.txt:chunk_1"]);
    client.ok(&cmd!["SREM", "paths:{docs}", "a.txt"]);
    client.refused(&cmd!["INFER.INGEST", "docs", "a.txt", "text"], "NOINDEX", "");
    client.refused(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"], "ERR", "INFER.DROPINDEX");
    assert_eq!(client.ok(&cmd!["INFER.DROPINDEX", "docs"]), Value::Int(2));
    assert_eq!(keys(&mut client, "*docs*").len(), 0);
}

#[test]
fn a_document_whose_hash_is_gone_leaves_no_tokens_behind() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["DEL", "doc:{docs}:a.txt"]);
    client.ok(&cmd!["INFER.DROPINDEX", "docs"]);
    assert_eq!(keys(&mut client, "*docs*").len(), 0);
}

#[test]
fn a_key_of_another_type_in_the_place_of_a_document_stays_and_holds_nothing_up() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["SET", "doc:{docs}:a.txt", "mine"]);
    client.ok(&cmd!["INFER.DROPINDEX", "docs"]);
    assert_eq!(keys(&mut client, "*docs*").len(), 1);
    assert_eq!(client.text(&cmd!["GET", "doc:{docs}:a.txt"]), "mine");
}

#[test]
fn a_client_that_leaves_does_not_keep_the_index() {
    let (server, mut client) = indexed();
    for number in 0..300 {
        client.ok(&cmd!["INFER.INGEST", "docs", format!("{number}.txt"), "the cat and the dog"]);
    }
    let mut leaving = server.client();
    leaving.send(&cmd!["INFER.DROPINDEX", "docs"]);
    drop(leaving);
    eventually("the index is gone", || keys(&mut client, "*docs*").is_empty());
}

#[test]
fn what_a_user_may_not_remove_stays_and_nothing_is_lost() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["ACL", "SETUSER", "bob", "on", ">pw", "+@all", "~docs", "~drop:{docs}", "~vec:{docs}*"]);
    let mut bob = server.client();
    bob.ok(&cmd!["AUTH", "bob", "pw"]);
    bob.refused(&cmd!["INFER.DROPINDEX", "docs"], "NOPERM", "");
    assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 10])).len(), 3);
}

#[test]
fn a_large_vector_set_is_freed_without_holding_up_the_server_and_whoever_searches_it() {
    let (server, mut client) = indexed();
    let freed = |client: &mut Client| client.info("infer_sets_freed_apart");
    client.ok(&cmd!["INFER.DROPINDEX", "other"]);
    assert_eq!(freed(&mut client), 0, "a small one is not worth a thread");

    for round in 1..=5 {
        crowd(&mut client, "vec:{docs}", 1500);
        let mut searching: Vec<Client> = (0..8).map(|_| server.client()).collect();
        for searcher in &mut searching {
            searcher.send(&cmd!["VSIM", "vec:{docs}", "ELE", "crowd 5", "COUNT", 1500, "EF", 1500]);
        }
        assert_eq!(client.ok(&cmd!["INFER.DROPINDEX", "docs"]), Value::Int(3));
        assert_eq!(keys(&mut client, "*docs*").len(), 0);
        for searcher in &mut searching {
            // The set was still there, or it was gone already.
            searcher.receive().unwrap();
        }
        eventually("the set is freed by a thread", || freed(&mut server.client()) == round);
        create(&mut client, "docs");
        for path in ["a.txt", "b.txt", "c/d.txt"] {
            client.ok(&cmd!["INFER.INGEST", "docs", path, "the cat and the dog\n\nparis is the capital of france"]);
        }
    }
}

#[test]
fn a_document_that_comes_while_the_index_goes_is_noindex() {
    let (server, mut client) = indexed();
    let mut writer = server.client();
    let paragraphs: Vec<String> = (0..1000).map(|number| format!("the cat and the dog {number}")).collect();
    writer.send(&cmd!["INFER.INGEST", "docs", "big.txt", paragraphs.join("\n\n")]);
    eventually("the document is being embedded", || server.requests("embed") == 1);
    client.ok(&cmd!["INFER.DROPINDEX", "docs"]);
    assert_eq!(writer.receive().unwrap_err().code, "NOINDEX");
    assert_eq!(keys(&mut client, "*docs*").len(), 0);
}

#[test]
fn a_drop_is_refused_in_transactions_and_on_keys_that_are_no_index() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["MULTI"]);
    client.ok(&cmd!["INFER.DROPINDEX", "docs"]);
    let reply = client.call(&cmd!["EXEC"]);
    assert!(format!("{reply:?}").contains("INFER.DROPINDEX"), "{reply:?}");
    client.ok(&cmd!["HSET", "hash", "field", "value"]);
    client.refused(&cmd!["INFER.DROPINDEX", "hash"], "NOINDEX", "is a hash but not an index");
    assert_eq!(int(&client.ok(&cmd!["EXISTS", "hash", "docs"])), 2);
}
