//! The program on small directories: one object per instance and policy, the same decisions each time, errors with places.

use serde_json::Value;
use std::{fs, path::Path, process::Command};

const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\na,8000,8192,0,\nb,8000,8192,2,G2\nc,8000,8192,2,T4\n";
const INDEX: &str = "file,dims,items,optimal_nodes,cap0,cap1,cap2,cap3\ncut.csv,1,6,3,10,,,\n";
const CUT: &str = "size\n3\n5\n6\n4\n5\n7\n";

fn pods() -> String {
    let row = |i: u32| format!("p{i},{},{},{},{}\n", 500 + i % 3 * 250, 512, i % 2, i % 2 * (300 + i % 5 * 175));
    let rows: String = (0..20).map(row).collect();
    format!("name,cpu_milli,memory_mib,num_gpu,gpu_milli\n{rows}")
}

fn world() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in [("r/n.csv", NODES), ("r/p.csv", &pods()), ("p/index.csv", INDEX), ("p/cut.csv", CUT)] {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

fn run(directory: &Path, more: &[&str]) -> Result<Vec<Value>, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heptad-packing"));
    let output = command.arg("replay").arg(directory).args(more).output().expect("it can be started");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).expect("it is text");
    Ok(text.lines().map(|line| serde_json::from_str(line).expect("each line is an object")).collect())
}

fn of<'a>(records: &'a [Value], kind: &str, policy: &str) -> &'a Value {
    let is_it = |record: &&Value| record["kind"] == kind && record["policy"] == policy;
    records.iter().find(is_it).unwrap_or_else(|| panic!("{kind} {policy} in {records:?}"))
}

#[test]
fn every_instance_is_told_and_drawn() {
    let directory = world();
    let pictures = directory.path().join("pictures");
    let more = ["--seeds", "2", "--optimise", "1", "--pictures", pictures.to_str().expect("it is text")];
    let records = run(directory.path(), &more).expect("good files");
    let planted = of(&records, "planted", "pack");
    assert_eq!((&planted["name"], &planted["optimum"], &planted["bound"]), (&"cut".into(), &3.into(), &3.into()));
    assert_eq!((&planted["nodes_used"], &planted["decisions"]), (&4.into(), &6.into()));
    assert_eq!(planted["optimised"]["nodes_used"], 3);
    assert_eq!(planted["optimised"]["ratio"], 1.0);
    assert_eq!(of(&records, "node_list", "spread")["unplaced"], 0);
    assert_eq!(of(&records, "equal_nodes", "pack")["bound"], 2);
    for policy in ["pack", "fragmentation", "spread"] {
        let gpus = of(&records, "gpu_arrival", policy);
        assert_eq!(gpus["gpu_allocated_percent_by_seed"].as_array().expect("a list").len(), 2);
        assert!(gpus["gpu_allocated_percent"].as_f64().expect("a number") > 50.0, "{gpus}");
    }
    let mut drawn: Vec<_> =
        fs::read_dir(pictures).expect("pictures").map(|entry| entry.expect("one").file_name()).collect();
    drawn.sort();
    assert_eq!(drawn, ["cut.svg", "p-equal-nodes.svg", "p-gpus.svg", "p.svg"]);
}

#[test]
fn a_replay_is_the_same_again() {
    let directory = world();
    let told = |seed: &str| {
        let mut records = run(directory.path(), &["--seeds", "3", "--seed", seed]).expect("good files");
        for record in &mut records {
            record.as_object_mut().expect("an object").remove("cpu_seconds");
        }
        records
    };
    let first = told("7");
    assert_eq!(first, told("7"));
    assert_ne!(of(&first, "gpu_arrival", "pack")["digest"], of(&told("8"), "gpu_arrival", "pack")["digest"]);
}

#[test]
fn a_bad_file_is_refused_with_its_place() {
    let directory = world();
    let list = directory.path().join("r/p.csv");
    fs::write(&list, pods().replace("p4,", "p4,-")).expect("a file");
    let error = run(directory.path(), &[]).expect_err("a bad file");
    assert!(error.contains("r/p.csv:6: column cpu_milli is \"-"), "{error}");
    assert!(error.contains("expected a whole number from 0 to"), "{error}");
}
