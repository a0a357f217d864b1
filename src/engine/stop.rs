//! The order to end all work at once: of the whole engine, or of one model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the workers of one model look at between steps, and llama.cpp inside of one.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    engine: Arc<AtomicBool>,
    model: Arc<AtomicBool>,
}

impl Stop {
    /// For a model in the engine whose flag this is.
    pub(super) fn of_model(engine: &Arc<AtomicBool>) -> Self {
        Self { engine: Arc::clone(engine), model: Arc::default() }
    }

    /// Ends the work of this model. There is no way back.
    pub(super) fn end_model(&self) {
        self.model.store(true, Ordering::Release);
    }

    /// Whether the whole engine ends.
    pub(super) fn of_all(&self) -> bool {
        self.engine.load(Ordering::Relaxed)
    }

    /// Why all work must end, if it must.
    pub(super) fn reason(&self) -> Option<&'static str> {
        if self.engine.load(Ordering::Relaxed) {
            Some("the server is stopping")
        } else if self.model.load(Ordering::Relaxed) {
            Some("the model was unloaded")
        } else {
            None
        }
    }
}
