//! Traffic rules: under which conditions which backends get requests.

use super::Shown;
use heptad_model::TrafficRule;

impl Shown for TrafficRule {
    type Beside = ();

    fn headings(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "NAME", "SERVICE", "CONDITIONS", "BACKENDS"]
    }

    fn cells(&self, _: &Self::Beside, _: bool) -> Vec<String> {
        let conditions = self.conditions.iter().map(|c| format!("{} {:?} {}", c.field, c.operator, c.value));
        let backends = self.backends.iter().map(|b| format!("{}={}", b.service, b.weight));
        let joined = |words: Vec<String>| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
        vec![
            self.namespace.to_string(),
            self.name.clone(),
            self.service.clone(),
            joined(conditions.collect()),
            joined(backends.collect()),
        ]
    }
}
