//! Configs and secrets in real containers: as variables and files, sealed on disk, rolled when they change.

use crate::shell;
use heptad_e2e::Platform;
use std::time::{Duration, Instant};

const PASSWORD: &str = "open-sesame-7f3a";

#[test]
fn containers_read_configs_and_secrets_and_nobody_else_does() {
    let platform = Platform::start(&[]);
    let more = "environment_from: [{ config: app }, { secret: db, prefix: DB_ }]\n\
                files:\n  - { secret: db, key: password, path: /run/secrets/pw }\n  - { config: app, path: /etc/app }\n";
    let file = platform.write("password", PASSWORD);
    platform.ok(&["secret", "set", "db", &format!("password=@{file}")]);
    platform
        .apply(&["config: app\ndata: { level: info }\n".to_owned(), shell("box", "sleep 100000", more)].join("---\n"));
    let run = |line: &str| platform.shell("box", line);
    assert_eq!(run("echo $level $DB_password"), (0, format!("info {PASSWORD}\n")));
    assert_eq!(run("cat /run/secrets/pw /etc/app/level"), (0, format!("{PASSWORD}info")));
    assert_eq!(run("stat -c '%a %u' /run/secrets/pw /etc/app/level"), (0, "400 65534\n444 65534\n".to_owned()));
    assert_ne!(run("echo x > /etc/app/level").0, 0, "files of settings are read-only");

    for shown in
        [&["get", "secrets", "-o", "json"][..], &["describe", "secret", "db"], &["get", "services", "-o", "yaml"]]
    {
        assert!(!platform.ok(shown).contains(PASSWORD), "{shown:?}");
    }
    assert!(!platform.log_text().contains(PASSWORD));
    let state = platform.data_dir().join("state");
    let found = std::process::Command::new("grep").args(["-rqa", PASSWORD]).arg(&state).status().expect("grep runs");
    assert_eq!(found.code(), Some(1), "the value is not in {}", state.display());

    let before = platform.containers("box")[0].id.clone();
    platform.ok(&["secret", "set", "db", "password=changed"]);
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let all = platform.containers("box");
        if all.len() == 1 && all[0].ready && all[0].id != before {
            break;
        }
        assert!(Instant::now() < until, "the change rolled nothing: {all:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(run("echo $DB_password; cat /run/secrets/pw"), (0, "changed\nchanged".to_owned()));
}
