//! The folders that are this server's own: data folders, tiers, and those that it has mounted. No under-store lies in one: what is
//! persisted there would be among what it is persisted from, and through a mounted folder the server would wait for itself.
//!
//! A data folder or tier is known by device and inode, so that links to it and its other mounts are seen through. One that lies below
//! an under-store is no harm to it: it only shows there. That is why the way up is looked along, and never the way down.

use forebay_runtime::task;
use forebay_writeback::{Cache, Settings};
use parking_lot::Mutex;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// What the URLs of local folders begin with.
const FILE: &str = "file://";

/// All of them.
#[derive(Debug)]
pub(crate) struct OwnFolders {
    kept: Vec<Kept>,
    /// By their full names: of a mount that does not answer nothing else can be asked.
    mounted: Mutex<Vec<PathBuf>>,
    timeout: Duration,
}

/// A folder in which the server keeps something.
#[derive(Clone, Debug)]
struct Kept {
    folder: PathBuf,
    what: String,
}

impl OwnFolders {
    pub(crate) fn new(settings: &Settings) -> Self {
        let kept = |folder: &PathBuf, what: String| Kept {
            folder: std::path::absolute(folder).unwrap_or_else(|_| folder.clone()),
            what,
        };
        let data = settings.data.iter().map(|folder| kept(folder, "a data folder".into()));
        let tiers = settings.tiers.iter();
        let tiers = tiers.map(|tier| kept(&tier.dir, format!("the tier {:?}", tier.name)));
        Self {
            kept: data.chain(tiers).collect(),
            mounted: Mutex::default(),
            timeout: settings.under_timeout,
        }
    }

    /// A folder is mounted, or about to be.
    pub(crate) fn mounts(&self, folder: &Path) {
        let folder = full_name(folder);
        let mut mounted = self.mounted.lock();
        if !mounted.contains(&folder) {
            mounted.push(folder);
        }
    }

    pub(crate) fn unmounts(&self, folder: &Path) {
        let folder = full_name(folder);
        self.mounted.lock().retain(|mounted| *mounted != folder);
    }

    /// Why no under-store may be at this URL. A folder that does not answer is no reason.
    pub(crate) async fn refuses(&self, url: &str) -> Option<String> {
        let store = PathBuf::from(url.strip_prefix(FILE)?);
        let (kept, mounted) = (self.kept.clone(), self.mounted.lock().clone());
        let lies = move || {
            if let Some(kept) = kept_around(&store, &kept) {
                let folder = kept.folder.display();
                return Some(format!("lies in {folder}, {} of this server", kept.what));
            }
            let full = full_name(&store);
            let mounted = mounted.into_iter().find(|mounted| full.starts_with(mounted))?;
            Some(format!("lies in {}, which this server mounts", mounted.display()))
        };
        let why = tokio::time::timeout(self.timeout, task::blocking(lies)).await.ok()??;
        Some(format!("{url}: {why}; name a folder outside"))
    }

    /// Why the server may not mount this folder: what it works with would lie behind its own mount.
    pub(crate) async fn refuses_mount(&self, folder: &Path, cache: &Cache) -> Option<String> {
        let stores = cache.under_list().into_iter();
        let stores = stores.map(|store| (store.path.to_string(), store.url));
        self.would_hide(folder, stores.collect()).await
    }

    async fn would_hide(&self, folder: &Path, stores: Vec<(String, String)>) -> Option<String> {
        let (folder, kept) = (folder.to_owned(), self.kept.clone());
        let lies = move || {
            let full = full_name(&folder);
            let is_behind = |path: &Path| full_name(path).starts_with(&full);
            let kept = kept.into_iter().filter(|kept| is_behind(&kept.folder));
            let kept = kept.map(|kept| format!("{} of this server, {}", kept.what, kept.folder.display()));
            let stores = stores.into_iter().filter(|(_, url)| {
                let at = url.strip_prefix(FILE);
                at.is_some_and(|at| is_behind(Path::new(at)))
            });
            let stores = stores.map(|(path, url)| format!("the under-store of {path}, {url}"));
            let behind = kept.chain(stores).next()?;
            Some(format!(
                "{}: {behind}, lies there and would be hidden; mount another folder",
                folder.display()
            ))
        };
        tokio::time::timeout(self.timeout, task::blocking(lies)).await.ok()?
    }
}

/// The one of `kept` that `folder` is, or lies in; it need not be there yet.
fn kept_around<'k>(folder: &Path, kept: &'k [Kept]) -> Option<&'k Kept> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|of| (of.dev(), of.ino()));
    let there = folder.ancestors().find_map(|above| above.canonicalize().ok());
    let above: Vec<_> = there
        .iter()
        .flat_map(|there| there.ancestors())
        .filter_map(identity)
        .collect();
    kept.iter().find(|kept| {
        let is_above = identity(&kept.folder).is_some_and(|kept| above.contains(&kept));
        is_above || folder.starts_with(&kept.folder)
    })
}

/// A name without symbolic links, as far as what it names is there.
fn full_name(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let full = path.ancestors().find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    });
    // What is joined to nothing ends in a slash, which is no part of a name.
    full.map_or(path, |full| full.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_runtime::units::ByteSize;
    use forebay_writeback::TierSettings;
    use std::os::unix::fs::symlink;

    fn own(home: &Path) -> OwnFolders {
        for folder in ["data/below", "tier", "mnt/below", "lake/below", "mnt-2"] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        let mut settings = Settings::new(home.join("data"));
        settings.tiers = vec![TierSettings {
            name: "fast".into(),
            dir: home.join("tier"),
            size: ByteSize::mib(1),
        }];
        OwnFolders::new(&settings)
    }

    async fn refuses(own: &OwnFolders, folder: &Path) -> Option<String> {
        own.refuses(&format!("{FILE}{}", folder.display())).await
    }

    #[tokio::test]
    async fn no_store_lies_in_a_folder_of_the_server() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let own = own(home);
        symlink(home.join("data/below"), home.join("link")).unwrap();
        own.mounts(&home.join("mnt"));
        for (store, named) in [
            ("data", "a data folder"),
            ("data/below", "a data folder"),
            ("data/not/yet/there", "a data folder"),
            ("link", "a data folder"),
            ("link/not/yet", "a data folder"),
            ("tier/x", "the tier \"fast\""),
            ("mnt", "mounts"),
            ("mnt/below", "mounts"),
        ] {
            let why = refuses(&own, &home.join(store)).await;
            let why = why.unwrap_or_else(|| panic!("{store} is taken"));
            assert!(
                why.contains(named) && why.contains("name a folder outside"),
                "{store}: {why}"
            );
        }
        own.unmounts(&home.join("mnt"));
        for store in ["", "lake", "lake/below", "mnt", "mnt-2", "nowhere", "database"] {
            assert_eq!(refuses(&own, &home.join(store)).await, None, "{store}");
        }
        assert_eq!(own.refuses("s3://bucket/data").await, None);
    }

    #[tokio::test]
    async fn a_mount_hides_nothing_that_the_server_works_with() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let own = own(home);
        let lake = (
            "/lake".to_owned(),
            format!("{FILE}{}", home.join("lake/below").display()),
        );
        for (folder, named) in [
            ("data", Some("a data folder")),
            ("", Some("a data folder")),
            ("lake", Some("the under-store of /lake")),
            ("lake/below", Some("the under-store of /lake")),
            ("mnt", None),
            ("data/below", None),
        ] {
            let why = own.would_hide(&home.join(folder), vec![lake.clone()]).await;
            assert_eq!(why.is_some(), named.is_some(), "{folder}: {why:?}");
            assert!(why.unwrap_or_default().contains(named.unwrap_or_default()), "{folder}");
        }
    }
}
