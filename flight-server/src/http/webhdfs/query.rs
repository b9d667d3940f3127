//! The parameters of a request: names are not case-sensitive, values are percent-encoded bytes in which `+` is a blank, and of a name that
//! comes twice the last value counts, as Hadoop's client appends what it changes.

use super::error::Fault;
use forebay_protocol::path::WirePath;
use forebay_runtime::clock::Timestamp;
use percent_encoding::percent_decode;

/// Most parameters of one request. What one of them holds is bounded with the request's head.
const COUNT_MAX: usize = 256;

/// The parameters, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, Vec<u8>)>,
}

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let parts = text.split('&').filter(|part| !part.is_empty());
        let pairs = parts.take(COUNT_MAX + 1).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = String::from_utf8_lossy(&decode(name)).to_lowercase();
            (name, decode(value))
        });
        let pairs: Vec<_> = pairs.collect();
        if pairs.len() > COUNT_MAX {
            return Err(Fault::parameter("", &format!("more than {COUNT_MAX} parameters")));
        }
        Ok(Self { pairs })
    }

    /// A value's bytes; an empty value is none.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self.pairs.iter().rev().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_slice())
            .filter(|value| !value.is_empty())
    }

    /// All values of a name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let found = self.pairs.iter().filter(move |(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Fault> {
        let text = self.bytes(name).map(std::str::from_utf8).transpose();
        text.map_err(|_| Fault::parameter(name, "it is not UTF-8"))
    }

    pub(super) fn need<'a>(&'a self, name: &str) -> Result<&'a str, Fault> {
        self.text(name)?.ok_or_else(|| Fault::parameter(name, "it is missing"))
    }

    /// `true` or `false`, in whatever case.
    pub(super) fn flag(&self, name: &str, otherwise: bool) -> Result<bool, Fault> {
        match self.text(name)? {
            None => Ok(otherwise),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(Fault::parameter(name, "it is true or false")),
        }
    }

    /// A number that is not negative.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, Fault> {
        let number = self.text(name)?.map(|text| text.parse::<i64>().ok());
        match number {
            None => Ok(None),
            Some(number) => number
                .and_then(|number| u64::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| Fault::parameter(name, "it is a number from 0 on")),
        }
    }

    /// Milliseconds since the epoch; -1 is none.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let millis = text.parse::<i64>().ok().filter(|millis| *millis >= -1);
        let micros = millis.map(|millis| millis.checked_mul(1000));
        match micros {
            Some(Some(-1000)) => Ok(None),
            Some(Some(micros)) => Ok(Some(Timestamp(micros))),
            _ => Err(Fault::parameter(
                name,
                "it is a time in milliseconds since 1970, or -1 to leave it",
            )),
        }
    }

    /// Permission bits, octal, up to 1777.
    pub(super) fn permission(&self, name: &str) -> Result<Option<u32>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o1777);
        match bits {
            Some(bits) if text.len() <= 5 => Ok(Some(bits)),
            _ => Err(Fault::parameter(name, "permissions are octal digits from 0 to 1777")),
        }
    }

    /// An absolute path.
    pub(super) fn path(&self, name: &str) -> Result<WirePath, Fault> {
        let bytes = self
            .bytes(name)
            .ok_or_else(|| Fault::parameter(name, "it is missing"))?;
        read_path(bytes).map_err(|why| Fault::parameter(name, &why))
    }

    /// Absolute paths between commas.
    pub(super) fn paths(&self, name: &str) -> Result<Vec<WirePath>, Fault> {
        let bytes = self
            .bytes(name)
            .ok_or_else(|| Fault::parameter(name, "it is missing"))?;
        let paths = bytes.split(|byte| *byte == b',').map(read_path);
        paths
            .collect::<Result<_, _>>()
            .map_err(|why| Fault::parameter(name, &why))
    }
}

/// A path in decoded bytes; one `/` at its end is ignored.
fn read_path(bytes: &[u8]) -> Result<WirePath, String> {
    let bytes = match bytes {
        [rest @ .., b'/'] if !rest.is_empty() => rest,
        bytes => bytes,
    };
    WirePath::from_bytes(bytes).map_err(|invalid| invalid.0)
}

fn decode(text: &str) -> Vec<u8> {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    #[test]
    fn the_last_value_counts_and_names_have_no_case() {
        let q = query("OP=OPEN&offset=1&user.name=a%20b+c&Offset=7&&empty=");
        assert_eq!(q.count("offset").unwrap(), Some(7));
        assert_eq!(q.text("user.name").unwrap(), Some("a b c"));
        assert_eq!((q.text("op").unwrap(), q.text("empty").unwrap()), (Some("OPEN"), None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, name) in [
            ("offset=-1", "offset"),
            ("offset=x", "offset"),
            ("offset=99999999999999999999", "offset"),
        ] {
            assert!(query(text).count(name).unwrap_err().message().contains(name));
        }
        for text in [
            "permission=8",
            "permission=2777",
            "permission=-1",
            "permission=0000000644",
            "permission=%FF",
        ] {
            assert!(query(text).permission("permission").is_err(), "{text}");
        }
        for text in [
            "destination=x",
            "destination=/a/../b",
            "destination=/a//b",
            "destination=",
            "destination=/%00",
        ] {
            assert!(query(text).path("destination").is_err(), "{text}");
        }
        assert!(query("overwrite=yes").flag("overwrite", true).is_err());
        assert!(query("t=-2").time("t").is_err() && query("t=9223372036854775807").time("t").is_err());
        assert!(Query::parse(&"a=1&".repeat(COUNT_MAX + 1)).is_err());
    }

    #[test]
    fn values_are_read() {
        let q = query("permission=1755&t=5&u=-1&destination=%2Fa%2Fb%FF%2F&sources=/a,/b");
        assert_eq!(q.permission("permission").unwrap(), Some(0o1755));
        assert_eq!(
            (q.time("t").unwrap(), q.time("u").unwrap()),
            (Some(Timestamp(5000)), None)
        );
        assert_eq!(q.path("destination").unwrap().as_bytes(), b"/a/b\xFF");
        assert_eq!(q.paths("sources").unwrap().len(), 2);
    }
}
