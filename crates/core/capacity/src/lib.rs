//! What nodes can give, what they gave, and what is asked of them: the view of all nodes and its index of free room, the rows
//! of what each gave, requests, the rules of services, quotas, and plans as plain data.
//! Knows no planner and no judge: both read the same values here, and neither knows the other.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod allocation;
mod among;
pub mod devices;
mod domain_counts;
mod eligibility;
pub mod engine;
mod node;
mod plan;
mod quota;
mod reason;
mod request;
pub mod rules;
mod view;

pub use allocation::{Allocation, AllocationError, Capacity};
pub use among::Among;
pub use devices::{DeviceGrants, DeviceUse, Grant};
pub use domain_counts::{Domain, DomainCounts};
pub use eligibility::{Eligibility, Unfit, unfit};
pub use engine::NodeIndex;
pub use node::NodeView;
pub use plan::Plan;
pub use quota::{NamespaceRoom, QuotaItem, QuotaShort};
pub use reason::{Reason, Refusal};
pub use request::{Gang, HostPort, Request};
pub use view::{NodesView, Spread};

#[cfg(test)]
mod samples;
