//! JSON in `app_metadata` of FlightInfo and PutResult, and the response metadata (trailers) by which a DoPut tells how it ended.

use crate::{level::AckLevel, path::WirePath};
use serde::{Deserialize, Serialize};

/// Trailer of a DoPut that committed a version: its number.
pub const TRAILER_VERSION: &str = "forebay-version";
/// Trailer of a DoPut: the session it wrote into.
pub const TRAILER_SESSION: &str = "forebay-session";
/// Trailer of a DoPut: the level it was committed at.
pub const TRAILER_LEVEL: &str = "forebay-level";
/// Trailer of a DoPut that committed a file: its etag.
pub const TRAILER_ETAG: &str = "forebay-etag";
/// Trailer of an error whose outcome is unknown: the idempotency token to ask with.
pub const TRAILER_TOKEN: &str = "forebay-token";
/// Trailer of RESOURCE_EXHAUSTED and UNAVAILABLE: how long to wait, milliseconds.
pub const TRAILER_RETRY_AFTER: &str = "retry-after-ms";
/// Trailing metadata of an error: a reason that a program may act on, where the code alone does not tell.
pub const TRAILER_REASON: &str = "forebay-reason";
/// The [reason](TRAILER_REASON) of a rename whose two names lie in different under-stores: copy instead.
pub const REASON_OTHER_STORE: &str = "other-store";

/// `app_metadata` of a FlightInfo. For a file `version` and `session` are null and the counts 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoNote {
    /// What it describes.
    pub path: WirePath,
    /// The published version.
    #[serde(default)]
    pub version: Option<u64>,
    /// The live session, if any.
    #[serde(default)]
    pub session: Option<String>,
    /// Of a dataset `published`, `live` (it ends in a live session) or `aborted`; of a file its state.
    pub state: String,
    /// Parts described.
    #[serde(default)]
    pub parts: u64,
    /// Batches described; with `follow`, those of the head version.
    #[serde(default)]
    pub batches: u64,
}

/// `app_metadata` of a FlightEndpoint that is one whole part of what is published, without a filter: so readers can share a dataset out
/// by rows, and find a row's part, without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointNote {
    /// Rows of the part.
    pub rows: u64,
    /// Batches of the part.
    pub batches: u64,
}

/// `app_metadata` of a PutResult whose batch brought none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutNote {
    /// The batch that this answers, from 0.
    pub batch: u64,
    /// Batches of this call that are stable at `level` so far.
    pub stable: u64,
    /// The level.
    pub level: AckLevel,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_note_reads_as_documented() {
        let note = PutNote {
            batch: 3,
            stable: 2,
            level: AckLevel::Local,
        };
        let json = r#"{"batch":3,"stable":2,"level":"local"}"#;
        assert_eq!(serde_json::to_string(&note).unwrap(), json);
        assert_eq!(serde_json::from_str::<PutNote>(json).unwrap(), note);
    }

    #[test]
    fn an_endpoint_note_reads_as_documented() {
        let note = EndpointNote { rows: 9, batches: 2 };
        let json = r#"{"rows":9,"batches":2}"#;
        assert_eq!(serde_json::to_string(&note).unwrap(), json);
        assert_eq!(serde_json::from_str::<EndpointNote>(json).unwrap(), note);
    }

    #[test]
    fn an_info_note_always_has_its_documented_keys() {
        let note = InfoNote {
            path: WirePath::parse("/a").unwrap(),
            version: Some(2),
            session: None,
            state: "published".into(),
            parts: 1,
            batches: 9,
        };
        let json = r#"{"path":"/a","version":2,"session":null,"state":"published","parts":1,"batches":9}"#;
        assert_eq!(serde_json::to_string(&note).unwrap(), json);
        assert_eq!(serde_json::from_str::<InfoNote>(json).unwrap(), note);
    }
}
