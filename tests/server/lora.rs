//! `INFER.LOAD … LORA`: adapters that fit a model change its answers as training meant it, others are refused.

use std::path::{Path, PathBuf};

use redis::{Cmd, Value};
use redis_infer_gguf::synthetic::{LlamaShape, LoraShape, write_lora};
use redis_infer_gguf::{Header, TensorData, Writer, check_adapter, check_file};

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, field, float, int, text};

/// The shape of the model of [`CHAT`].
fn shape() -> LlamaShape {
    LlamaShape { ctx_train: 2048, ..LlamaShape::default() }
}

fn vocab() -> u32 {
    let header = check_file(CHAT.path()).unwrap();
    u32::try_from(header.tensor("output.weight").unwrap().dims[1]).unwrap()
}

/// An adapter for [`CHAT`] in the server's folder.
fn adapter(server: &Server) -> PathBuf {
    let path = server.folder().join("lora.gguf");
    write_lora(&path, &shape(), vocab(), &LoraShape { embedding: true, ..LoraShape::default() }, 9).unwrap();
    path
}

fn load_with(lora: &Path, scale: impl ToString) -> Cmd {
    let mut command = CHAT.load_as("m");
    command.arg("LORA").arg(lora.to_str().unwrap()).arg(scale.to_string());
    command
}

/// The likeliest tokens after each of some prompts, with their logarithms of probability.
fn distributions(client: &mut Client, model: &str) -> Vec<Vec<(i64, f64)>> {
    let ask = |prompt| {
        let options = ["RAW", "MAXTOKENS", "1", "TEMP", "0", "LOGPROBS", "20"];
        let reply = client.ok(&cmd!["INFER.GENERATE", model, 0, "TEXT", prompt, &options]);
        let top = array(field(&array(field(&reply, "logprobs"))[0], "top")).iter();
        top.map(|pair| (int(&array(pair)[0]), float(&array(pair)[1]))).collect()
    };
    ["the cat", "and another thing", "x", "one two three four five six seven"].map(ask).into()
}

/// The largest difference between the two at a place among the likeliest tokens; infinite when another one is first.
fn distance(one: &[Vec<(i64, f64)>], other: &[Vec<(i64, f64)>]) -> f64 {
    let first = |of: &[Vec<(i64, f64)>]| of.iter().map(|top| top[0].0).collect::<Vec<i64>>();
    if first(one) != first(other) {
        return f64::INFINITY;
    }
    // Two that are as likely as each other may stand in either order.
    let pairs = one.iter().flatten().zip(other.iter().flatten());
    pairs.map(|((_, a), (_, b))| (a - b).abs()).fold(0.0, f64::max)
}

/// Where the floats of a tensor begin in the bytes of its file, and their number.
fn place(header: &Header, name: &str) -> Option<(usize, usize)> {
    let tensor = header.tensor(name)?;
    let start = usize::try_from(header.data_offset + tensor.offset).unwrap();
    Some((start, usize::try_from(tensor.dims.iter().product::<u64>()).unwrap()))
}

fn floats(bytes: &[u8], (start, count): (usize, usize)) -> Vec<f32> {
    bytes[start..start + 4 * count].as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect()
}

/// The model with the change of the adapter added to its weights: W + scale * alpha / rank * B * A.
fn merged(lora: &Path, scale: f32) -> Vec<u8> {
    let header = check_file(CHAT.path()).unwrap();
    let adapter = check_adapter(lora, &header).unwrap().header;
    let (mut bytes, change) = (std::fs::read(CHAT.path()).unwrap(), std::fs::read(lora).unwrap());
    let shape = LoraShape::default();
    let (rank, factor) = (shape.rank as usize, scale * shape.alpha / shape.rank as f32);
    for tensor in &header.tensors {
        let half = |suffix: &str| place(&adapter, &format!("{}.{suffix}", tensor.name));
        let (Some(a), Some(b)) = (half("lora_a"), half("lora_b")) else { continue };
        let (a, b) = (floats(&change, a), floats(&change, b));
        let (start, count) = place(&header, &tensor.name).unwrap();
        let mut weights = floats(&bytes, (start, count));
        let row = usize::try_from(tensor.dims[0]).unwrap();
        for (at, weight) in weights.iter_mut().enumerate() {
            let (output, input) = (at / row, at % row);
            let product = |k: usize| {
                if tensor.name == "token_embd.weight" {
                    a[output * rank + k] * b[input * rank + k]
                } else {
                    b[output * rank + k] * a[k * row + input]
                }
            };
            *weight += factor * (0..rank).map(product).sum::<f32>();
        }
        let new: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        bytes[start..start + new.len()].copy_from_slice(&new);
    }
    bytes
}

#[test]
fn an_adapter_answers_as_a_model_into_whose_weights_it_was_merged() {
    let server = Server::with(&[CHAT]);
    let (lora, merged_path) = (adapter(&server), server.folder().join("merged.gguf"));
    let mut client = server.client();
    let base = distributions(&mut client, "chat");
    for scale in [1.0, 0.5, -1.0] {
        std::fs::write(&merged_path, merged(&lora, scale)).unwrap();
        client.ok(&load_with(&lora, scale));
        client.ok(&cmd!["INFER.LOAD", "merged", merged_path.to_str().unwrap(), "WORKERS", 1, "THREADS", 1]);
        let (adapted, merged) = (distributions(&mut client, "m"), distributions(&mut client, "merged"));
        // Flash attention adds values up in 16 bits, so that the last digits of the weights show.
        assert!(distance(&adapted, &merged) < 1e-2, "{scale}: {adapted:?}\n{merged:?}");
        assert!(distance(&adapted, &base) > 0.1, "{scale}: {adapted:?}\n{base:?}");
        client.ok(&cmd!["INFER.UNLOAD", "m"]);
        client.ok(&cmd!["INFER.UNLOAD", "merged"]);
    }
}

#[test]
fn an_adapter_with_scale_zero_changes_nothing() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&load_with(&adapter(&server), 0));
    assert_eq!(distributions(&mut client, "m"), distributions(&mut client, "chat"));
}

#[test]
fn every_worker_uses_the_adapter_and_shares_no_prompt_with_the_model_without_it() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let mut load = cmd!["INFER.LOAD", "m", CHAT.path().to_str().unwrap(), "LORA"];
    load.arg(adapter(&server).to_str().unwrap()).arg(1).arg(&["WORKERS", "2", "THREADS", "1", "PARALLEL", "1"]);
    client.ok(&load);
    let ask = |model: &str| cmd!["INFER.GENERATE", model, 0, "TEXT", "go", "TEMP", 0, "MAXTOKENS", 40, "WITHSTATS"];
    let without = client.ok(&ask("chat"));
    let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.send(&ask("m")));
    let replies: Vec<Value> = clients.iter_mut().map(|client| client.receive().unwrap()).collect();
    for reply in &replies {
        assert_eq!(text(field(reply, "text")), text(field(&replies[0], "text")));
        assert_ne!(text(field(reply, "text")), text(field(&without, "text")));
    }
    // The same prompt was read by the model without the adapter before.
    assert!(replies.iter().any(|reply| int(field(reply, "cached_tokens")) == 0));
}

#[test]
fn an_adapter_is_listed_and_its_memory_counted() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let fact = |client: &mut Client, model: &str, name: &str| int(field(&client.ok(&cmd!["INFER.MODEL", model]), name));
    let path = adapter(&server);
    client.ok(&load_with(&path, 0.25));
    for mut client in [server.client(), server.resp3()] {
        let models = client.ok(&cmd!["INFER.MODELS"]);
        for listed in [&array(&models)[1], &client.ok(&cmd!["INFER.MODEL", "m"])] {
            assert_eq!(text(field(listed, "lora")), path.to_str().unwrap());
            assert_eq!(float(field(listed, "lora_scale")), 0.25);
        }
    }
    let bytes = i64::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
    let estimates = ["m", "chat"].map(|model| fact(&mut client, model, "estimated_bytes"));
    assert_eq!(estimates[0] - estimates[1], bytes);
    let sizes = fact(&mut client, "m", "size_bytes") + fact(&mut client, "chat", "size_bytes");
    let info = client.text(&cmd!["INFO", "infer_models"]);
    assert!(info.contains(&format!("infer_weights_bytes:{}\r", sizes + bytes)), "{info}");
}

#[test]
fn adapters_that_do_not_fit_are_refused_and_the_server_lives() {
    let mut server = Server::start();
    let mut client = server.client();
    let path = server.folder().join("wrong.gguf");
    let whole = std::fs::read(adapter(&server)).unwrap();
    let of_shape = |model: LlamaShape, lora: LoraShape| {
        write_lora(&path, &model, vocab(), &lora, 1).unwrap();
        std::fs::read(&path).unwrap()
    };
    let mut half = Writer::new("llama");
    half.string("general.type", "adapter").string("adapter.type", "lora");
    half.tensor("output.weight.lora_a", &[64, 2], TensorData::F32(vec![0.0; 128]));
    half.write(&path).unwrap();
    let half = std::fs::read(&path).unwrap();
    let llama = LoraShape::default;
    for (content, part) in [
        (of_shape(shape(), LoraShape { architecture: "qwen2".to_owned(), ..llama() }), "architecture 'qwen2'"),
        (of_shape(shape(), LoraShape { alpha: f32::NAN, ..llama() }), "adapter.lora.alpha"),
        (of_shape(LlamaShape { layers: 3, ..shape() }, llama()), "the model has no tensor 'blk.2.attn_k.weight'"),
        (of_shape(LlamaShape { ff: 256, ..shape() }, llama()), "do not fit the [128, 64] of the model"),
        (half, "one half of the change to 'output.weight' is missing"),
        (b"# A text\n".to_vec(), "it is a text file"),
        (whole[..whole.len() / 2].to_vec(), "truncated"),
        (std::fs::read(CHAT.path()).unwrap(), "general.type is 'model', not 'adapter'"),
    ] {
        std::fs::write(&path, content).unwrap();
        let refusal = client.refused(&load_with(&path, 1), "LOADFAIL", part);
        assert!(refusal.text.starts_with("LORA: ") && refusal.text.contains(path.to_str().unwrap()), "{refusal:?}");
        client.refused(&cmd!["INFER.MODEL", "m"], "NOMODEL", "");
    }
    client.refused(&load_with(Path::new("/no/such.gguf"), 1), "LOADFAIL", "LORA: there is no such file");
    client.refused(&load_with(&path, "nan"), "ERR", "LORA scale is not a number");
    server.assert_alive();
}

#[test]
fn an_adapter_cannot_be_loaded_as_a_model_nor_with_one_that_embeds() {
    let server = Server::start();
    let mut client = server.client();
    let path = adapter(&server);
    client.refused(&cmd!["INFER.LOAD", "m", path.to_str().unwrap()], "LOADFAIL", "LoRA adapter");
    let mut command = EMBED.load();
    command.arg("LORA").arg(path.to_str().unwrap()).arg(1);
    client.refused(&command, "LOADFAIL", "LORA are for generation, but this is a model for embedding");
}

#[test]
fn only_adapters_inside_the_folder_are_loaded() {
    let outer = tempfile::TempDir::with_prefix("redis-infer-test-").unwrap();
    let folder = outer.path().join("models");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(CHAT.path(), folder.join("chat.gguf")).unwrap();
    for path in [folder.join("lora.gguf"), outer.path().join("lora.gguf")] {
        write_lora(&path, &shape(), vocab(), &LoraShape::default(), 9).unwrap();
    }
    let server = Server::configured(&[], &["--infer.model-dir", folder.to_str().unwrap()]);
    let mut client = server.client();
    let load = |lora: &str| cmd!["INFER.LOAD", "m", "chat.gguf", "LORA", lora, 1];
    for outside in ["../lora.gguf", "../nothing.gguf"] {
        let refusal = client.refused(&load(outside), "LOADFAIL", "no file at this path inside infer.model-dir");
        assert!(refusal.text.ends_with(&format!("({outside})")), "{refusal:?}");
    }
    client.ok(&load("lora.gguf"));
}
