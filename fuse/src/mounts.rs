//! The list of mounts, read without asking anything of what is mounted: that may answer nobody any more.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// What a mount of ours is called in lists of mounts, and its type: with the name behind it where a helper of the system mounts.
pub(crate) const NAME: &str = "forebay";
const KINDS: [&[u8]; 2] = [b"fuse", b"fuse.forebay"];

/// Something that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) folder: PathBuf,
    /// The kernel's number of the connection, where it is a FUSE.
    pub(crate) connection: u32,
    pub(crate) ours: bool,
}

/// All of them, in the order of mounting.
pub(crate) fn all() -> Vec<Mount> {
    let list = fs::read("/proc/self/mountinfo").unwrap_or_default();
    list.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// What is mounted exactly there, on top.
pub(crate) fn mounted_at(folder: &Path) -> Option<Mount> {
    all().into_iter().rfind(|mount| mount.folder == folder)
}

/// Whether that is a Forebay.
pub(crate) fn is_ours(folder: &Path) -> bool {
    mounted_at(folder).is_some_and(|mount| mount.ours)
}

/// A folder from the root on. Only the folders above it are looked into.
pub(crate) fn full_name(folder: &Path) -> PathBuf {
    let full = beside(folder);
    if mounted_at(&full).is_some() {
        return full;
    }
    match fs::read_link(&full) {
        Ok(target) => beside(&full.with_file_name(target)),
        Err(_) => full,
    }
}

fn beside(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let full = match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().map(|parent| parent.join(name)),
        _ => absolute.canonicalize(),
    };
    full.unwrap_or(absolute)
}

/// A line of the list: numbers, the device, the root, the folder, options, then behind a dash type and source.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let folder = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut rest = fields.skip_while(|field| field != b"-").skip(1);
    let ours = KINDS.contains(&rest.next()?) && rest.next()? == NAME.as_bytes();
    let connection = device.split_once(':')?.1.parse().ok()?;
    Some(Mount {
        folder,
        connection,
        ours,
    })
}

/// A name as the list of mounts writes it: some bytes as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                name.push(byte);
                rest = &more[3..];
            }
            _ => {
                name.push(*first);
                rest = more;
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_list_of_mounts_are_read_as_they_were_given() {
        assert_eq!(unescape(b"/mnt/a\\040b"), b"/mnt/a b");
        assert_eq!(unescape(b"/mnt/a\\134b\\x"), b"/mnt/a\\b\\x");
    }

    #[test]
    fn a_line_says_what_is_mounted_where() {
        let ours = b"97 25 0:47 / /mnt/a\\040b rw,nosuid shared:3 - fuse forebay rw,user_id=0";
        let mount = parse(ours).unwrap();
        assert_eq!(
            (mount.folder, mount.connection, mount.ours),
            ("/mnt/a b".into(), 47, true)
        );
        let other = b"25 1 254:0 / / rw,relatime - ext4 /dev/vda rw";
        assert!(!parse(other).unwrap().ours);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_full_name_of_a_link_is_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let full = folder.path().canonicalize().unwrap();
        std::os::unix::fs::symlink("there", full.join("link")).unwrap();
        assert_eq!(full_name(&full.join("link")), full.join("there"));
        assert_eq!(full_name(&full.join("missing")), full.join("missing"));
    }
}
