//! Against a small web server with and without what servers may lack.

use super::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the server does.
#[derive(Clone, Copy, Debug)]
struct Manners {
    ranges: bool,
    etags: bool,
    index: bool,
}

const GOOD: Manners = Manners {
    ranges: true,
    etags: true,
    index: true,
};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

struct Site {
    files: Files,
    store: UnderStoreRef,
}

impl Site {
    async fn start(manners: Manners, credentials: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let files = Files::default();
        let served = Arc::clone(&files);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that went away is no failure of a test.
                tokio::spawn(answer(client, Arc::clone(&served), manners));
            }
        });
        let credentials = credentials.map_or(String::new(), |file| format!("?credentials={file}"));
        let url = format!("http://{address}/data{credentials}");
        let store = crate::open(&url, &Settings::default()).await.unwrap();
        Self { files, store }
    }

    fn put(&self, name: &str, content: &[u8]) {
        self.files.lock().insert(format!("/data/{name}"), content.to_vec());
    }
}

async fn answer(mut client: TcpStream, files: Files, manners: Manners) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let (method, target) = head.split_once(' ').unwrap();
    let target = target.split(' ').next().unwrap();
    let target = percent_encoding::percent_decode_str(target)
        .decode_utf8()
        .unwrap()
        .into_owned();
    let of = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
        Some(line.split_once(": ")?.1.to_owned())
    };
    let files = files.lock().clone();
    let (status, mut headers, mut body) = reply(&target, &files, of("range"), manners);
    if target.contains("private") && of("authorization").as_deref() != Some("Bearer hush") {
        (body, headers) = (Vec::new(), String::new());
    }
    let status = if target.contains("private") && body.is_empty() {
        "401 No"
    } else {
        status
    };
    let len = body.len();
    if method == "HEAD" {
        body.clear();
    }
    let text = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {len}\r\nConnection: close\r\n\r\n");
    let _ = client.write_all(&[text.into_bytes(), body].concat()).await;
}

fn reply(
    target: &str,
    files: &BTreeMap<String, Vec<u8>>,
    range: Option<String>,
    manners: Manners,
) -> (&'static str, String, Vec<u8>) {
    if let Some(content) = files.get(target) {
        let mut headers = "Last-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\n".to_owned();
        if manners.etags {
            headers.push_str(&format!(
                "ETag: \"{:x}\"\r\n",
                crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, content)
            ));
        }
        let Some(range) = range.filter(|_| manners.ranges) else {
            return ("200 OK", headers, content.clone());
        };
        let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        if start >= content.len() {
            return ("416 Range", headers, Vec::new());
        }
        let end = end.min(content.len() - 1);
        headers.push_str(&format!("Content-Range: bytes {start}-{end}/{}\r\n", content.len()));
        return ("206 Part", headers, content[start..=end].to_vec());
    }
    let folder = format!("{}/", target.trim_end_matches('/'));
    let below: Vec<&str> = files.keys().filter_map(|path| path.strip_prefix(&folder)).collect();
    match (below.is_empty(), target.ends_with('/'), manners.index) {
        (true, ..) => ("404 No", String::new(), Vec::new()),
        (_, false, _) => ("301 Moved", format!("Location: {folder}\r\n"), Vec::new()),
        (_, _, false) => ("403 No", String::new(), Vec::new()),
        (_, _, true) => {
            let links = below.iter().map(|path| match path.split_once('/') {
                Some((dir, _)) => format!("<a href=\"{dir}/\">{dir}/</a>"),
                None => format!("<a href=\"{}\">{path}</a>", exchange::component(path)),
            });
            (
                "200 OK",
                "Content-Type: text/html\r\n".into(),
                links.collect::<String>().into_bytes(),
            )
        }
    }
}

#[tokio::test]
async fn files_are_found_listed_and_read_by_ranges() {
    let site = Site::start(GOOD, None).await;
    site.put("a b.bin", b"hello world");
    site.put("day/1.bin", b"one");
    site.put("empty", b"");
    let found = site.store.head("a b.bin").await.unwrap().unwrap();
    assert_eq!(
        (found.size, found.is_dir, found.mtime),
        (11, false, 1_704_164_645_000_000)
    );
    assert_eq!(
        site.store.read("a b.bin", 4..8, &found.validator).await.unwrap(),
        "o wo"
    );
    assert!(site.store.head("day").await.unwrap().unwrap().is_dir);
    assert_eq!(site.store.head("empty").await.unwrap().unwrap().size, 0);
    assert_eq!(site.store.head("none").await.unwrap(), None);
    let rows: Vec<Listed> = site.store.list("", None).try_collect().await.unwrap();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (row.name.as_str(), row.found.is_dir, row.found.size))
        .collect();
    assert_eq!(rows, [("a b.bin", false, 11), ("day", true, 0), ("empty", false, 0)]);
    let rows: Vec<Listed> = site.store.list("", Some("a b.bin")).try_collect().await.unwrap();
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_file_that_was_replaced_is_never_mixed() {
    for etags in [true, false] {
        let site = Site::start(Manners { etags, ..GOOD }, None).await;
        site.put("f", b"old bytes");
        let found = site.store.head("f").await.unwrap().unwrap();
        site.put("f", b"other bytes");
        let read = site.store.read("f", 0..3, &found.validator).await;
        assert!(matches!(read, Err(StoreError::Changed(_))), "{etags}: {read:?}");
        site.put("f", b"x");
        let read = site.store.read("f", 5..9, &found.validator).await;
        assert!(matches!(read, Err(StoreError::Changed(_))), "{etags}: {read:?}");
    }
}

#[tokio::test]
async fn a_server_without_ranges_or_pages_is_read_all_the_same() {
    let manners = Manners {
        ranges: false,
        index: false,
        ..GOOD
    };
    let site = Site::start(manners, None).await;
    site.put("d/f", b"hello world");
    let found = site.store.head("d/f").await.unwrap().unwrap();
    assert_eq!(site.store.read("d/f", 6..11, &found.validator).await.unwrap(), "world");
    assert!(site.store.head("d").await.unwrap().unwrap().is_dir);
    let rows: Result<Vec<Listed>, StoreError> = site.store.list("d", None).try_collect().await;
    let error = rows.unwrap_err();
    assert!(
        matches!(error, StoreError::Refused(_)) && error.to_string().contains("by their names"),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_forebay_keeps_for_itself_in_the_folder_is_not_shown() {
    let site = Site::start(GOOD, None).await;
    for name in ["f", ".forebay-packs/1", ".forebay-tmp/x", "d/.forebay-tmp"] {
        site.put(name, b"1");
    }
    let rows: Vec<Listed> = site.store.list("", None).try_collect().await.unwrap();
    let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["d", "f"]);
    for ours in [".forebay-packs", ".forebay-packs/1", ".forebay-tmp"] {
        assert_eq!(site.store.head(ours).await.unwrap(), None, "{ours}");
        let rows: Vec<Listed> = site.store.list(ours, None).try_collect().await.unwrap();
        assert_eq!(rows, [], "{ours}");
    }
    assert!(site.store.head("d/.forebay-tmp").await.unwrap().is_some());
}

#[tokio::test]
async fn nothing_is_ever_written() {
    let site = Site::start(GOOD, None).await;
    assert!(site.store.read_only());
    let write = Write {
        key: "k".into(),
        size: 0,
        token: "t".into(),
        attributes: Vec::new(),
        expect: Expect::Any,
    };
    let answers = [
        site.store.put(&write, Vec::new()).await.map(drop),
        site.store.start(&write).await.map(drop),
        site.store.delete("k", &Expect::Any).await,
        site.store.make_dir("k").await,
        site.store.remove_dir("k").await,
    ];
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Err(StoreError::Refused(_)))),
        "{answers:?}"
    );
}

#[tokio::test]
async fn a_token_is_sent_where_a_file_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "token = \"hush\"").unwrap();
    for (credentials, allowed) in [(file.to_str(), true), (None, false)] {
        let site = Site::start(GOOD, credentials).await;
        site.put("private", b"secret");
        let found = site.store.head("private").await;
        assert_eq!(found.is_ok(), allowed, "{found:?}");
    }
}
