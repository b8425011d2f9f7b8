//! The real control plane on a simulated host: its API over the simulated network, its loops on the shared store.

use crate::{
    store::SimStore,
    world::{PORT, World},
};
use heptad_control::{Control, Leadership, Objects, Options, Peer, Reconciler, ServerParts};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use turmoil::net::TcpListener;

/// Times a few times shorter than by default: a world lives for some seconds only.
pub(crate) fn options(world: &World, name: &str) -> Options {
    let leadership = match world.shape.servers.len() {
        1 => Leadership::Sole,
        _ => Leadership::Elected { lease_ms: 1_000, renew_interval_ms: 250 },
    };
    Options {
        server_name: name.to_owned(),
        leadership,
        header_timeout_ms: 4_000,
        body_timeout_ms: 1_000,
        bookmark_interval_ms: 1_000,
        resync_interval_ms: 5_000,
        retry_delay_ms_max: 200,
        events_max: 40,
        node_unknown_ms: 1_500,
        node_not_ready_ms: 2_500,
        heartbeat_check_ms: 100,
        drain_ms_max: 200,
        ..Options::default()
    }
}

/// Serves until the host crashes.
pub(crate) async fn run(world: World, name: String) -> turmoil::Result {
    world.log.note(&name, format_args!("starts"));
    let store = Arc::new(SimStore::new(&world, &name));
    let control = loop {
        match Control::start(options(&world, &name), store.clone(), ServerParts::default()).await {
            Ok(control) => break control,
            // As a supervisor of the process would do.
            Err(error) => world.log.note(&name, format_args!("does not start: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(control.serve(stream, Peer::Unix));
    }
}

/// A reconciler beside the server's, on the same store.
pub(crate) async fn rival(world: World) -> turmoil::Result {
    let store = Arc::new(SimStore::new(&world, "rival"));
    let options = options(&world, "rival");
    let objects = Objects::new(store, options.service_cidr, options.events_max);
    Reconciler::standalone(objects, options).run(CancellationToken::new()).await;
    Ok(())
}
