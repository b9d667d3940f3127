//! Which names wait: staging names for their commit, barriers for the rest of their root. Pure.

use forebay_namespace::Path;

/// The file by which a job says that what is beside it is complete.
pub(super) const SUCCESS: &[u8] = b"_SUCCESS";

/// Whether the path is one of a job that has not committed yet: it is persisted once it was renamed, under its final name.
pub(super) fn is_staging(path: &Path) -> bool {
    let staging = |name: &[u8]| {
        name == b"_temporary"
            || name.starts_with(b".hive-staging")
            || name.ends_with(b".inprogress")
            || name.ends_with(b"._COPYING_")
    };
    path.components().iter().any(|name| staging(name))
}

/// The root that must be persisted before this file, which tells readers of the store that the root is complete.
pub(super) fn barrier_root(path: &Path) -> Option<Path> {
    let components = path.components();
    if let Some(at) = components.iter().position(|name| name == b"_delta_log") {
        return Some(path.prefix(at));
    }
    let name = path.name()?;
    let marks_completion = matches!(
        name,
        SUCCESS | b"_metadata" | b"_common_metadata" | b"version-hint.text"
    ) || name.ends_with(b".metadata.json")
        || name.windows(b"manifest".len()).any(|part| part == b"manifest");
    if !marks_completion {
        return None;
    }
    let parent = path.parent()?;
    match parent.name() {
        Some(b"metadata" | b"_manifests") => parent.parent(),
        _ => Some(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn staging_names_are_known_at_any_depth() {
        for name in [
            "/t/_temporary/0/x",
            "/t/.hive-staging_1/x",
            "/t/part-0.inprogress",
            "/t/x._COPYING_",
        ] {
            assert!(is_staging(&path(name)), "{name}");
        }
        for name in ["/t/temporary/x", "/t/_temporary2", "/t/inprogress"] {
            assert!(!is_staging(&path(name)), "{name}");
        }
    }

    #[test]
    fn a_barrier_names_the_root_it_waits_for() {
        for (file, root) in [
            ("/t/_SUCCESS", "/t"),
            ("/t/_metadata", "/t"),
            ("/t/_delta_log/0001.json", "/t"),
            ("/t/metadata/v3.metadata.json", "/t"),
            ("/t/manifest.json", "/t"),
            ("/_SUCCESS", "/"),
        ] {
            assert_eq!(barrier_root(&path(file)), Some(path(root)), "{file}");
        }
        assert_eq!(barrier_root(&path("/t/part-0.parquet")), None);
    }
}
