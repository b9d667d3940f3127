//! A stub of an S3 server for the rows that need a store with known latency and bandwidth: it keeps objects in memory, adds `delay`
//! to every request and lets at most `bytes_per_second` through. It is a yardstick, not a test of any store.

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ETAG, HeaderMap, HeaderName},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    ops::Range,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// What its clients name; it asks nobody who he is.
pub(crate) const BUCKET: &str = "b";
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const KEY: &str = "k";
pub(crate) const SECRET: &str = "s";

/// How slow the stub is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Added to every request.
    pub(crate) delay: Duration,
    /// Over all connections together; `None`: as fast as memory.
    pub(crate) bytes_per_second: Option<f64>,
}

#[derive(Clone, Debug)]
struct Object {
    content: Vec<Bytes>,
    metadata: HeaderMap,
    etag: String,
}

impl Object {
    fn len(&self) -> usize {
        self.content.iter().map(Bytes::len).sum()
    }

    /// The bytes of `range`; a copy only where they lie in several pieces.
    fn slice(&self, range: &Range<usize>) -> Bytes {
        let mut found = Vec::new();
        let mut at = 0;
        for piece in &self.content {
            let (from, to) = (range.start.max(at), range.end.min(at + piece.len()));
            if from < to {
                found.push(piece.slice(from - at..to - at));
            }
            at += piece.len();
        }
        match <[Bytes; 1]>::try_from(found) {
            Ok([whole]) => whole,
            Err(several) => several.concat().into(),
        }
    }
}

#[derive(Debug, Default)]
struct Store {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, (HeaderMap, BTreeMap<u32, Bytes>)>,
    next: u64,
    requests: u64,
    free_at: Option<Instant>,
    gets: u64,
    puts: u64,
    away: bool,
}

/// A running stub.
#[derive(Clone, Debug)]
pub(crate) struct Stub {
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    store: Arc<Mutex<Store>>,
}

impl Stub {
    /// Starts serving on a free port, in this process, to its end.
    pub(crate) async fn start(pace: Pace) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let stub = Self {
            endpoint: format!("http://{}", listener.local_addr()?),
            store: Arc::default(),
        };
        let serving = stub.clone();
        // Nobody waits for this task: it serves until the process ends.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let stub = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let stub = stub.clone();
                        async move { Ok::<_, Infallible>(stub.answer(request, pace).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(stub)
    }

    /// The plain client that others would use.
    pub(crate) fn client(&self) -> Result<AmazonS3> {
        let builder = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_bucket_name(BUCKET)
            .with_region(REGION)
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET);
        Ok(builder.build()?)
    }

    /// Forgets every object.
    pub(crate) fn clear(&self) {
        *self.lock() = Store::default();
    }

    /// Whether it answers every request that it can not now.
    pub(crate) fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Objects that were put so far.
    pub(crate) fn puts(&self) -> u64 {
        self.lock().puts
    }

    /// Puts an object there as if somebody else had.
    pub(crate) fn insert(&self, key: &str, content: Bytes) {
        self.put(key.to_owned(), HeaderMap::new(), vec![content]);
    }

    /// Requests for the content of an object so far.
    pub(crate) fn gets(&self) -> u64 {
        self.lock().gets
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.lock().requests
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().expect("the stub never panics with its lock held")
    }

    async fn pass(&self, bytes: usize, pace: Pace) {
        tokio::time::sleep(pace.delay).await;
        let Some(rate) = pace.bytes_per_second else { return };
        let until = {
            let mut store = self.lock();
            let begin = store.free_at.unwrap_or_else(Instant::now).max(Instant::now());
            *store
                .free_at
                .insert(begin + Duration::from_secs_f64(bytes as f64 / rate))
        };
        tokio::time::sleep_until(until.into()).await;
    }

    async fn answer(&self, request: Request<Incoming>, pace: Pace) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let key = head.uri.path().trim_start_matches('/').to_owned();
        let query = Query::parse(head.uri.query().unwrap_or(""));
        let Ok(body) = body.collect().await.map(|b| b.to_bytes()) else {
            return plain(StatusCode::BAD_REQUEST, "");
        };
        self.lock().requests += 1;
        self.pass(body.len(), pace).await;
        if self.lock().away {
            return plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "<Error><Code>ServiceUnavailable</Code></Error>",
            );
        }
        match (
            &head.method,
            query.has("uploads"),
            query.get("uploadId"),
            query.get("partNumber"),
        ) {
            (&Method::PUT, _, Some(upload), Some(part)) => self.put_part(upload, part, body),
            (&Method::PUT, ..) => self.put(key, head.headers, vec![body]),
            (&Method::POST, true, ..) => self.begin(head.headers),
            (&Method::POST, _, Some(upload), _) => self.complete(key, upload),
            (&Method::DELETE, _, Some(upload), _) => {
                self.lock().uploads.remove(upload);
                plain(StatusCode::NO_CONTENT, "")
            }
            (&Method::DELETE, ..) => {
                self.lock().objects.remove(&key);
                plain(StatusCode::NO_CONTENT, "")
            }
            (&Method::GET, true, ..) => plain(
                StatusCode::OK,
                "<ListMultipartUploadsResult></ListMultipartUploadsResult>",
            ),
            (&Method::GET, ..) if query.has("list-type") || !key.contains('/') => self.list(&key, &query),
            (&Method::GET | &Method::HEAD, ..) => self.get(&key, &head.headers, head.method == Method::HEAD),
            _ => plain(StatusCode::NOT_IMPLEMENTED, ""),
        }
    }

    fn put(&self, key: String, headers: HeaderMap, content: Vec<Bytes>) -> Response<Full<Bytes>> {
        let mut store = self.lock();
        store.puts += 1;
        let exists = store.objects.get(&key).map(|o| o.etag.clone());
        let wanted = |name: &str| {
            headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(|v| v.trim_matches('"').to_owned())
        };
        if wanted("if-none-match").is_some() && exists.is_some()
            || wanted("if-match").is_some_and(|tag| exists != Some(tag))
        {
            return plain(
                StatusCode::PRECONDITION_FAILED,
                "<Error><Code>PreconditionFailed</Code></Error>",
            );
        }
        store.next += 1;
        let etag = format!("{:032x}", store.next);
        store.objects.insert(
            key,
            Object {
                content,
                metadata: metadata(&headers),
                etag: etag.clone(),
            },
        );
        with_etag(plain(StatusCode::OK, ""), &etag)
    }

    fn begin(&self, headers: HeaderMap) -> Response<Full<Bytes>> {
        let mut store = self.lock();
        store.next += 1;
        let id = format!("upload-{}", store.next);
        store.uploads.insert(id.clone(), (headers, BTreeMap::new()));
        let text = format!(
            "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        plain(StatusCode::OK, &text)
    }

    fn put_part(&self, upload: &str, part: &str, body: Bytes) -> Response<Full<Bytes>> {
        let mut store = self.lock();
        let Some((_, parts)) = store.uploads.get_mut(upload) else {
            return plain(StatusCode::NOT_FOUND, "<Error><Code>NoSuchUpload</Code></Error>");
        };
        parts.insert(part.parse().unwrap_or(0), body);
        with_etag(plain(StatusCode::OK, ""), &format!("part-{part}"))
    }

    fn complete(&self, key: String, upload: &str) -> Response<Full<Bytes>> {
        let Some((headers, parts)) = self.lock().uploads.remove(upload) else {
            return plain(StatusCode::NOT_FOUND, "<Error><Code>NoSuchUpload</Code></Error>");
        };
        self.put(key.clone(), headers, parts.into_values().collect());
        let etag = self.lock().objects[&key].etag.clone();
        plain(
            StatusCode::OK,
            &format!(
                "<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag>\"{etag}\"</ETag></CompleteMultipartUploadResult>"
            ),
        )
    }

    fn get(&self, key: &str, headers: &HeaderMap, head_only: bool) -> Response<Full<Bytes>> {
        let mut store = self.lock();
        store.gets += u64::from(!head_only);
        let Some(object) = store.objects.get(key).cloned() else {
            return plain(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>");
        };
        drop(store);
        let len = object.len();
        let range = headers
            .get("range")
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("bytes="));
        let bounds = range.and_then(|r| r.split_once('-')).map(|(from, to)| {
            (
                from.parse().unwrap_or(0),
                to.parse::<usize>().map_or(len, |to| (to + 1).min(len)),
            )
        });
        let (from, to) = bounds.unwrap_or((0, len));
        let mut answer = Response::builder().status(if bounds.is_some() {
            StatusCode::PARTIAL_CONTENT
        } else {
            StatusCode::OK
        });
        if bounds.is_some() {
            answer = answer.header("content-range", format!("bytes {from}-{}/{len}", to.max(1) - 1));
        }
        let answer = answer
            .header("last-modified", "Tue, 24 Nov 2026 08:00:00 GMT")
            .header("content-length", to - from)
            .body(Full::new(if head_only {
                Bytes::new()
            } else {
                object.slice(&(from..to))
            }));
        let mut answer = answer.expect("the headers are well formed");
        answer.headers_mut().extend(object.metadata);
        with_etag(answer, &object.etag)
    }

    fn list(&self, bucket: &str, query: &Query) -> Response<Full<Bytes>> {
        let bucket = bucket.trim_end_matches('/');
        let prefix = format!("{bucket}/{}", query.get("prefix").map(decoded).unwrap_or_default());
        let entries: String = self
            .lock()
            .objects
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(key, object)| {
                format!(
                    "<Contents><Key>{}</Key><LastModified>2026-11-24T08:00:00.000Z</LastModified><ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
                    &key[bucket.len() + 1..],
                    object.etag,
                    object.len()
                )
            })
            .collect();
        plain(
            StatusCode::OK,
            &format!(
                "<ListBucketResult><Name>{bucket}</Name><Prefix></Prefix><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
            ),
        )
    }
}

/// The parameters of a request, still percent-encoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|p| p.split_once('=').unwrap_or((p, "")))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

fn decoded(text: &str) -> String {
    text.replace("%2F", "/")
}

fn metadata(headers: &HeaderMap) -> HeaderMap {
    let kept = |name: &HeaderName| name.as_str().starts_with("x-amz-meta-");
    headers
        .iter()
        .filter(|(name, _)| kept(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let body = Full::new(Bytes::from(text.to_owned()));
    Response::builder()
        .status(status)
        .body(body)
        .expect("a status and a body are well formed")
}

fn with_etag(mut answer: Response<Full<Bytes>>, etag: &str) -> Response<Full<Bytes>> {
    answer
        .headers_mut()
        .insert(ETAG, format!("\"{etag}\"").parse().expect("an etag is a header value"));
    answer
}
