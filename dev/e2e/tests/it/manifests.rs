//! Files: `apply` and `plan` of every form, and what is wrong is told with its place and changes nothing.

use crate::stock;
use heptad_e2e::{Platform, Program};

const FITS_NOWHERE: &str = "service: giant\nimage: host\ncommand: [sleep, '1']\nresources: { cpu: 4000 }\n";

#[test]
fn files_of_every_form_are_planned_and_applied() {
    let platform = Platform::start(&[]);
    let file = platform.write("two.yaml", &(stock("a", "") + "---\n" + &stock("b", "replicas: 2\n")));
    let plan = platform.run(&["plan", "-f", &file]);
    assert_eq!(plan.code, 3, "{}{}", plan.out, plan.err);
    assert!(plan.out.contains("+ service a") && plan.out.contains("n1"), "{}", plan.out);
    assert_eq!(platform.containers("a").len(), 0, "a plan changes nothing");
    let applied = platform.ok(&["apply", "--wait", "-f", &file]);
    assert!(applied.contains("service/a created") && applied.contains("service/b created"), "{applied}");
    assert_eq!(platform.containers("b").iter().filter(|c| c.ready).count(), 2);
    assert_eq!(platform.run(&["plan", "-f", &file]).code, 0);
    assert!(platform.ok(&["apply", "-f", &file]).contains("service/a unchanged"));

    let giant = platform.write("giant.yaml", FITS_NOWHERE);
    let plan = platform.run(&["plan", "-f", &giant]);
    assert_eq!(plan.code, 4, "{}{}", plan.out, plan.err);
    assert!(plan.out.contains("The only node cannot take") && plan.out.contains("n1"), "{}", plan.out);

    platform.write(
        "dir/1.toml",
        "service = \"c\"\nimage = \"host\"\ncommand = [\"sleep\", \"1000\"]\nstop_grace_ms = 100\n",
    );
    platform.write("dir/2.yml", "policy: closed\nselector: { services: [c] }\ningress: []\n");
    platform.write("dir/notes.txt", "not a manifest");
    let applied = platform.ok(&["apply", "--wait", "-f", "dir"]);
    assert!(applied.contains("service/c created") && applied.contains("policy/closed created"), "{applied}");
    let said = platform.run_with(&["apply", "-f", "-"], "traffic: t\nservice: a\nbackends: [{ service: b }]\n");
    assert!(said.code == 0 && said.out.contains("rule/t created"), "{said:?}");

    platform.ok(&["delete", "-f", &file]);
    assert_eq!(platform.containers("a").len() + platform.containers("b").len(), 0);
    platform.ok(&["delete", "service", "c"]);
    platform.ok(&["delete", "policy", "closed"]);
    platform.ok(&["delete", "rule", "t"]);
    assert_eq!(platform.machine().container_processes(), []);
    assert!(platform.ok(&["get", "services"]).contains("no services"));
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_changes_nothing() {
    let platform = Platform::start(&[]);
    platform.apply(&stock("a", ""));
    let before = (platform.ok(&["get", "services", "-o", "json"]), platform.ok(&["get", "policies", "-o", "json"]));
    let wrong = [
        (
            "field.yaml",
            "service: x\nimage: host\nreplica: 3\n",
            "field.yaml:3:1: unknown field `replica`; did you mean `replicas`?",
        ),
        (
            "amount.toml",
            "service = \"x\"\nimage = \"host\"\nresources = { memory = \"12Q\" }\n",
            "amount.toml:3:15: resources.memory: `12Q`",
        ),
        (
            "half.yaml",
            "policy: p\ningress: []\n---\nservice: Upper\nimage: host\n",
            "half.yaml:4:1: name: `Upper` is not a name",
        ),
        ("torn.yaml", "service: [\n", "torn.yaml:"),
    ];
    for (name, text, complaint) in wrong {
        let file = platform.write(name, text);
        let said = platform.refused(&["apply", "-f", &file]);
        assert!(said.contains(complaint) && said.contains("nothing was applied"), "{said}");
    }
    for (args, complaint) in [
        (vec!["apply", "-f", "absent.yaml"], "cannot read absent.yaml"),
        (vec!["scale", "nobody", "3"], "nobody"),
        (vec!["delete", "service", "nobody"], "nobody"),
        (vec!["get", "pods"], "possible: "),
        (vec!["logs", "nobody"], "no service or container `nobody`"),
        (vec!["storage", "put", "no-key", "absent"], "write BUCKET/KEY"),
    ] {
        let said = platform.refused(&args);
        assert!(said.contains(complaint), "{args:?}: {said}");
    }
    let elsewhere = Program::find().run(&["--socket", "/nonexistent/api.sock", "get", "services"]);
    assert!(elsewhere.code == 1 && elsewhere.err.contains("/nonexistent/api.sock"), "{elsewhere:?}");
    let after = (platform.ok(&["get", "services", "-o", "json"]), platform.ok(&["get", "policies", "-o", "json"]));
    // The list's own revision counts what the node says of itself, too.
    let items = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON")["items"].clone();
    assert_eq!((items(&before.0), items(&before.1)), (items(&after.0), items(&after.1)));
}

#[test]
fn every_example_is_a_good_file() {
    let platform = Platform::start(&[]);
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(examples).expect("examples are there") {
        let path = entry.expect("it is listed").path();
        if path.extension().is_some_and(|ending| ["yaml", "toml"].iter().any(|known| ending == *known)) {
            let plan = platform.run(&["plan", "-f", &path.display().to_string()]);
            assert!([3, 4].contains(&plan.code), "{}: {plan:?}", path.display());
            count += 1;
        }
    }
    assert!(count >= 3, "{count} examples");
}

#[test]
fn namespaces_are_declared_or_not_and_deleted_when_they_are_empty() {
    let platform = Platform::start(&[]);
    let idle = |namespace: &str| {
        format!("service: web\nnamespace: {namespace}\nimage: host\ncommand: [sleep, '1']\nreplicas: 0\n")
    };
    let declared = "namespace: shop\ndescription: the web shop\nlabels: { team: a }\n";
    let file = platform.write("shop.yaml", &[declared, &idle("shop"), &idle("wild")].join("---\n"));
    let applied = platform.ok(&["apply", "-f", &file]);
    assert!(applied.contains("namespace/shop created") && applied.contains("service/web created"), "{applied}");
    let table = platform.ok(&["get", "ns", "-o", "wide"]);
    let words = |name: &str| {
        let row = table.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        row.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words("shop"), "shop yes 1 service team=a the web shop", "{table}");
    assert_eq!(words("wild"), "wild no 1 service", "{table}");
    assert_eq!(platform.ok(&["get", "namespaces", "-o", "name"]), "namespace/shop\n");
    let yaml = platform.ok(&["get", "namespace", "shop", "-o", "yaml"]);
    assert!(platform.run_with(&["apply", "-f", "-"], &yaml).out.contains("namespace/shop unchanged"), "{yaml}");
    let described = platform.ok(&["describe", "namespace", "shop"]);
    assert!(described.contains("team: a") && described.contains("Objects: 1 service\n"), "{described}");
    let said = platform.run(&["describe", "namespace", "wild"]);
    let undeclared = "namespace/wild holds 1 service but is not declared; apply a file that says `namespace: wild`";
    assert!(said.code == 1 && said.err.contains(undeclared), "{said:?}");

    let said = platform.run(&["delete", "namespace", "shop"]);
    let remedy = "it holds services (web); delete them first, as with `heptad delete service web -n shop`";
    assert!(said.code == 1 && said.err.contains(remedy), "{said:?}");
    let deleted = platform.ok(&["delete", "-f", &file]);
    assert!(deleted.ends_with("namespace/shop deleted\n"), "what is in it goes first: {deleted}");
    assert!(platform.ok(&["get", "namespaces"]).contains("no namespaces"));
}
