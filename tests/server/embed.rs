//! INFER.EMBED.

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, Server, array, bytes, cmd, doubles, float, floats, int};

/// Length of the vectors of the model.
const DIM: usize = 64;

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

fn embed(client: &mut Client, text: &str, options: &[&str]) -> Vec<f32> {
    floats(&array(&client.ok(&cmd!["INFER.EMBED", "embed", 1, text, options]))[0])
}

#[test]
fn a_text_becomes_a_blob_of_floats_of_length_one() {
    let server = Server::with(&[EMBED]);
    for mut client in [server.client(), server.resp3()] {
        let reply = client.ok(&cmd!["INFER.EMBED", "embed", 2, "the cat", "the dog"]);
        for blob in array(&reply) {
            assert_eq!(bytes(blob).len(), DIM * 4);
            assert!((length(&floats(blob)) - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn texts_are_answered_in_their_order_whatever_their_lengths() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let texts: Vec<String> = (0..20).map(|i| format!("text {i} {}", "and more ".repeat(i * 7 % 20))).collect();
    let together = client.ok(&cmd!["INFER.EMBED", "embed", texts.len(), &texts]);
    for (text, together) in texts.iter().zip(array(&together)) {
        let alone = embed(&mut client, text, &[]);
        let largest = alone.iter().zip(floats(together)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-4, "{text}: {largest}");
    }
}

#[test]
fn values_are_the_numbers_of_the_blob() {
    let server = Server::with(&[EMBED]);
    for mut client in [server.client(), server.resp3()] {
        let blob = embed(&mut client, "the cat", &[]);
        let values = client.ok(&cmd!["INFER.EMBED", "embed", 1, "the cat", "FORMAT", "VALUES"]);
        let values = doubles(&array(&values)[0]);
        assert_eq!(values.len(), DIM);
        assert!(blob.iter().zip(values).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-6));
    }
}

#[test]
fn values_are_doubles_in_resp3() {
    let server = Server::with(&[EMBED]);
    let reply = server.resp3().ok(&cmd!["INFER.EMBED", "embed", 1, "the cat", "FORMAT", "VALUES"]);
    assert!(matches!(array(&array(&reply)[0])[0], Value::Double(_)));
}

#[test]
fn dim_cuts_the_vector_and_then_scales_it() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let (whole, cut) = (embed(&mut client, "the cat", &[]), embed(&mut client, "the cat", &["DIM", "16"]));
    assert_eq!(cut.len(), 16);
    assert!((length(&cut) - 1.0).abs() < 1e-5);
    let scale = 1.0 / length(&whole[..16]);
    assert!(cut.iter().zip(&whole).all(|(&a, &b)| (f64::from(a) - f64::from(b) * scale).abs() < 1e-5));
}

#[test]
fn more_dimensions_than_the_model_has_are_refused() {
    let server = Server::with(&[EMBED]);
    let command = cmd!["INFER.EMBED", "embed", 1, "the cat", "DIM", 65];
    server.client().refused(&command, "ERR", "DIM 65 is larger than the 64 dimensions of model 'embed'");
}

#[test]
fn nonorm_leaves_the_length_as_the_model_makes_it() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let (normal, own) = (embed(&mut client, "the cat", &[]), embed(&mut client, "the cat", &["NONORM"]));
    let factor = length(&own);
    assert!((factor - 1.0).abs() > 1e-3, "the model's own vectors have length 1, so this test shows nothing");
    assert!(normal.iter().zip(&own).all(|(&a, &b)| (f64::from(a) * factor - f64::from(b)).abs() < 1e-4));
}

#[test]
fn a_prefix_stands_before_every_text() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let with = client.ok(&cmd!["INFER.EMBED", "embed", 2, "cat", "dog", "PREFIX", "query: "]);
    let spelled = client.ok(&cmd!["INFER.EMBED", "embed", 2, "query: cat", "query: dog"]);
    assert_eq!(with, spelled);
}

#[test]
fn a_blob_is_what_vadd_and_vsim_take() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    for (element, text) in [("animals", "the cat and the dog"), ("computers", "redis server memory")] {
        let reply = client.ok(&cmd!["INFER.EMBED", "embed", 1, text]);
        let added = client.ok(&cmd!["VADD", "v", "FP32", bytes(&array(&reply)[0]), element, "NOQUANT"]);
        assert_eq!(int(&added), 1);
    }
    let query = client.ok(&cmd!["INFER.EMBED", "embed", 1, "a dog and a cat"]);
    let found = client.ok(&cmd!["VSIM", "v", "FP32", bytes(&array(&query)[0]), "WITHSCORES", "COUNT", 1]);
    assert_eq!(crate::harness::text(&array(&found)[0]), "animals");
    assert!(float(&array(&found)[1]) > 0.7);
}

#[test]
fn a_text_longer_than_the_model_reads_is_refused_with_its_place_and_both_numbers() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let long = "cat ".repeat(300);
    let refusal = client.refused(&cmd!["INFER.EMBED", "embed", 2, "short", &long], "CTXLIMIT", "text 2 has 302 tokens");
    assert!(refusal.text.contains("reads at most 256 at once"), "{}", refusal.text);
    client.ok(&cmd!["INFER.EMBED", "embed", 1, "cat ".repeat(254)]);
}

#[test]
fn more_texts_than_fit_into_one_forward_pass_are_all_answered() {
    let server = Server::with(&[EMBED]);
    let texts: Vec<String> = (0..1024).map(|i| format!("text number {i}")).collect();
    let reply = server.client().ok(&cmd!["INFER.EMBED", "embed", texts.len(), &texts]);
    assert_eq!(array(&reply).len(), 1024);
}

#[test]
fn an_empty_text_has_a_vector_of_its_own() {
    let server = Server::with(&[EMBED]);
    let empty = embed(&mut server.client(), "", &[]);
    assert!((length(&empty) - 1.0).abs() < 1e-5);
}

#[test]
fn a_generator_embeds_with_every_pooling_and_a_context_of_any_length() {
    let mut server = Server::start();
    let mut client = server.client();
    for pooling in ["MEAN", "CLS", "LAST"] {
        for context in [64, 65, 100, 1000] {
            let mut load = cmd!["INFER.LOAD", "m", CHAT.path().to_str().unwrap(), "TYPE", "EMBED"];
            client.ok(load.arg(&["POOLING", pooling, "WORKERS", "1", "THREADS", "1"]).arg("CTX").arg(context));
            let vectors = client.ok(&cmd!["INFER.EMBED", "m", 2, "the cat", "and another text"]);
            assert_eq!(array(&vectors).len(), 2, "{pooling} {context}");
            client.ok(&cmd!["INFER.UNLOAD", "m"]);
        }
    }
    server.assert_alive();
}
