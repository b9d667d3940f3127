//! Keys of the rows: one byte of table, then big-endian numbers, so that the rows of one directory lie side by side in byte
//! order of their names. Table bytes from [`ENGINE_TABLES`] on are the engine's.

use crate::Ino;
use forebay_metastore::Key;

/// `ino` → inode and the way back to its name.
pub(crate) const INODE: u8 = 0x01;
/// `directory ino, name` → dentry.
pub(crate) const DENTRY: u8 = 0x02;
/// `directory ino, name` → whiteout.
pub(crate) const WHITEOUT: u8 = 0x03;
/// `directory ino` of a directory without a name, whose rows wait for collection → nothing.
pub(crate) const DEAD: u8 = 0x04;

/// The first table byte that this crate leaves to the engine.
pub const ENGINE_TABLES: u8 = 0x80;

/// Key of an inode row.
pub fn inode(ino: Ino) -> Key {
    numbered(INODE, ino).into()
}

/// Key of the dentry of `name` in `dir`.
pub fn dentry(dir: Ino, name: &[u8]) -> Key {
    named(DENTRY, dir, name)
}

/// Key of the whiteout of `name` in `dir`.
pub fn whiteout(dir: Ino, name: &[u8]) -> Key {
    named(WHITEOUT, dir, name)
}

/// What every dentry key of `dir` begins with.
pub fn dentries(dir: Ino) -> Key {
    numbered(DENTRY, dir).into()
}

/// What every whiteout key of `dir` begins with.
pub fn whiteouts(dir: Ino) -> Key {
    numbered(WHITEOUT, dir).into()
}

/// Key of the note that `dir` waits for collection.
pub(crate) fn dead(dir: Ino) -> Key {
    numbered(DEAD, dir).into()
}

/// The number in an inode or dead key.
pub fn ino_of(key: &[u8]) -> Option<Ino> {
    let number = key.get(1..9)?;
    Some(Ino(u64::from_be_bytes(number.try_into().ok()?)))
}

/// The name in a dentry or whiteout key.
pub(crate) fn name_of(key: &[u8]) -> &[u8] {
    key.get(9..).unwrap_or_default()
}

fn numbered(table: u8, ino: Ino) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + 32);
    key.push(table);
    key.extend_from_slice(&ino.0.to_be_bytes());
    key
}

fn named(table: u8, dir: Ino, name: &[u8]) -> Key {
    let mut key = numbered(table, dir);
    key.extend_from_slice(name);
    key.into()
}
