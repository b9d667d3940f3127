//! The few system calls that `std` does not have: opening below a folder without leaving it, naming a file that has no name yet,
//! renaming without replacing, and extended attributes.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(answer: libc::c_long) -> io::Result<usize> {
    // Negative means failure, and errno says which.
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// Opens the folder `path` below `folder`, following no symbolic link and never leaving `folder`.
pub(super) fn open_folder_below(folder: &File, path: &str) -> io::Result<File> {
    let path = c_string(if path.is_empty() { b"." } else { path.as_bytes() })?;
    // SAFETY: `open_how` is plain numbers; all zeros is a valid value of it.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the descriptor is open, `path` ends in NUL, `how` lives through the call and its size is given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            folder.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    let fd = check(answer)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel just gave this descriptor to us and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// Gives a file that was opened with `O_TMPFILE` its name in `folder`, and fails with `EEXIST` when the name is taken.
pub(super) fn name_file(file: &File, folder: &File, name: &str) -> io::Result<()> {
    let from = c_string(format!("/proc/self/fd/{}", file.as_raw_fd()).as_bytes())?;
    let name = c_string(name.as_bytes())?;
    // SAFETY: both descriptors are open and both strings end in NUL.
    let answer = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            folder.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    check(answer.into()).map(|_| ())
}

/// Renames, and fails with `EEXIST` when the target exists.
pub(super) fn rename_noreplace(from: &File, from_name: &str, to: &File, to_name: &str) -> io::Result<()> {
    let (from_name, to_name) = (c_string(from_name.as_bytes())?, c_string(to_name.as_bytes())?);
    // SAFETY: both descriptors are open and both names end in NUL.
    let answer = unsafe {
        libc::renameat2(
            from.as_raw_fd(),
            from_name.as_ptr(),
            to.as_raw_fd(),
            to_name.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    check(answer.into()).map(|_| ())
}

/// The path of `name` in an open folder: it stays right when the folder is renamed.
pub(super) fn path_in(folder: &File, name: &str) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name)
}

/// Sets an extended attribute of an open file.
pub(super) fn set_xattr(file: &File, name: &[u8], value: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the descriptor is open, `name` ends in NUL, `value` is as long as said.
    let answer = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(answer.into()).map(|_| ())
}

/// Takes an extended attribute from an open file.
pub(super) fn remove_xattr(file: &File, name: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the descriptor is open and `name` ends in NUL.
    let answer = unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) };
    check(answer.into()).map(|_| ())
}

/// An extended attribute of the file at `path` itself (symbolic links are not followed), at most 64 KiB.
pub(super) fn get_xattr(path: &Path, name: &[u8]) -> io::Result<Vec<u8>> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name)?);
    let mut value = vec![0_u8; 64 << 10];
    // SAFETY: both strings end in NUL, and `value` has as much room as said.
    let answer = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let len = check(i64::try_from(answer).unwrap_or(-1))?;
    value.truncate(len);
    Ok(value)
}

/// The names of the extended attributes of the file at `path` itself.
pub(super) fn list_xattrs(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let path = c_string(path.as_os_str().as_bytes())?;
    let mut names = vec![0_u8; 64 << 10];
    // SAFETY: `path` ends in NUL and `names` has as much room as said.
    let answer = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let len = check(i64::try_from(answer).unwrap_or(-1))?;
    names.truncate(len);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}
