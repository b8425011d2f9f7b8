//! Cron expressions of five fields, in UTC: when a time matches, and the next one that does.
//! Knows no clock: times are milliseconds since the Unix epoch, handed in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 1_440;
/// How many days are searched for the next time: more than the eight years between two 29ths of February around 2100.
const DAYS_MAX: u64 = 3_000;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// `MINUTE HOUR DAY-OF-MONTH MONTH DAY-OF-WEEK`, as in crontab(5): numbers, names, lists, ranges and steps, or one of
/// `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. If both days are restricted, either may match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = pattern()))]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether either of the days may match, since both are restricted.
    either: bool,
}

/// What one field may hold.
struct FieldKind {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

impl FieldKind {
    fn number(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().zip(self.least..).find(|(name, _)| **name == lower).map(|(_, number)| number);
        let number = named.or_else(|| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten());
        let good = number.filter(|number| (self.least..=self.most).contains(number));
        good.ok_or_else(|| format!("`{text}` is no {} from {} to {}", self.name, self.least, self.most))
    }

    /// A list of `*`, `A`, `A-B`, each perhaps with `/STEP`, as a set of bits.
    fn bits(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0u64, |bits, part| Ok(bits | self.part(part)?))
    }

    fn part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: u32 = step
                    .parse()
                    .ok()
                    .filter(|step| *step > 0)
                    .ok_or_else(|| format!("`{part}`: a step of the {} is a number above 0", self.name))?;
                (range, Some(step))
            }
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.least, self.most),
            Some((first, last)) => (self.number(first)?, self.number(last)?),
            // As in crontab(5): `5/15` begins with 5 and goes on to the end.
            None => (self.number(range)?, if step.is_some() { self.most } else { self.number(range)? }),
        };
        if first > last {
            return Err(format!("`{part}`: the range of the {} goes backwards", self.name));
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        Ok((first..=last).step_by(step).fold(0, |bits, number| bits | 1 << number))
    }
}

/// The five fields, in their order. Sunday is 0 and 7.
const FIELDS: [FieldKind; 5] = [
    FieldKind { name: "minute", least: 0, most: 59, names: &[] },
    FieldKind { name: "hour", least: 0, most: 23, names: &[] },
    FieldKind { name: "day of the month", least: 1, most: 31, names: &[] },
    FieldKind { name: "month", least: 1, most: 12, names: &MONTHS },
    FieldKind { name: "day of the week", least: 0, most: 7, names: &WEEKDAYS },
];

/// Words for whole expressions.
const WORDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// The form of expressions, for documents; it does not say that ranges go forwards, nor that the day exists.
fn pattern() -> String {
    let fields = FIELDS.map(|field| {
        let numbers = (field.least..=field.most).map(|number| number.to_string());
        let value = numbers.chain(field.names.iter().map(|name| (*name).to_owned())).collect::<Vec<_>>().join("|");
        let part = format!(r"(\*|({value})(-({value}))?)(/[1-9][0-9]{{0,2}})?");
        format!("{part}(,{part})*")
    });
    let words = WORDS.map(|(word, _)| word).join("|");
    format!("^({words}|{})$", fields.join(" "))
}

/// A day as the calendar says it.
struct Date {
    month: u32,
    day: u32,
    weekday: u32,
}

/// The day so many days after the epoch, in the Gregorian calendar (the algorithm of H. Hinnant).
fn date(days: u64) -> Date {
    let shifted = days + 719_468;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    // All are small; the first of January 1970 was a Thursday.
    Date { month: month as u32, day: day as u32, weekday: ((days + 4) % 7) as u32 }
}

fn has(bits: u64, number: u32) -> bool {
    bits & (1 << number) != 0
}

impl Cron {
    /// Reads an expression; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expanded = WORDS.iter().find(|(word, _)| *word == text.trim()).map_or(text, |(_, meant)| meant);
        let fields: Vec<&str> = expanded.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let count = fields.len();
            return Err(format!(
                "a cron expression has five fields (minute, hour, day, month, day of the week), not {count}"
            ));
        };
        let [minutes, hours, days, months, weekdays] = FIELDS;
        let weekdays = weekdays.bits(weekday)?;
        let cron = Self {
            text: text.trim().to_owned(),
            minutes: minutes.bits(minute)?,
            hours: hours.bits(hour)?,
            days: days.bits(day)?,
            months: months.bits(month)?,
            weekdays: weekdays | (weekdays >> 7 & 1),
            either: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        match cron.next_after(0) {
            Some(_) => Ok(cron),
            None => Err(format!("`{text}` never comes")),
        }
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn is_on(&self, days: u64) -> bool {
        let Date { month, day, weekday } = date(days);
        let (by_day, by_weekday) = (has(self.days, day), has(self.weekdays, weekday));
        has(self.months, month) && if self.either { by_day || by_weekday } else { by_day && by_weekday }
    }

    /// The first time after `after_ms` that matches; `None` if none comes within some years.
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        let first = after_ms / MINUTE_MS + 1;
        let first_day = first / DAY_MINUTES;
        for days in (first_day..first_day.saturating_add(DAYS_MAX)).filter(|days| self.is_on(*days)) {
            let from = if days == first_day { first % DAY_MINUTES } else { 0 };
            let fits = |minute: &u64| has(self.hours, (minute / 60) as u32) && has(self.minutes, (minute % 60) as u32);
            if let Some(minute) = (from..DAY_MINUTES).find(fits) {
                return (days * DAY_MINUTES + minute).checked_mul(MINUTE_MS);
            }
        }
        None
    }

    /// The latest time that matches after `after_ms` and not after `until_ms`, and how many there were, of which at
    /// most `count_max` are counted.
    pub fn latest_between(&self, after_ms: u64, until_ms: u64, count_max: u32) -> Option<(u64, u32)> {
        let mut found = None;
        let mut at = after_ms;
        for count in 1..=count_max {
            match self.next_after(at).filter(|next| *next <= until_ms) {
                Some(next) => (found, at) = (Some((next, count)), next),
                None => return found,
            }
        }
        // There are more: search those shortly before the end, in ever longer stretches.
        let mut back_ms = MINUTE_MS;
        loop {
            let from = until_ms.saturating_sub(back_ms).max(at);
            let mut next = self.next_after(from).filter(|next| *next <= until_ms);
            if next.is_none() && from == at {
                return found;
            }
            if next.is_some() {
                while let Some(later) = next {
                    found = Some((later, count_max));
                    next = self.next_after(later).filter(|next| *next <= until_ms);
                }
                return found;
            }
            back_ms = back_ms.saturating_mul(4);
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

impl TryFrom<String> for Cron {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Milliseconds of a time of day so many days after the epoch.
    fn at(days: u64, hour: u64, minute: u64) -> u64 {
        (days * DAY_MINUTES + hour * 60 + minute) * MINUTE_MS
    }

    /// 2024-02-28, a Wednesday.
    const WEDNESDAY: u64 = 19_781;

    fn next(text: &str, after: u64) -> Option<u64> {
        Cron::parse(text).expect(text).next_after(after)
    }

    #[test]
    fn the_next_time_is_as_crontab_says() {
        let now = at(WEDNESDAY, 10, 30);
        for (text, expected) in [
            ("* * * * *", at(WEDNESDAY, 10, 31)),
            ("30 10 * * *", at(WEDNESDAY + 1, 10, 30)),
            ("*/20 * * * *", at(WEDNESDAY, 10, 40)),
            ("5/15 * * * *", at(WEDNESDAY, 10, 35)),
            ("0 9-17/4 * * *", at(WEDNESDAY, 13, 0)),
            ("0 0 29 2 *", at(WEDNESDAY + 1, 0, 0)),
            ("0 0 1 * *", at(WEDNESDAY + 2, 0, 0)),
            ("0 12 * * mon-fri", at(WEDNESDAY, 12, 0)),
            ("0 12 * * SUN", at(WEDNESDAY + 4, 12, 0)),
            ("0 12 * * 7", at(WEDNESDAY + 4, 12, 0)),
            // Either of two restricted days.
            ("0 0 1 * thu", at(WEDNESDAY + 1, 0, 0)),
            ("0 0 1 Mar,Apr *", at(WEDNESDAY + 2, 0, 0)),
            ("@hourly", at(WEDNESDAY, 11, 0)),
            ("@daily", at(WEDNESDAY + 1, 0, 0)),
        ] {
            assert_eq!(next(text, now), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("* * * *", "five fields"),
            ("60 * * * *", "no minute"),
            ("* 24 * * *", "no hour"),
            ("* * 0 * *", "day of the month"),
            ("* * * 13 *", "no month"),
            ("* * * * 8", "day of the week"),
            ("5-1 * * * *", "backwards"),
            ("*/0 * * * *", "step"),
            ("+5 * * * *", "no minute"),
            ("0 0 30 2 *", "never"),
            ("", "five fields"),
        ] {
            let error = Cron::parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn of_many_missed_times_the_last_one_is_found_and_the_count_is_bounded() {
        let every = Cron::parse("* * * * *").expect("valid");
        let (from, until) = (at(WEDNESDAY, 0, 0), at(WEDNESDAY + 300, 0, 0));
        assert_eq!(every.latest_between(from, until, 100), Some((until, 100)));
        assert_eq!(every.latest_between(from, from, 100), None);
        let daily = Cron::parse("0 3 * * *").expect("valid");
        assert_eq!(daily.latest_between(from, at(WEDNESDAY + 2, 0, 0), 100), Some((at(WEDNESDAY + 1, 3, 0), 2)));
        assert_eq!(daily.latest_between(from, until, 5), Some((at(WEDNESDAY + 299, 3, 0), 5)));
    }

    proptest! {
        #[test]
        fn times_grow_match_and_none_is_left_out(
            minute in 0u32..60, step in 1u32..30, hour in 0u32..24, after in 0u64..4_000_000_000_000,
        ) {
            let cron = Cron::parse(&format!("{minute},*/{step} {hour} * * *")).expect("valid");
            let next = cron.next_after(after).expect("there is one every day");
            prop_assert!(next > after && next - after <= 86_400_000 && next.is_multiple_of(MINUTE_MS));
            let of_day = next / MINUTE_MS % DAY_MINUTES;
            let fits = |m: u64| m / 60 == u64::from(hour) && (m % 60 == u64::from(minute) || (m % 60).is_multiple_of(u64::from(step)));
            prop_assert!(fits(of_day));
            let mut between = (after / MINUTE_MS + 1)..(next / MINUTE_MS);
            prop_assert!(!between.any(|m| fits(m % DAY_MINUTES)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-*/,0-9a-z@ ]{0,24}") {
            let _ = Cron::parse(&text);
        }
    }
}
