//! The models by name, and which of them answer to `*`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::error::EngineError;
use super::model::Purpose;
use super::served::Served;
use crate::logic::args::DEFAULT_MODEL;
use crate::logic::options::LoadOptions;

/// One line of `INFER.MODELS`.
#[derive(Debug, Clone)]
pub enum Listing {
    /// Being loaded, since this moment.
    Loading(LoadOptions, Instant),
    /// In service.
    Ready(Arc<Served>),
}

/// All models of an engine.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    models: BTreeMap<String, Listing>,
    /// Names of the models in service: the first of the kind that a command needs answers to `*`.
    precedence: Vec<String>,
}

impl Catalogue {
    /// Takes a name for a model that begins to load.
    ///
    /// # Errors
    /// `ERR` when it is taken.
    pub(super) fn reserve(&mut self, options: &LoadOptions) -> Result<(), EngineError> {
        if self.models.contains_key(&options.name) {
            return Err(EngineError::NameTaken(options.name.clone()));
        }
        self.models.insert(options.name.clone(), Listing::Loading(options.clone(), Instant::now()));
        Ok(())
    }

    /// Puts a model into service. One loaded with DEFAULT goes before all others, the rest behind.
    pub(super) fn admit(&mut self, name: &str, served: Arc<Served>) {
        let place = if served.options.default { 0 } else { self.precedence.len() };
        self.precedence.insert(place, name.to_owned());
        self.models.insert(name.to_owned(), Listing::Ready(served));
    }

    /// Forgets a model.
    pub(super) fn remove(&mut self, name: &str) {
        self.models.remove(name);
        self.precedence.retain(|listed| listed != name);
    }

    /// Forgets all models; returns those in service.
    pub(super) fn take(&mut self) -> Vec<Arc<Served>> {
        let ready = |listing| if let Listing::Ready(served) = listing { Some(served) } else { None };
        std::mem::take(self).models.into_values().filter_map(ready).collect()
    }

    /// The model in service under this name. `*` is the default model for `purpose`; where either kind will do, that for
    /// generation is preferred.
    ///
    /// # Errors
    /// `NOMODEL`, or `MODELLOADING` while it is on its way.
    pub(super) fn find(&self, name: &str, purpose: Option<Purpose>) -> Result<Arc<Served>, EngineError> {
        if name == DEFAULT_MODEL {
            return self.default_for(purpose).ok_or_else(|| self.no_default(purpose));
        }
        match self.models.get(name) {
            Some(Listing::Ready(served)) => Ok(Arc::clone(served)),
            Some(Listing::Loading(..)) => Err(EngineError::ModelLoading(name.to_owned())),
            None => Err(EngineError::NoModel(name.to_owned())),
        }
    }

    /// The name behind `*`, any other as it is.
    pub(super) fn real_name(&self, name: &str) -> Result<String, EngineError> {
        if name == DEFAULT_MODEL { Ok(self.find(name, None)?.model.name.clone()) } else { Ok(name.to_owned()) }
    }

    /// The names of the default models.
    pub(super) fn defaults(&self) -> Vec<String> {
        let purposes = [Purpose::Generation, Purpose::Embedding];
        purposes.iter().filter_map(|&p| self.default_for(Some(p))).map(|served| served.model.name.clone()).collect()
    }

    /// All models in the order of their names.
    pub(super) fn list(&self) -> Vec<(String, Listing)> {
        self.models.iter().map(|(name, listing)| (name.clone(), listing.clone())).collect()
    }

    fn default_for(&self, purpose: Option<Purpose>) -> Option<Arc<Served>> {
        let mut ready = self.precedence.iter().filter_map(|name| match self.models.get(name) {
            Some(Listing::Ready(served)) => Some(served),
            _ => None,
        });
        let wanted = purpose.unwrap_or(Purpose::Generation);
        let found = ready.clone().find(|served| served.model.purpose == wanted);
        found.or_else(|| if purpose.is_none() { ready.next() } else { None }).cloned()
    }

    fn no_default(&self, purpose: Option<Purpose>) -> EngineError {
        if self.models.values().any(|listing| matches!(listing, Listing::Loading(..))) {
            return EngineError::ModelLoading(DEFAULT_MODEL.to_owned());
        }
        EngineError::NoDefault { needs: purpose.map(Purpose::name) }
    }
}
