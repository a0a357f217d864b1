//! How the program ends: an exit status for scripts, a code and a text for people and for programs.

use std::process::ExitCode;

use redis::{RedisError, ServerError};
use serde_json::json;

/// How a command that did its work has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Fine,
    /// A search or a question found nothing.
    NothingFound,
    /// Ctrl-C or SIGTERM came before the end.
    Interrupted,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Fine => Self::SUCCESS,
            Ending::NothingFound => Self::from(4),
            Ending::Interrupted => Self::from(130),
        }
    }
}

/// Why a command could not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The server's error code, or one of ours: `FAILED`, `CONNECTION`.
    code: String,
    /// What happened and what to do.
    text: String,
}

/// The server cannot be reached or went away.
const CONNECTION: &str = "CONNECTION";

/// What the text about an unknown command begins with.
const UNKNOWN: &str = "the server does not know";

impl Failure {
    /// Something else than the server or the way to it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { code: "FAILED".into(), text: text.into() }
    }

    /// There is no connection to the server.
    pub fn connection(text: impl Into<String>) -> Self {
        Self { code: CONNECTION.into(), text: text.into() }
    }

    /// What the server answered.
    pub fn refused(code: &str, details: &str) -> Self {
        let unknown = details.strip_prefix("unknown command").filter(|_| code == "ERR");
        let Some(command) = unknown else {
            return Self { code: code.into(), text: details.into() };
        };
        // The server's own text would go on with the arguments, which may be a whole file.
        let command: String = command.trim_start_matches([' ', '\'', '`']).chars().take(32).collect();
        let command = command.split(['\'', '`', ',']).next().unwrap_or_default();
        let text = format!("{UNKNOWN} {command}; load the redis-infer module into it, or a newer one");
        Self { code: code.into(), text }
    }

    /// Whether the connection is missing or lost.
    pub fn is_connection(&self) -> bool {
        self.code == CONNECTION
    }

    /// Whether the server does not know the command.
    pub fn is_unknown_command(&self) -> bool {
        self.code == "ERR" && self.text.starts_with(UNKNOWN)
    }

    /// The code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// One line, or a JSON document.
    pub fn shown(&self, as_json: bool) -> String {
        let Self { code, text } = self;
        match (as_json, code.as_str()) {
            (true, _) => json!({ "error": { "code": code, "message": text } }).to_string(),
            (false, "FAILED" | CONNECTION) => format!("redis-infer: {text}"),
            (false, _) => format!("redis-infer: {self}"),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(if failure.is_connection() { 3 } else { 1 })
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self::refused(error.code(), error.details().unwrap_or_default())
    }
}

/// An error of a command on a connection that was open.
impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some(code) => Self::refused(code, error.detail().unwrap_or_default()),
            None => Self::connection(format!("the connection to the server was lost ({error}); run it again")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_the_module_is_told_apart_and_no_argument_is_shown() {
        let details = "unknown command 'INFER.INGEST', with args beginning with: 'secret'";
        let shown = Failure::refused("ERR", details).shown(false);
        assert!(shown.contains("does not know INFER.INGEST; load the redis-infer module"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_failure_is_a_line_for_people_and_a_document_for_programs() {
        let failure = Failure::refused("NOINDEX", "no index \"a\"");
        assert_eq!(failure.shown(false), "redis-infer: NOINDEX no index \"a\"");
        assert_eq!(failure.shown(true), r#"{"error":{"code":"NOINDEX","message":"no index \"a\""}}"#);
        assert_eq!(Failure::new("no file").shown(false), "redis-infer: no file");
    }
}
