//! Configs: their keys without their values.

use super::{Shown, settings_cells};
use heptad_model::Config;

impl Shown for Config {
    type Beside = ();

    fn headings(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "NAME", "KEYS", "GENERATION"]
    }

    fn cells(&self, _: &Self::Beside, _: bool) -> Vec<String> {
        settings_cells(&self.namespace, &self.name, self.data.keys().collect(), self.generation)
    }
}
