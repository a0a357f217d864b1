//! `INFER.CHAT`: the next message of a conversation.

use redis_module::Context;

use super::generate::stored_tokens;
use super::runtime::engine;
use super::text_reply::{Detail, More};
use super::waiting::WaitingForText;
use crate::engine::{Purpose, Served};
use crate::logic::options::Chat;
use crate::logic::prompt::{Message, Segment};
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::Failure;

/* INFER.CHAT model numkeys [key ...] MESSAGE role content [MESSAGE role content ...] [generation options] */
/// Answers the last message. The tokens of the keys stand in front of its text; the model's own template renders the
/// conversation, and nothing in a message becomes a special token.
pub fn chat(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Chat::parse(args)?;
    let served = engine()?.find_for(request.model, Purpose::Generation)?;
    let messages = conversation(ctx, &request, &served)?;
    let detail = Detail::of(&request.options);
    let waiting = WaitingForText::begin(ctx, "INFER.CHAT", served, request.options)?;
    let bytes = messages.iter().flat_map(|message| &message.content).map(Segment::bytes).sum();
    engine()?.run(waiting.errand(bytes), move || {
        let prompt = waiting.served.model.chat_prompt(&messages);
        waiting.encode_and_generate(prompt, move |generation, served| {
            detail.reply(Some(generation), served, More::default())
        });
    })?;
    Ok(Outcome::Pending)
}

/// The messages with the keys' tokens, copied while the lock is held.
fn conversation(ctx: &Context, request: &Chat<'_>, served: &Served) -> Result<Vec<Message>, Failure> {
    let stored = stored_tokens(ctx, &request.keys, served)?;
    let message = |&(role, text): &(_, &str)| Message { role, content: vec![Segment::Text(text.to_owned())] };
    let mut messages: Vec<Message> = request.messages.iter().map(message).collect();
    if let Some(last) = messages.last_mut() {
        last.content.splice(..0, stored);
    }
    Ok(messages)
}
