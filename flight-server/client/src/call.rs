//! The connection, and the two ways to call: small messages through the generated client, batches through the raw stream.

use crate::{Error, ErrorKind, Options, Result, wire::AlignedBody};
use arrow_flight::flight_service_client::FlightServiceClient;
use bytes::Bytes;
use forebay_protocol::frame::{self, Caps, Parser};
use futures::Stream;
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use tonic::{
    Request, Status,
    body::Body,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tower::{Service, ServiceExt};

const FRAME_BYTES_MAX: u32 = 1 << 20;
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// A peer that answers no ping for so long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Caps of what a server sends beside bodies.
const HEADER_BYTES_MAX: usize = 64 << 20;

/// A connection to a server of Forebay. Clones share it.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    origin: String,
    authorization: Option<HeaderValue>,
    options: Options,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.shared.url)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to `grpc://host:port`, `grpc+tls://host:port`, `grpc+unix:///path` or `forebay://host:port`; without a scheme
    /// `grpc://` is meant.
    ///
    /// [`ErrorKind::Unavailable`] when nobody answers within [`Options::connect_timeout`].
    pub async fn connect(url: &str, options: Options) -> Result<Self> {
        let client = Self::connect_lazy(url, options)?;
        let Shared { options, .. } = &*client.shared;
        let channel = client
            .endpoint()?
            .connect_timeout(options.connect_timeout)
            .connect()
            .await?;
        Ok(Self { channel, ..client })
    }

    /// Like [`Client::connect`], but the connection comes about with the first call.
    pub fn connect_lazy(url: &str, options: Options) -> Result<Self> {
        let origin = origin_of(url)?;
        let authorization = options.token.as_deref().map(bearer).transpose()?;
        let endpoint = endpoint(&origin, &options)?;
        let channel = endpoint.connect_lazy();
        let shared = Shared {
            url: url.to_owned(),
            origin,
            authorization,
            options,
        };
        Ok(Self {
            channel,
            shared: Arc::new(shared),
        })
    }

    /// A second connection to the same server, for a stream that shall not share one.
    pub async fn another(&self) -> Result<Self> {
        Self::connect(&self.shared.url, self.shared.options.clone()).await
    }

    /// The URL it was connected with.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Trades a user's name and password for a bearer token, by the Handshake that `authenticate_basic_token` makes.
    pub async fn login(url: &str, user: &str, password: &str, options: Options) -> Result<(Self, String)> {
        use base64::Engine as _;
        let client = Self::connect(url, options.clone()).await?;
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let mut request = Request::new(futures::stream::iter([arrow_flight::HandshakeRequest::default()]));
        let basic = format!("Basic {credentials}")
            .parse()
            .map_err(|_| Error::new(ErrorKind::Invalid, "the password cannot be sent"))?;
        request.metadata_mut().insert("authorization", basic);
        let answer = FlightServiceClient::new(client.channel.clone())
            .handshake(request)
            .await?;
        let token = match answer
            .metadata()
            .get("authorization")
            .and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "))
        {
            Some(token) => token.to_owned(),
            None => {
                let message = answer.into_inner().message().await?.unwrap_or_default();
                String::from_utf8(message.payload.to_vec()).unwrap_or_default()
            }
        };
        if token.is_empty() {
            return Err(Error::new(
                ErrorKind::Denied,
                "the server took the password and gave no token",
            ));
        }
        let client = Self::connect(
            url,
            Options {
                token: Some(token.clone()),
                ..options
            },
        )
        .await?;
        Ok((client, token))
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    fn endpoint(&self) -> Result<Endpoint> {
        endpoint(&self.shared.origin, &self.shared.options)
    }

    /// The generated client, for calls of small messages.
    pub(crate) fn flight(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel.clone()).max_decoding_message_size(HEADER_BYTES_MAX)
    }

    /// A request with our credentials.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.shared.authorization {
            request
                .metadata_mut()
                .as_mut()
                .insert(header::AUTHORIZATION, value.clone());
        }
        request
    }

    /// Calls a method with a stream of frames, as they are.
    pub(crate) async fn call_raw<S>(&self, method: &str, frames: S) -> Result<http::Response<Body>>
    where
        S: Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static,
    {
        let mut request = http::Request::builder()
            .method(http::Method::POST)
            .uri(format!("/arrow.flight.protocol.FlightService/{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Body::new(StreamBody::new(frames)))
            .map_err(|e| Error::new(ErrorKind::Invalid, e.to_string()))?;
        if let Some(value) = &self.shared.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        let mut channel = self.channel.clone();
        let response = channel.ready().await?.call(request).await?;
        if !response.status().is_success() {
            let text = format!(
                "{} answers HTTP {}; is it a Flight address?",
                self.shared.url,
                response.status()
            );
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        // An error without a stream comes in the headers.
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != tonic::Code::Ok => Err(status.into()),
            _ => Ok(response),
        }
    }

    /// DoGet: the messages of a stream.
    pub(crate) async fn get_raw(&self, ticket: &arrow_flight::Ticket) -> Result<Messages> {
        let message = ticket.encode_to_vec();
        let frame = [&frame::prefix(message.len())?[..], &message].concat();
        let response = self
            .call_raw("DoGet", futures::stream::iter([Ok(Frame::data(frame.into()))]))
            .await?;
        let caps = Caps {
            message: self.options().message_bytes_max,
            header: HEADER_BYTES_MAX,
            app_metadata: HEADER_BYTES_MAX,
        };
        Ok(Messages {
            body: response.into_body(),
            parser: Parser::collecting(caps, AlignedBody::default()),
            ended: false,
        })
    }

    /// Repeats a call that is safe to repeat while the server is away, for as long as the options say.
    pub(crate) async fn repeat<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let end = Instant::now() + self.options().retry_for;
        let mut pause = Duration::from_millis(50);
        loop {
            match call().await {
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() + pause < end => {
                    tracing::debug!(%error, ?pause, "calling again");
                    sleep(error.retry_after().unwrap_or(pause)).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                answer => return answer,
            }
        }
    }
}

/// The messages of a DoGet as they arrive.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Body,
    parser: Parser<AlignedBody>,
    ended: bool,
}

impl Messages {
    /// The next message; `None` at a good end.
    pub(crate) async fn next(&mut self) -> Result<Option<frame::FlightMessage<arrow_buffer::Buffer>>> {
        loop {
            if let Some(message) = self.parser.next_message()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            match next_frame(&mut self.body).await? {
                Received::Data(data) => self.parser.push(data),
                Received::End(trailers) => {
                    self.ended = true;
                    Error::check_trailers(&trailers)?;
                    self.parser.finish()?;
                }
            }
        }
    }
}

/// What comes next of a response.
pub(crate) enum Received {
    /// Bytes of messages.
    Data(Bytes),
    /// The trailers; empty when the stream was cut.
    End(HeaderMap),
}

/// The next piece of a response.
pub(crate) async fn next_frame(body: &mut Body) -> Result<Received> {
    match body.frame().await {
        Some(Ok(frame)) => Ok(match frame.into_data() {
            Ok(data) => Received::Data(data),
            Err(frame) => Received::End(frame.into_trailers().unwrap_or_default()),
        }),
        Some(Err(status)) => Err(Error::lost("the connection was lost", &status)),
        None => Ok(Received::End(HeaderMap::new())),
    }
}

fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| Error::new(ErrorKind::Invalid, "the token has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The HTTP origin behind a URL of ours.
fn origin_of(url: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("grpc", url));
    let authority = rest.split('/').next().unwrap_or_default();
    match scheme {
        "grpc+unix" | "unix" => return Ok(format!("unix://{rest}")),
        _ if authority.is_empty() => {}
        "grpc" | "grpc+tcp" | "http" | "forebay" => return Ok(format!("http://{authority}")),
        "grpc+tls" | "https" | "forebay+tls" => return Ok(format!("https://{authority}")),
        _ => {}
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!("{url:?} is no address; write it like grpc://127.0.0.1:47470 or grpc+tls://host:port"),
    ))
}

fn endpoint(origin: &str, options: &Options) -> Result<Endpoint> {
    let invalid = |e: tonic::transport::Error| {
        let cause = std::error::Error::source(&e)
            .map(ToString::to_string)
            .unwrap_or_default();
        Error::new(ErrorKind::Invalid, format!("{origin}: {e} {cause}"))
    };
    let endpoint = Endpoint::from_shared(origin.to_owned())
        .map_err(invalid)?
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keep_alive_interval(PING_TIMEOUT / 2)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    if !origin.starts_with("https://") {
        return Ok(endpoint);
    }
    let Some(ca) = &options.tls_ca else {
        return Err(Error::new(
            ErrorKind::Invalid,
            "TLS needs the PEM of the authority that signed the server's certificate",
        ));
    };
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some((certificate, key)) = &options.tls_identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    if let Some(domain) = &options.tls_domain {
        tls = tls.domain_name(domain);
    }
    endpoint.tls_config(tls).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_origins() {
        for (url, origin) in [
            ("grpc://127.0.0.1:47470", "http://127.0.0.1:47470"),
            ("forebay://host:1/features/day=1", "http://host:1"),
            ("host:1", "http://host:1"),
            ("grpc+tls://host:1", "https://host:1"),
            ("grpc+unix:///run/forebay.sock", "unix:///run/forebay.sock"),
        ] {
            assert_eq!(origin_of(url).unwrap(), origin);
        }
        for url in ["", "grpc://", "ftp://host", "grpc:///x"] {
            assert_eq!(origin_of(url).unwrap_err().kind(), ErrorKind::Invalid, "{url}");
        }
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_unavailable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("grpc://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Client::connect(&url, Options::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }

    #[test]
    fn tls_without_an_authority_says_so() {
        let error = endpoint("https://host:1", &Options::default()).unwrap_err();
        assert!(error.to_string().contains("PEM"), "{error}");
    }
}
