//! What the control plane remembers of a service beside its specification: earlier templates, how far the exchange of
//! containers is, and the runs of a job. Decides nothing.

use crate::container::ContainerTemplate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most revisions of one service that are kept.
pub const REVISIONS_MAX: u32 = 100;
/// Runs of one job that go on at once; a schedule that permits more waits.
pub const RUNS_ACTIVE_MAX: usize = 10;
/// Ended runs of a schedule that are remembered.
pub const RUNS_ENDED_MAX: usize = 10;

/// What the containers of a service were made of at some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// Counts from 1; the same template has the same number.
    pub number: u64,
    /// The identifier of the service, so that a service made again under the same name starts from nothing.
    pub service_id: String,
    /// The template.
    pub template: ContainerTemplate,
    /// Grows each time some revision of the service becomes the wanted one: the largest is that of the present one.
    pub used: u64,
    /// Whether all replicas of it were ready once.
    #[serde(default)]
    pub proved: bool,
    /// Milliseconds since the Unix epoch at which it became the wanted one last.
    pub at_ms: u64,
    /// Why it became the wanted one, in a few words.
    #[serde(default)]
    pub cause: String,
}

/// How far the exchange of containers is.
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
    /// All is as wanted.
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

/// What is remembered of the exchange of a service's containers, and of its runs if it is a job.
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
    /// When it was seen last that more was done.
    pub progress_at_ms: u64,
    /// How many containers were as wanted and ready then.
    pub ready: u32,
    /// The canary's step that it is in; their number once all are passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub step: u32,
    /// When that step was reached, or the switch of a blue-green rollout made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached_at_ms: Option<u64>,
    /// The revision that failed, if this one is the return from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_from: Option<u64>,
    /// The runs of a job, the newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<JobRun>,
    /// The latest time of the schedule that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_ms: Option<u64>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How a run of a job stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunPhase {
    /// Its containers run, or wait for a node.
    #[default]
    Running,
    /// As many containers as were asked have succeeded.
    Succeeded,
    /// A container failed too often, the time was over, or a later run replaced it.
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
    /// What its containers carry as `run`; grows with each run of the job.
    pub number: u64,
    /// The revision that it runs.
    pub revision: u64,
    /// The time of the schedule that it was started for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_ms: Option<u64>,
    /// Milliseconds since the Unix epoch at which it began.
    pub started_at_ms: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// How it stands.
    pub phase: RunPhase,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How many must succeed.
    pub completions: u32,
    /// How many have succeeded of which no container is kept any more.
    pub succeeded_before: u32,
    /// How many have succeeded in all, as of the end.
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
    /// Percent of the requests; the rest goes to the containers of other revisions. Whoever has no ready container
    /// leaves its share to the other.
    pub percent: u32,
}
