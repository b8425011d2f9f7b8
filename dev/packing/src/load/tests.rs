//! Good files, and bad ones with the place that is named.

use super::load;
use std::{error::Error, fs, path::Path};

const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\na,32000,262144,0,\nb,96000,393216,8,G2\nc,96000,393216,8,G2\n";
const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n\
    p0,12000,16384,1,1000,,LS,Running,0,1,0\np1,6000,12288,1,460,T4|G2,LS,Running,0,1,0\np2,1,2,8,1000,,BE,Failed,0,1,\n";
const SHORT: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\r\np0,12000,16384,0,0\r\n";
const INDEX: &str = "file,dims,items,optimal_nodes,cap0,cap1,cap2,cap3\nvec.csv,2,2,1,10,20,,\none.csv,1,3,1,1000,,,\n";

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory below it");
        fs::write(path, text).expect("a file in it");
    }
    directory
}

fn refusal(files: &[(&str, &str)]) -> String {
    let directory = directory(files);
    let error = load(directory.path()).expect_err("a bad directory");
    let text = error.to_string();
    assert!(error.source().is_none_or(|cause| !text.contains(&cause.to_string())), "the cause is not repeated");
    text.replace(&format!("{}/", directory.path().display()), "")
}

#[test]
fn both_formats_are_found_by_their_first_lines() {
    let directory = directory(&[
        ("x/any.csv", NODES),
        ("x/long.csv", PODS),
        ("x/short.csv", SHORT),
        ("x/notes.txt", "?"),
        ("y/i.csv", INDEX),
        ("y/vec.csv", "a,b\n4,5\n6,15\n"),
        ("y/one.csv", "size\r\n400\r\n300\r\n300\r\n"),
    ]);
    let found = load(directory.path()).expect("good files");
    let names: Vec<&str> = found.recorded.iter().map(|list| &*list.name).collect();
    assert_eq!(names, ["long", "short"]);
    let [long, short] = &found.recorded[..] else { panic!("two lists") };
    assert_eq!((long.nodes.len(), long.items.len(), short.items.len()), (3, 3, 1));
    assert_eq!(long.common_capacity(), [96000, 393_216, 0, 0]);
    let shared = long.items[1].devices.as_ref().expect("a share");
    assert_eq!((shared.millis, &*shared.models), (460, &["T4".to_owned(), "G2".to_owned()][..]));
    assert_eq!(long.items[2].device_millis(), 8000);
    let [vector, one] = &found.planted[..] else { panic!("two planted ones") };
    assert_eq!((&*vector.name, vector.optimum, vector.items[1].amounts), ("vec", 1, [6, 15, 0, 0]));
    assert_eq!((one.dimensions, one.items.len(), one.capacity), (1, 3, [1000, 0, 0, 0]));
}

#[test]
fn two_lists_of_nodes_are_two_instances() {
    let directory = directory(&[("all.csv", NODES), ("few.csv", NODES), ("pods.csv", SHORT)]);
    let found = load(directory.path()).expect("good files");
    let names: Vec<&str> = found.recorded.iter().map(|list| &*list.name).collect();
    assert_eq!(names, ["pods@all", "pods@few"]);
}

#[test]
fn a_bad_value_is_named_with_its_line() {
    let pods = |text: &str| refusal(&[("n.csv", NODES), ("p.csv", text)]);
    let bad = PODS.replace("p1,6000", "p1,6.5");
    assert_eq!(pods(&bad), "p.csv:3: column cpu_milli is \"6.5\"; expected a whole number from 0 to 1099511627776");
    let bad = PODS.replace("8,1000", "8,500");
    assert_eq!(pods(&bad), "p.csv:4: column gpu_milli is \"500\"; expected a whole number from 1000 to 1000");
    let bad = PODS.replace("1,460", "1,1460");
    assert_eq!(pods(&bad), "p.csv:3: column gpu_milli is \"1460\"; expected a whole number from 1 to 1000");
    assert_eq!(pods(&PODS.replace("p1,6000,", "p1,")), "p.csv:3: not a row of comma-separated values");
    assert_eq!(pods("name,cpu_milli,memory_mib,num_gpu,gpu_milli\n"), "p.csv: no requests; expected one a line");
    let nodes = NODES.replace("b,96000,393216,8,G2", "b,96000,393216,8,");
    assert_eq!(refusal(&[("n.csv", &nodes)]), "n.csv:3: column model is \"\"; expected the model of the node's GPUs");
}

#[test]
fn a_bad_index_is_named_with_its_line() {
    let files =
        |index: &str, vector: &str| refusal(&[("i.csv", index), ("vec.csv", vector), ("one.csv", "size\n1\n2\n3\n")]);
    let good = "a,b\n4,5\n6,15\n";
    assert_eq!(files(INDEX, "a,b\n4,5\n6,21\n"), "vec.csv:3: column b is \"21\"; expected a whole number from 0 to 20");
    assert_eq!(files(INDEX, "a,b\n4,5\n"), "vec.csv: 1 items; the index says 2");
    assert_eq!(files(INDEX, "a\n4\n5\n"), "vec.csv: 1 columns; the index says 2 resources");
    let five = INDEX.replace("vec.csv,2", "vec.csv,5");
    assert_eq!(files(&five, good), "i.csv:2: column dims is \"5\"; expected a whole number from 1 to 4");
    let outside = INDEX.replace("vec.csv", "../vec.csv");
    assert_eq!(
        files(&outside, good),
        "i.csv:2: column file is \"../vec.csv\"; expected the name of a file beside the index"
    );
    assert_eq!(refusal(&[("i.csv", INDEX)]), "cannot read vec.csv");
}

#[test]
fn a_directory_without_instances_says_what_was_expected() {
    assert!(refusal(&[("a.csv", "x,y\n1,2\n")]).contains("no instances; expected an index"));
    assert!(refusal(&[("p.csv", SHORT)]).contains("no list of nodes beside it; expected one with the first line sn,"));
    let missing = load(Path::new("/nonexistent/x")).expect_err("no such directory").to_string();
    assert_eq!(missing, "cannot read /nonexistent/x");
}
