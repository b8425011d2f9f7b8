//! Deliberate defects, to show that the simulation notices them.

/// A planted defect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mutation {
    /// Nothing is wrong.
    #[default]
    None,
    /// Commits do not compare the rows that say what nodes gave.
    BlindAllocations,
    /// Commits do not compare the rows that guard services' sets of containers.
    BlindReplicas,
    /// Commits do not compare the containers that they change.
    BlindContainers,
    /// Leaders that were replaced are not fenced.
    BlindGeneration,
    /// Some writes of users are acknowledged and not done.
    LostWrites,
    /// Watches leave out some changes.
    SkippedEvents,
    /// Agents start containers of other nodes too.
    GreedyAgents,
    /// Agents do not stop what they are told to stop.
    DeafAgents,
    /// Agents start finished containers of jobs again.
    RestlessAgents,
}
