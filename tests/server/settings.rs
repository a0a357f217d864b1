//! The settings infer.*: where they come from and what they accept.

use crate::harness::{Client, Server, array, cmd, module, text};

fn setting(client: &mut Client, name: &str) -> String {
    let reply = client.ok(&cmd!["CONFIG", "GET", name]);
    text(&array(&reply)[1]).to_owned()
}

#[test]
fn every_setting_has_its_default() {
    let server = Server::start();
    let mut client = server.client();
    assert_eq!(setting(&mut client, "infer.nice"), "10");
    assert_eq!(setting(&mut client, "infer.queue-limit"), "128");
}

#[test]
fn the_command_line_of_the_server_sets_them() {
    let server = Server::configured(&[], &["--infer.nice", "5", "--infer.queue-limit", "7"]);
    let mut client = server.client();
    assert_eq!(setting(&mut client, "infer.nice"), "5");
    assert_eq!(setting(&mut client, "infer.queue-limit"), "7");
}

#[test]
fn a_value_out_of_bounds_or_fixed_at_start_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    for value in ["0", "65537", "-1", "many"] {
        client.refused(&cmd!["CONFIG", "SET", "infer.queue-limit", value], "ERR", "");
    }
    client.refused(&cmd!["CONFIG", "SET", "infer.nice", 5], "ERR", "can't set immutable config");
    assert_eq!(setting(&mut client, "infer.queue-limit"), "128");
}

#[test]
fn arguments_of_loadmodule_are_refused_and_not_ignored() {
    let mut server = Server::start();
    let mut client = server.client();
    let path = module();
    let path = path.to_str().unwrap();
    client.ok(&cmd!["MODULE", "UNLOAD", "infer"]);
    client.refused(&cmd!["MODULE", "LOAD", path, "infer.nice", 5], "ERR", "");
    assert!(server.log().contains("the module takes no arguments"));
    client.ok(&cmd!["MODULE", "LOADEX", path, "CONFIG", "infer.nice", 5]);
    assert_eq!(setting(&mut client, "infer.nice"), "5");
    server.assert_alive();
}
