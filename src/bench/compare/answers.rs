//! What both sides have in common: a server whose clients send prompts and get answers.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// A finished answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// Tokens of the prompt, those that the server had already included.
    pub prompt: u64,
    /// Tokens of the prompt that were not computed again.
    pub cached: u64,
    /// Tokens that were generated.
    pub tokens: u64,
    /// From sending the command to having the whole reply, by the clock of the client.
    pub wall: Duration,
    /// Computing the prompt, as the server tells.
    pub prefill: Duration,
    /// From the first token to the last, as the server tells.
    pub decode: Duration,
}

impl Answer {
    /// Tokens per second after the first.
    pub fn decode_rate(&self) -> f64 {
        self.tokens.saturating_sub(1) as f64 / self.decode.as_secs_f64()
    }

    /// Tokens of the prompt per second, those computed.
    pub fn prefill_rate(&self) -> f64 {
        self.prompt.saturating_sub(self.cached) as f64 / self.prefill.as_secs_f64()
    }
}

/// One side of the comparison.
pub trait Server: Sync {
    /// A client with a connection of its own.
    fn client(&self) -> Result<Box<dyn Client>>;
}

/// A client of one side.
pub trait Client: Send {
    /// Generates exactly `tokens` tokens, greedily; an answer with fewer is an error.
    fn answer(&mut self, prompt: &str, tokens: u64) -> Result<Answer>;
}

/// Answers to prompts that were sent at the same moment.
#[derive(Debug)]
pub struct Load {
    /// In the order of the prompts.
    pub answers: Vec<Answer>,
    /// From the first prompt to the last answer.
    pub wall: Duration,
}

impl Load {
    /// Generated tokens per second of all clients together, prompts included.
    pub fn rate(&self) -> f64 {
        self.answers.iter().map(|answer| answer.tokens).sum::<u64>() as f64 / self.wall.as_secs_f64()
    }
}

/// One client for each prompt, all at once.
pub fn together(server: &dyn Server, prompts: &[String], tokens: u64) -> Result<Load> {
    let clients = prompts.iter().map(|_| server.client()).collect::<Result<Vec<_>>>()?;
    let barrier = Barrier::new(prompts.len() + 1);
    thread::scope(|scope| {
        let start = |(mut client, prompt): (Box<dyn Client>, &String)| {
            let (barrier, prompt) = (&barrier, prompt.clone());
            scope.spawn(move || {
                barrier.wait();
                client.answer(&prompt, tokens)
            })
        };
        let running: Vec<_> = clients.into_iter().zip(prompts).map(start).collect();
        barrier.wait();
        let start = Instant::now();
        let joined = running.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
        let answers = joined.collect::<Result<Vec<_>>>()?;
        Ok(Load { answers, wall: start.elapsed() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_leave_out_what_was_not_computed() {
        let second = Duration::from_secs(1);
        let answer =
            Answer { prompt: 100, cached: 90, tokens: 11, wall: 3 * second, prefill: second, decode: 2 * second };
        assert_eq!((answer.decode_rate(), answer.prefill_rate()), (5.0, 10.0));
        let load = Load { answers: vec![answer; 4], wall: 4 * second };
        assert_eq!(load.rate(), 11.0);
    }
}
