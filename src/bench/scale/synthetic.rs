//! Indexes of random chunks, written with plain commands in the layout that INFER.INGEST uses (docs/INDEXES.md, "What an
//! index `docs` consists of").

use anyhow::Result;
use redis::{Cmd, Connection};

use crate::client::pipelined;

/// Chunks of one document.
const CHUNKS: usize = 10;

/// Tokens of one chunk.
const TOKENS: usize = 200;

/// Token ids that every model has.
const TOKEN_IDS: std::ops::Range<u32> = 100..1000;

/// An index of random chunks. Chunk n has the attribute `group`, n modulo 100.
#[derive(Debug)]
pub struct Synthetic {
    index: String,
    chunks: usize,
    dim: usize,
    random: fastrand::Rng,
}

impl Synthetic {
    /// Makes an empty index for the models `embed` and `chat`.
    pub fn new(connection: &mut Connection, index: &str) -> Result<Self> {
        let mut make = redis::cmd("INFER.INDEX");
        make.arg(index).arg("EMBEDMODEL").arg("embed").arg("GENMODEL").arg("chat").exec(connection)?;
        let dim = redis::cmd("HGET").arg(index).arg("dim").query(connection)?;
        Ok(Self { index: index.to_owned(), chunks: 0, dim, random: fastrand::Rng::with_seed(1) })
    }

    /// Chunks in it.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Adds chunks until there are `chunks`.
    pub fn grow(&mut self, connection: &mut Connection, chunks: usize) -> Result<()> {
        let numbers = self.chunks..chunks.max(self.chunks);
        self.chunks = numbers.end;
        pipelined::<redis::Value>(connection, numbers.flat_map(|number| self.chunk(number)))?;
        let counters = [("chunks", self.chunks), ("tokens", self.chunks * TOKENS), ("epoch", self.chunks / CHUNKS)];
        Ok(redis::cmd("HSET").arg(self.key("stats", "")).arg(&counters).exec(connection)?)
    }

    fn key(&self, kind: &str, rest: &str) -> String {
        format!("{kind}:{{{}}}{rest}", self.index)
    }

    /// The commands that write one chunk.
    fn chunk(&mut self, number: usize) -> [Cmd; 4] {
        let (file, nth) = (number / CHUNKS, number % CHUNKS);
        let (path, id) = (format!("file{file}.rs"), format!("file{file}.rs:chunk_{nth}"));
        let (first, last, group) = (nth * 20 + 1, nth * 20 + 20, number % 100);
        let attributes = format!(
            r#"{{"path":"{path}","chunk":{nth},"first_line":{first},"last_line":{last},"ext":"rs","group":{group}}}"#
        );
        let version = format!("{:032x}", self.random.u128(..));
        let vector = unit_vector(&mut self.random, self.dim);
        let vector = bytemuck::cast_slice::<f32, u8>(&vector);
        let tokens: Vec<u8> = (0..TOKENS).flat_map(|_| self.random.u32(TOKEN_IDS).to_le_bytes()).collect();

        let mut vadd = redis::cmd("VADD");
        vadd.arg(self.key("vec", "")).arg("FP32").arg(vector).arg(format!("{id}@{version}"));
        vadd.arg("Q8").arg("SETATTR").arg(attributes);
        let mut set = redis::cmd("SET");
        set.arg(self.key("tokens", &format!(":{id}"))).arg(tokens);
        let mut document = redis::cmd("HSET");
        document.arg(self.key("doc", &format!(":{path}"))).arg(format!("chunk_{nth}")).arg(version);
        document.arg("chunks").arg(nth + 1).arg("tokens").arg((nth + 1) * TOKENS);
        let mut paths = redis::cmd("SADD");
        paths.arg(self.key("paths", "")).arg(path);
        [vadd, set, document, paths]
    }
}

/// A vector of length 1 in a random direction.
fn unit_vector(random: &mut fastrand::Rng, dim: usize) -> Vec<f32> {
    // The sum of uniform numbers is near enough to a normal distribution for all directions to be as likely.
    let mut vector: Vec<f32> = (0..dim).map(|_| (0..4).map(|_| random.f32() - 0.5).sum()).collect();
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    for number in &mut vector {
        *number /= length;
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_one_and_point_anywhere() {
        let mut random = fastrand::Rng::with_seed(1);
        let (a, b) = (unit_vector(&mut random, 384), unit_vector(&mut random, 384));
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!((product(&a, &a) - 1.0).abs() < 1e-5);
        assert!(product(&a, &b).abs() < 0.3);
    }
}
