//! Prompts as segments, so that what a user or a document says can never become a special token.
//!
//! A chat template is rendered with a [`marker`] in the place of each message; [`splice`] puts the
//! messages back. The template's own text is the only one in which special tokens are recognised.

use thiserror::Error;

/// System message of a retrieval prompt when the caller gives none. Short and plain, because
/// models of a hundred million parameters follow nothing else.
pub const DEFAULT_RAG_SYSTEM: &str =
    "Answer the question using only the given text. If the answer is not in the text, say that you do not know.";

/// A part of a prompt, tokenized on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text of the model's template: special tokens in it are recognised.
    Template(String),
    /// Text of a user or a document: nothing in it is a special token.
    Text(String),
    /// The same for a text that is tokenized again soon, as a heading is: its tokens are kept.
    Common(String),
    /// Token ids, used as they are.
    Tokens(Vec<u32>),
}

impl Segment {
    /// Bytes of its text or of its tokens.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Template(text) | Self::Text(text) | Self::Common(text) => text.len(),
            Self::Tokens(tokens) => size_of_val(tokens.as_slice()),
        }
    }
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::System, Self::User, Self::Assistant];

    /// The name chat templates know.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: Vec<Segment>,
}

/// Why a rendered chat template cannot be used. Messages are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PromptError {
    /// The template shows a message not at all, or changed it.
    #[error(
        "the chat template leaves out message {message} ({role}): use a model whose template shows every message, or send the prompt with RAW"
    )]
    Missing {
        /// Which message.
        message: usize,
        /// Its role.
        role: &'static str,
    },
    /// The template shows a message more than once.
    #[error(
        "the chat template repeats message {message} ({role}): use a model whose template shows every message once, or send the prompt with RAW"
    )]
    Repeated {
        /// Which message.
        message: usize,
        /// Its role.
        role: &'static str,
    },
}

/// Stands for the content of message `i` while a chat template is rendered.
///
/// Letters, digits and underscores only: trimming and escaping leave it as it is. It ends in
/// something other than the number, so that no marker is the beginning of another.
#[must_use]
pub fn marker(i: usize) -> String {
    format!("__redis_infer_message_{i}__")
}

/// Replaces the markers in `rendered` by the contents of `messages`; what is left is the
/// template's own text.
///
/// # Errors
/// When a marker is not there exactly once.
pub fn splice(rendered: &str, messages: &[Message]) -> Result<Vec<Segment>, PromptError> {
    let mut places = Vec::with_capacity(messages.len());
    for (i, message) in messages.iter().enumerate() {
        let marker = marker(i);
        let role = message.role.name();
        let mut found = rendered.match_indices(&marker).map(|(start, _)| start);
        let start = found.next().ok_or(PromptError::Missing { message: i, role })?;
        if found.next().is_some() {
            return Err(PromptError::Repeated { message: i, role });
        }
        places.push((start, start + marker.len(), message));
    }
    // A template may show the messages in another order than they came.
    places.sort_unstable_by_key(|&(start, ..)| start);

    let mut segments = Vec::new();
    let mut shown = 0;
    for (start, end, message) in places {
        push_template(&mut segments, rendered.get(shown..start));
        segments.extend(message.content.iter().cloned());
        shown = end;
    }
    push_template(&mut segments, rendered.get(shown..));
    Ok(segments)
}

fn push_template(segments: &mut Vec<Segment>, text: Option<&str>) {
    if let Some(text) = text
        && !text.is_empty()
    {
        segments.push(Segment::Template(text.to_owned()));
    }
}

/// A piece of a document found for a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextPassage {
    /// What the model sees as its name; the line above it.
    pub label: String,
    /// Its text, without begin and end tokens.
    pub content: Vec<Segment>,
}

/// What stands before the text of a passage: what parts it from the one before, and its label.
#[must_use]
pub fn heading(is_first: bool, label: &str) -> String {
    let between = if is_first { "" } else { BETWEEN_PASSAGES };
    format!("{between}{label}\n")
}

const BETWEEN_PASSAGES: &str = "\n\n";

/// The conversation that asks `question` about `passages`: the system message, then one user message
/// with each passage below its label, and the question last, where small models notice it best.
/// Without passages the user message is the question alone.
#[must_use]
pub fn rag_messages(system: &str, question: &str, passages: Vec<ContextPassage>) -> Vec<Message> {
    let mut content = Vec::with_capacity(2 * passages.len() + 1);
    for ContextPassage { label, content: mut text } in passages {
        content.push(Segment::Common(heading(content.is_empty(), &label)));
        content.append(&mut text);
    }
    content.push(if content.is_empty() { Segment::Text(question.to_owned()) } else { asked(question) });
    let system = Message { role: Role::System, content: vec![Segment::Common(system.to_owned())] };
    let user = Message { role: Role::User, content };
    vec![system, user]
}

/// A question below its passages. It is tokenized while it is embedded, so that its tokens are there once the passages are.
#[must_use]
pub fn asked(question: &str) -> Segment {
    Segment::Common(format!("{BETWEEN_PASSAGES}Question: {question}"))
}

/// The same conversation with nothing in the place of the passages but an empty [`Segment::Tokens`], where each of them is
/// to stand with what follows it, see [`block`].
#[must_use]
pub fn frame_messages(system: &str, question: &str) -> Vec<Message> {
    let content = vec![Segment::Tokens(Vec::new()), Segment::Common(format!("Question: {question}"))];
    let system = Message { role: Role::System, content: vec![Segment::Common(system.to_owned())] };
    vec![system, Message { role: Role::User, content }]
}

/// A passage that is the same wherever it stands among others: what comes before its text, and what comes behind.
#[must_use]
pub fn block(label: &str) -> (String, &'static str) {
    (heading(true, label), BETWEEN_PASSAGES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Segment {
        Segment::Text(text.to_owned())
    }

    fn common(text: &str) -> Segment {
        Segment::Common(text.to_owned())
    }

    fn template(text: &str) -> Segment {
        Segment::Template(text.to_owned())
    }

    fn message(role: Role, content: Vec<Segment>) -> Message {
        Message { role, content }
    }

    fn passage(label: &str, token: u32) -> ContextPassage {
        ContextPassage { label: label.to_owned(), content: vec![Segment::Tokens(vec![token])] }
    }

    #[test]
    fn messages_replace_their_markers() {
        let messages = [
            message(Role::System, vec![text("be brief")]),
            message(Role::User, vec![text("see "), Segment::Tokens(vec![1, 2])]),
        ];
        let rendered = format!("<s>{}<u>{}<a>", marker(0), marker(1));
        let segments = splice(&rendered, &messages).unwrap();
        let expected = [
            template("<s>"),
            text("be brief"),
            template("<u>"),
            text("see "),
            Segment::Tokens(vec![1, 2]),
            template("<a>"),
        ];
        assert_eq!(segments, expected);
    }

    #[test]
    fn markers_side_by_side_leave_no_empty_template_text() {
        let messages = [message(Role::User, vec![text("a")]), message(Role::User, vec![text("b")])];
        let rendered = format!("{}{}", marker(0), marker(1));
        assert_eq!(splice(&rendered, &messages).unwrap(), [text("a"), text("b")]);
    }

    #[test]
    fn a_template_may_show_messages_in_another_order() {
        let messages = [message(Role::System, vec![text("s")]), message(Role::User, vec![text("u")])];
        let rendered = format!("{}-{}", marker(1), marker(0));
        assert_eq!(splice(&rendered, &messages).unwrap(), [text("u"), template("-"), text("s")]);
    }

    #[test]
    fn a_message_that_quotes_a_marker_is_not_spliced_again() {
        let messages = [message(Role::User, vec![text(&marker(1))]), message(Role::User, vec![text("b")])];
        let rendered = format!("{} {}", marker(0), marker(1));
        let segments = splice(&rendered, &messages).unwrap();
        assert_eq!(segments, [text(&marker(1)), template(" "), text("b")]);
    }

    #[test]
    fn a_message_left_out_is_an_error() {
        let messages = [message(Role::User, vec![text("a")])];
        let error = splice("hello", &messages).unwrap_err();
        assert_eq!(error, PromptError::Missing { message: 0, role: "user" });
    }

    #[test]
    fn a_message_shown_twice_is_an_error() {
        let messages = [message(Role::System, vec![text("a")])];
        let error = splice(&marker(0).repeat(2), &messages).unwrap_err();
        assert_eq!(error, PromptError::Repeated { message: 0, role: "system" });
    }

    #[test]
    fn no_marker_is_the_beginning_of_another() {
        assert!(!marker(10).starts_with(&marker(1)));
        assert!(marker(1).is_ascii());
        assert_eq!(marker(1).trim(), marker(1));
    }

    #[test]
    fn passages_stand_below_their_labels_and_the_question_comes_last() {
        let passages = vec![passage("[1] a.md", 7), passage("[2] b.md", 8)];
        let messages = rag_messages("be brief", "why?", passages);
        let user = vec![
            common("[1] a.md\n"),
            Segment::Tokens(vec![7]),
            common("\n\n[2] b.md\n"),
            Segment::Tokens(vec![8]),
            common("\n\nQuestion: why?"),
        ];
        let expected = [message(Role::System, vec![common("be brief")]), message(Role::User, user)];
        assert_eq!(messages, expected);
    }

    #[test]
    fn blocks_in_their_frame_read_as_passages() {
        let passages = vec![passage("[1] a.md", 7), passage("[2] b.md", 8)];
        let read = |segments: &[Segment]| -> String {
            let text = |segment: &Segment| match segment {
                Segment::Template(text) | Segment::Common(text) | Segment::Text(text) => text.clone(),
                Segment::Tokens(ids) => format!("{ids:?}"),
            };
            segments.iter().map(text).collect()
        };
        let passage = |label: &str, token| {
            let (before, behind) = block(label);
            format!("{before}[{token}]{behind}")
        };
        let blocks = passage("[1] a.md", 7) + &passage("[2] b.md", 8);
        let frame = read(&frame_messages("be brief", "why?")[1].content);
        assert_eq!(frame.replacen("[]", &blocks, 1), read(&rag_messages("be brief", "why?", passages)[1].content));
    }

    #[test]
    fn without_passages_the_question_stands_alone() {
        let messages = rag_messages(DEFAULT_RAG_SYSTEM, "why?", vec![]);
        assert_eq!(messages[1].content, [text("why?")]);
    }

    proptest! {
        #[test]
        fn what_is_spliced_reads_as_the_template_with_its_messages(
            contents in proptest::collection::vec("[a_<|>]{0,5}", 1..12),
            between in proptest::collection::vec("[x_<|>]{0,5}", 12),
        ) {
            let messages: Vec<Message> =
                contents.iter().map(|c| message(Role::User, vec![text(c)])).collect();
            let mut rendered = String::new();
            let mut expected = String::new();
            for (i, (content, between)) in contents.iter().zip(&between).enumerate() {
                rendered += &format!("{between}{}", marker(i));
                expected += &format!("{between}{content}");
            }
            let segments = splice(&rendered, &messages).unwrap();
            let read: String = segments
                .iter()
                .map(|s| match s {
                    Segment::Template(s) | Segment::Common(s) | Segment::Text(s) => s.as_str(),
                    Segment::Tokens(_) => "",
                })
                .collect();
            prop_assert_eq!(read, expected);
            prop_assert!(!segments.contains(&template("")));
        }
    }
}
