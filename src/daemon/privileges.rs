//! From root to another user, permanently.
//!
//! Names are looked up once, early ([`Identity::find`], also by `--check`). The change itself ([`Identity::assume`])
//! sets the supplementary groups, then the group, then the user. It then verifies the result, and that there is no way
//! back to root. A process that already is that user makes no system call that could be refused, so a service manager
//! that forbids `setuid` is no obstacle.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};
use nix::unistd::{getgrouplist, getgroups, getresgid, getresuid, setegid, seteuid, setgid, setgroups, setuid};

use super::exit::{Exit, Failure};

/// The user and group to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: Uid,
    /// The group; by default the user's own.
    pub gid: Gid,
    /// The user's name in the user database, used to find its other groups. A bare number may have none.
    name: Option<CString>,
}

impl Identity {
    /// Looks up `user` and `group`, given as names or numbers; `None` if neither is given.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, Failure> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let group = group.map(find_group).transpose()?;
        let Some(user) = user else {
            let uid = Uid::effective();
            return Ok(Some(Identity { uid, gid: group.unwrap_or_else(Gid::effective), name: None }));
        };
        let entry = match user.parse::<u32>() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(user),
        };
        let entry = entry.map_err(|errno| lookup_failed("user", user, errno))?;
        match (entry, user.parse::<u32>(), group) {
            (Some(entry), _, group) => {
                let name = CString::new(entry.name).ok();
                Ok(Some(Identity { uid: entry.uid, gid: group.unwrap_or(entry.gid), name }))
            }
            (None, Ok(number), Some(gid)) => Ok(Some(Identity { uid: Uid::from_raw(number), gid, name: None })),
            (None, Ok(number), None) => Err(Failure::new(
                Exit::Config,
                format!("user {number} is not in the user database, so its group must be named too"),
            )),
            (None, Err(_), _) => Err(unknown("user", user)),
        }
    }

    /// Whether this process could become this user. `--check` calls it.
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_current() || Uid::effective().is_root() {
            return Ok(());
        }
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let message = match self.uid == uid {
            true => format!(
                "only root can become group {}; this process runs as {}, group {}",
                group_name(self.gid),
                user_name(uid),
                group_name(gid)
            ),
            false => format!("only root can become {}; this process runs as {}", user_name(self.uid), user_name(uid)),
        };
        Err(Failure::new(Exit::NoPermission, message))
    }

    /// Becomes this user, irrevocably. Does nothing if the process already is that user.
    pub fn assume(&self) -> Result<(), Failure> {
        self.check()?;
        if self.is_current() {
            return Ok(());
        }
        let groups = self.groups()?;
        setgroups(&groups).map_err(|errno| refused("set the supplementary groups", errno))?;
        setgid(self.gid).map_err(|errno| refused("set the group", errno))?;
        setuid(self.uid).map_err(|errno| refused("set the user", errno))?;
        self.verify(&groups)
    }

    /// Does one thing with the user's rights and becomes root again.
    ///
    /// # Errors
    /// A change of ids was refused. Then `act` was not called, or this process must not continue.
    pub fn act<T>(&self, act: impl FnOnce() -> T) -> Result<T, Failure> {
        self.check()?;
        if self.is_current() {
            return Ok(act());
        }
        let groups = getgroups().map_err(|errno| refused("read the groups", errno))?;
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let become_one = |groups: &[Gid], gid, uid| {
            // Setting groups needs root, so the user id is changed last and restored first.
            setgroups(groups).and_then(|()| setegid(gid)).and_then(|()| seteuid(uid))
        };
        become_one(&self.groups()?, self.gid, self.uid).map_err(|errno| refused("act as the user", errno))?;
        let done = act();
        seteuid(uid).and_then(|()| become_one(&groups, gid, uid)).map_err(|errno| refused("be root again", errno))?;
        Ok(done)
    }

    /// All groups of the user.
    fn groups(&self) -> Result<Vec<Gid>, Failure> {
        match &self.name {
            Some(name) => getgrouplist(name, self.gid).map_err(|errno| refused("list the groups", errno)),
            None => Ok(vec![self.gid]),
        }
    }

    /// Whether the real, effective and saved ids are all as wanted: if one of them differs, the process could change
    /// back.
    fn is_current(&self) -> bool {
        let users = getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [self.uid; 3]);
        users && getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [self.gid; 3])
    }

    fn verify(&self, groups: &[Gid]) -> Result<(), Failure> {
        let kept = |what: &str| Failure::new(Exit::System, format!("cannot drop privileges: {what}"));
        if !self.is_current() {
            return Err(kept("the ids are not those that were set"));
        }
        let held = getgroups().map_err(|errno| refused("read the groups back", errno))?;
        if held.iter().any(|gid| !groups.contains(gid)) {
            return Err(kept("a supplementary group was kept"));
        }
        if !self.uid.is_root() && (setuid(Uid::from_raw(0)).is_ok() || setgid_back(self.gid)) {
            return Err(kept("the way back to root is open"));
        }
        Ok(())
    }
}

/// Whether a process of group `gid` can become a member of root's group, which must fail.
fn setgid_back(gid: Gid) -> bool {
    gid.as_raw() != 0 && setgid(Gid::from_raw(0)).is_ok()
}

fn find_group(group: &str) -> Result<Gid, Failure> {
    if let Ok(number) = group.parse::<u32>() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(group) {
        Ok(Some(entry)) => Ok(entry.gid),
        Ok(None) => Err(unknown("group", group)),
        Err(errno) => Err(lookup_failed("group", group, errno)),
    }
}

fn unknown(what: &str, name: &str) -> Failure {
    let message =
        format!("there is no {what} `{name}`: create it, or correct `{what}` in [daemon] or on the command line");
    Failure::new(Exit::Config, message)
}

fn lookup_failed(what: &str, name: &str, errno: Errno) -> Failure {
    Failure::io(format_args!("cannot look up {what} `{name}`"), &errno.into())
}

/// The name of a user, or the number if the user database has no name.
fn user_name(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// The name of a group, or its number.
fn group_name(gid: Gid) -> String {
    Group::from_gid(gid).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name)
}

fn refused(what: &str, errno: Errno) -> Failure {
    Failure::io(format_args!("cannot drop privileges: cannot {what}"), &errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_user_and_group_there_is_no_identity() {
        assert_eq!(Identity::find(None, None).unwrap(), None);
    }

    #[test]
    fn names_and_numbers_are_the_same_user() {
        let by_name = Identity::find(Some("root"), None).unwrap().unwrap();
        let by_number = Identity::find(Some("0"), Some("0")).unwrap().unwrap();
        assert_eq!((by_name.uid.as_raw(), by_name.gid.as_raw()), (0, 0));
        assert_eq!(by_name, by_number);
    }

    #[test]
    fn an_unknown_user_is_a_configuration_error() {
        let user = Identity::find(Some("no-such-user-here"), None).unwrap_err();
        assert_eq!(user, unknown("user", "no-such-user-here"));
        let group = Identity::find(None, Some("no-such-group-here")).unwrap_err();
        assert_eq!(group, unknown("group", "no-such-group-here"));
        let number = Identity::find(Some("4000000001"), None).unwrap_err();
        assert_eq!(number.exit, Exit::Config);
        let both = Identity::find(Some("4000000001"), Some("4000000002")).unwrap().unwrap();
        assert_eq!((both.uid.as_raw(), both.gid.as_raw()), (4_000_000_001, 4_000_000_002));
    }

    #[test]
    fn becoming_the_current_user_needs_no_rights() {
        let (user, group) = (Uid::current().to_string(), Gid::current().to_string());
        let identity = Identity::find(Some(&user), Some(&group)).unwrap().unwrap();
        identity.check().unwrap();
        identity.assume().unwrap();
    }

    #[test]
    fn only_root_may_become_another_user() {
        let identity = Identity::find(Some("4000000001"), Some("4000000002")).unwrap().unwrap();
        match identity.check() {
            Ok(()) => assert!(Uid::effective().is_root()),
            Err(failure) => assert_eq!(failure.exit, Exit::NoPermission),
        }
    }
}
