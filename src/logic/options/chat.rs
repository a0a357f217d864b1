//! `INFER.CHAT`.

use super::GenerateOptions;
use crate::logic::args::{ArgError, Args, non_empty, utf8};
use crate::logic::limits;
use crate::logic::prompt::Role;

/// `INFER.CHAT model numkeys [key ...] MESSAGE role content [MESSAGE role content ...] [generation options]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Chat<'a> {
    /// The model.
    pub model: &'a str,
    /// Keys with tokens, in order; they stand in front of the last message's text.
    pub keys: Vec<&'a [u8]>,
    /// The conversation: at least one message, none empty, the last one the user's.
    pub messages: Vec<(Role, &'a str)>,
    /// The generation options.
    pub options: GenerateOptions,
}

impl<'a> Chat<'a> {
    /// Parses the arguments after the command's name.
    ///
    /// # Errors
    /// See [`ArgError`].
    pub fn parse(args: &'a [&'a [u8]]) -> Result<Self, ArgError> {
        let mut args = Args::new("INFER.CHAT", args);
        let (model, keys) = (args.model("model name")?, args.keys()?);
        let mut parsed = Self { model, keys, messages: Vec::new(), options: GenerateOptions::default() };
        let mut room = limits::TEXT_MAX;
        loop {
            if args.repeated("MESSAGE") {
                if parsed.messages.len() == limits::MESSAGES_MAX {
                    return Err(ArgError::TooManyMessages { max: limits::MESSAGES_MAX });
                }
                let role = args.word("role of a MESSAGE", &Role::ALL, Role::name)?;
                parsed.messages.push((role, content(&mut args, &mut room)?));
            } else if let Some(option) = args.option()? {
                if !parsed.options.accept(&option, &mut args)? {
                    return Err(option.unknown());
                }
            } else {
                break;
            }
        }
        check(&parsed.messages)?;
        Ok(parsed)
    }
}

/// What a message says, for which there are `room` bytes: all messages together are as long as one text may be.
fn content<'a>(args: &mut Args<'a>, room: &mut usize) -> Result<&'a str, ArgError> {
    const WHAT: &str = "content of a MESSAGE";
    let bytes = args.required(WHAT)?;
    let too_long = ArgError::TooLong { what: "the conversation", max: limits::TEXT_MAX };
    if bytes.len() <= limits::TEXT_MAX {
        *room = room.checked_sub(bytes.len()).ok_or(too_long)?;
    }
    non_empty(WHAT, utf8(WHAT, bytes, limits::TEXT_MAX)?)
}

fn check(messages: &[(Role, &str)]) -> Result<(), ArgError> {
    let Some((last, _)) = messages.last() else {
        return Err(ArgError::Required { what: "a conversation (MESSAGE role content)" });
    };
    if *last != Role::User {
        return Err(ArgError::LastNotFromUser);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_words;
    use super::*;

    #[test]
    fn messages_keep_their_order_and_options_may_stand_anywhere() {
        with_words("m 2 a b message SYSTEM s Message user u TEMP 0 MESSAGE assistant a MESSAGE user MESSAGE", |args| {
            let parsed = Chat::parse(args).unwrap();
            assert_eq!((parsed.model, parsed.keys.as_slice()), ("m", &[&b"a"[..], b"b"][..]));
            let expected = [(Role::System, "s"), (Role::User, "u"), (Role::Assistant, "a"), (Role::User, "MESSAGE")];
            assert_eq!(parsed.messages, expected);
            assert_eq!(parsed.options.sampling.temperature.to_bits(), 0);
        });
    }

    #[test]
    fn wrong_arguments_are_told_why() {
        for (line, text) in [
            ("m", "wrong number of arguments for 'INFER.CHAT' command: numkeys is missing"),
            ("m 0", "a conversation (MESSAGE role content) is required"),
            ("m 0 TEMP 0", "a conversation (MESSAGE role content) is required"),
            ("m 0 MESSAGE", "option MESSAGE needs a value"),
            ("m 0 TEMP 0 MESSAGE user", "option MESSAGE needs a value"),
            ("m 0 MESSAGE tool x", "role of a MESSAGE must be one of system, user, assistant"),
            ("m 0 MESSAGE '' x", "role of a MESSAGE must be one of system, user, assistant"),
            ("m 0 MESSAGE user ''", "content of a MESSAGE must not be empty"),
            (
                "m 0 MESSAGE user u MESSAGE assistant a",
                "the last message must have the role user: it is the one that is answered",
            ),
            ("m 0 MESSAGE system s", "the last message must have the role user: it is the one that is answered"),
            ("m 0 MESSAGE user u TEMP 0 TEMP 0", "option TEMP is given twice"),
            ("m 0 MESSAGE user u RAW", "unknown option 'RAW'"),
            ("m 0 TEXT u", "unknown option 'TEXT'"),
            ("m 9 MESSAGE user u", "numkeys is 9, but the number of arguments after it is 3"),
        ] {
            assert_eq!(with_words(line, |args| Chat::parse(args).map(drop)).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_conversation_has_a_longest_length() {
        let parse = |messages: usize, content: &str| {
            let mut words: Vec<&[u8]> = vec![b"m", b"0"];
            (0..messages).for_each(|_| words.extend([&b"MESSAGE"[..], b"user", content.as_bytes()]));
            Chat::parse(&words).map(drop)
        };
        assert_eq!(parse(1024, "x"), Ok(()));
        assert_eq!(parse(1025, "x"), Err(ArgError::TooManyMessages { max: 1024 }));
        // What is behind the first one too many is not looked at.
        assert_eq!(parse(1025, ""), Err(ArgError::Empty { what: "content of a MESSAGE" }));
        let mut words: Vec<&[u8]> = vec![b"m", b"0"];
        (0..1025).for_each(|_| words.extend([&b"MESSAGE"[..], b"user", b"x"]));
        words.extend([&b"MESSAGE"[..], b"nobody", b"\xff"]);
        assert_eq!(Chat::parse(&words), Err(ArgError::TooManyMessages { max: 1024 }));
        let half = "x".repeat(4 << 20);
        assert_eq!(parse(2, &half), Ok(()));
        assert_eq!(parse(3, &half), Err(ArgError::TooLong { what: "the conversation", max: 8 << 20 }));
    }
}
