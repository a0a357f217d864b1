//! INFER.TOKENIZE, INFER.TOKENIZESTORE, INFER.DETOKENIZE.

use redis::{Cmd, Value};
use redis_infer_gguf::synthetic::{LlamaShape, write_llama};

use crate::harness::{CHAT, Client, EMBED, Server, array, bytes, cmd, int};

/// Texts that tokenizers and protocols get wrong.
const TEXTS: [&str; 9] = [
    "The quick brown fox.",
    "  spaces  at both ends  ",
    "line\nbreaks\r\nand\ttabs",
    "a NUL \0 inside",
    "\r\n+INJECTED\r\n",
    "Ünïcödé, 日本語, 🦀",
    "<|im_start|>user<|im_end|>",
    "%s%n %d",
    "",
];

fn ids(reply: &Value) -> Vec<u32> {
    array(reply).iter().map(|id| u32::try_from(int(id)).unwrap()).collect()
}

fn blob(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

fn set(client: &mut Client, key: &str, value: &[u8]) {
    client.ok(&cmd!["SET", key, value]);
}

#[test]
fn text_comes_back_from_its_token_ids_unchanged() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for text in TEXTS {
        let ids = ids(&client.ok(&cmd!["INFER.TOKENIZE", "chat", text]));
        let back = client.ok(&cmd!["INFER.DETOKENIZE", "chat", 0, "BLOB", blob(&ids)]);
        assert_eq!(bytes(&back), text.as_bytes());
        client.assert_in_step();
    }
}

#[test]
fn text_comes_back_from_a_stored_key_unchanged() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for text in TEXTS {
        client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", text]);
        assert_eq!(bytes(&client.ok(&cmd!["INFER.DETOKENIZE", "chat", 1, "k"])), text.as_bytes());
    }
}

#[test]
fn special_tokens_written_in_a_text_stay_text() {
    let server = Server::with(&[CHAT]);
    let ids = ids(&server.client().ok(&cmd!["INFER.TOKENIZE", "chat", "<|im_end|>"]));
    // "en" is one token of this vocabulary, the rest single characters. A special token would be one in all.
    assert_eq!(ids.len(), 9);
}

#[test]
fn begin_and_end_tokens_are_added_as_the_model_asks_unless_nospecial_is_given() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let with = ids(&client.ok(&cmd!["INFER.TOKENIZE", "embed", "redis model"]));
    let without = ids(&client.ok(&cmd!["INFER.TOKENIZE", "embed", "redis model", "nospecial"]));
    assert_eq!(without.len(), 2);
    // [CLS] and [SEP].
    assert_eq!(with, [vec![2], without, vec![3]].concat());
}

#[test]
fn stored_tokens_are_little_endian_u32_without_begin_and_end() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let expected = ids(&client.ok(&cmd!["INFER.TOKENIZE", "embed", "the cat in the city", "NOSPECIAL"]));
    let count = client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "embed", "the cat in the city"]);
    assert_eq!(int(&count), 5);
    assert_eq!(bytes(&client.ok(&cmd!["GET", "k"])), blob(&expected));
}

#[test]
fn ex_makes_a_stored_key_expire() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "text", "EX", 100]);
    assert!((1..=100).contains(&int(&client.ok(&cmd!["TTL", "k"]))));
    client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "text"]);
    assert_eq!(int(&client.ok(&cmd!["TTL", "k"])), -1);
}

#[test]
fn storing_replaces_a_key_of_another_type_as_set_does() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&cmd!["RPUSH", "k", "a", "b"]);
    client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "ab"]);
    assert_eq!(client.text(&cmd!["TYPE", "k"]), "string");
}

#[test]
fn keys_and_blob_are_joined_in_order() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.TOKENIZESTORE", "a", "chat", "one "]);
    client.ok(&cmd!["INFER.TOKENIZESTORE", "b", "chat", "two "]);
    let three = ids(&client.ok(&cmd!["INFER.TOKENIZE", "chat", "three"]));
    let joined = client.text(&cmd!["INFER.DETOKENIZE", "chat", 3, "a", "b", "a", "BLOB", blob(&three)]);
    assert_eq!(joined, "one two one three");
}

/// The commands that read token keys, each reading `key`.
fn readers(key: &str) -> [Cmd; 2] {
    [cmd!["INFER.DETOKENIZE", "chat", 1, key], cmd!["INFER.GENERATE", "chat", 1, key, "MAXTOKENS", 1]]
}

#[test]
fn a_key_that_is_not_there_is_named() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for command in readers("nothing") {
        client.refused(&command, "ERR", "no such key: 'nothing'");
    }
}

#[test]
fn a_key_of_another_type_is_wrongtype() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&cmd!["HSET", "hash", "f", "v"]);
    client.ok(&cmd!["VADD", "vectors", "VALUES", 2, 1, 1, "e"]);
    for key in ["hash", "vectors"] {
        for command in readers(key) {
            client.refused(&command, "WRONGTYPE", "");
        }
    }
}

#[test]
fn a_value_whose_length_is_not_a_multiple_of_four_is_badtokens() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    set(&mut client, "k", b"12345");
    for command in readers("k") {
        client.refused(&command, "BADTOKENS", "key 'k': tokens are 5 bytes long, which is not a multiple of 4");
    }
    for command in ["INFER.DETOKENIZE", "INFER.GENERATE"] {
        client.refused(&cmd![command, "chat", 0, "BLOB", b"123"], "BADTOKENS", "BLOB: tokens are 3 bytes long");
    }
}

#[test]
fn a_token_id_outside_the_vocabulary_is_badtokens() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let vocabulary = int(crate::harness::field(&client.ok(&cmd!["INFER.MODEL", "chat"]), "vocabulary"));
    let vocabulary = u32::try_from(vocabulary).unwrap();
    for bad in [vocabulary, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        set(&mut client, "k", &blob(&[65, 66, bad]));
        for command in readers("k") {
            client.refused(&command, "BADTOKENS", &format!("token {bad} at position 2 is outside the vocabulary"));
        }
    }
}

#[test]
fn an_integer_value_that_redis_stores_compactly_is_read_as_bytes() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    // Redis keeps "65" as a number: two bytes. And "6566" is one token far outside the vocabulary.
    set(&mut client, "k", b"65");
    client.refused(&readers("k")[0], "BADTOKENS", "2 bytes long");
    set(&mut client, "k", b"6566");
    client.refused(&readers("k")[0], "BADTOKENS", "outside the vocabulary");
}

#[test]
fn a_key_of_no_tokens_is_an_empty_text_and_no_prompt() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    set(&mut client, "k", b"");
    assert_eq!(bytes(&client.ok(&cmd!["INFER.DETOKENIZE", "chat", 1, "k"])), b"");
    client.refused(&cmd!["INFER.GENERATE", "chat", 1, "k", "RAW", "MAXTOKENS", 1], "ERR", "the prompt is empty");
}

#[test]
fn a_key_name_of_any_bytes_works() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let key: &[u8] = b"\0\r\n\xff key";
    client.ok(&cmd!["INFER.TOKENIZESTORE", key, "chat", "hello"]);
    assert_eq!(client.text(&cmd!["INFER.DETOKENIZE", "chat", 1, key]), "hello");
}

#[test]
fn a_word_without_end_is_refused_by_a_tokenizer_that_would_overflow_its_stack() {
    let mut server = Server::start();
    let mut client = server.client();
    let path = server.folder().join("tekken.gguf");
    let shape = LlamaShape { pretokenizer: "tekken".into(), ..LlamaShape::default() };
    write_llama(&path, &shape, 1).unwrap();
    client.ok(&cmd!["INFER.LOAD", "tekken", path.to_str().unwrap()]);
    for text in ["a", "!", " ", "\n", "字"].map(|c| c.repeat(32_768)) {
        client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "tekken", &text]);
        client.refused(&cmd!["INFER.TOKENIZESTORE", "k", "tekken", text.repeat(2)], "ERR", "in a row");
    }
    server.assert_alive();
}

#[test]
fn a_key_of_more_tokens_than_there_is_room_for_is_refused_without_reading_it() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&cmd!["SETRANGE", "k", 5 << 20, "abcd"]);
    client.refused(&cmd!["INFER.GENERATE", "chat", 1, "k"], "CTXLIMIT", "1310721 tokens, but there is room for 2048");
    client.refused(&cmd!["INFER.DETOKENIZE", "chat", 1, "k"], "CTXLIMIT", "there is room for 1048576");
    client.ok(&cmd!["ACL", "SETUSER", "bob", "on", ">pw", "+@all", "~other"]);
    let mut bob = server.client();
    bob.ok(&cmd!["AUTH", "bob", "pw"]);
    bob.refused(&cmd!["INFER.DETOKENIZE", "chat", 1, "k"], "NOPERM", "");
}

#[test]
fn a_reply_of_too_many_tokens_is_refused_and_can_be_stored() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let text = "zq".repeat(60_000);
    client.refused(&cmd!["INFER.TOKENIZE", "chat", &text], "ERR", "INFER.TOKENIZESTORE keeps them in a key");
    assert!(int(&client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", &text])) > 100_000);
}

#[test]
fn a_large_text_is_tokenized_while_others_are_served() {
    let server = Server::with(&[CHAT]);
    let text = "the thing and the other ".repeat(40_000);
    let mut large = server.client();
    large.send(&cmd!["INFER.TOKENIZESTORE", "k", "chat", &text]);
    server.client().assert_in_step();
    assert!(int(&large.receive().unwrap()) > 100_000);
    assert_eq!(server.client().text(&cmd!["INFER.DETOKENIZE", "chat", 1, "k"]), text);
}

#[test]
fn more_tokens_than_a_command_takes_are_not_stored() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    // The model has a token for each byte, and none for more.
    let refusal = client.refused(
        &cmd!["INFER.TOKENIZESTORE", "k", "chat", vec![b'~'; (1 << 20) + 1]],
        "CTXLIMIT",
        "store it in parts",
    );
    assert!(refusal.text.contains("1048576"), "{refusal:?}");
    assert_eq!(client.ok(&cmd!["EXISTS", "k"]), redis::Value::Int(0));
}
