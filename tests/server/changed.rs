//! Model files that somebody replaces, writes into or cuts off while the model is loaded and they are mapped.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::harness::{CHAT, Client, EMBED, Model, SLOW, Server, cmd, eventually};

/// A copy of the model in the server's folder, loaded as `m`.
fn loaded(server: &Server, model: &Model, options: &[&str]) -> PathBuf {
    let path = server.folder().join("m.gguf");
    std::fs::copy(model.path(), &path).unwrap();
    let mut command = cmd!["INFER.LOAD", "m", path.to_str().unwrap(), "WORKERS", 1, "THREADS", 1];
    server.client().ok(command.arg(options));
    path
}

fn ask() -> redis::Cmd {
    cmd!["INFER.GENERATE", "m", 0, "TEXT", "the cat", "TEMP", 0, "MAXTOKENS", 20]
}

/// Sets the time of the last change, which on some file systems is a coarse one.
fn set_time(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn assert_refused(client: &mut Client, command: &redis::Cmd, path: &Path) {
    let refusal = client.refused(command, "NOMODEL", "its file was changed on disk while it was mapped into memory");
    // Without the folder, which is for those to know who load files.
    let file = format!("({});", path.file_name().unwrap().to_str().unwrap());
    assert!(refusal.text.contains(&file) && refusal.text.contains("INFER.UNLOAD it"), "{refusal:?}");
}

#[test]
fn a_file_that_another_is_renamed_over_or_that_is_removed_goes_on_as_it_was() {
    let server = Server::start();
    let path = loaded(&server, &CHAT, &["MMAP"]);
    let mut client = server.client();
    let before = client.text(&ask());
    let other = server.folder().join("other.gguf");
    std::fs::copy(SLOW.path(), &other).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(client.text(&ask()), before);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(client.text(&ask()), before);
}

#[test]
fn a_file_that_is_cut_off_is_refused_until_it_is_as_it_was() {
    for (model, command) in [(CHAT, ask()), (EMBED, cmd!["INFER.EMBED", "m", 1, "the cat"])] {
        let mut server = Server::start();
        let path = loaded(&server, &model, &["MMAP"]);
        let mut client = server.client();
        let before = client.ok(&command);
        let (content, time) = (std::fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap());
        for length in [0, 5000] {
            File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
            assert_refused(&mut client, &command, &path);
            assert_refused(&mut client, &command, &path);
        }
        std::fs::write(&path, &content).unwrap();
        set_time(&path, time);
        assert_eq!(client.ok(&command), before);
        File::create(&path).unwrap();
        assert_refused(&mut client, &command, &path);
        client.ok(&cmd!["INFER.UNLOAD", "m"]);
        server.assert_alive();
        loaded(&server, &model, &["MMAP"]);
        assert_eq!(client.ok(&command), before);
    }
}

#[test]
fn a_running_request_ends_when_somebody_writes_into_the_file() {
    let mut server = Server::start();
    let path = loaded(&server, &SLOW, &["MMAP", "CTX", "16384"]);
    let mut client = server.client();
    client.send(&cmd!["INFER.GENERATE", "m", 0, "TEXT", "go on", "MAXTOKENS", 16_000]);
    eventually("the request is accepted", || server.requests("m") > 0);
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::End(-4)).unwrap();
    file.write_all(&[0; 4]).unwrap();
    set_time(&path, SystemTime::now() + Duration::from_secs(10));
    let refusal = client.receive().unwrap_err();
    assert_eq!(refusal.code, "NOMODEL", "{refusal:?}");
    server.assert_alive();
}

#[test]
fn a_model_that_is_not_mapped_does_not_need_its_file() {
    let mut server = Server::start();
    let path = loaded(&server, &CHAT, &[]);
    let mut client = server.client();
    let before = client.text(&ask());
    File::create(&path).unwrap();
    assert_eq!(client.text(&ask()), before);
    server.assert_alive();
}

#[test]
fn a_changed_part_of_a_split_model_is_named() {
    let server = Server::start();
    let shape = redis_infer_gguf::synthetic::LlamaShape::default();
    let parts = redis_infer_gguf::synthetic::write_llama_split(&server.folder().join("m"), &shape, 1, 3).unwrap();
    let mut client = server.client();
    client.ok(&cmd!["INFER.LOAD", "m", parts[0].to_str().unwrap(), "MMAP", "WORKERS", 1, "THREADS", 1]);
    client.ok(&ask());
    File::create(&parts[2]).unwrap();
    assert_refused(&mut client, &ask(), &parts[2]);
}
