//! The suite that object_store has for implementors, all of it.

use super::support::Server;
use crate::ForebayStore;
use object_store::integration;

/// Each on a server of its own: the suite deletes everything it finds.
macro_rules! conforms {
    ($($name:ident $(($extra:expr))?),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let server = Server::start(false);
                let store = ForebayStore::new(server.client().await);
                integration::$name(&store $(, $extra)?).await;
            }
        )*
    };
}

conforms! {
    put_get_delete_list,
    put_get_attributes,
    get_opts,
    put_opts(true),
    stream_get,
    list_uses_directories_correctly,
    list_with_delimiter,
    rename_and_copy,
    copy_if_not_exists,
    copy_rename_nonexistent_object,
    multipart_race_condition(true),
    multipart_out_of_order,
    list_with_offset_exclusivity,
}

#[tokio::test]
async fn multipart() {
    let server = Server::start(false);
    let store = ForebayStore::new(server.client().await);
    integration::multipart(&store, &store).await;
}

#[tokio::test]
async fn list_paginated() {
    let server = Server::start(false);
    let store = ForebayStore::new(server.client().await);
    integration::list_paginated(&store, &store).await;
}

#[tokio::test]
async fn get_nonexistent_object() {
    let server = Server::start(false);
    let store = ForebayStore::new(server.client().await);
    let answer = integration::get_nonexistent_object(&store, None).await;
    assert!(
        matches!(answer, Err(object_store::Error::NotFound { .. })),
        "{answer:?}"
    );
}
