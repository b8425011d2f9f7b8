//! Heptad as a library: a microservice platform in your own program. [`MicroservicePlatform`] joins orchestration
//! ([`ContainerOrchestrator`], [`Scheduler`]), the service mesh ([`ServiceMesh`], [`Proxy`]) and distributed storage
//! ([`DistributedStorage`]); the program `heptad` is a command line around the same parts.
//!
//! Containers are started by shims, and a shim is this very program started again, so the first thing of `main` is
//! [`run_as_shim`]:
//!
//! ```standalone_crate
//! use heptad::{MicroservicePlatform, Service, Settings};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     if heptad::run_as_shim().is_some() {
//!         return Ok(());
//!     }
//!     tokio::runtime::Runtime::new()?.block_on(async {
//!         let dir = tempfile::tempdir()?;
//!         let settings = Settings { ephemeral: true, ..Settings::new(dir.path()) };
//!         let platform = MicroservicePlatform::start(settings).await?;
//!
//!         let mut service = Service::new("sleeper", "host");
//!         service.command = vec!["sleep".into(), "1000".into()];
//!         let deployed = platform.deploy_microservice(service).await?;
//!         assert_eq!(deployed.len(), 1);
//!
//!         platform.store_data("letters/first", b"hello".to_vec()).await?;
//!         assert_eq!(platform.read_data("letters/first").await?, b"hello");
//!
//!         platform.stop().await;
//!         Ok(())
//!     })
//! }
//! ```
#![forbid(unsafe_code)]

mod library;
pub mod platform;

pub use heptad_control::OptimizeMode;
pub use heptad_model::{Container, NetworkPolicy, Service, ServiceKey, TrafficRule};
pub use heptad_proxy::Proxy;
pub use heptad_sched::{BestFitScheduler, Scheduler, SpreadScheduler};
pub use heptad_store::{DistributedStorage, StorageError};
pub use library::{
    ContainerOrchestrator, MeshError, MicroservicePlatform, OrchestrationError, ServiceMesh, ServiceRequest,
};
pub use platform::{DriverChoice, PlatformError, Settings};

use std::process::ExitCode;

/// Becomes a container's shim if this process was started as one, and returns its exit code; otherwise returns `None`
/// at once. Call it before any thread is started.
pub fn run_as_shim() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == heptad_exec::shim::SUBCOMMAND).then(|| heptad_exec::shim::main(args))
}
