//! Random histories against a plain tree in memory that begins with the base's content. What the names show must be the same
//! after every step, the rows must fit together, and once everything is persisted no row but the root's is left.
//!
//! A failing history is shrunk and printed by proptest, and its seed kept in `proptest-regressions`; one that found a defect is
//! kept by name in `rules.rs`.

use super::{
    audit::{audit, table},
    world::{There, World, file},
};
use crate::*;
use proptest::{collection::vec, prelude::*};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Act {
    Put { path: Path, parents: bool, replace: bool },
    Mkdir { path: Path, parents: bool },
    Symlink { path: Path },
    Rewrite { path: Path },
    Unlink { path: Path },
    Rmdir { path: Path },
    Detach { path: Path },
    Rename { from: Path, to: Path, how: RenameHow },
}

#[derive(Clone, Debug)]
enum Step {
    /// Each committed by itself, one after the other.
    Alone(Act),
    /// One plan.
    Together(Vec<Act>),
    /// One file reaches the under-store and its row goes.
    Persist(Path),
    /// Everything reaches the under-store.
    Settle,
    Collect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Dir,
    File(u32),
    Symlink,
}

/// Why an act fails, as coarse as both sides agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Missing, or a file where a directory is needed.
    Path,
    Exists,
    IsDir,
    NotEmpty,
    Invalid,
}

fn why(error: NsError) -> Why {
    match error {
        NsError::NotFound(_) | NsError::NotADirectory(_) => Why::Path,
        NsError::Exists(_) => Why::Exists,
        NsError::IsADirectory(_) => Why::IsDir,
        NsError::NotEmpty(_) => Why::NotEmpty,
        NsError::Invalid(_) => Why::Invalid,
        other => panic!("unexpected: {other}"),
    }
}

/// The plain tree.
#[derive(Clone, Debug, Default)]
struct Tree(BTreeMap<Path, Thing>);

impl Tree {
    fn get(&self, path: &Path) -> Option<Thing> {
        if path.is_root() {
            Some(Thing::Dir)
        } else {
            self.0.get(path).cloned()
        }
    }

    fn parent(&mut self, path: &Path, parents: bool) -> Result<(), Why> {
        for depth in 1..path.components().len() {
            let at = path.prefix(depth);
            match self.get(&at) {
                Some(Thing::Dir) => {}
                None if parents => drop(self.0.insert(at, Thing::Dir)),
                _ => return Err(Why::Path),
            }
        }
        Ok(())
    }

    fn is_empty(&self, path: &Path) -> bool {
        !self.0.keys().any(|at| at != path && at.starts_with(path))
    }

    fn cut(&mut self, path: &Path) -> BTreeMap<Path, Thing> {
        let (gone, kept) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(at, _)| at.starts_with(path));
        self.0 = kept;
        gone
    }

    fn paste(&mut self, tree: BTreeMap<Path, Thing>, from: &Path, to: &Path) {
        for (at, thing) in tree {
            let rest = at.strip_prefix(from).unwrap();
            let at = rest.iter().fold(to.clone(), |path, name| path.join(name).unwrap());
            self.0.insert(at, thing);
        }
    }

    fn act(&mut self, act: &Act, content: u32) -> Result<(), Why> {
        match act {
            Act::Put { path, parents, replace } => self.create(path, Thing::File(content), *parents, *replace),
            Act::Mkdir { path, parents } => self.create(path, Thing::Dir, *parents, false),
            Act::Symlink { path } => self.create(path, Thing::Symlink, false, false),
            Act::Rewrite { path } => match self.get(path).ok_or(Why::Path)? {
                Thing::File(_) => {
                    self.0.insert(path.clone(), Thing::File(content));
                    Ok(())
                }
                _ => Ok(()),
            },
            Act::Unlink { path } => match self.get(path).ok_or(Why::Path)? {
                Thing::Dir => Err(Why::IsDir),
                _ => {
                    self.0.remove(path);
                    Ok(())
                }
            },
            Act::Rmdir { path } => match self.get(path).ok_or(Why::Path)? {
                Thing::Dir if !self.is_empty(path) => Err(Why::NotEmpty),
                Thing::Dir => {
                    self.0.remove(path);
                    Ok(())
                }
                _ => Err(Why::Path),
            },
            Act::Detach { path } => {
                self.get(path).ok_or(Why::Path)?;
                self.cut(path);
                Ok(())
            }
            Act::Rename { from, to, how } => self.rename(from, to, *how),
        }
    }

    fn create(&mut self, path: &Path, thing: Thing, parents: bool, replace: bool) -> Result<(), Why> {
        self.parent(path, parents)?;
        match self.get(path) {
            Some(_) if !replace => return Err(Why::Exists),
            Some(Thing::Dir) => return Err(Why::IsDir),
            _ => {}
        }
        self.0.insert(path.clone(), thing);
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path, how: RenameHow) -> Result<(), Why> {
        if from != to && (to.starts_with(from) || how.exchange && from.starts_with(to)) {
            return Err(Why::Invalid);
        }
        let source = self.get(from).ok_or(Why::Path)?;
        if from == to {
            return Ok(());
        }
        self.parent(to, how.parents)?;
        let target = self.get(to);
        if how.exchange {
            target.ok_or(Why::Path)?;
            let (a, b) = (self.cut(from), self.cut(to));
            self.paste(a, from, to);
            self.paste(b, to, from);
            return Ok(());
        }
        match (source, target) {
            (_, None) => {}
            (_, Some(_)) if !how.replace => return Err(Why::Exists),
            (Thing::Dir, Some(Thing::Dir)) if !self.is_empty(to) => return Err(Why::NotEmpty),
            (Thing::Dir, Some(Thing::Dir)) => {}
            (Thing::Dir, Some(_)) => return Err(Why::Path),
            (_, Some(Thing::Dir)) => return Err(Why::IsDir),
            (_, Some(_)) => {}
        }
        self.0.remove(to);
        let moved = self.cut(from);
        self.paste(moved, from, to);
        Ok(())
    }
}

/// The act on the names, in `planner`.
async fn act(planner: &mut Planner<'_>, act: &Act, content: u32) -> Result<()> {
    match act {
        Act::Put { path, parents, replace } => {
            let replace = if *replace { Replace::File } else { Replace::Never };
            planner
                .create(
                    path,
                    Create {
                        parents: *parents,
                        replace,
                        ..file(content)
                    },
                )
                .await?;
        }
        Act::Mkdir { path, parents } => {
            planner
                .create(
                    path,
                    Create {
                        parents: *parents,
                        ..Create::dir()
                    },
                )
                .await?;
        }
        Act::Symlink { path } => {
            planner
                .create(
                    path,
                    Create {
                        kind: Kind::Symlink(b"target".to_vec()),
                        ..Create::default()
                    },
                )
                .await?;
        }
        Act::Rewrite { path } => {
            let (ino, inode) = planner.adopt(path).await?;
            if inode.kind == Kind::File {
                planner
                    .update(ino, |inode| inode.content = content.to_be_bytes().to_vec().into())
                    .await?;
            }
        }
        Act::Unlink { path } => drop(planner.unlink(path).await?),
        Act::Rmdir { path } => drop(planner.rmdir(path).await?),
        Act::Detach { path } => drop(planner.detach(path).await?),
        Act::Rename { from, to, how } => drop(planner.rename(from, to, *how).await?),
    }
    Ok(())
}

struct Run {
    world: World,
    tree: Tree,
    content: u32,
}

impl Run {
    async fn new(base: &[(Path, bool)]) -> Run {
        let mut run = Run {
            world: World::new().await,
            tree: Tree::default(),
            content: 0,
        };
        for (path, is_dir) in base {
            let blocked =
                (1..path.components().len()).any(|n| matches!(run.tree.get(&path.prefix(n)), Some(Thing::File(_))));
            if blocked || run.tree.get(path).is_some() {
                continue;
            }
            run.content += 1;
            let there = if *is_dir { There::Dir } else { There::File(run.content) };
            let thing = if *is_dir { Thing::Dir } else { Thing::File(run.content) };
            run.world.base.put(path, there);
            run.tree.create(path, thing, true, false).unwrap();
        }
        run
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Alone(one) => self.together(std::slice::from_ref(one)).await,
            Step::Together(acts) => self.together(acts).await,
            Step::Persist(path) => self.persist(path).await,
            Step::Settle => self.settle().await,
            Step::Collect => self.world.collect().await,
        }
        self.compare().await;
    }

    async fn together(&mut self, acts: &[Act]) {
        let mut planner = self.world.ns.planner();
        let mut tree = self.tree.clone();
        for (index, one) in acts.iter().enumerate() {
            self.content += 1;
            let expected = tree.act(one, self.content);
            let found = act(&mut planner, one, self.content).await.map_err(why);
            let may_refuse = index > 0 && matches!(one, Act::Rmdir { .. } | Act::Rename { .. });
            if may_refuse && found == Err(Why::Invalid) {
                return; // A directory is not removed by the plan that changes its entries.
            }
            assert_eq!(found, expected, "{one:?}");
            if expected.is_err() {
                return;
            }
        }
        let keys = planner.keys();
        let plan = planner.finish().unwrap();
        assert!(plan.keys() <= keys);
        self.world.ns.commit(plan, None).await.unwrap();
        self.tree = tree;
    }

    /// Persists one file, where no moved directory shows the place and its own directory does.
    async fn persist(&mut self, path: &Path) {
        let ns = &self.world.ns;
        let Ok(Some(node @ Node::Row { ino, .. })) = ns.resolve(path).await else {
            return;
        };
        let Some(content) = self.world.content(&node) else {
            return;
        };
        for (key, entry) in table(ns, keys::INODE).await {
            let stored: row::Stored = row::decode(&entry.value).unwrap();
            let Kind::Dir { base: Some(base) } = stored.inode.kind else {
                continue;
            };
            let base = Path::parse(&base).unwrap();
            let own = ns.path_of(keys::ino_of(&key).unwrap()).await.unwrap();
            if own.as_ref() != Some(&base) && (path.starts_with(&base) || base.starts_with(path)) {
                return;
            }
        }
        let Some(Node::Row { inode: parent, .. }) = ns.resolve(&path.parent().unwrap()).await.unwrap() else {
            return;
        };
        let plan = ns.plan_forget(ino, path).await.unwrap();
        let natural = parent.kind
            == Kind::Dir {
                base: Some(path.parent().unwrap().as_bytes()),
            };
        assert_eq!(plan.is_some(), natural, "a row goes when the base shows the same");
        let Some(plan) = plan else { return };
        self.world.base.remove(path);
        self.world.base.put(path, There::File(content));
        ns.commit(plan, None).await.unwrap();
    }

    /// Brings the under-store to what the names show, then takes every row away that has become superfluous.
    async fn settle(&mut self) {
        self.world.collect().await;
        let ns = &self.world.ns;
        self.world.base.clear();
        for (path, thing) in &self.tree.0 {
            match thing {
                Thing::Dir => self.world.base.put(path, There::Dir),
                Thing::File(content) => self.world.base.put(path, There::File(*content)),
                Thing::Symlink => {}
            }
        }
        ns.rebase(ROOT).await.unwrap();
        for hidden in ns.whiteouts(None, 200).await.unwrap() {
            let plan = ns
                .plan_forget_whiteout(&hidden.at.unwrap())
                .await
                .unwrap()
                .expect("everything is at its own place");
            ns.commit(plan, None).await.unwrap();
        }
        let mut kept = Vec::new();
        for (path, thing) in self.tree.0.iter().rev() {
            let Some(Node::Row { ino, .. }) = ns.resolve(path).await.unwrap() else {
                continue;
            };
            let plan = if *thing == Thing::Symlink {
                None
            } else {
                ns.plan_forget(ino, path).await.unwrap()
            };
            match plan {
                Some(plan) => drop(ns.commit(plan, None).await.unwrap()),
                None => kept.push(path),
            }
        }
        let holds_symlink = |path: &Path| {
            self.tree
                .0
                .iter()
                .any(|(at, t)| *t == Thing::Symlink && at.starts_with(path))
        };
        assert!(
            kept.iter().all(|path| holds_symlink(path)),
            "rows are left that the base shows by itself: {kept:?}"
        );
        assert_eq!(
            table(ns, keys::INODE).await.len(),
            1 + kept.len(),
            "inode rows are left"
        );
        assert_eq!(table(ns, keys::WHITEOUT).await.len(), 0, "whiteouts are left");
    }

    async fn compare(&self) {
        let ns = &self.world.ns;
        let mut shown = BTreeMap::new();
        let mut open = vec![Path::root()];
        while let Some(dir) = open.pop() {
            for (name, node) in self.world.list_all(&dir, 1 + open.len() % 3).await.unwrap() {
                let path = dir.join(&name).unwrap();
                assert_eq!(
                    ns.resolve(&path).await.unwrap().as_ref(),
                    Some(&node),
                    "{path}: listed and resolved differ"
                );
                let thing = match (&node, self.world.content(&node)) {
                    (_, Some(content)) => Thing::File(content),
                    (node, None) if node.is_dir() => Thing::Dir,
                    _ => Thing::Symlink,
                };
                if let Some(ino) = node.ino() {
                    assert_eq!(
                        ns.path_of(ino).await.unwrap().as_ref(),
                        Some(&path),
                        "the way back leads elsewhere"
                    );
                }
                if thing == Thing::Dir {
                    open.push(path.clone());
                }
                shown.insert(path, thing);
            }
        }
        assert_eq!(shown, self.tree.0, "the names show another tree");
        audit(ns).await;
    }
}

/// Few enough that histories come back to the same names.
fn path() -> impl Strategy<Value = Path> {
    let name = prop_oneof![4 => Just(b"a".to_vec()), 3 => Just(b"b".to_vec()), 1 => Just(b"c".to_vec())];
    let names = prop_oneof![3 => vec(name.clone(), 1), 4 => vec(name.clone(), 2), 2 => vec(name, 3)];
    names.prop_map(|names| Path::from_components(names).unwrap())
}

fn how() -> impl Strategy<Value = RenameHow> {
    (any::<bool>(), prop::bool::weighted(0.2), any::<bool>()).prop_map(|(replace, exchange, parents)| RenameHow {
        replace,
        exchange,
        parents,
    })
}

fn one() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (path(), any::<bool>(), any::<bool>()).prop_map(|(path, parents, replace)| Act::Put { path, parents, replace }),
        2 => (path(), any::<bool>()).prop_map(|(path, parents)| Act::Mkdir { path, parents }),
        1 => path().prop_map(|path| Act::Symlink { path }),
        1 => path().prop_map(|path| Act::Rewrite { path }),
        2 => path().prop_map(|path| Act::Unlink { path }),
        2 => path().prop_map(|path| Act::Rmdir { path }),
        1 => path().prop_map(|path| Act::Detach { path }),
        8 => (path(), path(), how()).prop_map(|(from, to, how)| Act::Rename { from, to, how }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => one().prop_map(Step::Alone),
        4 => vec(one(), 2..5).prop_map(Step::Together),
        4 => path().prop_map(Step::Persist),
        1 => Just(Step::Settle),
        1 => Just(Step::Collect),
    ]
}

fn run(base: &[(Path, bool)], steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut run = Run::new(base).await;
        run.compare().await;
        for step in steps {
            run.step(step).await;
        }
        run.step(&Step::Settle).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_names_show_what_a_plain_tree_shows(
        base in vec((path(), prop::bool::weighted(0.3)), 0..8),
        steps in vec(step(), 1..40),
    ) {
        run(&base, &steps);
    }
}
