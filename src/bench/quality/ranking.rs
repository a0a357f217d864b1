//! Rankings of chunks, and how good they are.

use std::collections::{HashMap, HashSet};

use super::corpus::Place;

/// Chunks by their numbers, best first.
pub type Ranking = Vec<usize>;

/// Constant of reciprocal rank fusion, as in Cormack, Clarke and Büttcher (2009).
const FUSION: f64 = 60.0;

/// How good rankings are, over all questions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Share of the questions with a right answer in the first place.
    pub recall_at_1: f64,
    /// Share of the questions with a right answer among the first five.
    pub recall_at_5: f64,
    /// Mean of 1 / place of the first right answer; 0 where there is none.
    pub mrr: f64,
}

impl Score {
    /// From the places of the first right answers, counted from 1.
    pub fn of(places: &[Option<usize>]) -> Self {
        let questions = places.len().max(1) as f64;
        let within = |most: usize| places.iter().flatten().filter(|place| **place <= most).count() as f64 / questions;
        let mrr = places.iter().flatten().map(|place| 1.0 / *place as f64).sum::<f64>() / questions;
        Self { recall_at_1: within(1), recall_at_5: within(5), mrr }
    }
}

/// The place, from 1, of the first chunk that shares a line with an answer.
pub fn chunk_place(ranking: &[usize], chunks: &[Place], answers: &[Place]) -> Option<usize> {
    let right = |chunk: &Place| answers.iter().any(|answer| answer.touches(chunk));
    ranking.iter().position(|number| chunks.get(*number).is_some_and(right)).map(|at| at + 1)
}

/// The place, from 1, of the first document that holds an answer; documents stand where their best chunks do.
pub fn document_place(ranking: &[usize], chunks: &[Place], answers: &[Place]) -> Option<usize> {
    let mut seen = HashSet::new();
    let mut documents = ranking.iter().filter_map(|number| chunks.get(*number)).map(|chunk| chunk.path.as_str());
    documents.find_map(|path| {
        seen.insert(path);
        answers.iter().any(|answer| answer.path == path).then_some(seen.len())
    })
}

/// One ranking from several, by reciprocal rank fusion.
pub fn fuse(rankings: &[&Ranking]) -> Ranking {
    let mut scores = HashMap::<usize, f64>::new();
    for ranking in rankings {
        for (at, number) in ranking.iter().enumerate() {
            *scores.entry(*number).or_default() += 1.0 / (FUSION + (at + 1) as f64);
        }
    }
    best(scores.into_iter())
}

/// The `most` vectors with the largest inner product with `query`: exact, by looking at all.
pub fn nearest(vectors: &[Vec<f32>], query: &[f32], most: usize) -> Ranking {
    let product = |vector: &[f32]| vector.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    let mut ranking = best(vectors.iter().map(|vector| product(vector)).enumerate());
    ranking.truncate(most);
    ranking
}

/// By score, best first; by number where scores are equal.
fn best(scores: impl Iterator<Item = (usize, f64)>) -> Ranking {
    let mut scores: Vec<_> = scores.collect();
    scores.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
    scores.into_iter().map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks() -> Vec<Place> {
        let place = |path: &str, lines| Place { path: path.into(), lines };
        vec![place("a", (1, 4)), place("a", (5, 8)), place("b", (1, 9)), place("c", (1, 2))]
    }

    fn answer(path: &str, line: u32) -> Vec<Place> {
        vec![Place { path: path.into(), lines: (line, line) }]
    }

    #[test]
    fn a_chunk_is_right_when_it_holds_the_line_of_an_answer() {
        assert_eq!(chunk_place(&[0, 2, 1], &chunks(), &answer("a", 6)), Some(3));
        assert_eq!(chunk_place(&[0, 2], &chunks(), &answer("a", 6)), None);
    }

    #[test]
    fn a_document_stands_where_its_best_chunk_does() {
        assert_eq!(document_place(&[0, 1, 2], &chunks(), &answer("b", 1)), Some(2));
        assert_eq!(document_place(&[0, 1, 2], &chunks(), &answer("a", 99)), Some(1));
        assert_eq!(document_place(&[0, 1], &chunks(), &answer("c", 1)), None);
    }

    #[test]
    fn a_score_counts_questions_without_a_right_answer() {
        let score = Score::of(&[Some(1), Some(4), None, Some(10)]);
        assert_eq!(score, Score { recall_at_1: 0.25, recall_at_5: 0.5, mrr: (1.0 + 0.25 + 0.1) / 4.0 });
        assert_eq!(Score::of(&[]), Score { recall_at_1: 0.0, recall_at_5: 0.0, mrr: 0.0 });
    }

    #[test]
    fn fusion_prefers_what_both_rankings_have() {
        assert_eq!(fuse(&[&vec![1, 2, 3], &vec![4, 2]]), [2, 1, 4, 3]);
    }

    #[test]
    fn nearest_looks_at_every_vector() {
        let vectors = [vec![0.0, 1.0], vec![1.0, 0.0], vec![0.8, 0.6]];
        assert_eq!(nearest(&vectors, &[1.0, 0.1], 2), [1, 2]);
    }
}
