//! `INFER.GENERATE`: text that continues a prompt.

use redis_module::Context;

use super::runtime::engine;
use super::text_reply::{Detail, More};
use super::waiting::WaitingForText;
use crate::engine::{EngineError, Purpose, Served};
use crate::logic::options::Generate;
use crate::logic::prompt::{Message, Role, Segment};
use crate::logic::token_blob;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::Failure;

/* INFER.GENERATE model numkeys [key ...] [TEXT prompt | BLOB tokens] [RAW] [generation options] */
/// The prompt is the tokens of the keys, then TEXT or BLOB. It is sent as the message of a user in the model's chat
/// format, or as it is with RAW.
pub fn generate(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Generate::parse(args)?;
    let served = engine()?.find_for(request.model, Purpose::Generation)?;
    let content = copy_prompt(ctx, &request, &served)?;
    let (raw, detail) = (request.raw, Detail::of(&request.options));
    let waiting = WaitingForText::begin(ctx, "INFER.GENERATE", served, request.options)?;
    let bytes = content.iter().map(Segment::bytes).sum();
    engine()?.run(waiting.errand(bytes), move || {
        let prompt = prompt(&waiting.served, content, raw);
        waiting.encode_and_generate(prompt, move |generation, served| {
            detail.reply(Some(generation), served, More::default())
        });
    })?;
    Ok(Outcome::Pending)
}

/// Copies the prompt out of the keyspace while the lock is held, and checks its tokens.
fn copy_prompt(ctx: &Context, request: &Generate<'_>, served: &Served) -> Result<Vec<Segment>, Failure> {
    let mut segments = stored_tokens(ctx, &request.keys, served)?;
    if let Some(blob) = request.blob {
        let stored = segments.iter().map(|segment| if let Segment::Tokens(ids) = segment { ids.len() } else { 0 });
        check_blob(blob, (served.context as usize).saturating_sub(stored.sum()))?;
        let tokens = token_blob::decode(blob).map_err(|e| Failure::new("BADTOKENS", format!("BLOB: {e}")))?;
        served.model.check_tokens(&tokens)?;
        segments.push(Segment::Tokens(tokens));
    }
    if let Some(text) = request.text {
        segments.push(Segment::Text(text.to_owned()));
    }
    Ok(segments)
}

/// Refuses a `BLOB` of more tokens than there is room for, before it is decoded.
///
/// # Errors
/// `CTXLIMIT`.
pub(super) fn check_blob(blob: &[u8], room: usize) -> Result<(), Failure> {
    let tokens = blob.len() / size_of::<u32>();
    if tokens > room {
        return Err(Failure::new("CTXLIMIT", format!("BLOB holds {tokens} tokens, but there is room for {room}")));
    }
    Ok(())
}

/// Copies the tokens of `keys` while the lock is held, and checks that the model knows them.
pub(super) fn stored_tokens(ctx: &Context, keys: &[&[u8]], served: &Served) -> Result<Vec<Segment>, Failure> {
    let keyspace = Keyspace::of(ctx).alone();
    let mut room = served.context as usize;
    let mut stored = Vec::with_capacity(keys.len() + 1);
    for key in keys {
        let tokens = keyspace.token_key(key, room)?;
        room -= tokens.len();
        served.model.check_tokens(&tokens)?;
        stored.push(Segment::Tokens(tokens));
    }
    Ok(stored)
}

fn prompt(served: &Served, content: Vec<Segment>, raw: bool) -> Result<Vec<Segment>, EngineError> {
    if raw {
        return Ok(content);
    }
    served.model.chat_prompt(&[Message { role: Role::User, content }])
}
