//! Users and groups: from names in the configuration to what a child becomes.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// A resolved user: what the child becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Name and home, for `USER`, `LOGNAME` and `HOME`.
    pub name: String,
    /// The home directory.
    pub home: PathBuf,
}

impl Ids {
    /// Looks `user` and `group` (names, or numbers) up in the system's databases. The default for
    /// the user is the daemon's, for the group the user's. `Ok(None)`: neither was given. May block
    /// on the network, if the databases are there.
    ///
    /// # Errors
    /// One of them does not exist. The error names it.
    pub fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, String> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let account = match user {
            Some(user) => find_user(user)?,
            None => by_uid(Uid::effective())?,
        };
        let gid = match group {
            Some(group) => find_group(group)?,
            None => account.gid,
        };
        let groups = match CString::new(account.name.as_str()) {
            Ok(name) => getgrouplist(&name, gid)
                .map_err(|error| format!("cannot read the groups of user `{}`: {error}", account.name))?,
            Err(_) => vec![gid],
        };
        Ok(Some(Self {
            uid: account.uid.as_raw(),
            gid: gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            name: account.name,
            home: account.home,
        }))
    }

    /// Whether it is the daemon's own identity, so that nothing has to be switched (only root may).
    pub(super) fn is_own(&self) -> bool {
        !Uid::effective().is_root()
            && Uid::effective().as_raw() == self.uid
            && Gid::effective().as_raw() == self.gid
    }
}

struct Account {
    uid: Uid,
    gid: Gid,
    name: String,
    home: PathBuf,
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self { uid: user.uid, gid: user.gid, name: user.name, home: user.dir }
    }
}

fn find_user(user: &str) -> Result<Account, String> {
    match User::from_name(user) {
        Ok(Some(found)) => Ok(found.into()),
        Ok(None) => match user.parse() {
            Ok(uid) => by_uid(Uid::from_raw(uid)),
            Err(_) => Err(format!("user `{user}` does not exist on this host")),
        },
        Err(error) => Err(format!("cannot look user `{user}` up: {error}")),
    }
}

/// A number need not be in the database. Its group is then the same number, as useradd(8) makes it.
fn by_uid(uid: Uid) -> Result<Account, String> {
    match User::from_uid(uid) {
        Ok(Some(found)) => Ok(found.into()),
        Ok(None) => Ok(Account {
            uid,
            gid: Gid::from_raw(uid.as_raw()),
            name: uid.to_string(),
            home: PathBuf::from("/"),
        }),
        Err(error) => Err(format!("cannot look user {uid} up: {error}")),
    }
}

fn find_group(group: &str) -> Result<Gid, String> {
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid),
        Ok(None) => match group.parse() {
            Ok(gid) => Ok(Gid::from_raw(gid)),
            Err(_) => Err(format!("group `{group}` does not exist on this host")),
        },
        Err(error) => Err(format!("cannot look group `{group}` up: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_given_is_nobody_else() {
        assert_eq!(Ids::resolve(None, None), Ok(None));
    }

    #[test]
    fn root_is_known_by_name_and_number() {
        let by_name = Ids::resolve(Some("root"), None).unwrap().unwrap();
        assert_eq!((by_name.uid, by_name.gid, by_name.name.as_str()), (0, 0, "root"));
        assert!(by_name.groups.contains(&0));
        assert_eq!(Ids::resolve(Some("0"), Some("0")).unwrap().unwrap().home, by_name.home);
    }

    #[test]
    fn a_missing_one_is_named() {
        let user = Ids::resolve(Some("no-such-user-here"), None).unwrap_err();
        assert!(user.contains("user `no-such-user-here`"), "{user}");
        let group = Ids::resolve(None, Some("no-such-group-here")).unwrap_err();
        assert!(group.contains("group `no-such-group-here`"), "{group}");
        assert!(Ids::resolve(Some("ro\0ot"), None).is_err());
    }
}
