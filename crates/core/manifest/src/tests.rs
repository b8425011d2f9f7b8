//! What users write, right and wrong, and how the program responds.

use crate::*;
use serde_json::Value;

const SIX_LINES: &str = "service: web
image: docker.io/library/nginx:1.27
replicas: 3
ports: [80]
resources: { cpu: 250m, memory: 128Mi }
expose: { host: shop.example.com }
";

fn complaints(file: &str, text: &str) -> Vec<String> {
    parse(file, text, false).expect_err("it is wrong").0.iter().map(ToString::to_string).collect()
}

#[test]
fn six_lines_are_a_deployment() {
    let parsed = parse("web.yaml", SIX_LINES, false).expect("it is right");
    let [Manifest::Service(service)] = &parsed.objects[..] else { panic!("{parsed:?}") };
    assert_eq!((service.name.as_str(), service.replicas), ("web", 3));
    assert_eq!(service.resources.cpu_millis.0, 250);
}

#[test]
fn toml_says_the_same() {
    let text = "service = \"web\"\nimage = \"docker.io/library/nginx:1.27\"\nreplicas = 3\nports = [80]\n\
                resources = { cpu = \"250m\", memory = \"128Mi\" }\nexpose = { host = \"shop.example.com\" }\n";
    let toml = parse("web.toml", text, false).expect("it is right");
    assert_eq!(toml.objects, parse("web.yaml", SIX_LINES, false).expect("it is right").objects);
}

#[test]
fn several_objects_stand_in_one_file() {
    let yaml = format!(
        "{SIX_LINES}---\npolicy: p\nselector: {{ services: [web] }}\ningress: []\n---\ntraffic: t\nservice: web\nbackends:\n- service: web\n"
    );
    assert_eq!(parse("a.yaml", &yaml, false).expect("it is right").objects.len(), 3);
    let toml = "[[service]]\nname = \"a\"\nimage = \"x\"\n[[service]]\nname = \"b\"\nimage = \"x\"\n\
                [[policy]]\nname = \"p\"\ningress = []\n";
    let names: Vec<_> =
        parse("a.toml", toml, false).expect("it is right").objects.iter().map(|o| o.name().to_owned()).collect();
    assert_eq!(names, ["a", "b", "p"]);
}

#[test]
fn unknown_fields_are_told_with_place_and_suggestion() {
    let text = "service: web\nimage: nginx\nreplica: 3\n";
    assert_eq!(complaints("web.yaml", text), ["web.yaml:3:1: unknown field `replica`; did you mean `replicas`?"]);
    let toml = "service = \"web\"\nimage = \"nginx\"\nresources = { cpus = \"1\" }\n";
    assert_eq!(complaints("web.toml", toml), ["web.toml:3:15: unknown field `cpus`; did you mean `cpu`?"]);
}

#[test]
fn problems_of_several_objects_are_told_at_once() {
    let text =
        "service: Web\nimage: nginx\nports: [80, 80]\n---\nservice: b\nimage: nginx\nresources:\n  memory: 12Q\n";
    let told = complaints("a.yaml", text);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told[0].starts_with("a.yaml:1:1: name: `Web` is not a name"), "{told:#?}");
    assert!(told[1].starts_with("a.yaml:3:13: ports[1].container_port"), "{told:#?}");
    assert!(told[2].starts_with("a.yaml:8:3: resources.memory: `12Q` is not a quantity"), "{told:#?}");
}

#[test]
fn devices_are_asked_beside_the_other_resources() {
    let text = "service: train\nimage: x\ngang: true\nreplicas: 4\n\
                resources:\n  cpu: 4\n  memory: 8Gi\n  gpu: 2\n  extended: { example.com/fpga: 500m }\n";
    let parsed = parse("a.yaml", text, false).expect("it is right");
    let [Manifest::Service(service)] = &parsed.objects[..] else { panic!("{parsed:?}") };
    assert_eq!(service.resources.to_string(), "cpu 4, memory 8Gi, example.com/fpga 500m, gpu 2");
    assert!(service.gang);
    let told = |from: &str, to: &str| complaints("a.yaml", &text.replace(from, to)).join("\n");
    for (from, to, start) in [
        ("gpu: 2", "gpu: 1500m", "a.yaml:8:3: resources.gpu: 1500m is more than one device and not whole"),
        ("gpu: 2", "gpu: 0", "a.yaml:8:3: resources.gpu: 0 asks nothing; leave it out"),
        ("gpu: 2", "gpu: 17", "a.yaml:8:3: resources.gpu: 17 are more than the 16"),
        (
            "gpu: 2",
            "gpu: two",
            "a.yaml:8:3: resources.gpu: `two` is not a quantity of devices; write for example 2, or",
        ),
        ("gpu: 2", "gpus: 2", "a.yaml:8:3: unknown field `gpus`; did you mean `gpu`?"),
        ("500m", "2.5", "a.yaml:9:15: resources.extended.example.com/fpga: 2500m is more than one device"),
        ("example.com/fpga", "FPGA", "a.yaml:9:15: resources.extended.FPGA: `FPGA` is no name of a kind of device"),
        ("example.com/fpga", "gpu", "a.yaml:5:1: resources: `gpu` and `gpu` in `extended` are the same"),
        ("replicas: 4", "replicas: 400", "a.yaml:4:1: replicas: 400 replicas cannot be placed together"),
    ] {
        assert!(told(from, to).starts_with(start), "{}", told(from, to));
    }
}

#[test]
fn lenient_ignores_unknown_fields_with_a_warning() {
    let parsed = parse("a.yaml", "service: web\nimage: nginx\nreplica: 3\n", true).expect("it is let pass");
    assert_eq!(parsed.objects.len(), 1);
    assert_eq!(parsed.warnings[0].place.line, 3);
}

#[test]
fn broken_files_are_told_with_their_place() {
    for (file, text, start) in [
        ("a.yaml", "service: [\n", "a.yaml:"),
        ("a.toml", "service = \n", "a.toml:1:"),
        ("a.yaml", "", "a.yaml:1:1: the file describes nothing"),
        ("a.yaml", "servce: x\n", "a.yaml:1:1: unknown key; did you mean `service`?"),
        ("a.yaml", "apiVersion: apps/v1\nkind: Deployment\n", "a.yaml:2:1: Kubernetes manifests"),
        ("a.yaml", "service: a\nimage: b\nimage: c\n", "a.yaml:3:1: "),
        ("a.yaml", "service: a\nimage: b\nenvironment: { N: 1 }\n", "a.yaml:3:16: environment.N: "),
        (
            "a.yaml",
            "service: a\nimage: b\n---\nservice: a\nimage: b\n",
            "a.yaml:4:1: service `a` stands in line 1 already",
        ),
    ] {
        let told = complaints(file, text);
        assert!(told[0].starts_with(start), "{told:?}");
    }
}

#[test]
fn all_that_is_wrong_in_an_object_is_told() {
    let text = "service: web\nimage: nginx\nreplicas: many\nports: [http]\nuser: [1]\n\
        strategy: { rolling: { max_surg: 1 } }\nhealth_check: { http: /health }\nmode: jobs\nresources: { memory: 12Q }\n\
        environment: { N: 1 }\nreplica: 1\n";
    let told = complaints("a.yaml", text);
    let whole = "expected a whole number from 0 to";
    let starts = [
        format!("a.yaml:3:1: replicas: {whole} 4294967295, found \"many\""),
        format!("a.yaml:4:9: ports[0]: {whole} 65535, found \"http\""),
        "a.yaml:5:1: user: expected text, found a list".to_owned(),
        "a.yaml:6:24: unknown field `max_surg`; did you mean `max_surge`?".to_owned(),
        "a.yaml:7:17: health_check.http: expected a map of fields, found \"/health\"".to_owned(),
        "a.yaml:8:1: mode: `jobs` is not known here; did you mean `job`?".to_owned(),
        "a.yaml:9:14: resources.memory: `12Q` is not a quantity".to_owned(),
        "a.yaml:10:16: environment.N: expected text, found `1`; write it in quotes".to_owned(),
        "a.yaml:11:1: unknown field `replica`; did you mean `replicas`?".to_owned(),
    ];
    for start in &starts {
        assert!(told.iter().any(|line| line.starts_with(start)), "{start} in {told:#?}");
    }
    assert_eq!(told.len(), starts.len(), "{told:#?}");
}

#[test]
fn a_key_that_stands_twice_is_told_where_it_stands_again() {
    let told = complaints("a.yaml", "service: a\nimage: host\nimage: b\n");
    assert_eq!(told, ["a.yaml:3:1: `image` stands twice in the same map"]);
    let told = complaints("a.yaml", "service: a\nimage: b\nresources: { cpu: 1, cpu: 2 }\n");
    assert_eq!(told, ["a.yaml:3:22: `cpu` stands twice in the same map"]);
}

#[test]
fn what_was_wrong_is_not_missed() {
    let taken_out = "service: 5\nimage: host\ncommand: sleep 100\nports: [x]\nexpose: { host: a.example }\n";
    let told = complaints("a.yaml", taken_out);
    assert_eq!(told.len(), 3, "what follows from the three is not told: {told:#?}");
    let told = complaints("a.yaml", "service: a\nimage: [\n");
    assert!(!told[0].contains("at line"), "the place is told once: {told:?}");
    assert_eq!(complaints("a.yaml", "service: web\nimage: [x]\n"), ["a.yaml:2:1: image: expected text, found a list"]);
    assert_eq!(complaints("a.yaml", "service: web\n"), ["a.yaml:1:1: the field `image` is missing"]);
}

#[test]
fn what_is_got_can_be_applied_again() {
    let text = format!(
        "{SIX_LINES}environment: {{ N: '1', EMPTY: '' }}\nstrategy: {{ canary: {{ steps: [{{ weight: 10 }}] }} }}\n\
         health_check: {{ http: {{ path: /ok }} }}\n"
    ) + "---\nservice: nightly\nimage: x\nmode: { job: { retries: 1 } }\nschedule: '0 3 * * *'\n\
           ---\npolicy: p\nselector: { services: [web] }\ningress: []\n\
           ---\ntraffic: t\nservice: web\nbackends:\n- service: web\n\
           ---\nconfig: c\ndata: { a: 'on', b: \"x\\ny\" }\n---\nsecret: s\ndata: { a: b }\n---\nquota: q\nservices: 3\n";
    let parsed = parse("a.yaml", &text, false).expect("it is right").objects;
    for object in parsed {
        let kind = object.kind();
        // As the server shows it, including the server's own fields.
        let Value::Object(mut shown) = serde_json::to_value(&object).expect("plain data")["object"].take() else {
            panic!("an object")
        };
        shown.insert("id".to_owned(), "abc".into());
        let document = document(kind, Value::Object(shown)).expect("files describe it");
        let text = serde_saphyr::to_string(&document).expect("it is written");
        assert_eq!(parse("b.yaml", &text, false).expect(&text).objects, [object], "{text}");
    }
}

#[test]
fn files_of_other_tools_are_named() {
    let compose = "version: '3'\nservices:\n  web:\n    image: nginx\n";
    assert!(complaints("a.yaml", compose)[0].starts_with("a.yaml:2:1: Compose files cannot be read yet"));
}

#[test]
fn a_tab_is_told_where_it_stands() {
    for text in ["service: web\n\timage: nginx\n", "service: web\nresources:\n\tcpu: 1\n"] {
        let line = text.lines().position(|line| line.starts_with('\t')).expect("it has one") + 1;
        let told = complaints("a.yaml", text);
        assert!(told[0].starts_with(&format!("a.yaml:{line}:1: ")) && told[0].contains("tab"), "{told:?}");
    }
}

#[test]
fn words_that_old_yaml_took_for_booleans_are_words() {
    let parsed = parse("a.yaml", "service: n\nimage: b\nenvironment: { DEBUG: on }\n", false).expect("it is right");
    assert_eq!(parsed.objects[0].name(), "n");
}

/// The YAML blocks of a Markdown page.
fn yaml_blocks(page: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn what_the_documents_show_can_be_applied() {
    let pages = [
        ("README.md", include_str!("../../../../README.md")),
        ("README.zh-CN.md", include_str!("../../../../README.zh-CN.md")),
        ("docs/manifest.md", include_str!("../../../../docs/manifest.md")),
    ];
    for (name, page) in pages {
        let blocks = yaml_blocks(page);
        assert!(!blocks.is_empty(), "{name} shows no manifest");
        for block in blocks {
            assert!(parse(name, &block, false).is_ok(), "{name}: {:?}\n{block}", parse(name, &block, false));
        }
    }
}

#[test]
fn the_examples_can_be_applied() {
    for (name, text) in [
        ("shop.yaml", include_str!("../../../../examples/shop.yaml")),
        ("nginx.yaml", include_str!("../../../../examples/nginx.yaml")),
        ("six-lines.yaml", include_str!("../../../../examples/six-lines.yaml")),
    ] {
        assert!(parse(name, text, false).is_ok(), "{:?}", parse(name, text, false));
    }
}

#[test]
fn a_misspelt_word_beside_one_that_is_a_field_of_its_kind_is_told() {
    let text = "trafic: t\nservice: web\nbackends: [{ service: web }]\n";
    assert_eq!(complaints("a.yaml", text), ["a.yaml:1:1: unknown key; did you mean `traffic`?"]);
    let told = complaints("a.yaml", "service: web\nimage: x\nconfigs: []\n");
    assert!(told[0].starts_with("a.yaml:3:1: unknown field `configs`"), "{told:?}");
}

#[test]
fn every_kind_stands_in_tables_of_toml_and_in_the_documentation() {
    let documentation = include_str!("../../../../docs/manifest.md");
    for kind in Kind::ALL {
        if let Some(head) = kind.head() {
            let parsed = parse("a.toml", &format!("[[{head}]]\nname = \"A\"\n"), false);
            let told = parsed.expect_err("the name is none").to_string();
            assert!(!told.contains("no known object"), "{told}");
        }
        let head = kind.head().map(|head| format!("`{head}: NAME` ")).unwrap_or_default();
        let spaces = if kind.is_namespaced() { "yes" } else { "no" };
        let [readers, writers] =
            [format!("{:?}", kind.readers()), format!("{:?}", kind.writers())].map(|word| word.to_lowercase());
        let (singular, short) = (kind.singular(), kind.short());
        let row = format!("| `{kind}` | `{singular}`, `{short}` | {head}| {spaces} | {readers} | {writers} |\n");
        assert!(documentation.contains(&row), "docs/manifest.md lacks the row\n{row}");
    }
}
