//! GBNF, llama.cpp's notation for grammars, translated into the Lark notation of llguidance.
//!
//! Every character becomes a terminal of its own, because llguidance's lexer takes the longest match and GBNF knows no
//! lexer: a choice between `"a" "bc"` and `"ab"` must stay open. What GBNF calls `root` becomes `start`, rule `n` becomes
//! `rn`. Left recursion, which llama.cpp refuses, is fine.
//!
//! What follows recurses through parentheses, repetitions and rules, and multiplies repetitions out; so all of them are
//! counted here, over the references between rules, before it begins.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use thiserror::Error;

use super::limits::{
    GRAMMAR_DEPTH_MAX, GRAMMAR_ITEMS_MAX, GRAMMAR_REFERENCE_DEPTH_MAX, GRAMMAR_REPEAT_MAX, GRAMMAR_RULES_MAX,
    GRAMMAR_SYMBOLS_MAX, GRAMMAR_TERMINALS_MAX,
};
use super::nesting::{Mention, deeper_than, multiplied_out};

/// Why a grammar cannot be used; the text is printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct GbnfError {
    /// Line of the grammar, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: String,
}

/// The grammar in Lark.
///
/// # Errors
/// When it is not GBNF, uses a rule that it does not define, defines one twice, has no rule `root`, or is larger or nested
/// more deeply than the limits allow.
pub fn to_lark(grammar: &str) -> Result<String, GbnfError> {
    Parser { rest: grammar, line: 1, rules: HashMap::new(), names: Vec::new(), size: Size::default() }.grammar()
}

/// Characters of a rule's name that an error repeats.
const SHOWN_MAX: usize = 32;

#[derive(Debug)]
struct Parser<'a> {
    rest: &'a str,
    line: usize,
    /// Number of each rule, and whether it is defined.
    rules: HashMap<&'a str, (usize, bool)>,
    /// Names by number, each with the line that first mentions it.
    names: Vec<(&'a str, usize)>,
    size: Size,
}

/// What the grammar takes when it is compiled.
#[derive(Debug, Default)]
struct Size {
    /// Symbols that it is about to have.
    symbols: usize,
    /// The different characters and classes.
    terminals: HashSet<String>,
    /// By the number of a rule: the items of its body, repetitions multiplied.
    items: Vec<usize>,
    /// By the number of a rule: the rules that its body mentions, each with the levels of parentheses and repetitions there.
    mentions: Vec<Vec<Mention>>,
}

/// What there was of a rule's body before an item.
#[derive(Debug, Clone, Copy)]
struct Before {
    mentions: usize,
    items: usize,
}

/// The signs behind an item, taken together: `+?` is `*`, and so is `**`.
#[derive(Debug, Default, Clone, Copy)]
struct Signs {
    /// It may be left out.
    optional: bool,
    /// There may be more of it.
    many: bool,
}

impl Signs {
    fn add(&mut self, sign: char) {
        self.optional |= sign != '+';
        self.many |= sign != '?';
    }

    /// The one sign that says the same; none if there was none.
    fn one(self) -> Option<&'static str> {
        match (self.optional, self.many) {
            (true, true) => Some("*"),
            (true, false) => Some("?"),
            (false, true) => Some("+"),
            (false, false) => None,
        }
    }
}

/// Where the parser is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The rule whose body it is in.
    rule: usize,
    /// Levels of parentheses and repetitions around.
    depth: usize,
    /// Open parentheses.
    parentheses: usize,
}

impl Place {
    /// Behind another parenthesis.
    fn inside(self) -> Self {
        Self { depth: self.depth + 1, parentheses: self.parentheses + 1, ..self }
    }
}

/// What ends an item of a sequence: a newline does, unless parentheses are open.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Newlines {
    End,
    Skip,
}

impl<'a> Parser<'a> {
    fn grammar(mut self) -> Result<String, GbnfError> {
        let mut lark = String::new();
        self.skip_space(Newlines::Skip);
        while !self.rest.is_empty() {
            let name = self.name().ok_or_else(|| self.error("a rule's name is expected"))?;
            let number = self.number(name)?;
            if let Some((_, defined)) = self.rules.get_mut(name)
                && std::mem::replace(defined, true)
            {
                return Err(self.error(format!("rule '{}' is defined twice", shown(name))));
            }
            self.skip_space(Newlines::End);
            if !self.take("::=") {
                return Err(self.error("'::=' is expected after the rule's name"));
            }
            self.skip_space(Newlines::Skip);
            let body = self.alternates(Place { rule: number, depth: 0, parentheses: 0 })?;
            if !self.rest.is_empty() && !self.rest.starts_with(['\n', '\r']) {
                return Err(self.error("the end of the line is expected"));
            }
            _ = writeln!(lark, "r{number}: {body}");
            self.skip_space(Newlines::Skip);
        }
        if let Some((name, line)) = self.names.iter().find(|(name, _)| !self.rules.get(name).is_some_and(|rule| rule.1))
        {
            return Err(GbnfError { line: *line, problem: format!("rule '{}' is not defined", shown(name)) });
        }
        match self.rules.get("root") {
            Some(&(root, _)) => {
                self.check_references(root)?;
                if multiplied_out(&self.size.items, &self.size.mentions, root) > GRAMMAR_ITEMS_MAX {
                    let problem = format!(
                        "repetitions inside repetitions, also through the names of rules, come to more than {GRAMMAR_ITEMS_MAX} items"
                    );
                    return Err(GbnfError { line: 1, problem });
                }
                Ok(format!("start: r{root}\n{lark}"))
            }
            None => Err(self.error("there is no rule 'root'")),
        }
    }

    fn alternates(&mut self, place: Place) -> Result<String, GbnfError> {
        let mut choice = self.sequence(place)?;
        while self.take("|") {
            self.skip_space(Newlines::Skip);
            choice.push_str(" | ");
            choice.push_str(&self.sequence(place)?);
        }
        Ok(choice)
    }

    fn sequence(&mut self, place: Place) -> Result<String, GbnfError> {
        let newlines = if place.parentheses == 0 { Newlines::End } else { Newlines::Skip };
        self.count_symbols(1)?;
        let mut items = String::new();
        loop {
            self.skip_space(newlines);
            if self.rest.is_empty() || self.rest.starts_with(['|', ')', '\n', '\r']) {
                break;
            }
            let before = Before { mentions: self.mentions_of(place.rule), items: self.items_of(place.rule) };
            let item = self.item(place)?;
            let item = self.repeated(item, place, before)?;
            if !items.is_empty() {
                items.push(' ');
            }
            items.push_str(&item);
        }
        Ok(if items.is_empty() { r#""""#.to_owned() } else { items })
    }

    fn item(&mut self, place: Place) -> Result<String, GbnfError> {
        self.count_symbols(1)?;
        if let Some(items) = self.size.items.get_mut(place.rule) {
            *items = items.saturating_add(1);
        }
        if self.take("\"") {
            return self.literal();
        }
        if self.take("[") {
            return self.class();
        }
        if self.take(".") {
            return self.terminal("/(?s:.)/".to_owned());
        }
        if self.take("(") {
            if place.parentheses == GRAMMAR_DEPTH_MAX {
                return Err(self.error(format!("parentheses are nested more than {GRAMMAR_DEPTH_MAX} deep")));
            }
            self.skip_space(Newlines::Skip);
            let inner = self.alternates(place.inside())?;
            return if self.take(")") { Ok(format!("({inner})")) } else { Err(self.error("')' is missing")) };
        }
        match self.name() {
            Some(name) => {
                let number = self.number(name)?;
                if let Some(mentions) = self.size.mentions.get_mut(place.rule) {
                    mentions.push(Mention { definition: number, depth: place.depth + 1, times: 1 });
                }
                Ok(format!("r{number}"))
            }
            None => Err(self.error("a rule's name, '\"', '[', '(' or '.' is expected")),
        }
    }

    /// The item with what follows it of `*`, `+`, `?` and `{m,n}`; `before` it there was that.
    fn repeated(&mut self, mut item: String, place: Place, before: Before) -> Result<String, GbnfError> {
        let mut signs = Signs::default();
        let mut levels = 0;
        let mut most = 1_usize;
        loop {
            self.skip_space(Newlines::End);
            match self.rest.chars().next() {
                Some(sign @ ('*' | '+' | '?')) => {
                    self.rest = &self.rest[1..];
                    signs.add(sign);
                    continue;
                }
                Some('{') => {
                    self.rest = &self.rest[1..];
                    let (times, count) = self.times()?;
                    most = most.saturating_mul(count.max(1));
                    for times in signs.one().into_iter().chain([times.as_str()]) {
                        item = format!("({item}){times}");
                        levels += 1;
                    }
                    signs = Signs::default();
                }
                _ => break,
            }
            if levels > GRAMMAR_DEPTH_MAX {
                return Err(self.error(format!("an item has more than {GRAMMAR_DEPTH_MAX} repetitions")));
            }
        }
        if let Some(sign) = signs.one() {
            item = format!("({item}){sign}");
            levels += 1;
        }
        self.count_symbols(levels)?;
        let mentions = self.size.mentions.get_mut(place.rule).and_then(|mentions| mentions.get_mut(before.mentions..));
        for mention in mentions.unwrap_or_default() {
            mention.depth += levels;
            mention.times = mention.times.saturating_mul(most);
        }
        if let Some(items) = self.size.items.get_mut(place.rule) {
            *items = before.items.saturating_add(items.saturating_sub(before.items).saturating_mul(most));
        }
        Ok(item)
    }

    /// The rest of `{m}`, `{m,}` or `{m,n}`, and the larger of its numbers.
    fn times(&mut self) -> Result<(String, usize), GbnfError> {
        self.skip_space(Newlines::End);
        let least = self.count()?;
        let mut most = Some(least);
        self.skip_space(Newlines::End);
        if self.take(",") {
            self.skip_space(Newlines::End);
            most = if self.rest.starts_with('}') { None } else { Some(self.count()?) };
            self.skip_space(Newlines::End);
        }
        self.count_symbols(symbols_of(least) + symbols_of(most.unwrap_or(least).saturating_sub(least)))?;
        if !self.take("}") {
            return Err(self.error("'}' is missing"));
        }
        match most {
            Some(most) if most < least => Err(self.error("a repetition ends before it begins")),
            Some(most) => Ok((format!("{{{least},{most}}}"), most as usize)),
            None => Ok((format!("{{{least},}}"), least as usize)),
        }
    }

    fn count(&mut self) -> Result<u32, GbnfError> {
        let digits = self.take_while(|c| c.is_ascii_digit());
        match digits.parse() {
            Ok(count) if count <= GRAMMAR_REPEAT_MAX => Ok(count),
            _ => Err(self.error(format!("a repetition needs a number from 0 to {GRAMMAR_REPEAT_MAX}"))),
        }
    }

    /// The rest of `"text"`.
    fn literal(&mut self) -> Result<String, GbnfError> {
        let mut terminals = Vec::new();
        while !self.take("\"") {
            let character = self.character("'\"' is missing")?;
            terminals.push(self.terminal(format!("/{}/", escaped(character)))?);
        }
        Ok(match terminals.as_slice() {
            [] => r#""""#.to_owned(),
            [one] => one.clone(),
            many => format!("({})", many.join(" ")),
        })
    }

    /// The rest of `[a-z]` or `[^a-z]`.
    fn class(&mut self) -> Result<String, GbnfError> {
        let mut set = if self.take("^") { "[^".to_owned() } else { "[".to_owned() };
        let empty = set.len();
        while !self.take("]") {
            let first = self.character("']' is missing")?;
            set.push_str(&escaped(first));
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.rest = &self.rest[1..];
                let last = self.character("']' is missing")?;
                if last < first {
                    return Err(self.error("a range of characters ends before it begins"));
                }
                set.push('-');
                set.push_str(&escaped(last));
            }
        }
        if set.len() == empty {
            return Err(self.error("[] matches nothing"));
        }
        self.terminal(format!("/{set}]/"))
    }

    /// Takes note of a terminal.
    fn terminal(&mut self, terminal: String) -> Result<String, GbnfError> {
        self.count_symbols(1)?;
        if !self.size.terminals.contains(&terminal) {
            if self.size.terminals.len() == GRAMMAR_TERMINALS_MAX {
                return Err(
                    self.error(format!("there are more than {GRAMMAR_TERMINALS_MAX} different characters and classes"))
                );
            }
            self.size.terminals.insert(terminal.clone());
        }
        Ok(terminal)
    }

    fn count_symbols(&mut self, symbols: usize) -> Result<(), GbnfError> {
        self.size.symbols = self.size.symbols.saturating_add(symbols);
        if self.size.symbols > GRAMMAR_SYMBOLS_MAX {
            return Err(self.error(format!(
                "with its repetitions multiplied out the grammar has more than {GRAMMAR_SYMBOLS_MAX} symbols"
            )));
        }
        Ok(())
    }

    fn items_of(&self, rule: usize) -> usize {
        self.size.items.get(rule).copied().unwrap_or_default()
    }

    fn mentions_of(&self, rule: usize) -> usize {
        self.size.mentions.get(rule).map_or(0, Vec::len)
    }

    /// Refuses rules that lead to others too deeply, counted from `root` with the parentheses and repetitions on the way.
    fn check_references(&self, root: usize) -> Result<(), GbnfError> {
        let too_deep = deeper_than(GRAMMAR_REFERENCE_DEPTH_MAX, &self.size.mentions, root);
        match too_deep.and_then(|rule| self.names.get(rule)) {
            None => Ok(()),
            Some(&(name, line)) => Err(GbnfError {
                line,
                problem: format!(
                    "below rule '{}' rules, parentheses and repetitions are nested more than {GRAMMAR_REFERENCE_DEPTH_MAX} deep",
                    shown(name)
                ),
            }),
        }
    }

    /// One character of a literal or a class.
    fn character(&mut self, missing: &str) -> Result<char, GbnfError> {
        let Some(first) = self.rest.chars().next() else { return Err(self.error(missing)) };
        self.rest = &self.rest[first.len_utf8()..];
        if first == '\n' {
            self.line += 1;
        }
        if first != '\\' {
            return Ok(first);
        }
        let Some(escape) = self.rest.chars().next() else { return Err(self.error(missing)) };
        self.rest = &self.rest[escape.len_utf8()..];
        let digits = match escape {
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'n' => return Ok('\n'),
            '\\' | '"' | '[' | ']' | '-' | '^' | '/' => return Ok(escape),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(self.error("unknown escape after '\\'")),
        };
        let code = self.rest.get(..digits).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let character = code.and_then(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?));
        let Some(character) = character else {
            return Err(
                self.error(format!("{digits} hexadecimal digits of a character are expected after '\\{escape}'"))
            );
        };
        self.rest = &self.rest[digits..];
        Ok(character)
    }

    fn name(&mut self) -> Option<&'a str> {
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        (!name.is_empty()).then_some(name)
    }

    fn number(&mut self, name: &'a str) -> Result<usize, GbnfError> {
        let next = self.names.len();
        let number = self.rules.entry(name).or_insert((next, false)).0;
        if number == next {
            if next == GRAMMAR_RULES_MAX {
                return Err(self.error(format!("there are more than {GRAMMAR_RULES_MAX} rules")));
            }
            self.names.push((name, self.line));
            self.size.mentions.push(Vec::new());
            self.size.items.push(0);
        }
        Ok(number)
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let (taken, rest) = self.rest.split_at(self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Skips blanks, comments, and newlines if they mean nothing here.
    fn skip_space(&mut self, newlines: Newlines) {
        loop {
            self.take_while(|c| c == ' ' || c == '\t');
            if self.rest.starts_with('#') {
                self.take_while(|c| c != '\n' && c != '\r');
            } else if newlines == Newlines::Skip && self.rest.starts_with(['\n', '\r']) {
                self.line += usize::from(self.rest.starts_with('\n'));
                self.rest = &self.rest[1..];
            } else {
                return;
            }
        }
    }

    fn error(&self, problem: impl Into<String>) -> GbnfError {
        GbnfError { line: self.line, problem: problem.into() }
    }
}

/// A character for a regular expression, inside and outside of a class.
fn escaped(character: char) -> String {
    format!("\\x{{{:x}}}", u32::from(character))
}

/// An upper bound of the symbols that llguidance makes of a repetition: it cuts it by four again and again.
fn symbols_of(times: u32) -> usize {
    const PER_CUT: usize = 24;
    if times == 0 { 0 } else { PER_CUT * (times.ilog2() as usize / 2 + 1) }
}

fn shown(name: &str) -> &str {
    name.get(..SHOWN_MAX).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lark(grammar: &str) -> String {
        to_lark(grammar).unwrap()
    }

    fn problem(grammar: &str) -> String {
        to_lark(grammar).unwrap_err().to_string()
    }

    #[test]
    fn each_character_of_a_literal_is_a_terminal() {
        assert_eq!(lark(r#"root ::= "ab" "/""#), "start: r0\nr0: (/\\x{61}/ /\\x{62}/) /\\x{2f}/\n");
    }

    #[test]
    fn escapes_stand_for_their_characters() {
        assert_eq!(
            lark(r#"root ::= "\n\"\\" [\x41\u00e9\U0001F980\]]"#),
            "start: r0\nr0: (/\\x{a}/ /\\x{22}/ /\\x{5c}/) /[\\x{41}\\x{e9}\\x{1f980}\\x{5d}]/\n"
        );
    }

    #[test]
    fn classes_have_ranges_and_a_minus_at_the_end_is_itself() {
        assert_eq!(lark("root ::= [^a-z0-]"), "start: r0\nr0: /[^\\x{61}-\\x{7a}\\x{30}\\x{2d}]/\n");
        assert_eq!(lark("root ::= ."), "start: r0\nr0: /(?s:.)/\n");
    }

    #[test]
    fn repetition_binds_to_the_whole_item() {
        assert_eq!(
            lark(r#"root ::= "ab"* root+? [0-9]{2} .{1,} .{ 0 , 3 }"#),
            "start: r0\nr0: ((/\\x{61}/ /\\x{62}/))* (r0)* (/[\\x{30}-\\x{39}]/){2,2} (/(?s:.)/){1,} (/(?s:.)/){0,3}\n"
        );
    }

    #[test]
    fn rules_may_stand_in_any_order_with_comments_and_lines_in_parentheses() {
        let grammar =
            "# a list\nroot ::= item (\n  \",\" item # more\n)* |\n  none\nnone ::= \"\"\n\nitem ::= [a-z]\r\n";
        assert_eq!(lark(grammar), "start: r0\nr0: r1 ((/\\x{2c}/ r1))* | r2\nr2: \"\"\nr1: /[\\x{61}-\\x{7a}]/\n");
    }

    #[test]
    fn wrong_grammars_say_where_and_why() {
        for (grammar, expected) in [
            ("", "line 1: there is no rule 'root'"),
            ("a ::= \"x\"", "line 1: there is no rule 'root'"),
            ("root ::= a\n\na ::= b", "line 3: rule 'b' is not defined"),
            ("root ::= \"a\"\nroot ::= \"b\"", "line 2: rule 'root' is defined twice"),
            ("root = \"a\"", "line 1: '::=' is expected after the rule's name"),
            ("root ::= \"a", "line 1: '\"' is missing"),
            ("root ::= [a", "line 1: ']' is missing"),
            ("root ::= []", "line 1: [] matches nothing"),
            ("root ::= [z-a]", "line 1: a range of characters ends before it begins"),
            ("root ::= (\"a\"", "line 1: ')' is missing"),
            ("root ::= \"a\")", "line 1: the end of the line is expected"),
            ("root ::= *", "line 1: a rule's name, '\"', '[', '(' or '.' is expected"),
            ("root ::= \"a\"{2001}", "line 1: a repetition needs a number from 0 to 2000"),
            ("root ::= \"a\"{,2}", "line 1: a repetition needs a number from 0 to 2000"),
            ("root ::= \"a\"{3,2}", "line 1: a repetition ends before it begins"),
            ("root ::= \"a\"{3", "line 1: '}' is missing"),
            ("root ::= \"\\q\"", "line 1: unknown escape after '\\'"),
            ("root ::= \"\\ud800\"", "line 1: 4 hexadecimal digits of a character are expected after '\\u'"),
            ("root ::= \"\\x4\u{20ac}\"", "line 1: 2 hexadecimal digits of a character are expected after '\\x'"),
            ("root ::= <[5]>", "line 1: a rule's name, '\"', '[', '(' or '.' is expected"),
            ("\u{20ac}", "line 1: a rule's name is expected"),
        ] {
            assert_eq!(problem(grammar), expected, "{grammar}");
        }
    }

    #[test]
    fn signs_behind_signs_are_one_sign() {
        for (signs, one) in
            [("??", "?"), ("++", "+"), ("**", "*"), ("+?", "*"), ("?+", "*"), ("?*+", "*"), ("+ + ?", "*")]
        {
            assert_eq!(lark(&format!("root ::= .{signs}")), format!("start: r0\nr0: (/(?s:.)/){one}\n"), "{signs}");
        }
        assert_eq!(lark("root ::= .??{2}+*"), "start: r0\nr0: (((/(?s:.)/)?){2,2})*\n");
        // Each sign would copy the item.
        let many = "?".repeat(60_000);
        assert_eq!(lark(&format!("root ::= .{many}")), "start: r0\nr0: (/(?s:.)/)?\n");
    }

    #[test]
    fn deep_nesting_is_refused_before_it_overflows_a_stack() {
        let nested = |depth| format!("root ::= {}\"a\"{}", "(".repeat(depth), ")".repeat(depth));
        assert!(to_lark(&nested(64)).is_ok());
        assert_eq!(problem(&nested(200_000)), "line 1: parentheses are nested more than 64 deep");
        let repeated = |times| format!("root ::= .{}", "{1}".repeat(times));
        assert!(to_lark(&repeated(64)).is_ok());
        assert_eq!(problem(&repeated(65)), "line 1: an item has more than 64 repetitions");
    }

    #[test]
    fn nesting_is_counted_through_the_names_of_rules() {
        let chain = |rules: usize, body: &dyn Fn(usize) -> String| {
            let mut grammar = "root ::= a0\n".to_owned();
            for rule in 0..rules {
                grammar += &format!("a{rule} ::= {}\n", body(rule + 1));
            }
            grammar + &format!("a{rules} ::= .\n")
        };
        let plain = |next| format!("a{next}");
        assert!(to_lark(&chain(511, &plain)).is_ok());
        let text = "line 1: below rule 'root' rules, parentheses and repetitions are nested more than 512 deep";
        assert_eq!(problem(&chain(512, &plain)), text);
        let grouped = |next| format!("((a{next}?){{1}})");
        let text = problem(&chain(130, &grouped));
        assert!(text.ends_with("are nested more than 512 deep"), "{text}");
        assert!(to_lark(&chain(100, &grouped)).is_ok());
        // Rules that lead back to themselves are not deep.
        assert!(to_lark("root ::= \"a\" root | b\nb ::= (b \"c\")? root").is_ok());
    }

    #[test]
    fn repetitions_inside_repetitions_are_multiplied_also_through_the_names_of_rules() {
        let text =
            "line 1: repetitions inside repetitions, also through the names of rules, come to more than 100000 items";
        assert!(to_lark("root ::= (.{300}){300}").is_ok());
        assert_eq!(problem("root ::= (.{0,2000}){0,2000}"), text);
        assert!(to_lark("root ::= a{0,200}\na ::= b{0,200}\nb ::= .").is_ok());
        assert_eq!(problem("root ::= a{0,2000}\na ::= b{0,2000}\nb ::= ."), text);
        // What has no end, and what leads back to itself, is none of them.
        assert!(to_lark("root ::= (a+ b*)* root?\na ::= .{1000}\nb ::= a root").is_ok());
    }

    #[test]
    fn what_is_multiplied_out_is_counted_before() {
        let rules: String = (0..3000).map(|rule| format!("a{rule} ::= .\n")).collect();
        assert_eq!(problem(&rules), "line 2049: there are more than 2048 rules");
        let repeated = "root ::= ".to_owned() + &".{9,2000} ".repeat(6000);
        let text = "line 1: with its repetitions multiplied out the grammar has more than 40000 symbols";
        assert_eq!(problem(&repeated), text);
        let characters: String = (0x4e00..0x4e00 + 5000).filter_map(char::from_u32).collect();
        let text = "line 1: there are more than 4096 different characters and classes";
        assert_eq!(problem(&format!("root ::= \"{characters}\"")), text);
        assert!(to_lark(&format!("root ::= [{characters}]")).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_translated_or_refused(text in r#"(root ::= )?([\[\](){}"\\|*+?.,^a-z0-9# \n-]|::=|\PC){0,60}"#) {
            if let Err(error) = to_lark(&text) {
                proptest::prop_assert!(error.to_string().is_ascii());
            }
        }
    }
}
