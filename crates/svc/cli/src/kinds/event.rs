//! Events: what happened, in a line each.

use super::Shown;
use crate::{args::Named, output::clock};
use anyhow::bail;
use heptad_client::Client;
use heptad_model::Event;

impl Shown for Event {
    type Beside = ();

    fn headings(_: bool) -> Vec<&'static str> {
        vec!["TIME", "KIND", "REASON", "SUBJECT", "MESSAGE"]
    }

    fn cells(&self, _: &Self::Beside, _: bool) -> Vec<String> {
        let kind = self.kind.to_string();
        vec![clock(self.at_ms), kind, self.reason.clone(), self.subject.clone(), self.message.clone()]
    }

    async fn describe(_: &Client, _: &Named) -> anyhow::Result<String> {
        bail!("events are listed by `heptad events`")
    }
}
