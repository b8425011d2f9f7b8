//! stub
use crate::reconcile::{Action, ServiceView};
pub(crate) fn steps(_view: &ServiceView<'_>, _draw: impl FnMut() -> String) -> Vec<Action> {
    Vec::new()
}
