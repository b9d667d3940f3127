//! The operations by name: which are served, which are known and refused, and why.

use super::error::{Exception, Fault};
use http::Method;

/// An operation that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Open,
    GetFileStatus,
    ListStatus,
    ListStatusBatch,
    GetContentSummary,
    GetQuotaUsage,
    GetFileChecksum,
    GetHomeDirectory,
    GetTrashRoot,
    GetTrashRoots,
    GetDelegationToken,
    GetBlockLocations,
    GetFileBlockLocations,
    GetAclStatus,
    GetXattrs,
    ListXattrs,
    CheckAccess,
    GetServerDefaults,
    GetLinkTarget,
    GetFileLinkStatus,
    GetStatus,
    Create,
    Mkdirs,
    Rename,
    SetReplication,
    SetOwner,
    SetPermission,
    SetTimes,
    SetXattr,
    RemoveXattr,
    RenewDelegationToken,
    CancelDelegationToken,
    Append,
    Concat,
    Truncate,
    Delete,
}

/// Method, name, operation.
const SERVED: [(&str, &str, Op); 36] = [
    ("GET", "OPEN", Op::Open),
    ("GET", "GETFILESTATUS", Op::GetFileStatus),
    ("GET", "LISTSTATUS", Op::ListStatus),
    ("GET", "LISTSTATUS_BATCH", Op::ListStatusBatch),
    ("GET", "GETCONTENTSUMMARY", Op::GetContentSummary),
    ("GET", "GETQUOTAUSAGE", Op::GetQuotaUsage),
    ("GET", "GETFILECHECKSUM", Op::GetFileChecksum),
    ("GET", "GETHOMEDIRECTORY", Op::GetHomeDirectory),
    ("GET", "GETTRASHROOT", Op::GetTrashRoot),
    ("GET", "GETTRASHROOTS", Op::GetTrashRoots),
    ("GET", "GETDELEGATIONTOKEN", Op::GetDelegationToken),
    ("GET", "GET_BLOCK_LOCATIONS", Op::GetBlockLocations),
    ("GET", "GETFILEBLOCKLOCATIONS", Op::GetFileBlockLocations),
    ("GET", "GETACLSTATUS", Op::GetAclStatus),
    ("GET", "GETXATTRS", Op::GetXattrs),
    ("GET", "LISTXATTRS", Op::ListXattrs),
    ("GET", "CHECKACCESS", Op::CheckAccess),
    ("GET", "GETSERVERDEFAULTS", Op::GetServerDefaults),
    ("GET", "GETLINKTARGET", Op::GetLinkTarget),
    ("GET", "GETFILELINKSTATUS", Op::GetFileLinkStatus),
    ("GET", "GETSTATUS", Op::GetStatus),
    ("PUT", "CREATE", Op::Create),
    ("PUT", "MKDIRS", Op::Mkdirs),
    ("PUT", "RENAME", Op::Rename),
    ("PUT", "SETREPLICATION", Op::SetReplication),
    ("PUT", "SETOWNER", Op::SetOwner),
    ("PUT", "SETPERMISSION", Op::SetPermission),
    ("PUT", "SETTIMES", Op::SetTimes),
    ("PUT", "SETXATTR", Op::SetXattr),
    ("PUT", "REMOVEXATTR", Op::RemoveXattr),
    ("PUT", "RENEWDELEGATIONTOKEN", Op::RenewDelegationToken),
    ("PUT", "CANCELDELEGATIONTOKEN", Op::CancelDelegationToken),
    ("POST", "APPEND", Op::Append),
    ("POST", "CONCAT", Op::Concat),
    ("POST", "TRUNCATE", Op::Truncate),
    ("DELETE", "DELETE", Op::Delete),
];

const NO_LINKS: &str = "symbolic links are not made through this door; the mount makes them";
const NO_ACL: &str = "access control lists are not kept; the file of users gives rights by path prefix";
const NO_SNAPSHOTS: &str = "there are no snapshots; datasets have versions, which the Flight door lists and reads";
const NO_TIERS: &str = "there are no storage policies; where bytes lie is decided by path, see `forebay policy`";
const NO_CODING: &str = "there is no erasure coding; the under-store keeps bytes as it is configured to";
const NO_QUOTA: &str = "quotas are not set through this door; see `forebay policy`";

/// Method, name, why not.
const REFUSED: [(&str, &str, &str); 28] = [
    ("PUT", "CREATESYMLINK", NO_LINKS),
    ("PUT", "MODIFYACLENTRIES", NO_ACL),
    ("PUT", "REMOVEACLENTRIES", NO_ACL),
    ("PUT", "REMOVEDEFAULTACL", NO_ACL),
    ("PUT", "REMOVEACL", NO_ACL),
    ("PUT", "SETACL", NO_ACL),
    ("PUT", "ALLOWSNAPSHOT", NO_SNAPSHOTS),
    ("PUT", "DISALLOWSNAPSHOT", NO_SNAPSHOTS),
    ("PUT", "CREATESNAPSHOT", NO_SNAPSHOTS),
    ("PUT", "RENAMESNAPSHOT", NO_SNAPSHOTS),
    ("DELETE", "DELETESNAPSHOT", NO_SNAPSHOTS),
    ("GET", "GETSNAPSHOTDIFF", NO_SNAPSHOTS),
    ("GET", "GETSNAPSHOTDIFFLISTING", NO_SNAPSHOTS),
    ("GET", "GETSNAPSHOTTABLEDIRECTORYLIST", NO_SNAPSHOTS),
    ("GET", "GETSNAPSHOTLIST", NO_SNAPSHOTS),
    ("PUT", "SETSTORAGEPOLICY", NO_TIERS),
    ("PUT", "SATISFYSTORAGEPOLICY", NO_TIERS),
    ("POST", "UNSETSTORAGEPOLICY", NO_TIERS),
    ("GET", "GETALLSTORAGEPOLICY", NO_TIERS),
    ("GET", "GETSTORAGEPOLICY", NO_TIERS),
    ("PUT", "ENABLEECPOLICY", NO_CODING),
    ("PUT", "DISABLEECPOLICY", NO_CODING),
    ("PUT", "SETECPOLICY", NO_CODING),
    ("POST", "UNSETECPOLICY", NO_CODING),
    ("GET", "GETECPOLICY", NO_CODING),
    ("GET", "GETECPOLICIES", NO_CODING),
    ("PUT", "SETQUOTA", NO_QUOTA),
    ("PUT", "SETQUOTABYSTORAGETYPE", NO_QUOTA),
];

impl Op {
    /// The operation that a request asks for. Names are not case-sensitive.
    pub(super) fn of(method: &Method, name: &str) -> Result<Self, Fault> {
        let (method, name) = (method.as_str(), name.to_ascii_uppercase());
        if let Some((.., op)) = SERVED.iter().find(|(m, n, _)| *m == method && *n == name) {
            return Ok(*op);
        }
        if let Some((.., why)) = REFUSED.iter().find(|(m, n, _)| *m == method && *n == name) {
            return Err(Fault::new(
                Exception::UnsupportedOperation,
                format!("{name} is not supported: {why}"),
            ));
        }
        let elsewhere = SERVED.iter().find(|(_, n, _)| *n == name);
        let hint = elsewhere.map_or(String::new(), |(m, ..)| format!("; {name} is asked with {m}"));
        Err(Fault::parameter(
            "op",
            &format!("there is no {method} operation {:?}{hint}", crate::service::crop(&name)),
        ))
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        let found = SERVED.iter().find(|(.., op)| *op == self);
        found.expect("every operation is in the table").1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_method_and_name() {
        for (method, name, op) in SERVED {
            let method: Method = method.parse().unwrap();
            assert_eq!(Op::of(&method, name).unwrap(), op);
            assert_eq!(Op::of(&method, &name.to_lowercase()).unwrap(), op);
            assert_eq!(op.name(), name);
        }
    }

    #[test]
    fn what_is_known_and_not_served_says_why() {
        for (method, name, why) in REFUSED {
            let fault = Op::of(&method.parse().unwrap(), name).unwrap_err();
            assert!(fault.message().contains(why), "{fault:?}");
        }
    }

    #[test]
    fn another_method_or_name_is_a_wrong_parameter() {
        for (method, name) in [(Method::GET, "CREATE"), (Method::PUT, ""), (Method::GET, "NIX")] {
            let fault = Op::of(&method, name).unwrap_err();
            assert!(
                fault
                    .message()
                    .starts_with("Invalid value for webhdfs parameter \"op\"")
            );
        }
    }
}
