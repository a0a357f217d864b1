//! What is left to AUTO is measured once, and not while others have the CPUs. What a measurement finds is not tested: it is
//! different on every machine.

use super::*;
use crate::engine::budget::{Budget, PassThreads, Question, Share, Threads};
use crate::engine::measure::Trial;
use crate::engine::metrics::Metrics;
use crate::logic::layout::Layout;

const WORKERS: Question = Question::Workers { requests: 4 };

/// A model that is loaded with AUTO on two CPUs, and what it is measured with.
struct Loading {
    model: Arc<Model>,
    options: LoadOptions,
    metrics: Arc<Metrics>,
    budget: Arc<Budget>,
    stop: Stop,
}

impl Loading {
    fn new(model: &str) -> Self {
        let options = LoadOptions { kind: ModelKind::Generate, ..options(model) };
        let (load, _underway) = Load::new(options.clone(), 0, Stop::default());
        let model = Model::load(source::check(&options, None).unwrap(), &load).unwrap();
        let metrics = Arc::default();
        let budget = Budget::new(2, &metrics);
        Self { model: Arc::new(model), options, metrics, budget, stop: Stop::default() }
    }

    fn share(&self) -> Share {
        Share::new(&self.budget, Threads::Auto, false, &PassThreads::new())
    }

    /// The workers that are found, and whether anything was computed for that.
    fn settle(&self) -> Result<(u32, bool), EngineError> {
        let (share, before) = (self.share(), self.metrics.passes.get());
        let (model, options, stop) = (&self.model, &self.options, &self.stop);
        let trial = Trial { model, options, context: 128, share: &share, stop, manners: Manners::default() };
        let layout = trial.settle(Layout::choose(options, 2))?;
        assert_eq!((layout.requests(), layout.is_open), (4, false));
        Ok((layout.workers, self.metrics.passes.get() > before))
    }

    fn known(&self, question: Question) -> Option<u32> {
        self.budget.measured(&self.model.facts.fingerprint, question)
    }

    fn remember(&self, question: Question, answer: u32) {
        self.budget.remember(&self.model.facts.fingerprint, question, answer);
    }
}

#[test]
fn what_is_known_of_a_file_is_not_measured_again() {
    let loading = Loading::new("chat");
    assert!(loading.settle().unwrap().1);
    loading.remember(Question::Threads, 2);
    for workers in [1, 2] {
        loading.remember(WORKERS, workers);
        assert_eq!(loading.settle().unwrap(), (workers, false));
    }
}

#[test]
fn a_measurement_leaves_no_memory() {
    let loading = Loading::new("chat");
    let before = loading.model.memory();
    assert!(loading.settle().unwrap().1);
    assert_eq!(loading.model.memory(), before);
}

#[test]
fn while_others_have_a_cpu_there_is_one_worker_and_nothing_is_remembered() {
    let loading = Loading::new("chat");
    let mut other = loading.share();
    let turn = other.take_at_most(1);
    assert_eq!(loading.settle().unwrap(), (1, true));
    assert_eq!([Question::Threads, WORKERS].map(|question| loading.known(question)), [None, None]);
    drop(turn);
}

#[test]
fn a_load_that_is_to_end_is_not_measured_to_the_end() {
    let loading = Loading::new("chat");
    loading.stop.end_model();
    assert_eq!(loading.settle().unwrap_err(), EngineError::Cancelled("the model was unloaded"));
}
