//! Secrets: their keys, as those of configs.

use super::{Shown, settings_cells};
use heptad_model::{Config, Secret};

impl Shown for Secret {
    type Beside = ();

    fn headings(wide: bool) -> Vec<&'static str> {
        Config::headings(wide)
    }

    fn cells(&self, _: &Self::Beside, _: bool) -> Vec<String> {
        settings_cells(&self.namespace, &self.name, self.data.keys().collect(), self.generation)
    }
}
