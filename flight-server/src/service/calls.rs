//! The verbs by name, and what is counted of each call.

use crate::{http::metrics, server};
use std::time::Instant;
use tonic::Code;

/// A Flight verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Handshake,
    ListFlights,
    GetFlightInfo,
    PollFlightInfo,
    GetSchema,
    DoGet,
    DoPut,
    DoExchange,
    DoAction,
    ListActions,
}

impl Method {
    pub(crate) const ALL: [Self; 10] = [
        Self::Handshake,
        Self::ListFlights,
        Self::GetFlightInfo,
        Self::PollFlightInfo,
        Self::GetSchema,
        Self::DoGet,
        Self::DoPut,
        Self::DoExchange,
        Self::DoAction,
        Self::ListActions,
    ];

    /// The verb that a request's path names.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let name = path.strip_prefix("/arrow.flight.protocol.FlightService/")?;
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "Handshake",
            Self::ListFlights => "ListFlights",
            Self::GetFlightInfo => "GetFlightInfo",
            Self::PollFlightInfo => "PollFlightInfo",
            Self::GetSchema => "GetSchema",
            Self::DoGet => "DoGet",
            Self::DoPut => "DoPut",
            Self::DoExchange => "DoExchange",
            Self::DoAction => "DoAction",
            Self::ListActions => "ListActions",
        }
    }
}

/// A call under way, as it is counted. Dropped before it ended, it was cancelled.
pub(crate) struct Observed {
    seen: Option<Seen>,
}

struct Seen {
    counts: &'static metrics::Calls,
    began: Instant,
    sent_bytes: u64,
    _connection: Option<server::Call>,
}

impl Observed {
    pub(crate) fn begin(method: Method, connection: Option<server::Call>) -> Self {
        let counts = metrics::handles().calls(method);
        counts.running.increment(1);
        Self {
            seen: Some(Seen {
                counts,
                began: Instant::now(),
                sent_bytes: 0,
                _connection: connection,
            }),
        }
    }

    /// One that is not counted.
    #[cfg(test)]
    pub(crate) fn unseen() -> Self {
        Self { seen: None }
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Some(seen) = &mut self.seen {
            seen.sent_bytes += bytes as u64;
        }
    }

    /// The call ended with `code`; what comes after is not counted.
    pub(crate) fn ended(&mut self, code: Code) {
        let Some(seen) = self.seen.take() else { return };
        seen.counts.running.decrement(1);
        seen.counts.seconds.record(seen.began.elapsed().as_secs_f64());
        seen.counts.by_code(code).increment(1);
        metrics::handles().sent_bytes.increment(seen.sent_bytes);
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.ended(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_found_by_their_path() {
        for method in Method::ALL {
            assert_eq!(
                Method::of(&format!("/arrow.flight.protocol.FlightService/{}", method.name())),
                Some(method)
            );
        }
        for path in [
            "/",
            "/arrow.flight.protocol.FlightService/",
            "/arrow.flight.protocol.FlightService/doget",
            "/x/DoGet",
        ] {
            assert_eq!(Method::of(path), None);
        }
    }
}
