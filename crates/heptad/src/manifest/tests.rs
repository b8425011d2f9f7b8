//! What users write, right and wrong, and what they are told.

use super::*;

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
