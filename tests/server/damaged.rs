//! Model files with damaged headers: each is refused or works, and the server lives.

use std::path::{Path, PathBuf};

use fastrand::Rng;
use redis_infer_gguf::check_file;

use crate::harness::{CHAT, Client, EMBED, Model, Refusal, Server, cmd, field, report, seed, text};

/// Damaged copies of each model; with `REDIS_INFER_DAMAGED` in the environment as many as it says.
const COPIES: usize = 1000;

/// Numbers at the borders of types and tables.
const BORDERS: [u64; 14] =
    [0, 1, 2, 3, 7, 255, 256, 65_535, 1 << 31, u32::MAX as u64, 1 << 32, 1 << 62, i64::MAX as u64, u64::MAX];

/// A copy of `whole` with something wrong in its first `header` bytes.
fn damaged(rng: &mut Rng, whole: &[u8], header: usize, keys: &[usize]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..rng.usize(1..4) {
        // The value of a setting, the type of a value, or anything.
        let place = match rng.u8(0..4) {
            0 | 1 => rng.choice(keys).copied().unwrap_or(0) + rng.usize(0..9),
            _ => rng.usize(0..header),
        };
        let end = header.min(bytes.len());
        match rng.u8(0..6) {
            0 | 1 => bytes[place.min(end - 1)] = rng.u8(..),
            2 => bytes[place.min(end - 1)] ^= 1 << rng.u8(0..8),
            3 | 4 => {
                let width = *rng.choice([1, 4, 8].iter()).unwrap();
                let number = rng.choice(BORDERS).unwrap().to_le_bytes();
                let place = place.min(end - 8);
                bytes[place..place + width].copy_from_slice(&number[..width]);
            }
            _ => {
                // What follows moves, which the alignment of tensors rarely survives: so as much is put in elsewhere.
                let count = rng.usize(1..32).min(end - place.min(end - 1));
                let from = place.min(end - count);
                let moved: Vec<u8> = bytes.drain(from..from + count).collect();
                let to = rng.usize(0..header - count);
                bytes.splice(to..to, moved);
            }
        }
    }
    bytes
}

/// Where the values of settings begin: behind a key that contains a dot, and the four bytes of its type.
fn places_of_values(header: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    for place in 24..header.len().saturating_sub(80) {
        let length = usize::from(header[place]);
        let is_length = (4..64).contains(&length) && header[place + 1..place + 8] == [0; 7];
        if is_length {
            let key = &header[place + 8..place + 8 + length];
            if key.contains(&b'.') && key.iter().all(|byte| byte.is_ascii_lowercase() || b"._".contains(byte)) {
                places.push(place + 8 + length);
            }
        }
    }
    places
}

/// Loads the file and uses whatever came of it. `None` when the connection was lost.
fn tried(client: &mut Client, path: &Path) -> Option<bool> {
    let mut lost = false;
    let mut call = |command: &redis::Cmd| {
        let reply = client.call(command);
        lost |= reply.as_ref().is_err_and(|refusal| refusal.code == Refusal::LOST);
        match &reply {
            // No header tells that no number will come out of the weights, or all that llama.cpp asserts.
            Err(refusal)
                if refusal.code == "INTERNAL"
                    && !["that is no number", "cannot compute this model", "llama_tokenize failed"]
                        .iter()
                        .any(|known| refusal.text.contains(known)) =>
            {
                panic!("{}", refusal.text)
            }
            _ => reply.is_ok(),
        }
    };
    let small = ["WORKERS", "1", "THREADS", "1"];
    let loaded = call(cmd!["INFER.LOAD", "m", path.to_str().unwrap()].arg(&small));
    if loaded {
        call(&cmd!["INFER.TOKENIZE", "m", "the cat sat on the mat, \u{1f980} naïve 123"]);
        call(&cmd!["INFER.GENERATE", "m", 0, "TEXT", "the cat", "MAXTOKENS", 3]);
        call(&cmd!["INFER.GENERATE", "m", 0, "TEXT", "the cat", "RAW", "MAXTOKENS", 3]);
        call(&cmd!["INFER.EMBED", "m", 2, "the cat", "and another text"]);
        call(&cmd!["INFER.DETOKENIZE", "m", 0, "BLOB", b"\x05\0\0\0\x06\0\0\0"]);
        call(&cmd!["INFER.UNLOAD", "m"]);
    }
    (!lost).then_some(loaded)
}

fn try_damaged(model: &Model) {
    let seed = seed();
    let copies = std::env::var("REDIS_INFER_DAMAGED").map_or(COPIES, |count| count.parse().unwrap());
    let mut server = Server::start();
    let whole = std::fs::read(model.path()).unwrap();
    let header = usize::try_from(check_file(model.path()).unwrap().data_offset).unwrap();
    let keys = places_of_values(&whole[..header]);
    assert!(keys.len() > 10, "no settings found");
    let path = server.folder().join("damaged.gguf");
    let mut client = server.client();
    let mut works = 0;
    for copy in 0..copies {
        let mut rng = Rng::with_seed(seed.wrapping_add(copy as u64));
        std::fs::write(&path, damaged(&mut rng, &whole, header, &keys)).unwrap();
        let loaded = tried(&mut client, &path).unwrap_or_else(|| {
            let kept =
                std::env::temp_dir().join(format!("redis-infer-damaged-{}.gguf", seed.wrapping_add(copy as u64)));
            std::fs::copy(&path, &kept).unwrap();
            panic!("the server did not survive {}", kept.display());
        });
        works += usize::from(loaded);
    }
    report(&format!("{}: {works} of {copies} damaged files work, seed {seed}", model.name));
    server.assert_alive();
}

#[test]
fn damaged_files_of_a_generator_are_refused_or_work() {
    try_damaged(&CHAT);
}

#[test]
fn damaged_files_of_an_encoder_are_refused_or_work() {
    try_damaged(&EMBED);
}

/// The file of [`EMBED`] with one more setting, in the server's folder.
fn with_setting(server: &Server, key: &str, value: u32) -> PathBuf {
    let whole = std::fs::read(EMBED.path()).unwrap();
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut pairs = [&text(key)[..], &4_u32.to_le_bytes(), &value.to_le_bytes()].concat();
    // The tensors behind the header stay aligned to 32 bytes.
    let (name, kind) = (text("test.padding"), 8_u32.to_le_bytes());
    let padding = 32 - (pairs.len() + name.len() + kind.len() + 8) % 32;
    pairs.extend([&name[..], &kind, &text(&".".repeat(padding))].concat());
    let count = u64::from_le_bytes(whole[16..24].try_into().unwrap()) + 2;
    let path = server.folder().join("asserts.gguf");
    std::fs::write(&path, [&whole[..16], &count.to_le_bytes(), &pairs, &whole[24..]].concat()).unwrap();
    path
}

#[test]
fn a_failed_assertion_of_llama_cpp_while_a_model_loads_is_an_error() {
    let mut server = Server::start();
    let mut client = server.client();
    let path = with_setting(&server, "bert.attention.key_length", 5);
    let load = cmd!["INFER.LOAD", "m", path.to_str().unwrap(), "WORKERS", 1, "THREADS", 1];
    for _ in 0..3 {
        let refusal = client.refused(&load, "LOADFAIL", "llama.cpp cannot compute this model");
        assert!(refusal.text.contains("GGML_ASSERT(n_embd_head == hparams.n_embd_head_k())"), "{refusal:?}");
    }
    client.ok(&EMBED.load_as("m"));
    server.assert_alive();
}

#[test]
fn a_model_that_llama_cpp_cannot_compute_at_all_has_failed_after_the_first_request_and_says_so() {
    let mut server = Server::with(&[EMBED]);
    let mut client = server.client();
    let path = with_setting(&server, "bert.embedding_length_out", 1023);
    client.ok(&cmd!["INFER.LOAD", "m", path.to_str().unwrap(), "WORKERS", 1, "THREADS", 1]);
    let embed = cmd!["INFER.EMBED", "m", 1, "text"];
    let refusal = client.refused(&embed, "WORKERFAIL", "send the request again");
    assert!(refusal.text.contains("out of bounds"), "{refusal:?}");
    for _ in 0..3 {
        let refusal = client.refused(&embed, "NOMODEL", "model 'm' has failed");
        assert!(refusal.text.contains("out of bounds") && refusal.text.contains("INFER.UNLOAD it"), "{refusal:?}");
    }
    assert_eq!(text(field(&client.ok(&cmd!["INFER.MODEL", "m"]), "state")), "failed");
    client.ok(&cmd!["INFER.EMBED", "embed", 1, "text"]);
    client.ok(&cmd!["INFER.UNLOAD", "m"]);
    server.assert_alive();
}
