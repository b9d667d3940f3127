//! The engine in memory.

use async_trait::async_trait;
use bytes::Bytes;
use forebay_metastore::{
    CommitError, MetaError, MetaStore, MetaStoreRef, Op, Tx,
    conformance::Subject,
    conformance_tests,
    mem::{Call, Fault, MemStore},
};

struct Mem;

#[async_trait]
impl Subject for Mem {
    async fn fresh(&self) -> MetaStoreRef {
        MemStore::new()
    }
}

conformance_tests!(Mem);

fn put_a(token: u8) -> Tx {
    Tx {
        token: Some([token; 16]),
        checks: vec![],
        ops: vec![Op::Put(Bytes::from_static(b"a"), Bytes::new())],
    }
}

#[tokio::test]
async fn injected_faults_do_what_their_name_says_and_the_token_settles_them() {
    let store = MemStore::new();
    let faults = [Fault::Unavailable, Fault::UnknownLost, Fault::UnknownCommitted];
    for (number, fault) in (0..).zip(faults) {
        store.set_hook(move |call| if let Call::Commit(_) = call { fault } else { Fault::None });
        let error = store.commit(put_a(number)).await.unwrap_err();
        assert_eq!(
            matches!(error, CommitError::Unknown(_)),
            fault != Fault::Unavailable,
            "{error}"
        );
        assert_eq!(store.is_empty(), fault != Fault::UnknownCommitted);
    }
    store.set_hook(|call| {
        if let Call::Other("get") = call {
            Fault::Unavailable
        } else {
            Fault::None
        }
    });
    assert!(matches!(
        store.get(&[Bytes::from_static(b"a")]).await,
        Err(MetaError::Unavailable(_))
    ));
    store.clear_hook();
    let before = store.get(&[Bytes::from_static(b"a")]).await.unwrap()[0]
        .clone()
        .unwrap();
    assert_eq!(store.commit(put_a(2)).await.unwrap().version, before.version);
}
