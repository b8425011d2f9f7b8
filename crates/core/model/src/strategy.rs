//! How the containers of a service are replaced: in waves, behind a canary, or all at once. Knows no container; other
//! code decides the steps.

use crate::{form::short_or_full, schema::field, validate::Found};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The most steps of a canary.
pub const CANARY_STEPS_MAX: usize = 20;
/// The longest pause between two steps, and the longest time for which the old side of a blue-green rollout is kept.
pub const PAUSE_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// So many containers, or so many percent of the replicas. Written `2` or `25%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "AmountForm", into = "AmountForm")]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many percent.
    Percent(u32),
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, or percent as `25%`")]
enum AmountForm {
    Count(u32),
    Percent(#[schemars(regex(pattern = "^[0-9]{1,9}%$"))] String),
}

impl TryFrom<AmountForm> for Amount {
    type Error = String;

    fn try_from(form: AmountForm) -> Result<Self, String> {
        let text = match form {
            AmountForm::Count(count) => return Ok(Self::Count(count)),
            AmountForm::Percent(text) => text,
        };
        let number = text.strip_suffix('%').and_then(|digits| digits.trim().parse().ok());
        number
            .map(Self::Percent)
            .ok_or_else(|| format!("`{text}` is not an amount; write a number, or a percentage such as `25%`"))
    }
}

impl From<Amount> for AmountForm {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Count(count) => Self::Count(count),
            Amount::Percent(_) => Self::Percent(amount.to_string()),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Amount {
    /// Of `replicas`, rounded down.
    pub fn down(self, replicas: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(replicas),
            Self::Percent(percent) => share(replicas, percent, 0),
        }
    }

    /// Of `replicas`, rounded up.
    pub fn up(self, replicas: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => share(replicas, percent, 99),
        }
    }

    fn is_zero(self) -> bool {
        matches!(self, Self::Count(0) | Self::Percent(0))
    }
}

fn share(replicas: u32, percent: u32, rounding: u64) -> u32 {
    let exact = (u64::from(replicas) * u64::from(percent) + rounding) / 100;
    u32::try_from(exact).unwrap_or(u32::MAX)
}

/// In waves: a few new containers come, a few old ones go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("not" = stands_still()))]
pub struct Rolling {
    /// How many of the replicas may be missing meanwhile; percent are rounded down.
    pub max_unavailable: Amount,
    /// How many containers there may be beyond the replicas meanwhile; percent are rounded up.
    pub max_surge: Amount,
}

/// Nothing may be missing, explicitly or by default, and nothing may exceed the replicas.
fn stands_still() -> Schema {
    let zero = json_schema!({ "anyOf": [{ "const": 0 }, { "type": "string", "pattern": "^0+%$" }] });
    let surge = field("max_surge", zero.clone());
    json_schema!({ "allOf": [surge, { "properties": { "max_unavailable": zero } }] })
}

impl Default for Rolling {
    fn default() -> Self {
        Self { max_unavailable: Amount::Count(0), max_surge: Amount::Count(1) }
    }
}

/// One step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryStep {
    /// Percent of the requests that the new containers get; as many percent of the replicas are new, at least one.
    #[schemars(range(min = 1, max = 100))]
    pub weight: u32,
    /// Milliseconds until the next step; absent: until the rollout is resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = PAUSE_MS_MAX))]
    pub pause_ms: Option<u64>,
}

/// A few new containers get a growing share of the requests; after the last step the rest is exchanged in waves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The steps, in their order.
    #[schemars(length(min = 1, max = CANARY_STEPS_MAX))]
    pub steps: Vec<CanaryStep>,
}

/// All new containers come beside the old ones, then all requests go to them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BlueGreen {
    /// Milliseconds for which the old containers are kept after the switch.
    #[schemars(range(max = PAUSE_MS_MAX))]
    pub keep_ms: u64,
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self { keep_ms: 30_000 }
    }
}

/// How containers of an older specification are exchanged. Written as a word, or as a word with its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "StrategyForm", into = "StrategyForm")]
pub enum Strategy {
    /// In waves.
    Rolling(Rolling),
    /// Behind a canary.
    Canary(Canary),
    /// All at once.
    BlueGreen(BlueGreen),
}

impl Default for Strategy {
    fn default() -> Self {
        Self::Rolling(Rolling::default())
    }
}

#[derive(Clone, Serialize, JsonSchema)]
#[serde(untagged)]
enum StrategyForm {
    Word(StrategyWord),
    Full(StrategyFields),
}

impl<'de> Deserialize<'de> for StrategyForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "`rolling` or `blue_green`, or one of rolling, canary and blue_green with its settings";
        short_or_full(deserializer, expected, Self::Word, Self::Full)
    }
}

/// A strategy with its default settings.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum StrategyWord {
    Rolling,
    BlueGreen,
}

/// A strategy with its settings.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum StrategyFields {
    Rolling(Rolling),
    Canary(Canary),
    BlueGreen(BlueGreen),
}

impl From<StrategyForm> for Strategy {
    fn from(form: StrategyForm) -> Self {
        match form {
            StrategyForm::Word(StrategyWord::Rolling) => Self::default(),
            StrategyForm::Word(StrategyWord::BlueGreen) => Self::BlueGreen(BlueGreen::default()),
            StrategyForm::Full(StrategyFields::Rolling(rolling)) => Self::Rolling(rolling),
            StrategyForm::Full(StrategyFields::Canary(canary)) => Self::Canary(canary),
            StrategyForm::Full(StrategyFields::BlueGreen(blue_green)) => Self::BlueGreen(blue_green),
        }
    }
}

impl From<Strategy> for StrategyForm {
    fn from(strategy: Strategy) -> Self {
        Self::Full(match strategy {
            Strategy::Rolling(rolling) => StrategyFields::Rolling(rolling),
            Strategy::Canary(canary) => StrategyFields::Canary(canary),
            Strategy::BlueGreen(blue_green) => StrategyFields::BlueGreen(blue_green),
        })
    }
}

impl Strategy {
    /// Whether it is the strategy of services that name none.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The waves in which the containers are replaced that neither a canary nor a switch concerns.
    pub fn rolling(&self) -> Rolling {
        match self {
            Self::Rolling(rolling) => *rolling,
            Self::Canary(_) | Self::BlueGreen(_) => Rolling::default(),
        }
    }

    pub(crate) fn validate(&self, found: &mut Found) {
        match self {
            Self::Rolling(rolling) => {
                let stands = rolling.max_unavailable.is_zero() && rolling.max_surge.is_zero();
                let message = "with nothing missing and nothing beyond the replicas no container can be exchanged; \
                               give one of max_unavailable and max_surge a number above 0";
                found.unless(!stands, "strategy.rolling", message);
            }
            Self::Canary(Canary { steps }) => {
                let message = format!("give 1 to {CANARY_STEPS_MAX} steps");
                found.unless((1..=CANARY_STEPS_MAX).contains(&steps.len()), "strategy.canary.steps", message);
                for (i, step) in steps.iter().enumerate() {
                    let path = format!("strategy.canary.steps[{i}]");
                    found.between(&format!("{path}.weight"), step.weight.into(), 1, 100);
                    let pause_ms = step.pause_ms.unwrap_or(0);
                    found.between(&format!("{path}.pause_ms"), pause_ms, 0, PAUSE_MS_MAX);
                }
            }
            Self::BlueGreen(BlueGreen { keep_ms }) => {
                found.between("strategy.blue_green.keep_ms", *keep_ms, 0, PAUSE_MS_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_numbers_or_percent_and_round_to_the_safe_side() {
        let read = |text: &str| serde_json::from_str::<Amount>(text);
        assert_eq!(read("2").ok(), Some(Amount::Count(2)));
        assert_eq!(read("\"25%\"").ok(), Some(Amount::Percent(25)));
        assert!(read("\"many\"").is_err() && read("-1").is_err());
        assert_eq!(serde_json::to_string(&Amount::Percent(25)).ok().as_deref(), Some("\"25%\""));
        assert_eq!((Amount::Percent(25).down(3), Amount::Percent(25).up(3)), (0, 1));
        assert_eq!((Amount::Count(9).down(3), Amount::Count(9).up(3)), (3, 9));
        assert_eq!(Amount::Percent(u32::MAX).up(u32::MAX), u32::MAX);
    }

    #[test]
    fn a_strategy_is_a_word_or_a_word_with_settings() {
        let read = |text: &str| serde_json::from_str::<Strategy>(text);
        assert_eq!(read("\"rolling\"").ok(), Some(Strategy::default()));
        assert_eq!(read("\"blue_green\"").ok(), Some(Strategy::BlueGreen(BlueGreen { keep_ms: 30_000 })));
        let canary = read(r#"{"canary":{"steps":[{"weight":10,"pause_ms":5},{"weight":50}]}}"#).expect("valid");
        assert_eq!(read(&serde_json::to_string(&canary).expect("plain data")).ok(), Some(canary));
        let rolling = Rolling { max_surge: Amount::Percent(50), ..Rolling::default() };
        assert_eq!(read(r#"{"rolling":{"max_surge":"50%"}}"#).ok(), Some(Strategy::Rolling(rolling)));
        assert!(read("\"canary\"").is_err() && read(r#"{"rolling":{"surge":1}}"#).is_err());
    }

    #[test]
    fn a_strategy_that_cannot_move_is_refused() {
        let still = Rolling { max_unavailable: Amount::Percent(0), max_surge: Amount::Count(0) };
        for bad in [Strategy::Rolling(still), Strategy::Canary(Canary { steps: Vec::new() })] {
            let mut found = Found::default();
            bad.validate(&mut found);
            assert_eq!(found.0.len(), 1, "{bad:?}");
        }
    }
}
