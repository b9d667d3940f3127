//! That the rows fit together, whatever led to them.

use crate::{
    row::{Dentry, DentryKind, Stored},
    *,
};
use forebay_metastore::{Entry, Key, prefix_end};
use std::collections::{BTreeMap, BTreeSet};

/// All rows of one table.
pub(crate) async fn table(ns: &Namespace, table: u8) -> Vec<(Key, Entry)> {
    let mut start: Key = vec![table].into();
    let mut all = Vec::new();
    loop {
        let page = ns.store.scan(start.clone()..prefix_end(&[table]), 1000).await.unwrap();
        let Some((last, _)) = page.last() else { return all };
        let mut next = last.to_vec();
        next.push(0);
        start = next.into();
        all.extend(page);
    }
}

/// Every dentry leads to an inode that leads back, every inode has its dentry or none, every directory lies under the root.
pub(crate) async fn audit(ns: &Namespace) {
    let rows = table(ns, keys::INODE).await;
    let inodes: BTreeMap<Ino, Stored> = rows
        .iter()
        .map(|(key, e)| (keys::ino_of(key).unwrap(), row::decode(&e.value).unwrap()))
        .collect();
    let dead: BTreeSet<Ino> = table(ns, keys::DEAD)
        .await
        .iter()
        .map(|(key, _)| keys::ino_of(key).unwrap())
        .collect();
    let mut dentries = BTreeMap::new();
    for (key, entry) in table(ns, keys::DENTRY).await {
        let (parent, name) = (keys::ino_of(&key).unwrap(), keys::name_of(&key).to_vec());
        let dentry: Dentry = row::decode(&entry.value).unwrap();
        assert!(
            inodes[&parent].inode.is_dir(),
            "the dentry {} lies in no directory",
            name.escape_ascii()
        );
        let stored = inodes
            .get(&dentry.ino)
            .unwrap_or_else(|| panic!("{} leads to no inode", name.escape_ascii()));
        let link = stored.link.as_ref().expect("an inode with a dentry leads back to it");
        assert_eq!(
            (link.parent, &link.name),
            (parent, &name),
            "an inode leads back to another name"
        );
        assert_eq!(stored.inode.is_dir(), dentry.kind == DentryKind::Dir);
        dentries.insert((parent, name), dentry.ino);
    }
    for (key, _) in table(ns, keys::WHITEOUT).await {
        assert!(
            inodes.contains_key(&keys::ino_of(&key).unwrap()),
            "a whiteout lies in no directory"
        );
    }
    for (ino, stored) in &inodes {
        match &stored.link {
            Some(link) => assert_eq!(
                dentries.get(&(link.parent, link.name.clone())),
                Some(ino),
                "a name is one-sided"
            ),
            None if stored.inode.is_dir() => assert!(*ino == ROOT || dead.contains(ino), "a directory is lost"),
            None => {}
        }
        let mut seen = BTreeSet::new();
        let mut at = *ino;
        while let Some(link) = &inodes[&at].link {
            assert!(seen.insert(at), "directories form a loop");
            at = link.parent;
        }
    }
}
