//! `heptad demo`: runs the example shop and checks every promise of it. Exit code 0 only if every check held.

mod steps;

use crate::serve::{Stop, describe, start_dev, stop_platform};
use heptad::platform::Platform;
use heptad_cli::{
    args::{Connect, Demo},
    output::{Table, announce, paint},
};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// What a step reports.
struct Outcome {
    title: &'static str,
    took: Duration,
    result: anyhow::Result<String>,
}

/// Runs the demo.
pub(crate) async fn run(args: Demo, connect: &Connect) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::of_terminal()?;
    let began = Instant::now();
    let platform = start_dev(&args.run).await?;
    announce(format!("{} in {} ms\n{}\n", paint("Heptad runs", 32), began.elapsed().as_millis(), describe(&platform)));
    let outcomes = tokio::select! {
        outcomes = all_steps(&platform) => outcomes,
        () = stop.wait() => {
            announce("\ninterrupted; removing everything ...\n");
            stop_platform(platform, &mut stop).await;
            return Ok(ExitCode::FAILURE);
        }
    };
    let good = outcomes.iter().all(|outcome| outcome.result.is_ok());
    summarise(&outcomes, began.elapsed());
    if args.stay {
        let flags = heptad_cli::flags_for(connect, &platform.socket());
        announce(format!(
            "\nThe platform stays until Ctrl-C. Try   heptad{flags} get containers   in another terminal.\n"
        ));
        stop.wait().await;
    }
    announce("\nremoving containers, network and data ...\n");
    let stopped = stop_platform(platform, &mut stop).await;
    if stopped == ExitCode::SUCCESS {
        announce("nothing is left behind\n");
    }
    Ok(if good { stopped } else { ExitCode::FAILURE })
}

/// The steps in order. After a step fails, those that need it are not tried.
async fn all_steps(platform: &Platform) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let deployed = step(&mut outcomes, "deploy the shop: 5 services, 8 containers", steps::deploy(platform)).await;
    if deployed {
        step(&mut outcomes, "call web, which calls catalog, cart and stock by name", steps::calls(platform)).await;
        step(&mut outcomes, "deny what the policy denies", steps::denial(platform)).await;
        step(&mut outcomes, "split requests 90/10 between two versions", steps::split(platform)).await;
        step(&mut outcomes, "restart a container that was killed", steps::killed(platform)).await;
    }
    step(&mut outcomes, "store data, lose a disk, read it back, repair", steps::storage(platform)).await;
    step(&mut outcomes, "verify the guarantees on the live state", steps::verify(platform)).await;
    outcomes
}

async fn step(
    outcomes: &mut Vec<Outcome>,
    title: &'static str,
    work: impl Future<Output = anyhow::Result<String>>,
) -> bool {
    announce(format!("{} {title}\n", paint("»", 36)));
    let began = Instant::now();
    let result = work.await;
    let took = began.elapsed();
    match &result {
        Ok(said) => said.lines().for_each(|line| announce(format!("    {line}\n"))),
        Err(error) => announce(format!("    {} {error:#}\n", paint("failed:", 31))),
    }
    let good = result.is_ok();
    outcomes.push(Outcome { title, took, result });
    good
}

fn summarise(outcomes: &[Outcome], took: Duration) {
    let mut table = Table::new(&["CHECK", "RESULT", "TIME"]);
    for outcome in outcomes {
        let word = if outcome.result.is_ok() { "held" } else { "FAILED" };
        table.row([outcome.title.to_owned(), word.to_owned(), format!("{} ms", outcome.took.as_millis())]);
    }
    let held = outcomes.iter().filter(|outcome| outcome.result.is_ok()).count();
    let all = format!("{held} of {} checks held, in {:.1} s", outcomes.len(), took.as_secs_f64());
    let colour = if held == outcomes.len() { 32 } else { 31 };
    announce(format!("\n{}\n{}\n", table.render(), paint(&all, colour)));
}
