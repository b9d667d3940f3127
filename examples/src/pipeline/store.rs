//! The under-store of a run, as Forebay is told of it and as others see it.

use super::verify::{self, Objects};
use anyhow::{Context, Result};
use futures::TryStreamExt;
use object_store::{
    DynObjectStore, ObjectStore, ObjectStoreExt, aws::AmazonS3Builder, local::LocalFileSystem, prefix::PrefixStore,
};
use std::{collections::BTreeMap, env, fs, path::Path, sync::Arc};

/// A folder or a bucket's prefix, with room for both ways of the job.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// What `--under` takes, without the path.
    url: String,
    objects: Arc<DynObjectStore>,
}

/// Forebay's part of it, and the old way's.
const NEW: &str = "new";
pub(super) const OLD: &str = "old";

impl Store {
    pub(super) fn local(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join(NEW))?;
        let folder = folder.canonicalize()?;
        let objects = LocalFileSystem::new_with_prefix(&folder)?;
        Ok(Self {
            url: format!("file://{}/{NEW}", folder.display()),
            objects: Arc::new(objects),
        })
    }

    /// `FOREBAY_S3_ENDPOINT`, `FOREBAY_S3_BUCKET` and the usual `AWS_…`; under a prefix that no other run has.
    pub(super) fn s3_from_env() -> Result<Self> {
        let need = |name| env::var(name).with_context(|| format!("--ceph needs {name} (tests/ceph/with.sh sets it)"));
        let (endpoint, bucket) = (need("FOREBAY_S3_ENDPOINT")?, need("FOREBAY_S3_BUCKET")?);
        let prefix = format!("pipeline-{}-{}", std::process::id(), seconds());
        let s3 = AmazonS3Builder::from_env()
            .with_endpoint(&endpoint)
            .with_bucket_name(&bucket)
            .with_allow_http(endpoint.starts_with("http://"))
            .build()?;
        let url = format!("s3://{bucket}/{prefix}/{NEW}?endpoint={endpoint}");
        Ok(Self {
            url,
            objects: Arc::new(PrefixStore::new(s3, prefix)),
        })
    }

    /// The argument of `--under`.
    pub(super) fn mount(&self) -> String {
        format!("/lake={}", self.url)
    }

    /// All of it.
    pub(super) fn objects(&self) -> &Arc<DynObjectStore> {
        &self.objects
    }

    /// What Forebay persists, as its own keys.
    fn persisted(&self) -> PrefixStore<Arc<DynObjectStore>> {
        PrefixStore::new(Arc::clone(&self.objects), NEW)
    }
}

impl Objects for Store {
    async fn sizes(&self, below: &str) -> Result<BTreeMap<String, u64>> {
        let below = object_store::path::Path::from(below);
        let found: Vec<_> = self.persisted().list(Some(&below)).try_collect().await?;
        Ok(found.into_iter().map(|m| (m.location.to_string(), m.size)).collect())
    }

    async fn sha256(&self, key: &str) -> Result<[u8; 32]> {
        let object = self.persisted().get(&object_store::path::Path::parse(key)?).await?;
        Ok(verify::sha256(object.into_stream()).await?)
    }
}

fn seconds() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs())
}
