//! What a client is told about its arguments.

use thiserror::Error;

/// What is wrong with the arguments of a command. The text never holds a client's bytes as they came, see
/// [`ArgError::Unknown`].
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ArgError {
    /// More arguments than the command takes.
    #[error("wrong number of arguments for '{command}' command")]
    WrongArity {
        /// The command.
        command: &'static str,
    },
    /// The arguments end before a positional one.
    #[error("wrong number of arguments for '{command}' command: {what} is missing")]
    Missing {
        /// The command.
        command: &'static str,
        /// The argument.
        what: &'static str,
    },
    /// Not exactly one argument, for commands that share the parser of a name.
    #[error("wrong number of arguments: exactly one is taken, the {what}")]
    NotOne {
        /// The argument.
        what: &'static str,
    },
    /// A word where an option was expected.
    #[error("unknown option '{option}'")]
    Unknown {
        /// At most 32 characters of the word, all of them printable ASCII.
        option: String,
    },
    /// The same option twice.
    #[error("option {option} is given twice")]
    Duplicate {
        /// The option.
        option: String,
    },
    /// The arguments end after an option that takes a value.
    #[error("option {option} needs a value")]
    MissingValue {
        /// The option.
        option: String,
    },
    /// Something that may not be left out.
    #[error("{what} is required")]
    Required {
        /// What has to be given.
        what: &'static str,
    },
    /// Not a decimal integer.
    #[error("{option} is not an integer")]
    NotAnInteger {
        /// The option.
        option: &'static str,
    },
    /// Not a finite decimal number.
    #[error("{option} is not a number")]
    NotANumber {
        /// The option.
        option: &'static str,
    },
    /// A number outside its bounds, which are inclusive.
    #[error("{option} must be from {min} to {max}")]
    OutOfRange {
        /// The option.
        option: &'static str,
        /// The lowest value; `f64` holds all our bounds exactly.
        min: f64,
        /// The highest value.
        max: f64,
    },
    /// Text with a byte that is not UTF-8.
    #[error("{what} is not valid UTF-8 at byte {offset}")]
    NotUtf8 {
        /// The argument.
        what: &'static str,
        /// Position of the first bad byte, from 0.
        offset: usize,
    },
    /// More bytes than allowed.
    #[error("{what} is longer than {max} bytes")]
    TooLong {
        /// The argument.
        what: &'static str,
        /// The most bytes it may have.
        max: usize,
    },
    /// No bytes where some are needed.
    #[error("{what} must not be empty")]
    Empty {
        /// The argument.
        what: &'static str,
    },
    /// A value whose form is wrong.
    #[error("{option}: {problem}")]
    BadForm {
        /// The option.
        option: &'static str,
        /// What is wrong with it, in printable ASCII.
        problem: String,
    },
    /// Two options that exclude each other.
    #[error("{one} and {other} exclude each other")]
    Exclusive {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A reply with more parts than a server should send.
    #[error("{option} would make a reply of more than {max} numbers; lower it or MAXTOKENS")]
    ReplyTooLarge {
        /// The option.
        option: &'static str,
        /// The most numbers.
        max: usize,
    },
    /// A name that cannot be part of a key or a pattern.
    #[error("{what} must not contain control characters or braces, and must not be '*'")]
    BadName {
        /// The argument.
        what: &'static str,
    },
    /// A path that the system would cut short.
    #[error("{what} must not contain a NUL byte")]
    Nul {
        /// The argument.
        what: &'static str,
    },
    /// A character that a path or file name may not have.
    #[error("{what} must not contain control characters")]
    ControlCharacter {
        /// The argument.
        what: &'static str,
    },
    /// A count such as `numkeys` that is not a decimal integer.
    #[error("{what} is not a number")]
    CountNotANumber {
        /// The argument.
        what: &'static str,
    },
    /// A count below zero.
    #[error("{what} is negative")]
    CountNegative {
        /// The argument.
        what: &'static str,
    },
    /// A count that is larger than the number of arguments after it.
    #[error("{what} is {count}, but the number of arguments after it is {left}")]
    CountTooLarge {
        /// The argument.
        what: &'static str,
        /// Its value.
        count: i64,
        /// Arguments after it.
        left: usize,
    },
    /// Two options that contradict each other.
    #[error("{a} and {b} cannot be used together")]
    Conflict {
        /// One of them.
        a: &'static str,
        /// The other.
        b: &'static str,
    },
    /// An option that means nothing without another.
    #[error("{option} needs {needs}")]
    Without {
        /// The option.
        option: &'static str,
        /// The other.
        needs: &'static str,
    },
    /// More messages than a conversation may have.
    #[error("the conversation has more than {max} messages")]
    TooManyMessages {
        /// How many it may have.
        max: usize,
    },
    /// A conversation that the model is not asked to go on with.
    #[error("the last message must have the role user: it is the one that is answered")]
    LastNotFromUser,
    /// A value that is none of the option's words.
    #[error("{option} must be one of {allowed}")]
    BadWord {
        /// The option.
        option: &'static str,
        /// The words, separated by commas.
        allowed: String,
    },
}

impl ArgError {
    /// The first word of the error reply.
    pub fn code(&self) -> &'static str {
        "ERR"
    }
}
