//! The command line around identity: join tokens, tokens of people, the cluster's CA.

use super::OutputFlag;
use clap::{Args, Subcommand};
use heptad_api::trust::{JoinRole, Role};

#[derive(Clone, Debug, Args)]
pub struct JoinTokenArgs {
    /// What the machine becomes: node or server
    #[arg(long, default_value = "node", value_parser = join_role)]
    pub role: JoinRole,
    /// How long the token is valid, such as 30m, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = duration_ms, value_name = "TIME")]
    pub ttl: u64,
    /// For how many machines
    #[arg(long, default_value_t = 1, value_name = "MACHINES")]
    pub uses: u32,
    /// Only for the machine of this name; replaces one that joined before
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// List the tokens that there are
    #[arg(long, conflicts_with_all = ["ttl", "uses", "name", "role"])]
    pub list: bool,
    /// Delete this token
    #[arg(long, value_name = "ID", conflicts_with_all = ["ttl", "uses", "name", "role", "list"])]
    pub delete: Option<String>,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is printed only this once
    Create {
        /// Whose it is, for lists and the audit log
        name: String,
        /// What it allows: admin, viewer, or deployer:NAMESPACE
        #[arg(long)]
        role: Role,
        /// How long it is valid, such as 8h, 90d [default: until it is revoked]
        #[arg(long, value_parser = duration_ms, value_name = "TIME")]
        ttl: Option<u64>,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// List tokens, without their secrets
    List(OutputFlag),
    /// Revoke tokens; they are refused at once
    Revoke {
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum CaCommand {
    /// Show the trusted CAs and the present role of each
    Show(OutputFlag),
    /// Make a new CA: it is trusted at once and signs after some minutes; the old one goes when all that it signed has ended
    Rotate(OutputFlag),
}

fn join_role(text: &str) -> Result<JoinRole, String> {
    match text {
        "node" => Ok(JoinRole::Node),
        "server" => Ok(JoinRole::Server),
        _ => Err(format!("`{text}` is neither node nor server")),
    }
}

/// Reads a span of time: a number and one of s, m, h, d.
fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a time; write a number and s, m, h or d, such as 30m");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(factor * 1_000).filter(|ms| *ms > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        assert_eq!(duration_ms("90s"), Ok(90_000));
        assert_eq!(duration_ms("1h"), Ok(3_600_000));
        assert_eq!(duration_ms("7d"), Ok(604_800_000));
        for bad in ["", "1", "h", "0m", "1.5h", "-1h", "99999999999999999d", "1ü"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }
}
