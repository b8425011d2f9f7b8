//! Images from nothing but Debian packages: busybox and bash in an OCI layout, made by umoci.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

const TOOLS: [&str; 7] = ["sh", "cat", "httpd", "sleep", "id", "ls", "tail"];

/// Runs a tool; if it is missing or fails, so does the test.
pub fn run_tool(tool: &str, args: &[&str]) -> String {
    try_tool(tool, args).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn try_tool(tool: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(tool).args(args).output();
    let output =
        output.map_err(|error| format!("cannot run {tool} ({error}): `cargo xtask test` installs its package"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{tool} {args:?} failed: {}", text(&output.stderr))),
    }
}

/// Makes the OCI layout `DIR/layout` with an image per version: busybox, whose web server answers `/` with the version on
/// port 8080, as user 1000. Returns the layout.
pub fn busybox_layout(dir: &Path, versions: &[&str]) -> PathBuf {
    let layout = dir.join("layout");
    let shown = layout.display().to_string();
    run_tool("umoci", &["init", "--layout", &shown]);
    for version in versions {
        let image = format!("{shown}:{version}");
        let bundle = dir.join(format!("bundle-{version}"));
        let bundle_shown = bundle.display().to_string();
        run_tool("umoci", &["new", "--image", &image]);
        run_tool("umoci", &["unpack", "--image", &image, &bundle_shown]);
        fill(&bundle.join("rootfs"), version).expect("the image's files are written");
        run_tool("umoci", &["repack", "--image", &image, &bundle_shown]);
        let config = ["config", "--image", &image, "--config.entrypoint", "/bin/httpd", "--config.user", "1000:1000"];
        let words = ["-f", "-p", "8080", "-h", "/www"].map(|word| ["--config.cmd", word]).concat();
        run_tool("umoci", &[&config[..], &words[..]].concat());
    }
    layout
}

fn fill(rootfs: &Path, version: &str) -> std::io::Result<()> {
    for name in ["bin", "www", "tmp", "etc", "proc", "sys", "dev"] {
        fs::create_dir_all(rootfs.join(name))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    let busybox = busybox.expect("busybox is there: `cargo xtask test` installs the package busybox-static");
    fs::copy(busybox, rootfs.join("bin/busybox"))?;
    TOOLS.iter().try_for_each(|tool| symlink("busybox", rootfs.join("bin").join(tool)))?;
    // Its /dev/tcp is the client: the resolver that Debian links into busybox crashes where glibc's files are not there.
    copy_with_libraries(Path::new("/bin/bash"), rootfs)?;
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n")?;
    fs::write(rootfs.join("www/index.html"), format!("{version}\n"))
}

/// Copies a program and the libraries that it names.
fn copy_with_libraries(program: &Path, rootfs: &Path) -> std::io::Result<()> {
    let listed = run_tool("ldd", &[&program.display().to_string()]);
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in libraries.chain([program]) {
        let inside = rootfs.join(file.strip_prefix("/").expect("a path from the root"));
        fs::create_dir_all(inside.parent().expect("a file is in a directory"))?;
        fs::copy(file, inside)?;
    }
    Ok(())
}
