//! What a service's containers are for: to serve for ever, to do a job and end, or to be on every node.
//! Knows no container; who runs when is decided elsewhere.

use crate::{cron::Cron, form::short_or_full, service::REPLICAS_MAX, validate::Found};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// The most retries of a job's container.
pub const RETRIES_MAX: u32 = 1_000;
/// The longest time that a job may take, and the longest for which its ended containers are kept.
pub const JOB_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Work that ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Job {
    /// How many containers must succeed; the replicas (how many run at once) if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub completions: Option<u32>,
    /// How often a container that failed is started again before the job has failed.
    #[schemars(range(max = RETRIES_MAX))]
    pub retries: u32,
    /// Milliseconds after which a run of the job has failed; without limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = JOB_MS_MAX))]
    pub deadline_ms: Option<u64>,
    /// Milliseconds for which ended containers and their logs are kept.
    #[schemars(range(max = JOB_MS_MAX))]
    pub keep_ms: u64,
}

impl Default for Job {
    fn default() -> Self {
        Self { completions: None, retries: 3, deadline_ms: None, keep_ms: 3_600_000 }
    }
}

/// What a service's containers are for. Written as a word, or as a word with its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "ModeForm", into = "ModeForm")]
pub enum Mode {
    /// To serve: what ends is started again.
    #[default]
    Service,
    /// To do a job: what succeeds is done.
    Job(Job),
    /// To be on every node.
    Daemon,
}

#[derive(Clone, Serialize, JsonSchema)]
#[serde(untagged)]
enum ModeForm {
    Word(ModeWord),
    Full(ModeFields),
}

impl<'de> Deserialize<'de> for ModeForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "`service`, `job` or `daemon`, or job with its settings";
        short_or_full(deserializer, expected, Self::Word, Self::Full)
    }
}

/// A mode with its default settings.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ModeWord {
    Service,
    Job,
    Daemon,
}

/// A mode with its settings.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ModeFields {
    Job(Job),
}

impl From<ModeForm> for Mode {
    fn from(form: ModeForm) -> Self {
        match form {
            ModeForm::Word(ModeWord::Service) => Self::Service,
            ModeForm::Word(ModeWord::Daemon) => Self::Daemon,
            ModeForm::Word(ModeWord::Job) => Self::Job(Job::default()),
            ModeForm::Full(ModeFields::Job(job)) => Self::Job(job),
        }
    }
}

impl From<Mode> for ModeForm {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Service => Self::Word(ModeWord::Service),
            Mode::Daemon => Self::Word(ModeWord::Daemon),
            Mode::Job(job) => Self::Full(ModeFields::Job(job)),
        }
    }
}

impl Mode {
    /// Whether it is the mode of services that name none.
    pub fn is_service(&self) -> bool {
        *self == Self::Service
    }

    /// The job, if it is one.
    pub fn job(&self) -> Option<&Job> {
        match self {
            Self::Job(job) => Some(job),
            Self::Service | Self::Daemon => None,
        }
    }
}

/// What happens at a time of the schedule while an earlier run still goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Concurrency {
    /// It is skipped.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The earlier run is stopped.
    Replace,
}

/// When a job runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "ScheduleForm")]
pub struct Schedule {
    /// The times, in UTC.
    pub cron: Cron,
    /// What happens at a time while an earlier run still goes on.
    pub concurrency: Concurrency,
    /// Milliseconds by which a run may be late, for example after a time without a server; a later run is skipped.
    pub late_ms_max: u64,
    /// Whether no run is started.
    pub suspended: bool,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ScheduleForm {
    Cron(Cron),
    Full(ScheduleFields),
}

impl<'de> Deserialize<'de> for ScheduleForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "five cron fields such as `0 3 * * *`, or cron with its settings";
        short_or_full(deserializer, expected, Self::Cron, Self::Full)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScheduleFields {
    cron: Cron,
    #[serde(default)]
    concurrency: Concurrency,
    #[serde(default = "late_default")]
    #[schemars(range(max = JOB_MS_MAX))]
    late_ms_max: u64,
    #[serde(default)]
    suspended: bool,
}

fn late_default() -> u64 {
    300_000
}

impl From<ScheduleForm> for Schedule {
    fn from(form: ScheduleForm) -> Self {
        match form {
            ScheduleForm::Cron(cron) => {
                Self { cron, concurrency: Concurrency::Forbid, late_ms_max: late_default(), suspended: false }
            }
            ScheduleForm::Full(ScheduleFields { cron, concurrency, late_ms_max, suspended }) => {
                Self { cron, concurrency, late_ms_max, suspended }
            }
        }
    }
}

pub(crate) fn validate(mode: &Mode, schedule: Option<&Schedule>, found: &mut Found) {
    if let Mode::Job(job) = mode {
        if let Some(completions) = job.completions {
            found.between("mode.job.completions", completions.into(), 1, REPLICAS_MAX.into());
        }
        found.between("mode.job.retries", job.retries.into(), 0, RETRIES_MAX.into());
        found.between("mode.job.deadline_ms", job.deadline_ms.unwrap_or(1), 1, JOB_MS_MAX);
        found.between("mode.job.keep_ms", job.keep_ms, 0, JOB_MS_MAX);
    }
    if let Some(schedule) = schedule {
        let message = "only jobs have a schedule; write `mode: job`";
        found.unless(mode.job().is_some(), "schedule", message);
        found.between("schedule.late_ms_max", schedule.late_ms_max, 0, JOB_MS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_words_or_words_with_settings() {
        let read = |text: &str| serde_json::from_str::<Mode>(text);
        assert_eq!(read("\"daemon\"").ok(), Some(Mode::Daemon));
        assert_eq!(read("\"job\"").ok(), Some(Mode::Job(Job::default())));
        let job = read(r#"{"job":{"completions":4,"retries":0}}"#).expect("valid");
        assert_eq!(job.job().map(|job| (job.completions, job.retries)), Some((Some(4), 0)));
        assert_eq!(read(&serde_json::to_string(&job).expect("plain data")).ok(), Some(job));
        assert!(read("\"jobs\"").is_err() && read(r#"{"job":{"tries":1}}"#).is_err());
    }

    #[test]
    fn a_schedule_is_an_expression_or_has_settings_and_needs_a_job() {
        let read = |text: &str| serde_json::from_str::<Schedule>(text);
        let short = read("\"0 3 * * *\"").expect("valid");
        assert_eq!(read(&serde_json::to_string(&short).expect("plain data")).ok(), Some(short.clone()));
        let long = read(r#"{"cron":"0 3 * * *","concurrency":"replace"}"#).expect("valid");
        assert_eq!(long.concurrency, Concurrency::Replace);
        assert!(read("\"never\"").is_err());
        let mut found = Found::default();
        validate(&Mode::Service, Some(&short), &mut found);
        validate(&Mode::Job(Job { completions: Some(0), ..Job::default() }), Some(&short), &mut found);
        let paths: Vec<_> = found.0.into_iter().map(|p| p.path).collect();
        assert_eq!(paths, ["schedule", "mode.job.completions"]);
    }
}
