//! Creating files, directories and symlinks.

use crate::{
    planner::{Dir, Missing, new_inode},
    row::Stored,
    *,
};

/// Longest target of a symbolic link, bytes.
const SYMLINK_BYTES_MAX: usize = PATH_BYTES_MAX;

/// What to create.
#[derive(Clone, Debug)]
pub struct Create {
    /// File, directory or symlink. A directory's `base` is decided by the namespace, whatever is given.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The engine's word on the content.
    pub content: Bytes,
    /// Bytes of the content.
    pub size: u64,
    /// Generation of the content.
    pub generation: u32,
    /// Content change time; `None`: now.
    pub mtime: Option<Timestamp>,
    /// The client's idempotency token.
    pub token: Option<String>,
    /// Whether missing parents are created. Then an unreachable base does not hold the create back.
    pub parents: bool,
    /// What may be there already.
    pub replace: Replace,
    /// The number to use: one from [`Namespace::allocate_ino`], or of a row without a name ([`Planner::nameless`]).
    pub ino: Option<Ino>,
    /// The caller vouches that the base can not hold this name (it carries something unique): the base is not asked.
    pub unique: bool,
}

impl Default for Create {
    /// A file, mode 644, of user and group 0, empty, that must not exist, in a directory that must.
    fn default() -> Self {
        Create {
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            content: Bytes::new(),
            size: 0,
            generation: 0,
            mtime: None,
            token: None,
            parents: false,
            replace: Replace::Never,
            ino: None,
            unique: false,
        }
    }
}

impl Create {
    /// A directory, mode 755.
    pub fn dir() -> Self {
        Create {
            kind: Kind::Dir { base: None },
            mode: 0o755,
            ..Create::default()
        }
    }
}

/// What a create may find at its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replace {
    /// Nothing; else [`NsError::Exists`].
    #[default]
    Never,
    /// A file or symlink, which goes; a directory is [`NsError::IsADirectory`].
    File,
}

/// A plan for one inode.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What to commit. Empty inside a [`Planner`], whose `finish` gives it.
    pub plan: Plan,
    /// The inode created or updated.
    pub ino: Ino,
    /// The inode as the plan writes it.
    pub inode: Inode,
    /// What it takes the place of.
    pub replaced: Option<Node>,
}

impl Planner<'_> {
    /// Creates at a path. The answer's `plan` is empty; so with all operations here.
    pub async fn create(&mut self, path: &Path, create: Create) -> Result<Planned> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Err(NsError::Exists(Path::root()));
        };
        let missing = if create.parents {
            Missing::Create
        } else {
            Missing::Refuse
        };
        let dir = self.directory(&parent, missing).await?;
        self.create_in(&dir, name, create).await
    }

    /// Creates many names in one directory, reading the rows in few rounds. Where there are none, the directory and its
    /// missing parents are created if any of `files` says so.
    pub async fn create_all(&mut self, dir: &Path, files: Vec<(Vec<u8>, Create)>) -> Result<Vec<Planned>> {
        let parents = files.iter().any(|(_, create)| create.parents);
        let dir = self
            .directory(dir, if parents { Missing::Create } else { Missing::Refuse })
            .await?;
        let rows = files.iter().flat_map(|(name, create)| {
            let names = [keys::dentry(dir.ino, name), keys::whiteout(dir.ino, name)];
            names.into_iter().chain(create.ino.map(keys::inode))
        });
        self.fetch(rows).await?;
        let mut planned = Vec::with_capacity(files.len());
        for (name, create) in files {
            planned.push(self.create_in(&dir, &name, create).await?);
        }
        Ok(planned)
    }

    /// Writes an inode row without a name (an unpublished part); [`Create::ino`] gives it its name later. Never a directory.
    pub async fn nameless(&mut self, create: Create) -> Result<Planned> {
        if matches!(create.kind, Kind::Dir { .. }) {
            return Err(NsError::Invalid("a directory without a name".into()));
        }
        let (ino, nlink) = self.number(create.ino).await?;
        let inode = Inode {
            nlink,
            ..new_inode(create, self.now)
        };
        self.write(
            keys::inode(ino),
            &Stored {
                link: None,
                inode: inode.clone(),
            },
        );
        Ok(Planned {
            plan: Plan::default(),
            ino,
            inode,
            replaced: None,
        })
    }

    /// Changes an inode. `ctime` is set to now before `change` runs. [`NsError::Gone`] when it has no row.
    pub async fn update(&mut self, ino: Ino, change: impl FnOnce(&mut Inode) + Send) -> Result<Planned> {
        let (mut stored, _) = self.stored(ino).await?.ok_or(NsError::Gone(ino))?;
        stored.inode.ctime = self.now;
        change(&mut stored.inode);
        let key = keys::inode(ino);
        self.need(key.clone());
        self.write(key, &stored);
        Ok(Planned {
            plan: Plan::default(),
            ino,
            inode: stored.inode,
            replaced: None,
        })
    }

    /// The row of what `path` leads to; a node of the base gets one by this plan, unchanged otherwise.
    pub async fn adopt(&mut self, path: &Path) -> Result<(Ino, Inode)> {
        match self
            .resolve(path)
            .await?
            .ok_or_else(|| NsError::NotFound(path.clone()))?
        {
            Node::Row { ino, inode, .. } => Ok((ino, inode)),
            Node::Base { entry, .. } if entry.is_dir => {
                let dir = self.directory(path, Missing::Refuse).await?;
                let (stored, _) = self.stored(dir.ino).await?.ok_or(NsError::Conflict)?;
                Ok((dir.ino, stored.inode))
            }
            Node::Base { at, entry } => {
                let (parent, name) = split(path)?;
                let dir = self.directory(&parent, Missing::Refuse).await?;
                self.fetch([keys::dentry(dir.ino, name), keys::whiteout(dir.ino, name)])
                    .await?;
                self.need(keys::whiteout(dir.ino, name));
                let ino = self.ns.allocate_ino().await?;
                let inode = self.base_inode(&at, &entry);
                Ok((ino, self.link(dir.ino, name, ino, inode)))
            }
        }
    }

    /// The first row of a node of the base. A directory goes on showing what it shows.
    pub(crate) fn base_inode(&self, at: &Path, entry: &BaseEntry) -> Inode {
        let mtime = Some(entry.mtime);
        let create = if entry.is_dir {
            Create {
                kind: Kind::Dir {
                    base: Some(at.as_bytes()),
                },
                mtime,
                ..Create::dir()
            }
        } else {
            Create {
                content: self.ns.base.adopt(at, entry),
                size: entry.size,
                mtime,
                ..Create::default()
            }
        };
        let (uid, gid) = entry.owner();
        Inode {
            mode: entry.mode(),
            uid,
            gid,
            xattrs: entry.xattrs(),
            ..new_inode(create, self.now)
        }
    }

    async fn create_in(&mut self, dir: &Dir, name: &[u8], create: Create) -> Result<Planned> {
        let path = dir.path.join(name)?;
        check(&create)?;
        self.fetch([keys::dentry(dir.ino, name), keys::whiteout(dir.ino, name)])
            .await?;
        let (replaced, asked) = self.give_way(dir, name, &path, &create).await?;
        let (ino, nlink) = self.number(create.ino).await?;
        let inode = if matches!(create.kind, Kind::Dir { .. }) {
            self.make_dir(dir, name, create, asked, Some(ino)).await?.2
        } else {
            let inode = Inode {
                nlink: nlink + 1,
                ..new_inode(create, self.now)
            };
            self.link(dir.ino, name, ino, inode)
        };
        Ok(Planned {
            plan: Plan::default(),
            ino,
            inode,
            replaced,
        })
    }

    /// Lets what is at the name go, as far as `create` allows. Also whether the base could say what it has there.
    async fn give_way(&mut self, dir: &Dir, name: &[u8], path: &Path, create: &Create) -> Result<(Option<Node>, bool)> {
        let asked = Dir {
            bare: dir.bare || create.unique,
            ..dir.clone()
        };
        let tolerant = create.replace == Replace::File || matches!(create.kind, Kind::Dir { .. }) && create.parents;
        let found = match self.child(&asked, name).await {
            // What the base has will show as a conflict when the new file is persisted; meanwhile the put is safe here.
            Err(NsError::Base(_)) if tolerant => return Ok((None, false)),
            other => other?,
        };
        match (&found, create.replace) {
            (None, _) => {}
            (Some(_), Replace::Never) => return Err(NsError::Exists(path.clone())),
            (Some(node), Replace::File) if node.is_dir() => return Err(NsError::IsADirectory(path.clone())),
            (Some(Node::Row { ino, .. }), Replace::File) => self.end_inode(*ino).await?,
            // The engine may have read what is there (an append): it must still show when this commits.
            (Some(Node::Base { .. }), Replace::File) => self.need(keys::whiteout(dir.ino, name)),
        }
        Ok((found, true))
    }

    /// The number to create with: `wanted`, if it has no row or a nameless one, or a fresh one. Also its `nlink` so far: a
    /// nameless inode may be kept by the engine.
    async fn number(&mut self, wanted: Option<Ino>) -> Result<(Ino, u32)> {
        let Some(ino) = wanted else {
            return Ok((self.ns.allocate_ino().await?, 0));
        };
        let Some((stored, _)) = self.stored(ino).await? else {
            return Ok((ino, 0));
        };
        if stored.link.is_some() || stored.inode.is_dir() {
            return Err(NsError::Invalid(format!("inode {} has a name already", ino.0)));
        }
        self.need(keys::inode(ino));
        Ok((ino, stored.inode.nlink))
    }
}

/// Whether `create` makes sense by itself.
fn check(create: &Create) -> Result<()> {
    match &create.kind {
        Kind::Dir { .. } if create.replace == Replace::File => {
            Err(NsError::Invalid("a directory does not replace a file".into()))
        }
        Kind::Symlink(target) if target.is_empty() || target.len() > SYMLINK_BYTES_MAX || target.contains(&0) => {
            Err(NsError::Invalid(format!(
                "a symbolic link leads to 1 to {SYMLINK_BYTES_MAX} bytes without NUL"
            )))
        }
        _ => Ok(()),
    }
}

/// The directory and the name of `path`. The root has neither, and nothing is done to it.
pub(crate) fn split(path: &Path) -> Result<(Path, &[u8])> {
    match (path.parent(), path.name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(NsError::Invalid(
            "the root directory can not be created, moved or removed".into(),
        )),
    }
}
