//! A connection that reports replies and errors as values.

use std::time::Duration;

use redis::{Cmd, Connection, RedisError, Value};

use super::{PATIENCE, cmd, int, text};

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(5);

/// One connection. A reply that does not come fails the test after [`PATIENCE`].
pub struct Client {
    connection: Connection,
}

/// An error reply, or the loss of the connection, whose code is [`Refusal::LOST`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The first word, such as `NOMODEL`.
    pub code: String,
    /// The rest of the line.
    pub text: String,
}

impl Refusal {
    /// The code of a connection that ended.
    pub const LOST: &str = "(connection lost)";

    fn of(error: &RedisError) -> Self {
        assert!(!error.is_timeout(), "no reply within {PATIENCE:?}");
        Self {
            code: error.code().unwrap_or(Self::LOST).to_owned(),
            text: error.detail().map_or_else(|| error.to_string(), str::to_owned),
        }
    }
}

impl Client {
    /// Connects; `None` when nobody listens. `query` is that of the URL, for instance `?protocol=resp3`.
    pub fn try_connect(port: u16, query: &str) -> Option<Self> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/{query}")).unwrap();
        let connection = client.get_connection_with_timeout(CONNECT).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { connection })
    }

    /// Sends a command and waits for its reply.
    #[track_caller]
    pub fn call(&mut self, command: &Cmd) -> Result<Value, Refusal> {
        command.query::<Value>(&mut self.connection).map_err(|error| Refusal::of(&error))
    }

    /// The reply of a command that must work.
    #[track_caller]
    pub fn ok(&mut self, command: &Cmd) -> Value {
        match self.call(command) {
            Ok(reply) => reply,
            Err(refusal) => panic!("{} was refused: {} {}", name(command), refusal.code, refusal.text),
        }
    }

    /// As [`Client::ok`], as text.
    #[track_caller]
    pub fn text(&mut self, command: &Cmd) -> String {
        text(&self.ok(command)).to_owned()
    }

    /// Fails unless the command is refused with `code` and a text that contains `part`.
    #[track_caller]
    pub fn refused(&mut self, command: &Cmd, code: &str, part: &str) -> Refusal {
        match self.call(command) {
            Ok(reply) => panic!("{} was not refused but answered {reply:?}", name(command)),
            Err(refusal) => {
                assert!(
                    refusal.code == code && refusal.text.contains(part),
                    "{} was refused with\n  {} {}\nand not with\n  {code} …{part}…",
                    name(command),
                    refusal.code,
                    refusal.text
                );
                refusal
            }
        }
    }

    /// Sends a command without waiting for its reply, which [`Client::receive`] reads.
    #[track_caller]
    pub fn send(&mut self, command: &Cmd) {
        self.connection.send_packed_command(&command.get_packed_command()).unwrap();
    }

    /// As [`Client::send`], several at once: the server runs them without doing anything else in between.
    #[track_caller]
    pub fn send_together(&mut self, commands: &[Cmd]) {
        let bytes: Vec<u8> = commands.iter().flat_map(Cmd::get_packed_command).collect();
        self.connection.send_packed_command(&bytes).unwrap();
    }

    /// The number of a field of INFO.
    #[track_caller]
    pub fn info(&mut self, field: &str) -> i64 {
        let info = self.text(&cmd!["INFO", "everything"]);
        let number = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        number.unwrap_or_else(|| panic!("INFO has no {field}")).trim().parse().unwrap()
    }

    /// The next reply.
    #[track_caller]
    pub fn receive(&mut self) -> Result<Value, Refusal> {
        let reply = self.connection.recv_response().and_then(Value::extract_error);
        reply.map_err(|error| Refusal::of(&error))
    }

    /// The id for CLIENT KILL and CLIENT UNBLOCK.
    #[track_caller]
    pub fn id(&mut self) -> i64 {
        int(&self.ok(&cmd!["CLIENT", "ID"]))
    }

    /// Fails unless the next reply is that of a PING sent now: no reply too many, none too few.
    #[track_caller]
    pub fn assert_in_step(&mut self) {
        let token = "in step?";
        assert_eq!(self.text(&cmd!["PING", token]), token, "the connection has lost step");
    }
}

/// The words of a command for a message, each cut short.
fn name(command: &Cmd) -> String {
    let words = command.args_iter().map(|arg| match arg {
        redis::Arg::Simple(bytes) => {
            bytes.iter().take(60).copied().flat_map(std::ascii::escape_default).map(char::from).collect()
        }
        _ => String::from("?"),
    });
    words.collect::<Vec<String>>().join(" ")
}
