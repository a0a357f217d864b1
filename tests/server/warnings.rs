//! Warnings about the server itself, one line each.

use super::servers::server;
use crate::harness::{CHAT, EMBED, Server, cmd, eventually, paragraph_index};

const PREAMBLE: &str = "aof-use-rdb-preamble is off";
const FIXES: &str = "lacks fixes of Redis itself for modules that block clients";

fn count(server: &Server, line: &str) -> usize {
    server.log().matches(line).count()
}

#[test]
fn the_module_warns_at_start_when_redis_cannot_write_vector_sets_into_the_append_only_file() {
    let server = Server::configured(&[CHAT, EMBED], &["--aof-use-rdb-preamble", "no"]);
    assert_eq!(count(&server, PREAMBLE), 1);
    assert!(server.log().contains("CONFIG SET aof-use-rdb-preamble yes"));
    // What it warns of is still so.
    let mut client = server.client();
    client.ok(&paragraph_index("docs"));
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
    let mut rewritten = |status: &str| {
        client.ok(&cmd!["BGREWRITEAOF"]);
        let status = format!("aof_last_bgrewrite_status:{status}\r");
        eventually("the rewrite has ended as expected", || {
            let info = client.text(&cmd!["INFO", "persistence"]);
            info.contains("aof_rewrite_in_progress:0\r") && info.contains(&status)
        });
    };
    rewritten("err");
    server.client().ok(&cmd!["CONFIG", "SET", "aof-use-rdb-preamble", "yes"]);
    rewritten("ok");
    assert_eq!(count(&server, PREAMBLE), 1);
}

#[test]
fn the_module_warns_when_the_setting_of_the_append_only_file_changes_and_not_for_others() {
    let server = Server::start();
    let mut client = server.client();
    assert_eq!(count(&server, PREAMBLE), 0);
    client.ok(&cmd!["CONFIG", "SET", "aof-use-rdb-preamble", "no", "maxmemory-samples", 7]);
    assert_eq!(count(&server, PREAMBLE), 1);
    client.ok(&cmd!["CONFIG", "SET", "maxmemory-samples", 6]);
    assert_eq!(count(&server, PREAMBLE), 1);
    client.ok(&cmd!["CONFIG", "SET", "aof-use-rdb-preamble", "yes"]);
    client.ok(&cmd!["CONFIG", "SET", "aof-use-rdb-preamble", "no"]);
    assert_eq!(count(&server, PREAMBLE), 2);
}

#[test]
fn a_redis_without_the_fixes_for_modules_that_block_clients_is_warned_of_once() {
    let server = Server::start();
    assert_eq!(count(&server, FIXES), 1);
    assert!(server.log().contains("run 8.8.2, 8.10.1 or newer"));
}

#[test]
fn redis_7_4_is_warned_of_as_well_but_not_of_vector_sets() {
    let Some(server) = server("REDIS_INFER_REDIS74_SERVER") else { return };
    assert_eq!(count(&server, FIXES), 1);
    server.client().ok(&cmd!["CONFIG", "SET", "aof-use-rdb-preamble", "no"]);
    assert_eq!(count(&server, PREAMBLE), 0);
}

#[test]
fn valkey_is_not_judged_by_versions_of_redis() {
    let Some(server) = server("REDIS_INFER_VALKEY_SERVER") else { return };
    assert_eq!((count(&server, "lacks fixes"), count(&server, "lacks a fix")), (0, 0));
    server.client().ok(&cmd!["CONFIG", "SET", "aof-use-rdb-preamble", "no"]);
    assert_eq!(count(&server, PREAMBLE), 0);
}
