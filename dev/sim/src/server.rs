//! The real control plane on a simulated host: its API over the simulated network, its loops on the shared store.

use crate::{
    store::SimStore,
    world::{PORT, World},
};
use heptad_control::{Control, Objects, Options, Peer, Reconciler, ServerParts};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use turmoil::net::TcpListener;

/// Times a few times shorter than by default: a world lives for some seconds only.
pub(crate) fn options() -> Options {
    Options {
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
pub(crate) async fn run(world: World) -> turmoil::Result {
    world.log.note("server", format_args!("starts"));
    let store = Arc::new(SimStore::new(&world, "server"));
    let control = Control::start(options(), store, ServerParts::default()).await?;
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(control.serve(stream, Peer::Unix));
    }
}

/// A reconciler beside the server's, on the same store.
pub(crate) async fn rival(world: World) -> turmoil::Result {
    let store = Arc::new(SimStore::new(&world, "rival"));
    let options = options();
    let objects = Objects::new(store, options.service_cidr, options.events_max);
    Reconciler::standalone(objects, options).run(CancellationToken::new()).await;
    Ok(())
}
