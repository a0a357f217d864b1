//! Where the files of models are is for those to see who may load them.

use redis::Value;

use crate::harness::{CHAT, Client, Server, array, cmd, eventually, field, text};

fn user(server: &Server, name: &str, rules: &[&str]) -> Client {
    server.client().ok(&cmd!["ACL", "SETUSER", name, "reset", "on", ">pw", rules]);
    let mut client = server.client();
    client.ok(&cmd!["AUTH", name, "pw"]);
    client
}

/// All that a user is told of the models, as one text.
fn told(client: &mut Client, names: &[&str]) -> String {
    let mut all = format!("{:?}", client.ok(&cmd!["INFER.MODELS"]));
    for name in names {
        for command in [
            cmd!["INFER.MODEL", *name],
            cmd!["INFER.GENERATE", *name, 0, "TEXT", "x", "MAXTOKENS", 1],
            cmd!["INFER.TOKENIZE", *name, "x"],
        ] {
            all += &format!("{:?}", client.call(&command));
        }
    }
    all + &client.text(&cmd!["INFO", "infer_models"])
}

#[test]
fn only_users_who_may_load_models_see_the_folders_of_their_files() {
    let server = Server::start();
    let mut admin = server.client();
    let folder = server.folder().join("secret place");
    std::fs::create_dir(&folder).unwrap();
    let (good, bad) = (folder.join("good.gguf"), folder.join("bad.gguf"));
    std::fs::copy(CHAT.path(), &good).unwrap();
    std::fs::write(&bad, "no model").unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    admin.ok(&cmd!["INFER.LOAD", "good", path(&good), "MMAP"]);
    admin.ok(&cmd!["INFER.LOAD", "bad", path(&bad), "ASYNC"]);
    admin.ok(&cmd!["INFER.LOAD", "none", path(&folder.join("none.gguf")), "ASYNC"]);
    admin.ok(&cmd!["INFER.LOAD", "lora", path(&good), "LORA", path(&bad), 1, "ASYNC"]);
    for name in ["bad", "none", "lora"] {
        let state = |admin: &mut Client| text(field(&admin.ok(&cmd!["INFER.MODEL", name]), "state")).to_owned();
        eventually("the load has failed", || state(&mut admin) == "failed");
    }
    let names = ["good", "bad", "none", "lora", "nobody"];
    let mut ordinary = user(&server, "bob", &["+@all", "-@admin", "~*"]);
    let mut reader = user(&server, "eve", &["-@all", "+infer.models", "+infer.model", "+info"]);
    let mut loader = user(&server, "ann", &["+@all", "-@admin", "+infer.load", "~*"]);
    // In a database and a transaction of their own, too.
    ordinary.ok(&cmd!["SELECT", 3]);
    for client in [&mut ordinary, &mut reader] {
        let told = told(client, &names);
        assert!(!told.contains("secret place"), "{told}");
        assert!(!told.contains(server.folder().to_str().unwrap()), "{told}");
        let models = client.ok(&cmd!["INFER.MODELS"]);
        let paths: Vec<&str> = array(&models).iter().map(|model| text(field(model, "path"))).collect();
        assert_eq!(paths, ["bad.gguf", "good.gguf", "good.gguf", "none.gguf"]);
        let error = client.ok(&cmd!["INFER.MODEL", "bad"]);
        assert!(
            text(field(&error, "error")).starts_with("LOADFAIL this is not a GGUF file: it is a text file"),
            "{error:?}"
        );
    }
    for client in [&mut admin, &mut loader] {
        let model = client.ok(&cmd!["INFER.MODEL", "lora"]);
        assert_eq!((text(field(&model, "path")), text(field(&model, "lora"))), (&*path(&good), &*path(&bad)));
        assert!(text(field(&model, "error")).contains("secret place/bad.gguf"), "{model:?}");
    }
    ordinary.send_together(&[cmd!["MULTI"], cmd!["INFER.MODEL", "good"], cmd!["EXEC"]]);
    let replies: Vec<Value> = (0..3).map(|_| ordinary.receive().unwrap()).collect();
    assert!(!format!("{replies:?}").contains("secret place"), "{replies:?}");
}

#[test]
fn the_folder_of_a_file_that_was_changed_under_a_model_is_not_told() {
    let server = Server::start();
    let mut admin = server.client();
    let path = server.folder().join("mapped.gguf");
    std::fs::copy(CHAT.path(), &path).unwrap();
    admin.ok(&cmd!["INFER.LOAD", "m", path.to_str().unwrap(), "MMAP", "WORKERS", 1, "THREADS", 1]);
    let file = std::fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let generate = cmd!["INFER.GENERATE", "m", 0, "TEXT", "x", "MAXTOKENS", 1];
    let refusal = user(&server, "bob", &["+@all", "-@admin", "~*"]).refused(&generate, "NOMODEL", "(mapped.gguf)");
    assert!(!refusal.text.contains(server.folder().to_str().unwrap()), "{refusal:?}");
}
