//! Users and groups, from names to numbers. Changes nobody's.

use nix::unistd::{Group, Uid, User};
use uring_pool::config::{ConfigError, Identity};

/// Whom to run as: `user`, else the one of `before`; and `group`, else the primary one of `user`,
/// else that of `before`. Nobody else when neither is given.
///
/// # Errors
///
/// This system doesn't know the name, or there is a group without a user.
pub(super) fn identity(
    user: Option<&str>,
    group: Option<&str>,
    before: Option<Identity>,
) -> Result<Option<Identity>, ConfigError> {
    let gid = group.map(group_id).transpose()?;
    match (user, gid, before) {
        (Some(user), _, _) => Ok(Some(of_user(user, gid)?)),
        (None, Some(gid), Some(before)) => Ok(Some(Identity { gid, ..before })),
        (None, Some(_), None) => Err(refusal("group", group, "used together with `user`")),
        (None, None, before) => Ok(before),
    }
}

fn of_user(text: &str, gid: Option<u32>) -> Result<Identity, ConfigError> {
    let named = User::from_name(text).ok().flatten();
    let number = number(text);
    let numbered = || User::from_uid(Uid::from_raw(number?)).ok().flatten();
    let account = named.or_else(numbered);
    let uid = account.as_ref().map(|user| user.uid.as_raw()).or(number);
    let uid = uid.ok_or_else(|| {
        refusal("user", Some(text), "the name or the number of a user (`getent passwd` lists them)")
    })?;
    let gid = gid.or(account.map(|user| user.gid.as_raw())).ok_or_else(|| {
        refusal("user", Some(text), "used together with `group`, as this system doesn't know it")
    })?;
    Ok(Identity { uid, gid })
}

fn group_id(text: &str) -> Result<u32, ConfigError> {
    let named = Group::from_name(text).ok().flatten().map(|group| group.gid.as_raw());
    named.or(number(text)).ok_or_else(|| {
        let range = "the name or the number of a group (`getent group` lists them)";
        refusal("group", Some(text), range)
    })
}

/// An id; the last number is none, but asks to leave things as they are (setresuid(2)).
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn refusal(key: &'static str, value: Option<&str>, range: &str) -> ConfigError {
    let value = value.unwrap_or_default().to_owned();
    ConfigError::OutOfRange { key, value, range: range.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Option<Identity> = Some(Identity { uid: 7, gid: 8 });

    #[test]
    fn names_and_numbers_become_ids_and_a_user_brings_its_group() {
        let of = |user, group, before| identity(user, group, before).unwrap();
        let root = Some(Identity { uid: 0, gid: 0 });
        assert_eq!(of(Some("root"), None, None), root);
        assert_eq!(of(Some("0"), None, BEFORE), root, "not the group of another user");
        assert_eq!(of(Some("root"), Some("5"), None), Some(Identity { uid: 0, gid: 5 }));
        let unknown = Some(Identity { uid: 123_456_789, gid: 0 });
        assert_eq!(of(Some("123456789"), Some("root"), None), unknown);
        assert_eq!(of(None, Some("root"), BEFORE), Some(Identity { uid: 7, gid: 0 }));
        assert_eq!(of(None, None, BEFORE), BEFORE);
        assert_eq!(of(None, None, None), None);
    }

    #[test]
    fn whom_the_system_does_not_know_is_named() {
        for (user, group, words) in [
            (Some("no such user"), None, "`user` is no such user: it must be the name"),
            (Some("4294967295"), None, "`user` is 4294967295"),
            (Some("-1"), None, "`user` is -1"),
            (Some(""), None, "`user` is :"),
            (Some("123456789"), None, "together with `group`"),
            (Some("root"), Some("no such group"), "`group` is no such group"),
            (None, Some("root"), "together with `user`"),
        ] {
            let error = identity(user, group, None).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
