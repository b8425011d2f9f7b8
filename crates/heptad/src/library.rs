//! The platform as the theory names it: orchestration, mesh and storage as one library. Every call takes the same path
//! as a call of the API or the command line; nothing here is a second implementation.

use crate::platform::{Platform, PlatformError, Settings};
use heptad_api::{
    Manifest,
    mesh::{CallRequest, CallResponse, CheckResponse},
    operations::ApplyRequest,
};
use heptad_client::{Client, wait_ready};
use heptad_model::{Container, Endpoint, NetworkPolicy, Service, ServiceKey, TrafficRule, snapshot::ready_endpoints};
use heptad_store::{DistributedStorage, StorageError};
use std::{collections::BTreeMap, time::Duration};
use thiserror::Error;

/// How long a deployment may take to become ready.
const READY_SECONDS_MAX: u64 = 300;
/// The largest object that `read_data` returns.
const DATA_BYTES_MAX: u64 = 1 << 30;

/// Why a deployment failed.
#[derive(Debug, Error)]
pub enum OrchestrationError {
    /// The control plane refused it or is not there.
    #[error("{operation} {service} failed")]
    Control {
        /// The operation.
        operation: &'static str,
        /// The service.
        service: ServiceKey,
        /// Why.
        #[source]
        source: heptad_client::Error,
    },
    /// It did not become ready in time.
    #[error("{service} is not ready: {reason}")]
    NotReady {
        /// The service.
        service: ServiceKey,
        /// What is missing.
        reason: String,
    },
}

/// Why a call through the mesh got no answer from the service.
#[derive(Debug, Error)]
pub enum MeshError {
    /// Policies forbid it; nothing reached the service.
    #[error("{to} may not be called: {reason}")]
    Denied {
        /// The called service.
        to: ServiceKey,
        /// Which policy forbids it.
        reason: String,
    },
    /// The mesh found no endpoint that answers.
    #[error("{to} did not answer: {reason}")]
    NoAnswer {
        /// The called service.
        to: ServiceKey,
        /// Why.
        reason: String,
    },
    /// The control plane refused the request or is not there.
    #[error("{operation} {subject} failed")]
    Control {
        /// The operation.
        operation: &'static str,
        /// Its subject.
        subject: String,
        /// Why.
        #[source]
        source: heptad_client::Error,
    },
}

/// Deploys services on nodes: O: S x R x N -> C*.
#[derive(Clone, Debug)]
pub struct ContainerOrchestrator {
    client: Client,
}

impl ContainerOrchestrator {
    /// The orchestrator of the platform that `client` reaches.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Runs `service` as specified and waits until every replica is ready. Returns its containers.
    pub async fn deploy(&self, service: Service) -> Result<Vec<Container>, OrchestrationError> {
        let key = service.key();
        let request = ApplyRequest { objects: vec![Manifest::Service(service)] };
        self.client.apply(&request).await.map_err(failed("deploying", &key))?;
        let limit = Duration::from_secs(READY_SECONDS_MAX);
        let ready = wait_ready(&self.client, std::slice::from_ref(&key), limit, |_, _| {}).await;
        ready.map_err(|error| OrchestrationError::NotReady { service: key.clone(), reason: error.to_string() })?;
        self.containers(&key).await
    }

    /// Sets the number of replicas.
    pub async fn scale(&self, service: &ServiceKey, replicas: u32) -> Result<(), OrchestrationError> {
        let patch = serde_json::json!({ "replicas": replicas });
        let patched = self.client.patch::<Service>(&service.namespace, &service.name, &patch, None).await;
        patched.map(drop).map_err(failed("scaling", service))
    }

    /// Deletes the service; its containers end.
    pub async fn delete(&self, service: &ServiceKey) -> Result<(), OrchestrationError> {
        let deleted = self.client.delete::<Service>(&service.namespace, &service.name, None).await;
        deleted.map(drop).map_err(failed("deleting", service))
    }

    /// The containers of a service.
    pub async fn containers(&self, service: &ServiceKey) -> Result<Vec<Container>, OrchestrationError> {
        let list = self.client.list::<Container>().await.map_err(failed("listing the containers of", service))?;
        Ok(list.items.into_iter().map(|item| item.object).filter(|c| c.service == *service).collect())
    }
}

fn failed(operation: &'static str, service: &ServiceKey) -> impl FnOnce(heptad_client::Error) -> OrchestrationError {
    let service = service.clone();
    move |source| OrchestrationError::Control { operation, service, source }
}

/// What is sent through the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRequest {
    /// The method.
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl ServiceRequest {
    /// `GET path`.
    pub fn get(path: &str) -> Self {
        Self { method: "GET".to_owned(), path: path.to_owned(), headers: BTreeMap::new(), body: String::new() }
    }
}

/// Connects services: G: S x P x T -> S'.
#[derive(Clone, Debug)]
pub struct ServiceMesh {
    client: Client,
}

impl ServiceMesh {
    /// The mesh of the platform that `client` reaches.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The ready endpoints of a service.
    pub async fn discover(&self, service: &ServiceKey) -> Result<Vec<Endpoint>, MeshError> {
        let list = self.client.list::<Container>().await.map_err(refused("discovering", service))?;
        let containers: Vec<Container> = list.items.into_iter().map(|item| item.object).collect();
        Ok(ready_endpoints(&containers).remove(service).unwrap_or_default())
    }

    /// Puts a network policy into force.
    pub async fn apply_policy(&self, policy: &NetworkPolicy) -> Result<(), MeshError> {
        self.client.replace(policy, None).await.map(drop).map_err(refused("applying policy", &policy.name))
    }

    /// Puts a traffic rule into force.
    pub async fn apply_rule(&self, rule: &TrafficRule) -> Result<(), MeshError> {
        self.client.replace(rule, None).await.map(drop).map_err(refused("applying rule", &rule.name))
    }

    /// Whether a call would be allowed, and why.
    pub async fn check(&self, from: &ServiceKey, to: &ServiceKey) -> Result<CheckResponse, MeshError> {
        let request = call_request(Some(from), to, ServiceRequest::get("/"));
        self.client.mesh_check(&request).await.map_err(refused("checking a call to", to))
    }

    /// Calls a service as `from` (`None`: as an operator). Any status from the service counts as an answer.
    pub async fn call(
        &self,
        from: Option<&ServiceKey>,
        to: &ServiceKey,
        request: ServiceRequest,
    ) -> Result<CallResponse, MeshError> {
        let request = call_request(from, to, request);
        let response = self.client.mesh_call(&request).await.map_err(refused("calling", to))?;
        match (response.served_by.is_some(), response.status) {
            (true, _) => Ok(response),
            (false, 403) => Err(MeshError::Denied { to: to.clone(), reason: response.body }),
            (false, _) => Err(MeshError::NoAnswer { to: to.clone(), reason: response.body }),
        }
    }
}

fn call_request(from: Option<&ServiceKey>, to: &ServiceKey, request: ServiceRequest) -> CallRequest {
    let ServiceRequest { method, path, headers, body } = request;
    CallRequest { from: from.cloned(), to: to.clone(), port: None, method, path, headers, body }
}

fn refused(operation: &'static str, subject: &impl ToString) -> impl FnOnce(heptad_client::Error) -> MeshError {
    let subject = subject.to_string();
    move |source| MeshError::Control { operation, subject, source }
}

/// A whole platform in this process.
#[derive(Debug)]
pub struct MicroservicePlatform {
    platform: Platform,
    orchestrator: ContainerOrchestrator,
    mesh: ServiceMesh,
}

impl MicroservicePlatform {
    /// Starts a platform.
    pub async fn start(settings: Settings) -> Result<Self, PlatformError> {
        let platform = Platform::start(settings).await?;
        let orchestrator = ContainerOrchestrator::new(platform.client().clone());
        let mesh = ServiceMesh::new(platform.client().clone());
        Ok(Self { platform, orchestrator, mesh })
    }

    /// Deploys a service and waits until it is ready. Returns its containers.
    pub async fn deploy_microservice(&self, service: Service) -> Result<Vec<Container>, OrchestrationError> {
        self.orchestrator.deploy(service).await
    }

    /// Calls service `to` as service `from`, through policies, rules and the choice of an endpoint.
    pub async fn service_call(
        &self,
        from: &ServiceKey,
        to: &ServiceKey,
        request: ServiceRequest,
    ) -> Result<CallResponse, MeshError> {
        self.mesh.call(Some(from), to, request).await
    }

    /// Stores data under `BUCKET/KEY` (or `KEY`, in the bucket `default`) on a durable majority of its copies.
    pub async fn store_data(&self, name: &str, data: Vec<u8>) -> Result<(), StorageError> {
        let (bucket, key) = bucket_and_key(name);
        self.platform.storage().put_bytes(bucket, key, data.into()).await.map(drop)
    }

    /// Reads data from any copy whose checksum holds.
    pub async fn read_data(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        let (bucket, key) = bucket_and_key(name);
        Ok(self.platform.storage().get_bytes(bucket, key, DATA_BYTES_MAX).await?.to_vec())
    }

    /// The orchestrator.
    pub fn orchestrator(&self) -> &ContainerOrchestrator {
        &self.orchestrator
    }

    /// The mesh.
    pub fn mesh(&self) -> &ServiceMesh {
        &self.mesh
    }

    /// The storage.
    pub fn storage(&self) -> &DistributedStorage {
        self.platform.storage()
    }

    /// The platform below.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Stops; see [`Platform::stop`].
    pub async fn stop(self) {
        self.platform.stop().await;
    }
}

fn bucket_and_key(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((heptad_model::ids::NAMESPACE_DEFAULT, name))
}
