//! Makes a table of the reports of faults on its input (the file that `HEPTAD_FAULT_REPORT` named): a row for each fault, with
//! the worst of all its runs.

use serde_json::Value;
use std::io::Read;

const TIMES: [&str; 3] = ["noticed_ms", "recovered_ms", "writes_pause_ms"];
const SUMS: [&str; 5] = ["requests_failed", "requests", "writes_lost", "writes", "restarted"];

fn worst(runs: &[Value], key: &str) -> String {
    let worst = runs.iter().filter_map(|run| run[key].as_u64()).max();
    worst.map_or("-".to_owned(), |ms| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100))
}

fn sum(runs: &[Value], key: &str) -> Option<u64> {
    runs.iter().filter_map(|run| run[key].as_u64()).reduce(|a, b| a + b)
}

fn row(name: &str, runs: &[Value]) -> String {
    let [noticed, recovered, pause] = TIMES.map(|key| worst(runs, key));
    let [failed, requests, lost, writes, restarted] = SUMS.map(|key| sum(runs, key));
    let of = |part: Option<u64>, all: Option<u64>| match (part, all) {
        (Some(part), Some(all)) => format!("{part} of {all}"),
        _ => "-".to_owned(),
    };
    let restarted = restarted.map_or("-".to_owned(), |count| count.to_string());
    let (requests, writes) = (of(failed, requests), of(lost, writes));
    format!("| {name} | {} | {noticed} | {recovered} | {requests} | {writes} | {pause} | {restarted} |", runs.len())
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> std::io::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let mut faults: Vec<(String, Vec<Value>)> = Vec::new();
    for run in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let name = run["fault"].as_str().unwrap_or_default().to_owned();
        match faults.iter_mut().find(|(known, _)| *known == name) {
            Some((_, runs)) => runs.push(run),
            None => faults.push((name, vec![run])),
        }
    }
    println!(
        "| fault | runs | noticed | recovered | requests failed | writes lost | longest pause of writes | restarted |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    faults.iter().for_each(|(name, runs)| println!("{}", row(name, runs)));
    Ok(())
}
