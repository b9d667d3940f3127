//! Where a request came in, and whence: what a redirect points to, and whether a page of somebody else sent it.

use super::error::{Exception, Fault};
use http::{HeaderMap, Uri, header, uri::Authority};

/// The host and port by which the client reached us.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    authority: Authority,
    secure: bool,
}

impl Origin {
    /// Refuses a request without `Host`, and one that a browser sends for a page of another site: on loopback anyone's page could
    /// otherwise change what lies here.
    pub(super) fn of(uri: &Uri, headers: &HeaderMap, secure: bool) -> Result<Self, Fault> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = match uri.authority() {
            Some(authority) => Some(authority.clone()),
            None => host.and_then(|host| host.parse().ok()),
        };
        let authority = authority.ok_or_else(|| {
            let text = "the request does not say in its Host header whom it is for";
            Fault::new(Exception::IllegalArgument, text)
        })?;
        let origin = Self { authority, secure };
        match headers.get(header::ORIGIN).map(|page| page.to_str()) {
            None => Ok(origin),
            Some(Ok(page)) if page == origin.url() => Ok(origin),
            Some(_) => {
                let text = "a page of another site may not use this door";
                Err(Fault::new(Exception::AccessControl, text))
            }
        }
    }

    /// `http://host:port`.
    pub(super) fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// `webhdfs://host:port`.
    pub(super) fn hadoop_url(&self) -> String {
        let scheme = if self.secure { "swebhdfs" } else { "webhdfs" };
        format!("{scheme}://{}", self.authority)
    }

    /// The host, without a port.
    pub(super) fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port, that of the scheme where none is named.
    pub(super) fn port(&self) -> u16 {
        let usual = if self.secure { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Result<Origin, Fault> {
        let headers = headers.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, value.parse().unwrap())
        });
        Origin::of(&Uri::from_static("/webhdfs/v1/"), &HeaderMap::from_iter(headers), false)
    }

    #[test]
    fn redirects_go_where_the_client_came() {
        let origin = of(&[("host", "lake.example:47471")]).unwrap();
        assert_eq!(origin.url(), "http://lake.example:47471");
        assert_eq!((origin.host(), origin.port()), ("lake.example", 47471));
        assert!(of(&[]).is_err() && of(&[("host", "a b")]).is_err());
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        assert!(of(&[("host", "h:1"), ("origin", "http://h:1")]).is_ok());
        for page in ["http://evil.example", "https://h:1", "null"] {
            assert!(of(&[("host", "h:1"), ("origin", page)]).is_err(), "{page}");
        }
    }
}
