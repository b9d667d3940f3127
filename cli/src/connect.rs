//! The connection of a client verb, and paths as they are typed.

use crate::{
    args::Door,
    failure::{AtFile, Failure, Outcome},
};
use forebay_client::{Client, Options, WirePath};

const TOKEN_VARIABLE: &str = "FOREBAY_TOKEN";

/// Connects as the flags and the environment say.
pub(crate) async fn connect(door: &Door) -> Outcome<Client> {
    let connected = Client::connect(&door.addr, options(door)?).await;
    connected.map_err(|error| Failure::from(error).about(&door.addr))
}

fn options(door: &Door) -> Outcome<Options> {
    let token = match &door.token_file {
        Some(file) => Some(std::fs::read_to_string(file).at(file)?.trim().to_owned()),
        None => std::env::var(TOKEN_VARIABLE).ok(),
    };
    let pem = |file: &Option<std::path::PathBuf>| file.as_ref().map(|file| std::fs::read(file).at(file)).transpose();
    Ok(Options {
        token: token.filter(|token| !token.is_empty()),
        tls_ca: pem(&door.ca)?,
        tls_identity: pem(&door.client_cert)?.zip(pem(&door.client_key)?),
        ..Options::default()
    })
}

/// The door to use and the path on it: `/path`, or `forebay://host:port/path`, which names the server too.
pub(crate) fn locate(door: &Door, text: &str) -> Outcome<(Door, WirePath)> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok((door.clone(), path(text)?));
    };
    let grpc = match scheme {
        "forebay" => "grpc",
        "forebay+tls" => "grpc+tls",
        _ => {
            return Err(Failure::usage(format!(
                "{text:?}: a path begins with / or forebay://HOST:PORT/"
            )));
        }
    };
    let (host, at) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let addr = format!("{grpc}://{host}");
    Ok((Door { addr, ..door.clone() }, path(at)?))
}

/// A path as typed; one trailing slash is let pass.
pub(crate) fn path(text: &str) -> Outcome<WirePath> {
    let trimmed = text
        .strip_suffix('/')
        .filter(|trimmed| !trimmed.is_empty())
        .unwrap_or(text);
    Ok(WirePath::parse(trimmed)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn door() -> Door {
        crate::args::Cli::try_parse_from(["forebay", "--addr", "grpc://here:1", "doctor"])
            .unwrap()
            .door
    }

    #[test]
    fn a_path_may_name_its_server() {
        for (text, addr, at) in [
            ("/a/b", "grpc://here:1", "/a/b"),
            ("/a/", "grpc://here:1", "/a"),
            ("/", "grpc://here:1", "/"),
            ("forebay://there:2/a", "grpc://there:2", "/a"),
            ("forebay+tls://there:2", "grpc+tls://there:2", "/"),
        ] {
            let (door, path) = locate(&door(), text).unwrap();
            assert_eq!((door.addr.as_str(), path.to_string().as_str()), (addr, at), "{text}");
        }
        for text in ["a/b", "", "s3://bucket/a", "/a//b", "/a/../b"] {
            assert_eq!(locate(&door(), text).unwrap_err().code(), 2, "{text}");
        }
    }
}
