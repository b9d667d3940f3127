//! Attributes of objects as those of files: what HTTP has a header for is called as the header is, and metadata as its key.
//!
//! So what a program sets as `user.colour` through a mount is the metadata `colour` of the object. It does not own what a store does with
//! them: they lie beside the bytes and mean nothing to the server.

use super::{failed, not_offered};
use forebay_client::{Error, ErrorKind};
use object_store::{Attribute, Attributes, Result, path::Path};
use std::collections::BTreeMap;

const HEADERS: [(Attribute, &str); 5] = [
    (Attribute::CacheControl, "cache-control"),
    (Attribute::ContentDisposition, "content-disposition"),
    (Attribute::ContentEncoding, "content-encoding"),
    (Attribute::ContentLanguage, "content-language"),
    (Attribute::ContentType, "content-type"),
];

/// The attributes that a file gets with its object. A storage class is refused: somebody would have to act on it.
pub(super) fn of_file(location: &Path, attributes: &Attributes) -> Result<BTreeMap<String, String>> {
    let named = |(attribute, value): (&Attribute, &object_store::AttributeValue)| {
        let header = HEADERS.iter().find(|(known, _)| known == attribute);
        let name = match (header, attribute) {
            (Some((_, name)), _) => (*name).to_owned(),
            (None, Attribute::Metadata(key)) if HEADERS.iter().any(|(_, name)| name == key) => {
                let text = format!("metadata can not be called {key}; there is an attribute for it");
                return Err(failed(location, Error::new(ErrorKind::Invalid, text)));
            }
            (None, Attribute::Metadata(key)) => key.to_string(),
            (None, other) => return Err(not_offered(&format!("the attribute {other:?} of an object"))),
        };
        Ok((name, value.to_string()))
    };
    attributes.iter().map(named).collect()
}

/// The attributes of an object whose file has these.
pub(super) fn of_object(attributes: &BTreeMap<String, String>) -> Attributes {
    let known = |(name, value): (&String, &String)| {
        let header = HEADERS.iter().find(|(_, header)| header == name);
        let attribute = header.map_or_else(|| Attribute::Metadata(name.clone().into()), |(known, _)| known.clone());
        (attribute, value.clone())
    };
    attributes.iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_and_those_that_nobody_acts_on_are_refused() {
        let path = Path::from("a");
        let all = HEADERS.map(|(header, name)| (header, name.to_owned())).into_iter();
        let all: Attributes = all
            .chain([(Attribute::Metadata("Key with spaces".into()), "v".into())])
            .collect();
        let file = of_file(&path, &all).unwrap();
        assert_eq!((file.len(), file["content-type"].as_str()), (6, "content-type"));
        assert_eq!(of_object(&file), all);
        let class = Attributes::from_iter([(Attribute::StorageClass, "cold")]);
        let refused = of_file(&path, &class).unwrap_err();
        assert!(
            matches!(refused, object_store::Error::NotImplemented { .. }),
            "{refused:?}"
        );
        let taken = Attributes::from_iter([(Attribute::Metadata("content-type".into()), "x")]);
        assert!(of_file(&path, &taken).is_err());
    }
}
