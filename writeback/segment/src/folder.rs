//! The names of the files in a data folder.

use crate::layout::SegmentId;
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// A shared segment.
    Shared(SegmentId),
    /// The bytes of a dedicated segment.
    Data(SegmentId),
    /// The checksums and appends of a dedicated segment.
    Log(SegmentId),
    /// Half-written; of no use after a crash.
    Temporary,
    /// Not ours, or no segment.
    Other,
}

/// Paths in one data folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("LOCK")
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.0.join("identity")
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.0.join("manifest")
    }

    pub(crate) fn reserve(&self) -> PathBuf {
        self.0.join("reserve")
    }

    pub(crate) fn start_reserve(&self) -> PathBuf {
        self.0.join("reserve-start")
    }

    pub(crate) fn shared(&self, id: SegmentId) -> PathBuf {
        self.0.join(format!("{id}.shared"))
    }

    pub(crate) fn data(&self, id: SegmentId) -> PathBuf {
        self.0.join(format!("{id}.data"))
    }

    pub(crate) fn log(&self, id: SegmentId) -> PathBuf {
        self.0.join(format!("{id}.log"))
    }
}

/// The half-written form of a file that is replaced whole.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// What `name` stands for.
pub(crate) fn parse(name: &str) -> Name {
    let Some((stem, extension)) = name.rsplit_once('.') else {
        return Name::Other;
    };
    if extension == "tmp" {
        return Name::Temporary;
    }
    let canonical = stem.len() == 16 && !stem.bytes().any(|b| b.is_ascii_uppercase() || b == b'+');
    match (u64::from_str_radix(stem, 16), extension) {
        (Ok(id), "shared") if canonical => Name::Shared(SegmentId(id)),
        (Ok(id), "data") if canonical => Name::Data(SegmentId(id)),
        (Ok(id), "log") if canonical => Name::Log(SegmentId(id)),
        _ => Name::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_left_alone() {
        let (folder, id) = (Folder("/f".into()), SegmentId(0xab_0000_0001));
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(parse(&name(folder.shared(id))), Name::Shared(id));
        assert_eq!(parse(&name(folder.data(id))), Name::Data(id));
        assert_eq!(parse(&name(folder.log(id))), Name::Log(id));
        assert_eq!(parse(&name(temporary(&folder.manifest()))), Name::Temporary);
        for other in [
            "LOCK",
            "manifest",
            "1.shared",
            "00000000000000AB.log",
            "+000000000000001.log",
            "x.y",
            "",
        ] {
            assert_eq!(parse(other), Name::Other, "{other}");
        }
    }
}
