//! `INFER.TOKENIZE`, `INFER.TOKENIZESTORE`, `INFER.DETOKENIZE`: between text and token ids.

use redis_module::Context;

use super::generate::check_blob;
use super::runtime::engine;
use super::waiting::{answer_from_desk, block_for_model};
use crate::engine::{Errand, Special};
use crate::logic::options::{Detokenize, Tokenize, TokenizeStore};
use crate::logic::{limits, token_blob};
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::{Answer, Failure, Value};

/// Tokens that are turned into text before it is looked whether anybody still waits.
const DETOKENIZED_AT_ONCE: usize = 4096;

/* INFER.TOKENIZE model text [NOSPECIAL] */
/// The token ids of a text, with the begin and end tokens the model asks for unless NOSPECIAL is given.
pub fn tokenize(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Tokenize::parse(args)?;
    refuse_blocking(ctx, "INFER.TOKENIZE")?;
    let served = engine()?.find(request.model)?;
    let special = if request.special { Special::Add } else { Special::None };
    let text = request.text.to_owned();
    let waiting = block_for_model(ctx, "INFER.TOKENIZE", &served)?;
    answer_from_desk(waiting, text.len(), move |_| {
        let tokens = served.model.tokenize(&text, special)?;
        if tokens.len() > limits::REPLY_ELEMENTS_MAX {
            return Err(Failure::err(format!(
                "the text has {} tokens, more than the {} of one reply; INFER.TOKENIZESTORE keeps them in a key",
                tokens.len(),
                limits::REPLY_ELEMENTS_MAX
            )));
        }
        Ok(Value::Array(tokens.into_iter().map(Value::from).collect()))
    })?;
    Ok(Outcome::Pending)
}

/* INFER.TOKENIZESTORE key model text [EX seconds] */
/// Stores the token ids of a text, without begin and end tokens, as packed little-endian u32.
pub fn tokenize_store(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = TokenizeStore::parse(args)?;
    refuse_blocking(ctx, "INFER.TOKENIZESTORE")?;
    let served = engine()?.find(request.model)?;
    let (key, text, expire) = (request.key.to_vec(), request.text.to_owned(), request.expire);
    let (pending, ticket) = block_for_model(ctx, "INFER.TOKENIZESTORE", &served)?;
    engine()?.run(Errand::of(pending.client_id(), &ticket, text.len()), move || {
        match served.model.tokenize(&text, Special::None) {
            // No command could use them, and writing them would hold up all clients.
            Ok(tokens) if tokens.len() > limits::KEY_TOKENS_MAX => pending.finish(Err(Failure::new(
                "CTXLIMIT",
                format!(
                    "the text has {} tokens, more than the {} of one key; store it in parts",
                    tokens.len(),
                    limits::KEY_TOKENS_MAX
                ),
            ))),
            Ok(tokens) => {
                let (count, blob) = (tokens.len(), token_blob::encode(&tokens));
                pending.finish_with(move |ctx| store(ctx, &key, &blob, count, expire));
            }
            Err(error) => pending.finish(Err(error.into())),
        }
    })?;
    Ok(Outcome::Pending)
}

fn store(ctx: &Context, key: &[u8], blob: &[u8], count: usize, expire: Option<u64>) -> Answer {
    let seconds = expire.map(|seconds| seconds.to_string());
    let mut args: Vec<&[u8]> = vec![key, blob];
    if let Some(seconds) = &seconds {
        args.extend([b"EX".as_slice(), seconds.as_bytes()]);
    }
    Keyspace::of(ctx).alone().write("SET", &args)?;
    Ok(Value::from(count))
}

/* INFER.DETOKENIZE model numkeys [key ...] [BLOB tokens] */
/// The text of stored tokens: the keys in their order, then BLOB. Special tokens are left out.
pub fn detokenize(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Detokenize::parse(args)?;
    refuse_blocking(ctx, "INFER.DETOKENIZE")?;
    let served = engine()?.find(request.model)?;
    let keyspace = Keyspace::of(ctx).alone();
    let mut tokens = Vec::new();
    for key in &request.keys {
        tokens.append(&mut keyspace.token_key(key, limits::KEY_TOKENS_MAX - tokens.len())?);
    }
    if let Some(blob) = request.blob {
        check_blob(blob, limits::KEY_TOKENS_MAX - tokens.len())?;
        tokens.append(&mut token_blob::decode(blob).map_err(|e| Failure::new("BADTOKENS", format!("BLOB: {e}")))?);
    }
    let waiting = block_for_model(ctx, "INFER.DETOKENIZE", &served)?;
    answer_from_desk(waiting, size_of_val(tokens.as_slice()), move |ticket| {
        served.model.check_tokens(&tokens)?;
        let mut text = Vec::new();
        for part in tokens.chunks(DETOKENIZED_AT_ONCE) {
            ticket.check()?;
            served.model.detokenize_onto(part, &mut text)?;
        }
        Ok(Value::from(text))
    })?;
    Ok(Outcome::Pending)
}
