//! Names of users and groups, by which HDFS knows owners, for the numbers by which POSIX does. The system is asked, LDAP and all.

use std::ffi::{CStr, c_char};

/// Room for one entry of the system's tables.
const ENTRY_BYTES: usize = 16 << 10;

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
    fn numbers_have_the_names_that_the_system_gives_them() {
        assert_eq!(
            (user_name(0).as_deref(), group_name(0).as_deref()),
            (Some("root"), Some("root"))
        );
        assert_eq!((user_name(u32::MAX - 7), group_name(u32::MAX - 7)), (None, None));
    }
}
