//! Watches that resume at another server.

use crate::support::{Mood, cluster};
use heptad_client::watch_state;
use heptad_model::Service;
use std::time::Duration;

async fn resumes_after(mood: Mood, then: Mood) {
    let (servers, client) = cluster([mood, Mood::Well, Mood::Well]);
    let mut state = watch_state::<Service>(&client);
    assert_eq!(state.synced().await.revision, 7);
    let mut heard = Vec::new();
    let resumed = async {
        while !heard.iter().any(|line: &String| line.starts_with("a ") && line.contains("watch")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            heard.extend(servers.heard());
        }
        servers.set("a", then);
        while state.view().revision < 9 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), resumed).await.expect("another server goes on");
    heard.extend(servers.heard());
    let (watches, lists): (Vec<_>, Vec<_>) = heard.into_iter().partition(|line| line.contains("watch"));
    assert!(watches.iter().any(|line| line == "b GET /v1/services?watch=true&revision=8"), "{watches:?}");
    assert_eq!(lists.len(), 1, "nothing was listed again: {lists:?}");
}

#[tokio::test]
async fn a_watch_resumes_elsewhere_when_its_server_falls_silent() {
    resumes_after(Mood::FallsSilent, Mood::Hangs).await;
}

#[tokio::test]
async fn a_watch_resumes_elsewhere_when_its_server_is_gone() {
    // The silence ends the watch, and the server asked first after that cannot be reached.
    resumes_after(Mood::FallsSilent, Mood::Down).await;
}
