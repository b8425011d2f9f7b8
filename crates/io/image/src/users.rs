//! `user[:group]` looked up in an image's own /etc/passwd and /etc/group. Never consults the host's.

use std::io;

use heptad_model::{Principal, USER_ID_MAX, UserError, UserSpec};

use crate::merged::Merged;

/// Bytes of /etc/passwd or /etc/group that are read at most.
const DATABASE_BYTES_MAX: u64 = 4 << 20;

/// The account under which a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) home: Option<String>,
}

/// Why there is no such account.
#[derive(Debug)]
pub(crate) enum AccountError {
    Malformed(UserError),
    UnknownUser(String),
    UnknownGroup(String),
    Read(&'static str, io::Error),
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Finds the account for `user`, `uid`, `user:group`, ... in the image, with `groups` added; an empty text means root.
pub(crate) fn account(layers: &Merged, spec: &str, groups: &[String]) -> Result<Account, AccountError> {
    let spec = spec.parse().map_err(AccountError::Malformed)?;
    let passwd = database(layers, "etc/passwd")?;
    let group = database(layers, "etc/group")?;
    let mut account = lookup(&passwd, &group, &spec)?;
    for text in groups {
        let malformed = |problem| AccountError::Malformed(UserError { text: text.clone(), problem });
        let gid = group_id(&group, &text.parse().map_err(malformed)?)?;
        if gid != account.gid && !account.additional_gids.contains(&gid) {
            account.additional_gids.push(gid);
        }
    }
    Ok(account)
}

fn database(layers: &Merged, path: &'static str) -> Result<String, AccountError> {
    let content = layers.read(path, DATABASE_BYTES_MAX).map_err(|e| AccountError::Read(path, e))?;
    Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
}

fn lookup(passwd: &str, group: &str, spec: &UserSpec) -> Result<Account, AccountError> {
    let user = spec.user.clone().unwrap_or(Principal::Id(0));
    let entry = passwd_entries(passwd).find(|e| match &user {
        Principal::Id(uid) => e.uid == *uid,
        Principal::Name(name) => e.name == name,
    });
    let (uid, primary_gid, home) = match (&entry, user) {
        (Some(e), _) => (e.uid, e.gid, Some(e.home.to_owned()).filter(|h| h.starts_with('/'))),
        (None, Principal::Id(uid)) => (uid, 0, None),
        (None, Principal::Name(name)) => return Err(AccountError::UnknownUser(name)),
    };
    let gid = match &spec.group {
        Some(asked) => group_id(group, asked)?,
        None => primary_gid,
    };
    // A group given by name replaces the user's own memberships, as in other runtimes.
    let additional_gids = match (&entry, &spec.group) {
        (Some(e), None) => memberships(group, e.name, gid),
        _ => Vec::new(),
    };
    Ok(Account { uid, gid, additional_gids, home })
}

fn group_id(group: &str, asked: &Principal) -> Result<u32, AccountError> {
    match asked {
        Principal::Id(gid) => Ok(*gid),
        Principal::Name(name) => {
            let found = group_entries(group).find(|e| e.name == name).map(|e| e.gid);
            found.ok_or_else(|| AccountError::UnknownGroup(name.clone()))
        }
    }
}

fn memberships(group: &str, user: &str, gid: u32) -> Vec<u32> {
    let mut gids: Vec<u32> = group_entries(group)
        .filter(|e| e.gid != gid && e.members.split(',').any(|m| m == user))
        .map(|e| e.gid)
        .collect();
    gids.sort_unstable();
    gids.dedup();
    gids
}

/// A number of the image's databases; lines with an invalid one are ignored.
fn parse_id(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|id| *id <= USER_ID_MAX)
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        Some(PasswdEntry { name, uid: parse_id(uid)?, gid: parse_id(gid)?, home })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members, ..] = fields[..] else { return None };
        Some(GroupEntry { name, gid: parse_id(gid)?, members })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\napp:x:1000:1001::/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:app,other\nwheel:x:10:other\nextra:x:44:x,app\n";

    fn look(spec: &str) -> Result<Account, AccountError> {
        lookup(PASSWD, GROUP, &spec.parse().map_err(AccountError::Malformed)?)
    }

    fn found(spec: &str) -> (u32, u32, Vec<u32>, Option<String>) {
        let a = look(spec).expect("account");
        (a.uid, a.gid, a.additional_gids, a.home)
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(found(""), (0, 0, vec![], Some("/root".into())));
        assert_eq!(found("app"), (1000, 1001, vec![33, 44], Some("/home/app".into())));
        assert_eq!(found("1000"), (1000, 1001, vec![33, 44], Some("/home/app".into())));
        assert_eq!(found("app:web"), (1000, 33, vec![], Some("/home/app".into())));
        assert_eq!(found("4242"), (4242, 0, vec![], None));
        assert_eq!(found("4242:77"), (4242, 77, vec![], None));
        assert_eq!(found(":web"), (0, 33, vec![], Some("/root".into())));
    }

    #[test]
    fn unknown_names_are_errors() {
        assert!(matches!(look("ghost"), Err(AccountError::UnknownUser(u)) if u == "ghost"));
        assert!(matches!(look("app:ghost"), Err(AccountError::UnknownGroup(_))));
        for bad in ["4294967295", "app:4294967295", "-1", "0:-1"] {
            assert!(matches!(look(bad), Err(AccountError::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn lines_with_numbers_that_are_nobodys_are_passed_over() {
        let passwd = "evil:x:4294967295:0::/:/bin/sh\nworse:x:5:4294967295::/:/bin/sh\n";
        for name in ["evil", "worse"] {
            let spec = name.parse().expect("a name");
            assert!(matches!(lookup(passwd, "", &spec), Err(AccountError::UnknownUser(_))), "{name}");
        }
    }
}
