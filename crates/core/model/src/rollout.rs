//! What the control plane remembers about a service besides its specification: earlier templates, how far the rollout
//! is, and the runs of a job. Decides nothing.

use crate::container::ContainerTemplate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most revisions of one service that are kept.
pub const REVISIONS_MAX: u32 = 100;
/// The most runs of one job at once; a schedule that permits more waits.
pub const RUNS_ACTIVE_MAX: usize = 10;
/// How many ended runs of a schedule are remembered.
pub const RUNS_ENDED_MAX: usize = 10;

/// What the containers of a service were made from at some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// Counts from 1; the same template has the same number.
    pub number: u64,
    /// The identifier of the service, so that a service recreated under the same name starts afresh.
    pub service_id: String,
    /// The template.
    pub template: ContainerTemplate,
    /// Grows each time some revision of the service becomes the wanted one: the present one has the largest.
    pub used: u64,
    /// Whether all its replicas were ready at some time.
    #[serde(default)]
    pub proved: bool,
    /// Milliseconds since the Unix epoch at which it last became the wanted one.
    pub at_ms: u64,
    /// Why it became the wanted one, in a few words.
    #[serde(default)]
    pub cause: String,
}

/// How far the rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutPhase {
    /// It goes on.
    #[default]
    Progressing,
    /// It waits: a canary's step, or the old containers after a switch.
    Waiting,
    /// Somebody paused it.
    Paused,
    /// Everything is as wanted.
    Complete,
    /// It stopped because something is wrong.
    Failed,
}

impl fmt::Display for RolloutPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Progressing => "progressing",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Complete => "complete",
            Self::Failed => "failed",
        })
    }
}

/// What is remembered about the rollout of a service, and about its runs if it is a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rollout {
    /// The identifier of the service.
    pub service_id: String,
    /// The revision that is wanted.
    pub revision: u64,
    /// How far it is.
    pub phase: RolloutPhase,
    /// Whether somebody paused it.
    pub paused: bool,
    /// Why it failed, or what it waits for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Milliseconds since the Unix epoch at which it began.
    pub started_at_ms: u64,
    /// When further progress was last seen.
    pub progress_at_ms: u64,
    /// How many containers were as wanted and ready then.
    pub ready: u32,
    /// The current step of the canary; the number of steps once all are passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub step: u32,
    /// When that step was reached, or when a blue-green rollout switched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached_at_ms: Option<u64>,
    /// The revision that failed, if this one is the rollback from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_from: Option<u64>,
    /// The runs of a job, the newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<JobRun>,
    /// The latest time of the schedule that was considered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_ms: Option<u64>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The state of a job run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunPhase {
    /// Its containers run, or wait for a node.
    #[default]
    Running,
    /// As many containers as wanted have succeeded.
    Succeeded,
    /// A container failed too often, the deadline passed, or a later run replaced it.
    Failed,
}

impl fmt::Display for RunPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One run of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobRun {
    /// The value of `run` in its containers; grows with each run of the job.
    pub number: u64,
    /// The revision that it runs.
    pub revision: u64,
    /// The time of the schedule for which it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_ms: Option<u64>,
    /// Milliseconds since the Unix epoch at which it began.
    pub started_at_ms: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Its state.
    pub phase: RunPhase,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How many must succeed.
    pub completions: u32,
    /// How many have succeeded whose containers are no longer kept.
    pub succeeded_before: u32,
    /// How many had succeeded in all when it ended.
    pub succeeded: u32,
    /// The exit code of the container that made it fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// The share of the requests to a service that its containers of one revision get, whatever their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrafficSplit {
    /// The revision.
    pub revision: u64,
    /// Percent of the requests; the rest goes to the containers of other revisions. If one side has no ready container,
    /// its share goes to the other.
    pub percent: u32,
}
