//! Models in several files.

use std::path::PathBuf;

use redis_infer_gguf::synthetic::{LlamaShape, write_llama_split};

use crate::harness::{CHAT, Server, cmd};

/// The model of [`crate::harness::CHAT`] in three files in the server's folder.
fn parts(server: &Server) -> Vec<PathBuf> {
    let shape = LlamaShape { ctx_train: 2048, ..LlamaShape::default() };
    write_llama_split(&server.folder().join("m"), &shape, 1, 3).unwrap()
}

#[test]
fn a_split_model_answers_as_the_whole_one() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let first = parts(&server).remove(0);
    for options in [&["CTX", "512"][..], &["MMAP"]] {
        client.ok(&cmd!["INFER.LOAD", "m", first.to_str().unwrap(), options, "WORKERS", 1, "THREADS", 1]);
        let ask = |model: &str| cmd!["INFER.GENERATE", model, 0, "TEXT", "the cat", "TEMP", 0, "MAXTOKENS", 50];
        assert_eq!(client.text(&ask("m")), client.text(&ask("chat")));
        client.ok(&cmd!["INFER.UNLOAD", "m"]);
    }
}

#[test]
fn a_part_that_is_missing_damaged_or_exchanged_is_named() {
    let mut server = Server::start();
    let mut client = server.client();
    let files = parts(&server);
    let load = cmd!["INFER.LOAD", "m", files[0].to_str().unwrap()];
    let contents: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    for (content, part) in [
        (Some(&contents[2][..]), "it is part 3 of 3"),
        (Some(&contents[0][..]), "it is part 1 of 3"),
        (Some(&contents[1][..contents[1].len() - 100]), "truncated"),
        (Some(&b"text"[..]), "it is a text file"),
        (None, "there is no such file"),
    ] {
        match content {
            Some(content) => std::fs::write(&files[1], content).unwrap(),
            None => std::fs::remove_file(&files[1]).unwrap(),
        }
        let refusal = client.refused(&load, "LOADFAIL", part);
        assert!(refusal.text.contains("part 2 of this split model, 'm-00002-of-00003.gguf'"), "{refusal:?}");
    }
    std::fs::write(&files[1], &contents[1]).unwrap();
    let later = cmd!["INFER.LOAD", "m", files[1].to_str().unwrap()];
    client.refused(&later, "LOADFAIL", "");
    client.ok(&load);
    server.assert_alive();
}

#[test]
fn a_later_part_outside_the_folder_of_models_is_refused_for_its_place_and_not_opened() {
    let models = tempfile::TempDir::new().unwrap();
    let mut server = Server::configured(&[], &["--infer.model-dir", models.path().to_str().unwrap()]);
    let shape = LlamaShape { ctx_train: 2048, ..LlamaShape::default() };
    let files = write_llama_split(&models.path().join("m"), &shape, 1, 3).unwrap();
    let mut client = server.client();
    let load = cmd!["INFER.LOAD", "m", files[0].to_str().unwrap()];
    let whole = std::fs::read(&files[2]).unwrap();
    let outside = server.folder().join("outside");
    std::fs::remove_file(&files[2]).unwrap();
    std::os::unix::fs::symlink(&outside, &files[2]).unwrap();
    // Not even whether there is something is told, nor that the part before it is damaged.
    let second = std::fs::read(&files[1]).unwrap();
    for before in [&second[..], b"text"] {
        std::fs::write(&files[1], before).unwrap();
        for content in [None, Some(&b"garbage"[..]), Some(&whole[..])] {
            if let Some(content) = content {
                std::fs::write(&outside, content).unwrap();
            }
            let refusal = client.refused(&load, "LOADFAIL", "there is no file at this path inside infer.model-dir");
            assert!(refusal.text.contains("part 3 of this split model, 'm-00003-of-00003.gguf'"), "{refusal:?}");
            let _ = std::fs::remove_file(&outside);
        }
    }
    std::fs::remove_file(&files[2]).unwrap();
    std::fs::write(&files[2], &whole).unwrap();
    client.refused(&load, "LOADFAIL", "part 2");
    std::fs::write(&files[1], &second).unwrap();
    client.ok(&load);
    server.assert_alive();
}

#[test]
fn a_part_of_another_model_is_refused() {
    let mut server = Server::start();
    let files = parts(&server);
    let shape = LlamaShape { layers: 4, ..LlamaShape::default() };
    let others = write_llama_split(&server.folder().join("other"), &shape, 1, 3).unwrap();
    std::fs::copy(&others[1], &files[1]).unwrap();
    let mut client = server.client();
    client.refused(&cmd!["INFER.LOAD", "m", files[0].to_str().unwrap()], "LOADFAIL", "");
    server.assert_alive();
}
