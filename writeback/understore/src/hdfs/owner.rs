//! Names of users and groups, by which HDFS knows owners, for the numbers by which POSIX does. The system is asked, LDAP and all.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    ffi::{CStr, CString, c_char},
    sync::LazyLock,
};

/// Room for one entry of the system's tables.
const ENTRY_BYTES: usize = 16 << 10;
/// Names whose numbers are remembered, for as long as this process lives: listings ask for the same few over and over.
const NAMES_MAX: usize = 4096;

/// Numbers of names, `None` where the system knows none.
#[derive(Default)]
struct Known(Mutex<HashMap<String, Option<u32>>>);

static USERS: LazyLock<Known> = LazyLock::new(Known::default);
static GROUPS: LazyLock<Known> = LazyLock::new(Known::default);

impl Known {
    fn number(&self, name: &str, ask: impl FnOnce(&CStr) -> Option<u32>) -> Option<u32> {
        if let Some(known) = self.0.lock().get(name) {
            return *known;
        }
        let number = CString::new(name).ok().and_then(|name| ask(&name));
        let mut known = self.0.lock();
        if known.len() >= NAMES_MAX {
            known.clear();
        }
        known.insert(name.to_owned(), number);
        number
    }
}

/// The user's number on this machine.
pub(super) fn uid(name: &str) -> Option<u32> {
    USERS.number(name, |name| {
        let mut room = vec![0; ENTRY_BYTES];
        let mut found = std::ptr::null_mut();
        // SAFETY: plain data, for which zeros are valid.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        // SAFETY: `name` ends in NUL; `entry`, `room` and `found` live through the call, and the room's size is given.
        let answer = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                &raw mut entry,
                room.as_mut_ptr(),
                room.len(),
                &raw mut found,
            )
        };
        (answer == 0 && !found.is_null()).then_some(entry.pw_uid)
    })
}

/// The group's number on this machine.
pub(super) fn gid(name: &str) -> Option<u32> {
    GROUPS.number(name, |name| {
        let mut room = vec![0; ENTRY_BYTES];
        let mut found = std::ptr::null_mut();
        // SAFETY: plain data, for which zeros are valid.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        // SAFETY: `name` ends in NUL; `entry`, `room` and `found` live through the call, and the room's size is given.
        let answer = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut entry,
                room.as_mut_ptr(),
                room.len(),
                &raw mut found,
            )
        };
        (answer == 0 && !found.is_null()).then_some(entry.gr_gid)
    })
}

/// The user's name on this machine.
pub(super) fn user_name(uid: u32) -> Option<String> {
    let mut room = vec![0; ENTRY_BYTES];
    let mut found = std::ptr::null_mut();
    // SAFETY: plain data, for which zeros are valid.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    // SAFETY: `entry`, `room` and `found` live through the call, and the room's size is given.
    let answer = unsafe { libc::getpwuid_r(uid, &raw mut entry, room.as_mut_ptr(), room.len(), &raw mut found) };
    // SAFETY: when an entry was found, its name ends in NUL and lies in `room`, which lives on.
    (answer == 0 && !found.is_null()).then(|| unsafe { text(entry.pw_name) })
}

/// The group's name on this machine.
pub(super) fn group_name(gid: u32) -> Option<String> {
    let mut room = vec![0; ENTRY_BYTES];
    let mut found = std::ptr::null_mut();
    // SAFETY: plain data, for which zeros are valid.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    // SAFETY: `entry`, `room` and `found` live through the call, and the room's size is given.
    let answer = unsafe { libc::getgrgid_r(gid, &raw mut entry, room.as_mut_ptr(), room.len(), &raw mut found) };
    // SAFETY: when an entry was found, its name ends in NUL and lies in `room`, which lives on.
    (answer == 0 && !found.is_null()).then(|| unsafe { text(entry.gr_name) })
}

/// # Safety
/// `name` points to text that ends in NUL.
unsafe fn text(name: *const c_char) -> String {
    // SAFETY: the caller says so.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_numbers_that_the_system_gives_them() {
        for _ in 0..2 {
            assert_eq!((uid("root"), gid("root")), (Some(0), Some(0)));
            assert_eq!((uid("daemon"), gid("daemon")), (Some(1), Some(1)));
            assert_eq!((uid("nobody of that name"), gid("\0")), (None, None));
        }
    }

    #[test]
    fn numbers_have_the_names_that_the_system_gives_them() {
        assert_eq!(
            (user_name(0).as_deref(), group_name(0).as_deref()),
            (Some("root"), Some("root"))
        );
        assert_eq!((user_name(u32::MAX - 7), group_name(u32::MAX - 7)), (None, None));
    }
}
