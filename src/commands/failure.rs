//! How errors of the layers below become error replies.

use crate::engine::EngineError;
use crate::logic::args::ArgError;
use crate::redis_api::reply::Failure;

impl From<ArgError> for Failure {
    fn from(error: ArgError) -> Self {
        Failure::new(error.code(), error.to_string())
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Failure::new(error.code(), error.to_string())
    }
}
