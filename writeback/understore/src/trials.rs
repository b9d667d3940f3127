//! What is asked of every object store beside the conformance suite, with a proxy in between that breaks requests. Tests only.

use crate::{
    Expect, Settings, StoreError, UnderStoreRef, Write, conformance,
    fault::{Break, FaultProxy},
};
use bytes::Bytes;
use std::time::Duration;

/// A store that the environment names, and how its requests look.
pub(crate) struct Trial {
    /// Variable with a URL that has an endpoint.
    pub(crate) variable: &'static str,
    /// Method of a request that writes an object, and what its target holds.
    pub(crate) writes: (&'static str, &'static str),
    /// The same of one that ends an upload.
    pub(crate) completes: (&'static str, &'static str),
}

impl Trial {
    fn url(&self) -> Option<url::Url> {
        let Ok(text) = std::env::var(self.variable) else {
            eprintln!("{} is not set: nothing tested", self.variable);
            return None;
        };
        Some(url::Url::parse(&text).unwrap())
    }

    /// The store behind a proxy, below a prefix of the test's own.
    async fn broken(&self, prefix: &str) -> Option<(FaultProxy, UnderStoreRef)> {
        let mut url = self.url()?;
        let of = |name: &str| {
            url.query_pairs()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.into_owned())
        };
        let endpoint = url::Url::parse(&of("endpoint").expect("the URL must name an endpoint")).unwrap();
        let proxy = FaultProxy::start(endpoint.socket_addrs(|| None).unwrap()[0])
            .await
            .unwrap();
        let path = endpoint.path().trim_end_matches('/');
        let mut query = format!("endpoint=http://{}{path}", proxy.address());
        if let Some(account) = of("account") {
            query.push_str(&format!("&account={account}"));
        }
        url.set_query(Some(&query));
        url.set_path(&format!("{}/{prefix}", url.path().trim_end_matches('/')));
        let settings = Settings {
            timeout: Duration::from_secs(2),
            ..Settings::default()
        };
        Some((proxy, crate::open(url.as_str(), &settings).await.unwrap()))
    }

    pub(crate) async fn conforms(&self) {
        let Some(url) = self.url() else { return };
        let store = crate::open(url.as_str(), &Settings::default()).await.unwrap();
        conformance::run(store).await;
    }

    pub(crate) async fn faults_before_the_effect_leave_nothing(&self) {
        let Some((proxy, store)) = self.broken("before").await else {
            return;
        };
        let body = vec![Bytes::from(vec![7_u8; 100_000])];
        let faults = [Break::Status(503, "Busy"), Break::ResetAfter(50_000), Break::Hang];
        for (at, breaks) in faults.into_iter().enumerate() {
            proxy.break_next(self.writes.0, self.writes.1, 1, breaks.clone());
            let wanted = write(&format!("k{at}"), 100_000);
            let answer = store.put(&wanted, body.clone()).await;
            assert!(
                matches!(answer, Err(StoreError::Unavailable(_))),
                "{breaks:?}: {answer:?}"
            );
            assert_eq!(proxy.hits(), at as u64 + 1, "{breaks:?} did not hit");
            assert_eq!(store.head(&wanted.key).await.unwrap(), None, "{breaks:?}");
        }
        proxy.break_next(self.writes.0, self.writes.1, 1, Break::Status(403, "Forbidden"));
        let answer = store.put(&write("k9", 100_000), body).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    }

    pub(crate) async fn after_an_unclear_answer_the_token_tells(&self) {
        let Some((proxy, store)) = self.broken("after").await else {
            return;
        };
        for (at, breaks) in [Break::LostAnswer, Break::StatusAfter(500, "Internal")]
            .into_iter()
            .enumerate()
        {
            let wanted = write(&format!("k{at}"), 5);
            proxy.break_next(self.writes.0, self.writes.1, 1, breaks.clone());
            let answer = store.put(&wanted, vec![Bytes::from_static(b"hello")]).await;
            assert!(
                matches!(answer, Err(StoreError::Unavailable(_))),
                "{breaks:?}: {answer:?}"
            );
            is_ours(&store, &wanted, &breaks).await;

            let wanted = write(&format!("parts{at}"), 4);
            let upload = store.start(&wanted).await.unwrap();
            let part = store
                .part(&wanted, &upload, 0, 0, vec![Bytes::from_static(b"four")])
                .await
                .unwrap();
            proxy.break_next(self.completes.0, self.completes.1, 1, breaks.clone());
            let answer = store.complete(&wanted, &upload, &[part]).await;
            assert!(
                matches!(answer, Err(StoreError::Unavailable(_))),
                "{breaks:?}: {answer:?}"
            );
            is_ours(&store, &wanted, &breaks).await;
            store.abort(&wanted.key, &upload).await.unwrap();
            assert!(store.uploads(&wanted.key).await.unwrap().is_empty());
        }
        assert_eq!(proxy.hits(), 4);
    }

    pub(crate) async fn a_short_or_stopped_read_is_never_taken_for_whole(&self) {
        let Some((proxy, store)) = self.broken("short").await else {
            return;
        };
        let bytes = Bytes::from(vec![9_u8; 300_000]);
        let mut wanted = write("k", 300_000);
        wanted.expect = Expect::Any;
        let found = store.put(&wanted, vec![bytes.clone()]).await.unwrap();
        for breaks in [Break::ShortBody(1000), Break::ShortBody(0), Break::Hang] {
            proxy.break_next("GET", "k", 1, breaks.clone());
            let answer = store.read("k", 0..300_000, &found.validator).await;
            let expected = matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Damaged(_)));
            assert!(expected, "{breaks:?}: {:?}", answer.map(|bytes| bytes.len()));
        }
        assert_eq!(store.read("k", 0..300_000, &found.validator).await.unwrap(), bytes);
        assert_eq!(proxy.hits(), 3);
        store.delete("k", &Expect::Any).await.unwrap();
    }

    /// More parts than one step joins, in a store whose names take several pages.
    pub(crate) async fn many_parts_and_many_names(&self) {
        let Some((_proxy, store)) = self.broken("many").await else {
            return;
        };
        let count = 70_u32;
        let wanted = write("joined", count as usize * 3);
        let upload = store.start(&wanted).await.unwrap();
        let mut parts = Vec::new();
        for index in 0..count {
            let chunk = Bytes::from(format!("{index:03}"));
            parts.push(
                store
                    .part(&wanted, &upload, index, u64::from(index) * 3, vec![chunk])
                    .await
                    .unwrap(),
            );
        }
        let found = store.complete(&wanted, &upload, &parts).await.unwrap();
        let expected: String = (0..count).map(|index| format!("{index:03}")).collect();
        assert_eq!(
            store.read("joined", 0..wanted.size, &found.validator).await.unwrap(),
            expected
        );
        store.delete("joined", &Expect::Match(found.validator)).await.unwrap();
        assert_eq!(store.head("").await.unwrap().map(|found| found.is_dir), Some(true));
        let left: Vec<_> = futures::StreamExt::collect(store.list("", None)).await;
        assert!(left.is_empty(), "{left:?}");
    }
}

fn write(key: &str, size: usize) -> Write {
    Write {
        key: key.into(),
        size: size as u64,
        token: format!("token-{key}"),
        attributes: Vec::new(),
        expect: Expect::Absent,
    }
}

/// The object is there whole, with our token; and then it goes.
async fn is_ours(store: &UnderStoreRef, wanted: &Write, breaks: &Break) {
    let found = store.head(&wanted.key).await.unwrap().expect("it happened");
    let seen = (found.token.as_deref(), found.size);
    assert_eq!(seen, (Some(wanted.token.as_str()), wanted.size), "{breaks:?}");
    store
        .delete(&wanted.key, &Expect::Match(found.validator))
        .await
        .unwrap();
}
