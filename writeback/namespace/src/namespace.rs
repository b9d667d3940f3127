//! Opening the names, plans of one operation, and the commit.

use crate::{planner::Inos, row::Stored, *};
use forebay_metastore::{Check, CommitError, Committed, Op, Token, Tx};
use std::time::Duration;

/// Times that a transaction with a token is committed again when its outcome is unknown, and the first pause before it.
const UNKNOWN_ATTEMPTS_MAX: u32 = 6;
const UNKNOWN_PAUSE_FIRST: Duration = Duration::from_millis(5);

/// The names of one store. Cheap to clone; clones share the inode numbers taken.
///
/// Lookups and listings are methods here; each `plan_*` is a [`Planner`] of one operation. A plan has no effect until
/// [`Namespace::commit`]; on [`NsError::Conflict`] read and plan again (see [`retry()`]).
#[derive(Clone, Debug)]
pub struct Namespace {
    pub(crate) store: MetaStoreRef,
    pub(crate) base: Arc<dyn Base>,
    pub(crate) clock: ClockRef,
    inos: Arc<Inos>,
}

impl Namespace {
    /// Opens the names of `store`; creates the root row when missing.
    pub async fn open(store: MetaStoreRef, base: Arc<dyn Base>, clock: ClockRef) -> Result<Namespace> {
        let namespace = Namespace {
            store,
            base,
            clock,
            inos: Arc::default(),
        };
        let key = keys::inode(ROOT);
        if namespace.store.get(std::slice::from_ref(&key)).await?[0].is_none() {
            let kind = Kind::Dir {
                base: Some(Path::root().as_bytes()),
            };
            let mut inode = planner::new_inode(Create { kind, ..Create::dir() }, namespace.clock.now());
            inode.nlink = 1;
            let value = row::encode(&Stored { link: None, inode });
            let plan = Plan {
                checks: vec![Check::Absent(key.clone())],
                ops: vec![Op::Put(key, value)],
            };
            match namespace.commit(plan, None).await {
                Ok(_) | Err(NsError::Conflict) => {} // Another process was first.
                Err(error) => return Err(error),
            }
        }
        Ok(namespace)
    }

    /// The metastore below.
    pub fn store(&self) -> &MetaStoreRef {
        &self.store
    }

    /// A fresh number for [`Create::ino`]. One that is not used is a gap.
    pub async fn allocate_ino(&self) -> Result<Ino> {
        self.inos.take(&self.store).await
    }

    /// A planner of several operations.
    pub fn planner(&self) -> Planner<'_> {
        Planner::new(self)
    }

    /// [`Planner::create`] alone.
    pub async fn plan_create(&self, path: &Path, create: Create) -> Result<Planned> {
        let mut planner = self.planner();
        let planned = planner.create(path, create).await?;
        Ok(Planned {
            plan: planner.finish()?,
            ..planned
        })
    }

    /// [`Planner::nameless`] alone.
    pub async fn plan_nameless(&self, create: Create) -> Result<Planned> {
        let mut planner = self.planner();
        let planned = planner.nameless(create).await?;
        Ok(Planned {
            plan: planner.finish()?,
            ..planned
        })
    }

    /// [`Planner::update`] alone.
    pub async fn plan_update(&self, ino: Ino, change: impl FnOnce(&mut Inode) + Send) -> Result<Planned> {
        let mut planner = self.planner();
        let planned = planner.update(ino, change).await?;
        Ok(Planned {
            plan: planner.finish()?,
            ..planned
        })
    }

    /// [`Planner::unlink`] alone.
    pub async fn plan_unlink(&self, path: &Path) -> Result<Unlinked> {
        let mut planner = self.planner();
        let unlinked = planner.unlink(path).await?;
        Ok(Unlinked {
            plan: planner.finish()?,
            ..unlinked
        })
    }

    /// [`Planner::rmdir`] alone.
    pub async fn plan_rmdir(&self, path: &Path) -> Result<Unlinked> {
        let mut planner = self.planner();
        let unlinked = planner.rmdir(path).await?;
        Ok(Unlinked {
            plan: planner.finish()?,
            ..unlinked
        })
    }

    /// [`Planner::detach`] alone.
    pub async fn plan_detach(&self, path: &Path) -> Result<Unlinked> {
        let mut planner = self.planner();
        let unlinked = planner.detach(path).await?;
        Ok(Unlinked {
            plan: planner.finish()?,
            ..unlinked
        })
    }

    /// [`Planner::rename`] alone.
    pub async fn plan_rename(&self, from: &Path, to: &Path, how: RenameHow) -> Result<Renamed> {
        let mut planner = self.planner();
        let renamed = planner.rename(from, to, how).await?;
        Ok(Renamed {
            plan: planner.finish()?,
            ..renamed
        })
    }

    /// [`Planner::drop_nameless`] alone.
    pub async fn plan_drop(&self, ino: Ino) -> Result<Option<Plan>> {
        let mut planner = self.planner();
        Ok(if planner.drop_nameless(ino).await?.is_some() {
            Some(planner.finish()?)
        } else {
            None
        })
    }

    /// Commits a plan. With a token an unknown outcome is asked for again a few times; without one it is
    /// [`NsError::Unknown`] at once. A plan that writes nothing is not sent, and answers version 0.
    pub async fn commit(&self, plan: Plan, token: Option<Token>) -> Result<Committed> {
        if plan.is_empty() {
            return Ok(Committed { version: Version(0) });
        }
        let tx: Tx = plan.into_tx(token)?;
        let mut pause = UNKNOWN_PAUSE_FIRST;
        let mut unknown = None;
        for _ in 0..UNKNOWN_ATTEMPTS_MAX {
            if unknown.is_some() {
                self.clock.sleep(pause).await;
                pause *= 2;
            }
            match self.store.commit(tx.clone()).await {
                Err(CommitError::Unknown(text)) if token.is_some() => unknown = Some(text),
                // A store that is away when it is asked again has still not said.
                Err(CommitError::Unavailable(_)) if unknown.is_some() => {}
                other => return Ok(other?),
            }
        }
        Err(NsError::Unknown(unknown.unwrap_or_default()))
    }
}
