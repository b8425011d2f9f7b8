//! `openapi`: the committed description of the API is what the types say.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;

const FILE: &str = "docs/openapi.json";

/// The document as it is committed.
fn rendered() -> Result<String> {
    let text = serde_json::to_string_pretty(&heptad_api::openapi::document());
    Ok(text.context("cannot write the OpenAPI document as JSON")? + "\n")
}

pub(crate) fn run(check: bool) -> Result<()> {
    let file = workspace::root()?.join(FILE);
    let fresh = rendered()?;
    let committed = fs::read_to_string(&file).unwrap_or_default();
    match (committed == fresh, check) {
        (true, _) => println!("{FILE} is up to date"),
        (false, true) => bail!("{FILE} is not what the API's types say; run `cargo xtask openapi` and commit the file"),
        (false, false) => {
            fs::write(&file, fresh).with_context(|| format!("cannot write {FILE}"))?;
            println!("{FILE} written");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_text_is_stable_and_ends_with_a_line_end() {
        let text = super::rendered().expect("it is JSON");
        assert_eq!(text, super::rendered().expect("it is JSON"));
        assert!(text.starts_with("{\n") && text.ends_with("}\n"));
    }
}
