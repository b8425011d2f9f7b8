//! The process to run: a service's settings laid over the image's, with user names looked up inside the image. Starts
//! nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use heptad_model::{SIGTERM, parse_signal};

use crate::config::ImageConfig;
use crate::merged::Merged;
use crate::store::Image;
use crate::users::{self, Account, AccountError};

/// The search path if neither the image nor the service sets one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A service's settings for its process; `None` leaves it to the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessRequest {
    /// Replaces the image's entrypoint, and drops its cmd.
    pub command: Option<Vec<String>>,
    /// Replaces the image's cmd.
    pub args: Option<Vec<String>>,
    /// Laid over the image's environment.
    pub env: BTreeMap<String, String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Further groups, names or numbers.
    pub groups: Vec<String>,
    /// Absolute directory.
    pub working_dir: Option<String>,
    /// The signal that asks it to end, such as `SIGQUIT`.
    pub stop_signal: Option<String>,
}

/// The process, ready for a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessPlan {
    /// The command line; never empty.
    pub args: Vec<String>,
    /// The environment; `PATH` and `HOME` are always set.
    pub env: BTreeMap<String, String>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// The directory that the process starts in; absolute.
    pub cwd: PathBuf,
    /// The number of the signal that asks it to end.
    pub stop_signal: i32,
}

/// Why a service and an image do not yield a process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// Neither has a command.
    #[error("image {image} has no command; name one in the service's `command`")]
    NoCommand {
        /// The reference.
        image: String,
    },
    /// The user is invalid.
    #[error("the user of image {image} or of its service cannot be used")]
    BadUser {
        /// The reference.
        image: String,
        /// What is wrong.
        source: heptad_model::UserError,
    },
    /// The user is not in the image.
    #[error("user {user:?} is not in /etc/passwd of image {image}; use a number or a name that the image has")]
    UnknownUser {
        /// The reference.
        image: String,
        /// The name.
        user: String,
    },
    /// The group is not in the image.
    #[error("group {group:?} is not in /etc/group of image {image}; use a number or a name that the image has")]
    UnknownGroup {
        /// The reference.
        image: String,
        /// The name.
        group: String,
    },
    /// The image's user database cannot be read.
    #[error("cannot read {path} of image {image}")]
    Read {
        /// The reference.
        image: String,
        /// The file in the image.
        path: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A value with which no process can be started.
    #[error("{what} {value:?} cannot be used with image {image}: {problem}")]
    BadValue {
        /// The reference.
        image: String,
        /// Argument, variable, directory.
        what: &'static str,
        /// The value.
        value: String,
        /// Why.
        problem: &'static str,
    },
}

impl Image {
    /// Lays `request` over the image's configuration. Reads /etc/passwd and /etc/group of the image
    /// (blocking, small).
    pub fn process(&self, request: &ProcessRequest) -> Result<ProcessPlan, ProcessError> {
        let image = || self.reference.clone();
        let args = command_line(&self.config, request);
        if args.is_empty() || args[0].is_empty() {
            return Err(ProcessError::NoCommand { image: image() });
        }
        let account = self.account(request.user.as_deref().unwrap_or(&self.config.user), &request.groups)?;
        let mut env = environment(&self.config.env, &request.env);
        let home = account.home.clone().unwrap_or_else(|| "/".to_owned());
        env.entry("HOME".to_owned()).or_insert(home);
        env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
        let cwd = self.working_dir(request)?;
        for (what, value) in args.iter().map(|a| ("argument", a)).chain(env.values().map(|v| ("variable", v))) {
            if value.contains('\0') {
                return Err(bad_value(image(), what, value, "it holds a NUL character"));
            }
        }
        for name in env.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(bad_value(image(), "variable name", name, "it is empty or holds `=` or NUL"));
            }
        }
        let stop_signal = request.stop_signal.as_deref().or(self.config.stop_signal.as_deref());
        let stop_signal = stop_signal.map_or(Ok(SIGTERM), |text| {
            let problem = "it is not a signal; name one such as SIGQUIT in the service's `stop_signal`";
            parse_signal(text).map_err(|_| bad_value(image(), "stop signal", text, problem))
        })?;
        Ok(ProcessPlan {
            args,
            env,
            uid: account.uid,
            gid: account.gid,
            additional_gids: account.additional_gids,
            cwd,
            stop_signal,
        })
    }

    fn account(&self, spec: &str, groups: &[String]) -> Result<Account, ProcessError> {
        let image = self.reference.clone();
        let merged = Merged::open(&self.layers).map_err(|source| ProcessError::Read {
            image: image.clone(),
            path: "/",
            source,
        })?;
        users::account(&merged, spec, groups).map_err(|e| match e {
            AccountError::Malformed(source) => ProcessError::BadUser { image, source },
            AccountError::UnknownUser(user) => ProcessError::UnknownUser { image, user },
            AccountError::UnknownGroup(group) => ProcessError::UnknownGroup { image, group },
            AccountError::Read(path, source) => ProcessError::Read { image, path, source },
        })
    }

    fn working_dir(&self, request: &ProcessRequest) -> Result<PathBuf, ProcessError> {
        let dir = request.working_dir.as_deref().unwrap_or(&self.config.working_dir);
        let problem = if dir.contains('\0') {
            "it holds a NUL character"
        } else if PathBuf::from(dir).components().any(|c| c == std::path::Component::ParentDir) {
            "it has a `..` component"
        } else {
            // An image's relative directory is relative to the root.
            return Ok(PathBuf::from("/").join(dir));
        };
        Err(bad_value(self.reference.clone(), "working directory", dir, problem))
    }
}

fn bad_value(image: String, what: &'static str, value: &str, problem: &'static str) -> ProcessError {
    ProcessError::BadValue { image, what, value: value.chars().take(200).collect(), problem }
}

fn command_line(config: &ImageConfig, request: &ProcessRequest) -> Vec<String> {
    let (first, default_args) = match &request.command {
        Some(command) => (command, None),
        None => (&config.entrypoint, Some(&config.cmd)),
    };
    let args = request.args.as_ref().or(default_args);
    first.iter().chain(args.into_iter().flatten()).cloned().collect()
}

fn environment(image: &[String], service: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = image
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    env.extend(service.clone());
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn line(entrypoint: &str, cmd: &str, command: Option<&str>, args: Option<&str>) -> String {
        let config = ImageConfig { entrypoint: words(entrypoint), cmd: words(cmd), ..ImageConfig::default() };
        let request =
            ProcessRequest { command: command.map(words), args: args.map(words), ..ProcessRequest::default() };
        command_line(&config, &request).join(" ")
    }

    #[test]
    fn command_and_args_replace_as_in_kubernetes() {
        assert_eq!(line("/e", "c d", None, None), "/e c d");
        assert_eq!(line("/e", "c d", None, Some("x")), "/e x");
        assert_eq!(line("/e", "c d", Some("/own"), None), "/own");
        assert_eq!(line("/e", "c d", Some("/own"), Some("x y")), "/own x y");
        assert_eq!(line("", "c d", None, Some("")), "");
    }

    #[test]
    fn a_plan_from_an_image_on_disk() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(dir.path().join("etc")).expect("etc");
        std::fs::write(dir.path().join("etc/passwd"), "app:x:7:8::/home/app:/bin/sh\n").expect("passwd");
        std::fs::write(dir.path().join("etc/group"), "app:x:8:\nvideo:x:44:\n").expect("group");
        let mut image = Image::host();
        image.layers = vec![dir.path().to_owned()];
        image.config.cmd = words("/bin/run now");
        image.config.env = words("A=1 B=2 broken");
        image.config.user = "app".to_owned();
        image.config.working_dir = "srv".to_owned();
        let request =
            ProcessRequest { env: BTreeMap::from([("B".to_owned(), "3".to_owned())]), ..ProcessRequest::default() };
        let plan = image.process(&request).expect("plan");
        assert_eq!((plan.uid, plan.gid, plan.cwd.to_str()), (7, 8, Some("/srv")));
        let env: Vec<String> = plan.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(env, ["A=1", "B=3", "HOME=/home/app", &format!("PATH={DEFAULT_PATH}")]);

        let groups = |names: &[&str]| ProcessRequest {
            groups: names.iter().map(|name| (*name).to_owned()).collect(),
            ..ProcessRequest::default()
        };
        let more = image.process(&groups(&["video", "99", "app", "44"])).expect("plan");
        assert_eq!(more.additional_gids, [44, 99]);
        let unknown = image.process(&groups(&["ghosts"]));
        assert!(matches!(unknown, Err(ProcessError::UnknownGroup { group, .. }) if group == "ghosts"));
        let ghost = ProcessRequest { user: Some("ghost".to_owned()), ..ProcessRequest::default() };
        assert!(matches!(image.process(&ghost), Err(ProcessError::UnknownUser { user, .. }) if user == "ghost"));
        let nul = ProcessRequest { args: Some(vec!["/x".into(), "a\0b".into()]), ..ProcessRequest::default() };
        assert!(matches!(image.process(&nul), Err(ProcessError::BadValue { what: "argument", .. })));
        let up = ProcessRequest { working_dir: Some("/a/../..".into()), ..ProcessRequest::default() };
        assert!(matches!(image.process(&up), Err(ProcessError::BadValue { what: "working directory", .. })));
        assert_eq!(plan.stop_signal, SIGTERM);
        let stopped_by = |image: &Image, own: Option<&str>| {
            let request = ProcessRequest { stop_signal: own.map(str::to_owned), ..ProcessRequest::default() };
            image.process(&request).map(|plan| plan.stop_signal)
        };
        image.config.stop_signal = Some("SIGINT".to_owned());
        assert_eq!(stopped_by(&image, None).expect("named"), 2);
        assert_eq!(stopped_by(&image, Some("rtmin+3")).expect("the service's own wins"), 37);
        image.config.stop_signal = Some("SIGNOTHING".to_owned());
        assert!(stopped_by(&image, None).expect_err("none").to_string().contains("SIGNOTHING"));
        assert_eq!(stopped_by(&image, Some("9")).expect("the service's own wins"), 9);
        image.config.user = "4294967295".to_owned();
        assert!(matches!(stopped_by(&image, Some("9")), Err(ProcessError::BadUser { .. })));
        image.config.user.clear();
        image.config.cmd.clear();
        assert!(matches!(image.process(&ProcessRequest::default()), Err(ProcessError::NoCommand { .. })));
    }
}
