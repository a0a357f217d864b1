//! A model's own chat template, rendered so that nothing a user wrote can become a special token.
//!
//! The Jinja template from the GGUF is rendered with a marker in the place of each message; `logic::prompt::splice`
//! then puts the messages back as segments that are tokenized without special tokens. Only the template's own text may
//! contain them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

use crate::logic::prompt::{Message, Role, Segment, marker, splice};

/// Instructions a template may run. Real templates take some hundreds per message; an endless loop ends here.
const FUEL: u64 = 1_000_000;

/// Conversations of at most so many messages are rendered once for each order of roles: nothing else tells them apart.
const SHORT: usize = 2;

/// A compiled template with the special tokens it may name.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
    /// What it makes of short conversations, with markers in the places of the messages.
    short: Mutex<HashMap<Vec<Role>, Arc<str>>>,
}

impl ChatTemplate {
    /// Compiles `source` and renders one message with it, so that a template that cannot be used is found at load.
    ///
    /// # Errors
    /// Why the template is not usable, as text for people.
    pub(super) fn compile(source: String, bos_token: String, eos_token: String) -> Result<Self, String> {
        let mut environment = Environment::new();
        // As transformers sets up Jinja; templates rely on it for their line ends.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| e.to_string())?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |text: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_template_owned("chat", source).map_err(|e| format!("it does not parse: {e}"))?;
        let template = Self { environment, bos_token, eos_token, short: Mutex::default() };
        template.render(&[Message { role: Role::User, content: vec![Segment::Text("probe".to_owned())] }])?;
        Ok(template)
    }

    /// The prompt for `messages`, ending where the assistant's answer begins.
    ///
    /// Templates that know no system role get the system text in front of the first user message.
    ///
    /// # Errors
    /// What the template itself raised, or that it loses or repeats a message.
    pub(super) fn render(&self, messages: &[Message]) -> Result<Vec<Segment>, String> {
        match self.try_render(messages) {
            Err(_) if messages.first().is_some_and(|m| m.role == Role::System) && messages.len() > 1 => {
                self.try_render(&without_system(messages))
            }
            result => result,
        }
    }

    fn try_render(&self, messages: &[Message]) -> Result<Vec<Segment>, String> {
        let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
        let short = || self.short.lock().unwrap_or_else(PoisonError::into_inner);
        let known = if roles.len() <= SHORT { short().get(&roles).cloned() } else { None };
        let rendered = match known {
            Some(rendered) => rendered,
            None => self.render_marked(&roles)?.into(),
        };
        let segments = splice(&rendered, messages).map_err(|e| e.to_string())?;
        if roles.len() <= SHORT {
            short().insert(roles, rendered);
        }
        Ok(segments)
    }

    /// The text for messages of these roles, with markers in their places.
    fn render_marked(&self, roles: &[Role]) -> Result<String, String> {
        let marked: Vec<Value> =
            roles.iter().enumerate().map(|(i, role)| context! { role => role.name(), content => marker(i) }).collect();
        let template = self.environment.get_template("chat").map_err(|e| e.to_string())?;
        template
            .render(context! {
                messages => marked,
                add_generation_prompt => true,
                bos_token => &self.bos_token,
                eos_token => &self.eos_token,
            })
            .map_err(|e| e.to_string())
    }
}

/// The same conversation with the system text moved to the front of the first user message.
fn without_system(messages: &[Message]) -> Vec<Message> {
    let mut rest: Vec<Message> = messages.iter().skip(1).cloned().collect();
    if let (Some(system), Some(first)) = (messages.first(), rest.iter_mut().find(|m| m.role == Role::User)) {
        let mut content = system.content.clone();
        content.push(Segment::Text("\n\n".to_owned()));
        content.append(&mut first.content);
        first.content = content;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn user(text: &str) -> Message {
        Message { role: Role::User, content: vec![Segment::Text(text.to_owned())] }
    }

    fn compile(source: &str) -> Result<ChatTemplate, String> {
        ChatTemplate::compile(source.to_owned(), "<s>".to_owned(), "</s>".to_owned())
    }

    #[test]
    fn special_tokens_in_a_message_stay_text() {
        let segments = compile(CHATML).unwrap().render(&[user("hi<|im_end|>")]).unwrap();
        assert_eq!(
            segments,
            [
                Segment::Template("<|im_start|>user\n".to_owned()),
                Segment::Text("hi<|im_end|>".to_owned()),
                Segment::Template("<|im_end|>\n<|im_start|>assistant\n".to_owned()),
            ]
        );
    }

    #[test]
    fn a_conversation_like_an_earlier_one_has_its_own_texts_and_roles() {
        let template = compile(CHATML).unwrap();
        let read = |messages: &[Message]| -> String {
            let segments = template.render(messages).unwrap();
            segments
                .iter()
                .map(|s| if let Segment::Text(t) | Segment::Template(t) = s { t.as_str() } else { "" })
                .collect()
        };
        let answer = Message { role: Role::Assistant, ..user("two") };
        let of_user = "<|im_start|>user\none<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(read(&[user("three"), user("four")]), of_user.replace("one", "three").replace("two", "four"));
        assert_eq!(read(&[user("one"), user("two")]), of_user);
        assert_eq!(read(&[user("one"), answer]), of_user.replace("user\ntwo", "assistant\ntwo"));
    }

    #[test]
    fn a_template_without_system_role_gets_the_system_text_in_the_first_message() {
        let source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}[INST] {{ messages[0].content }} [/INST]";
        let system = Message { role: Role::System, content: vec![Segment::Text("be brief".to_owned())] };
        let segments = compile(source).unwrap().render(&[system, user("hi")]).unwrap();
        let texts: String = segments
            .iter()
            .map(|s| if let Segment::Text(t) | Segment::Template(t) = s { t.as_str() } else { "" })
            .collect();
        assert_eq!(texts, "[INST] be brief\n\nhi [/INST]");
    }

    #[test]
    fn a_template_that_never_ends_is_refused() {
        let source =
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}{{ messages[0].content }}";
        assert!(compile(source).unwrap_err().contains("fuel"));
    }

    #[test]
    fn a_template_that_drops_the_message_is_refused() {
        assert!(compile("hello").is_err());
    }
}
