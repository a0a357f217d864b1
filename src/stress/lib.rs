//! What a server has to stand: random command lines, right ones and wrong ones (the same seed gives the same lines), inputs
//! that once did harm, and a process that sees how long a server answers nobody.
#![forbid(unsafe_code)]

mod forms;
pub mod hostile;
pub mod pulse;

use fastrand::Rng;

use forms::{FORMS, Form, STORIES, TEXTS, TOKEN_BLOBS};

/// A line: a command's name and its arguments.
pub type Line = Vec<Vec<u8>>;

/// Bytes that break parsers, C strings and terminals.
const HOSTILE: [&[u8]; 12] = [
    b"",
    b"\0",
    b"a\0b",
    b"\r\n+OK\r\n",
    b"\xff\xfe",
    b"%s%n",
    b"-1",
    b"nan",
    b"1e309",
    b"99999999999999999999",
    b"0x10",
    "\u{1f980}\u{202e}".as_bytes(),
];

/// Paths of models that lines load.
#[derive(Debug, Clone)]
pub struct Models {
    /// One that generates, with a chat template.
    pub chat: String,
    /// One that embeds.
    pub embed: String,
    /// One that reranks.
    pub rank: String,
}

/// A source of lines.
#[derive(Debug)]
pub struct Lines {
    rng: Rng,
    models: Models,
    hostile: f64,
    weight: u32,
}

impl Lines {
    /// `hostile` is the share of lines, 0 to 1, in which something is made wrong on purpose.
    #[must_use]
    pub fn new(seed: u64, models: Models, hostile: f64) -> Self {
        let weight = FORMS.iter().map(|form| form.weight).sum();
        Self { rng: Rng::with_seed(seed), models, hostile, weight }
    }

    /// The dice of this source, for what else has to be repeatable.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// The next line.
    pub fn next_line(&mut self) -> Line {
        let form = self.form();
        let mut line = self.words(form.line);
        for option in form.options {
            if self.rng.u8(0..16) == 0 {
                line.extend(self.words(option));
            }
        }
        // Redis repeats in errors what it was given, and not every client library can read that.
        if form.line.starts_with("INFER.") && self.rng.f64() < self.hostile {
            self.spoil(&mut line);
        }
        line
    }

    fn form(&mut self) -> &'static Form {
        let mut at = self.rng.u32(0..self.weight.max(1));
        for form in FORMS {
            if at < form.weight {
                return form;
            }
            at -= form.weight;
        }
        &FORMS[0]
    }

    fn words(&mut self, template: &str) -> Line {
        template.split(' ').map(|word| self.word(word)).collect()
    }

    /// What stands for a word of a form: a value for one that begins with `$`, else the word.
    fn word(&mut self, word: &str) -> Vec<u8> {
        let Some(kind) = word.strip_prefix('$') else {
            return word.as_bytes().to_vec();
        };
        match kind {
            "generator" => self.pick(&["chat", "chat", "chat", "chat", "chat", "chat", "chat", "m1", "m2", "nobody"]),
            "embedder" => {
                self.pick(&["embed", "embed", "embed", "embed", "embed", "embed", "embed", "m1", "m2", "chat"])
            }
            "ranker" => self.pick(&["rank", "rank", "rank", "rank", "rank", "rank", "m1", "embed"]),
            "spare" => self.pick(&["m1", "m2"]),
            "path" => {
                let Models { chat, embed, rank } = self.models.clone();
                self.pick(&[chat, embed, rank, "/no/such.gguf".to_owned()])
            }
            "text" => self.pick(TEXTS),
            // Long enough to be kept when others take their place.
            "story" => self.pick(STORIES).repeat(6),
            "blob" => self.pick(TOKEN_BLOBS),
            "key" => self.pick(&[
                "k0",
                "k1",
                "k2",
                "k3",
                "k0",
                "k1",
                "k2",
                "k3",
                "docs",
                "vec:{docs}",
                "tokens:{docs}:p0:chunk_0",
                "faq",
                "cache:{faq}",
                "answers:{faq}",
            ]),
            "index" => self.pick(&["docs", "docs", "docs", "docs", "notes", "k0"]),
            "cache" => self.pick(&["faq", "faq", "faq", "faq", "docs", "k0"]),
            "document" => self.pick(&["p0", "p1", "p2", "p3"]),
            "few" => self.number(1, 8),
            "some" => self.number(1, 40),
            "many" => self.number(1, 3000),
            "time" => self.number(1, 3000),
            "id" => self.number(1, 30_000),
            "fraction" => format!("{:.3}", self.rng.f64()).into_bytes(),
            "signed" => format!("{:.3}", self.rng.f64() * 4.0 - 2.0).into_bytes(),
            // The test finds it.
            _ => word.as_bytes().to_vec(),
        }
    }

    fn number(&mut self, from: u32, to: u32) -> Vec<u8> {
        self.rng.u32(from..=to).to_string().into_bytes()
    }

    fn pick<T: AsRef<[u8]>>(&mut self, from: &[T]) -> Vec<u8> {
        self.rng.choice(from).map(|chosen| chosen.as_ref().to_vec()).unwrap_or_default()
    }

    /// Makes something wrong with a line, mostly; its first word stays.
    fn spoil(&mut self, line: &mut Line) {
        for _ in 0..self.rng.u32(1..3) {
            let end = line.len();
            if end < 2 {
                line.push(self.pick(&HOSTILE));
                continue;
            }
            let place = self.rng.usize(1..end);
            match self.rng.u8(0..8) {
                0 => drop(line.remove(place)),
                1 => line.insert(place, self.pick(&HOSTILE)),
                2 => line.swap(place, self.rng.usize(1..end)),
                3 => line.insert(place, line.get(place).cloned().unwrap_or_default()),
                4 => line.truncate(place),
                5 => self.set(line, place, |rng, word| {
                    let bits = rng.u8(..);
                    let at = rng.usize(0..word.len().max(1));
                    if let Some(byte) = word.get_mut(at) {
                        *byte ^= bits;
                    }
                }),
                6 => self.set(line, place, |rng, word| {
                    let length = rng.usize(0..5000);
                    *word = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
                }),
                _ => {
                    let word = self.pick(&HOSTILE);
                    self.set(line, place, |_, old| *old = word);
                }
            }
        }
    }

    fn set(&mut self, line: &mut Line, place: usize, change: impl FnOnce(&mut Rng, &mut Vec<u8>)) {
        if let Some(word) = line.get_mut(place) {
            change(&mut self.rng, word);
        }
    }
}

/// A line as it can be shown.
#[must_use]
pub fn shown(line: &[Vec<u8>]) -> String {
    let words = line.iter().map(|word| word.iter().take(60).copied().map(std::ascii::escape_default));
    words.map(|bytes| bytes.flatten().map(char::from).collect()).collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(seed: u64, hostile: f64) -> Lines {
        let [chat, embed, rank] = ["chat.gguf", "embed.gguf", "rank.gguf"].map(str::to_owned);
        Lines::new(seed, Models { chat, embed, rank }, hostile)
    }

    #[test]
    fn every_kind_of_value_is_known() {
        let mut lines = lines(1, 0.0);
        for _ in 0..20_000 {
            let line = lines.next_line();
            assert!(!line.iter().any(|word| word.starts_with(b"$")), "{}", shown(&line));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_lines() {
        let first = |seed| {
            let mut lines = lines(seed, 0.5);
            std::iter::repeat_with(move || lines.next_line()).take(100).collect::<Vec<Line>>()
        };
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }
}
