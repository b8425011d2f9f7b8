//! `node join-token`, `token`, `ca`: who may join, who may ask, and which CA signs certificates.

use crate::{
    args::{CaCommand, JoinTokenArgs, Output, TokenCommand},
    output::{Table, age, now_ms, print, say, tell},
};
use heptad_api::trust::{
    AuthorityInfo, JoinRole, JoinTokenCreated, JoinTokenInfo, JoinTokenRequest, TokenInfo, TokenRequest,
};
use heptad_client::Client;
use std::process::ExitCode;

/// How long it is until then.
fn left(until_ms: Option<u64>) -> String {
    match until_ms {
        None => "never".to_owned(),
        Some(end) if end <= now_ms() => "ended".to_owned(),
        Some(end) => format!("in {}", age(now_ms(), end)),
    }
}

pub(super) async fn join_token(client: &Client, args: JoinTokenArgs) -> anyhow::Result<ExitCode> {
    let output = args.output.output;
    if let Some(id) = args.delete {
        client.delete_join_token(&id).await?;
        say(format!("join-token/{id} deleted\n"))?;
    } else if args.list {
        let tokens = client.join_tokens().await?;
        print(output, &tokens, || join_tokens(&tokens))?;
    } else {
        let request = JoinTokenRequest { role: args.role, ttl_ms: args.ttl, uses: args.uses, name: args.name };
        let made = client.create_join_token(&request).await?;
        print(output, &made, || join_line(&made))?;
        if matches!(output, Output::Table | Output::Wide) {
            let machines = if made.info.uses_left == 1 { "one machine" } else { "each machine" };
            tell(format!("Run this on {machines}; the token ends {}.", left(Some(made.info.expires_at_ms))));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The one line to run on the new machine.
fn join_line(made: &JoinTokenCreated) -> String {
    let command = match made.info.role {
        JoinRole::Node => "agent join",
        JoinRole::Server => "server join",
    };
    let url = made.urls.first().map_or("https://SERVER:7443", String::as_str);
    let name = made.info.name.as_ref().map(|name| format!(" --name {name}")).unwrap_or_default();
    format!("heptad {command} {url} --token {} --ca-pin {}{name}\n", made.token, made.ca_pin)
}

fn join_tokens(tokens: &[JoinTokenInfo]) -> String {
    let mut table = Table::new(&["ID", "ROLE", "FOR", "USES LEFT", "ENDS", "USED BY", "MADE BY"]);
    for token in tokens {
        table.row([
            token.id.clone(),
            token.role.to_string(),
            token.name.clone().unwrap_or_else(|| "any".to_owned()),
            token.uses_left.to_string(),
            left(Some(token.expires_at_ms)),
            token.used_by.join(","),
            token.created_by.clone(),
        ]);
    }
    table.render()
}

pub(super) async fn token(client: &Client, command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Create { name, role, ttl, output } => {
            let made = client.create_token(&TokenRequest { name, role, ttl_ms: ttl }).await?;
            // On standard output alone, so that it can be redirected to a file.
            print(output.output, &made, || format!("{}\n", made.token))?;
            let info = &made.info;
            tell(format!(
                "token/{} of {} ({}), ends {}. It is not shown again; log in with `heptad login URL --token TOKEN --ca-pin PIN`.",
                info.id,
                info.name,
                info.role,
                left(info.expires_at_ms)
            ));
        }
        TokenCommand::List(output) => {
            let tokens = client.tokens().await?;
            print(output.output, &tokens, || token_rows(&tokens))?;
        }
        TokenCommand::Revoke { ids } => {
            for id in ids {
                // Whoever pastes the whole token by mistake means its id.
                let id = id.split('.').next().unwrap_or_default();
                client.delete_token(id).await?;
                say(format!("token/{id} revoked\n"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn token_rows(tokens: &[TokenInfo]) -> String {
    let mut table = Table::new(&["ID", "NAME", "ROLE", "AGE", "ENDS", "MADE BY"]);
    for token in tokens {
        table.row([
            token.id.clone(),
            token.name.clone(),
            token.role.to_string(),
            age(token.created_at_ms, now_ms()),
            left(token.expires_at_ms),
            token.created_by.clone(),
        ]);
    }
    table.render()
}

pub(super) async fn ca(client: &Client, command: CaCommand) -> anyhow::Result<ExitCode> {
    let (answer, output) = match command {
        CaCommand::Show(output) => (client.authorities().await?, output.output),
        CaCommand::Rotate(output) => (client.rotate_authority().await?, output.output),
    };
    print(output, &answer, || authority_rows(&answer.authorities))?;
    Ok(ExitCode::SUCCESS)
}

fn authority_rows(authorities: &[AuthorityInfo]) -> String {
    use heptad_api::trust::AuthorityState::{Next, Old, Signing};
    let mut table = Table::new(&["PIN", "STATE", "AGE", "ENDS", "NEXT"]);
    for ca in authorities {
        let next = match (ca.state, ca.until_ms) {
            (Next, until) => format!("signs {}", left(until)),
            (Old, until) => format!("is dropped {}", left(until)),
            (Signing, Some(until)) => format!("signs no more {}", left(Some(until))),
            (Signing, None) => String::new(),
        };
        let age = age(ca.created_at_ms, now_ms());
        table.row([ca.pin.clone(), ca.state.to_string(), age, left(Some(ca.not_after_ms)), next]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_join_is_whole() {
        let info = JoinTokenInfo {
            id: "abc".into(),
            role: JoinRole::Node,
            name: Some("n1".into()),
            created_by: String::new(),
            expires_at_ms: 0,
            uses_left: 1,
            used_by: Vec::new(),
        };
        let made = JoinTokenCreated {
            token: "abc.def".into(),
            ca_pin: "sha256:00".into(),
            urls: vec!["https://10.0.0.1:7443".into()],
            info,
        };
        assert_eq!(
            join_line(&made),
            "heptad agent join https://10.0.0.1:7443 --token abc.def --ca-pin sha256:00 --name n1\n"
        );
    }
}
