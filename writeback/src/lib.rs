//! The cache: files and datasets that are safe before they are persisted.
//!
//! Floor plan (each is one module, its front page says what it owns and what not):
//! `settings` plain data, `builder` components to a running [`Cache`], `error` few kinds, `rows` what the engine keeps in the
//! metastore, `mounts` under-stores bound to prefixes and the base they give the namespace, `file` writer and reader of one file's
//! content, `clean` the evictable cache of what the under-store has, `dataset` sessions, parts, versions, follow, `persist`
//! tracker, uploader, publisher, `policy`, `recovery`, `stats`.

pub mod error;
pub mod rows;

// The public surface that the doors (flight-server) use. Cheap `Clone` handle. All paths are forebay_namespace::Path.
//
// Cache::open(Settings, Components{disk, clock, chance, meta: MetaStoreRef, open_store: Arc<dyn StoreOpener>}) -> Result<Cache>; cache.shutdown().await drains
// -- names (file cache.rs / names.rs)
//   stat(&Path) -> Stat{path, kind: file|dir|symlink, size, mtime, mode, state: "open|sealed|persisted|clean", version: Option<u64>, cached_bytes, is_dataset}
//   list(&Path, List{recursive, after: Option<Path>, limit: Option<usize>}) -> BoxStream<Result<Stat>>      // by absolute path in byte order, entries of open sessions never listed
//   mkdir(&Path, parents) ; rename(&from,&to, Rename{replace, parents}) ; delete(&Path, recursive) ; truncate(&Path, size)
// -- files (file/)
//   write_file(&Path, WriteFile{mode: Append|Overwrite|Create, offset: Option<u64>, ack: Option<AckLevel>, token: Option<String>, size_hint}) -> FileWriter
//       FileWriter::append(Vec<Bytes>) -> Accepted{k, stable: watch}; FileWriter::commit() -> Committed{level, size}; drop = nothing visible
//       append mode = new generation whose content is old + new, visible whole at commit; offset given and != size -> Precondition
//   read_file(&Path) -> FileReader{len, read(range) -> Vec<Bytes> (zero-copy where cached)}           // also persisted/clean via read-through in ranges, single flight, prefetch
// -- datasets (dataset/)
//   begin(&Path, SessionSpec{mode, format, compression, ack, timeout, job, success..}) -> SessionId(String, [0-9a-z]{12..})
//   put(&PutTarget{path, mode, session, task, format, compression, ack, token}, schema: Schema message header Bytes) -> PartWriter
//       PartWriter::append(IpcMessage{header: Bytes, body: Vec<Bytes> chunks, app_metadata: Bytes}) -> Accepted ; ::stable() -> watch of batches stable ; ::commit() -> PutDone{version: Option, level, parts}
//       (without session: a session of its own, published at commit; drop without commit = aborted, nothing visible)
//   publish(&SessionId, Publish{tasks: Option<Vec<Task>>, success_file: bool}) -> u64 version (idempotent) ; abort(&SessionId) ; versions(&Path) -> Vec<VersionInfo>
//   session(&SessionId) -> SessionInfo
//   dataset(&Path, At::{Head, Version(u64), Session(id), Follow}) -> DatasetPlan{path, schema, version, session, state: "published|live", parts: Vec<PartRef{index, rows, batches, bytes, format, first_batch}>, batches, rows, bytes}
//   datasets(prefix: &[u8]) -> BoxStream<DatasetPlan>          (ListFlights)
//   read_part(&PartRef) -> PartReader: schema messages, then next() -> Option<StoredBatch{header: Bytes, body: Vec<Bytes>, app_metadata: Bytes, rows}>; Parquet and foreign Arrow files are decoded and re-encoded as batches
//   follow(&Path, FollowSpec{session: Option, from: Option<ResumeToken>}) -> stream of FollowItem::{Schema(header), Dictionary.., Batch(StoredBatch)}; ends Ok at publish, Err(Aborted) at abort
//   wait_for(&Path | session, Duration)        // dataset or session to come into being, session to have a schema
// -- persist (persist/)
//   persist(&Path), wait_persisted(&Path, Duration) -> state, persist_resolve(&Path, How), mounts: under_add/list/remove, load, free, sync
// -- status() -> Status{dirty_bytes, dirty_files, oldest_dirty_seconds, persisted_bytes, cached_bytes, queued, uploading, blocked[], conflicts[], mounts[], ack, version}
