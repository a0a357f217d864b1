//! The companion program `redis-infer` against a real server.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, field, module, text};

/// Built with the module, into the same folder.
fn program() -> PathBuf {
    module().with_file_name("redis-infer")
}

fn ingest(server: &Server, folder: &std::path::Path, url: Option<&str>) -> Output {
    let url = url.map_or_else(|| format!("redis://127.0.0.1:{}", server.port), str::to_owned);
    Command::new(program()).arg("ingest").arg(folder).args(["--index", "docs", "--url", &url]).output().unwrap()
}

/// A server with the index `docs`, and a folder with three files of which git ignores one.
fn prepared() -> (Server, Client, tempfile::TempDir) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in
        [("cat.txt", "the cat and the dog\n"), ("sub/line.md", "the line of the queue\n"), ("out.log", "the worker\n")]
    {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(folder.path().join(".gitignore"), "*.log\n").unwrap();
    std::fs::create_dir(folder.path().join(".git")).unwrap();
    (server, client, folder)
}

fn paths(client: &mut Client) -> Vec<String> {
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the", "K", 10]);
    let mut paths: Vec<String> = array(&found).iter().map(|hit| text(field(hit, "path")).to_owned()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn a_folder_is_ingested_and_then_kept() {
    let (server, mut client, folder) = prepared();
    for (round, expected) in [("first", "2 added"), ("second", "2 kept")] {
        let output = ingest(&server, folder.path(), None);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{round}: {output:?}");
        assert!(printed.contains(expected), "{round}: {printed}");
        let paths = paths(&mut client);
        assert_eq!(paths.len(), 2);
        assert!(paths[0].ends_with("cat.txt") && paths[1].ends_with("sub/line.md"), "{paths:?}");
    }
}

#[test]
fn a_file_that_changed_is_ingested_again() {
    let (server, mut client, folder) = prepared();
    ingest(&server, folder.path(), None);
    std::fs::write(folder.path().join("cat.txt"), "the capital of france is paris\n").unwrap();
    let output = ingest(&server, folder.path(), None);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 added"), "{output:?}");
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the capital of france", "K", 1, "WITHTEXT"]);
    assert_eq!(text(field(&array(&found)[0], "text")), "the capital of france is paris");
}

#[test]
fn what_goes_wrong_is_said_and_ends_with_status_1() {
    let (server, mut client, folder) = prepared();
    client.ok(&cmd!["DEL", "docs"]);
    let output = ingest(&server, folder.path(), None);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("NOINDEX"), "{output:?}");
    let output = ingest(&server, folder.path(), Some("redis://127.0.0.1:1"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot connect to Redis"), "{output:?}");
    let output = ingest(&server, &folder.path().join("none"), None);
    assert_eq!(output.status.code(), Some(1));
}
