//! `/metrics`: what is counted, for Prometheus. Names, units and meaning are in docs/metrics.md.
//!
//! The recorder is the process's, installed once and before anything else makes a handle; handles are made once. The engine sets
//! its own gauges; here are those of the doors.

use crate::service::calls::Method;
use ::metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use axum::{
    http::{StatusCode, header},
    response::IntoResponse,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::{sync::OnceLock, time::Duration};
use tonic::Code;

/// gRPC codes run from 0 to this.
const CODE_MAX: usize = 16;
/// Seconds: from a unary call to a follower that stays for hours.
const SECONDS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0, 3600.0];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the process's recorder of metrics. Call it before the cache is opened: a handle made earlier counts for nobody.
/// Calling it again does nothing; where another recorder was installed first, that one stays and `/metrics` is empty.
pub fn install() {
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets(SECONDS)
            .expect("there are buckets");
        builder
            .install_recorder()
            .inspect_err(|error| tracing::warn!(%error, "no metrics"))
            .ok()
    });
}

/// The doors' own handles.
pub(crate) struct Handles {
    pub(crate) connections: Gauge,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    calls: Vec<Calls>,
}

/// Those of one verb.
pub(crate) struct Calls {
    method: Method,
    pub(crate) running: Gauge,
    pub(crate) seconds: Histogram,
    ended: [OnceLock<Counter>; CODE_MAX + 1],
}

impl Handles {
    fn new() -> Self {
        describe_gauge!("forebay_connections", "connections open at both doors");
        describe_counter!(
            "forebay_flight_received_bytes_total",
            Unit::Bytes,
            "bytes received in Flight calls"
        );
        describe_counter!(
            "forebay_flight_sent_bytes_total",
            Unit::Bytes,
            "bytes sent in Flight calls that ended"
        );
        describe_gauge!("forebay_flight_calls_running", "Flight calls under way");
        describe_counter!("forebay_flight_calls_total", "Flight calls that ended, by gRPC code");
        describe_histogram!(
            "forebay_flight_call_seconds",
            Unit::Seconds,
            "how long Flight calls took"
        );
        Self {
            connections: gauge!("forebay_connections"),
            received_bytes: counter!("forebay_flight_received_bytes_total"),
            sent_bytes: counter!("forebay_flight_sent_bytes_total"),
            calls: Method::ALL.into_iter().map(Calls::new).collect(),
        }
    }

    pub(crate) fn calls(&self, method: Method) -> &Calls {
        self.calls
            .iter()
            .find(|calls| calls.method == method)
            .expect("there is one for each method")
    }
}

impl Calls {
    fn new(method: Method) -> Self {
        let name = method.name();
        Self {
            method,
            running: gauge!("forebay_flight_calls_running", "method" => name),
            seconds: histogram!("forebay_flight_call_seconds", "method" => name),
            ended: Default::default(),
        }
    }

    /// Made when first needed: a page of codes that never came tells nobody anything.
    pub(crate) fn by_code(&self, code: Code) -> &Counter {
        let method = self.method.name();
        self.ended[code as usize]
            .get_or_init(|| counter!("forebay_flight_calls_total", "method" => method, "code" => format!("{code:?}")))
    }
}

/// The WebHDFS door's own handles.
pub(crate) struct WebHdfsHandles {
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
}

impl WebHdfsHandles {
    fn new() -> Self {
        describe_counter!(
            "forebay_webhdfs_received_bytes_total",
            Unit::Bytes,
            "file bytes received over WebHDFS"
        );
        describe_counter!(
            "forebay_webhdfs_sent_bytes_total",
            Unit::Bytes,
            "file bytes sent over WebHDFS"
        );
        describe_counter!(
            "forebay_webhdfs_calls_total",
            "WebHDFS requests answered, by HTTP status"
        );
        describe_histogram!(
            "forebay_webhdfs_call_seconds",
            Unit::Seconds,
            "how long WebHDFS requests took until their answer began"
        );
        Self {
            received_bytes: counter!("forebay_webhdfs_received_bytes_total"),
            sent_bytes: counter!("forebay_webhdfs_sent_bytes_total"),
        }
    }

    /// Counts a request that was answered. Names of operations and statuses are few, whatever clients send.
    pub(crate) fn answered(&self, op: &'static str, status: StatusCode, took: Duration) {
        counter!("forebay_webhdfs_calls_total", "op" => op, "status" => status.as_str().to_owned()).increment(1);
        histogram!("forebay_webhdfs_call_seconds", "op" => op).record(took.as_secs_f64());
    }
}

pub(crate) fn webhdfs() -> &'static WebHdfsHandles {
    static HANDLES: OnceLock<WebHdfsHandles> = OnceLock::new();
    HANDLES.get_or_init(WebHdfsHandles::new)
}

pub(crate) fn handles() -> &'static Handles {
    static HANDLES: OnceLock<Handles> = OnceLock::new();
    HANDLES.get_or_init(Handles::new)
}

/// The page.
pub(super) async fn page() -> impl IntoResponse {
    let text = RECORDER
        .get()
        .and_then(Option::as_ref)
        .map(PrometheusHandle::render)
        .unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_method_has_a_place() {
        let handles = Handles::new();
        for method in Method::ALL {
            for code in 0..=CODE_MAX as i32 {
                handles.calls(method).by_code(Code::from(code)).increment(0);
            }
        }
    }
}
