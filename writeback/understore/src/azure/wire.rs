//! One signed request at a time: URL, signature, and what an answer asks of the caller.

pub(super) use crate::exchange::Ask;

use super::xml;
use crate::{
    Settings, StoreError,
    address::AzureAddress,
    credentials::{self, Credentials, Keys, Provider},
    exchange::{self, Answer, Exchange},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Method, StatusCode};
use md5::{Digest, Md5};
use object_store::{
    azure::{AzureAuthorizer, AzureConfigKey, AzureCredential, MicrosoftAzureBuilder},
    client::HttpRequest,
};
use std::sync::Arc;

const HINT: &str = "set AZURE_STORAGE_ACCOUNT_KEY, or credentials=FILE in the mount's URL";

/// A container that can be asked.
#[derive(Debug)]
pub(super) struct Wire {
    exchange: Exchange,
    credentials: Credentials<AzureCredential>,
    account: String,
    container_url: String,
}

impl Wire {
    pub(super) fn new(at: &AzureAddress, settings: &Settings) -> Result<Self, StoreError> {
        let environment = MicrosoftAzureBuilder::from_env();
        let of = |key| environment.get_config_value(&key);
        let account = at.account.clone().or_else(|| of(AzureConfigKey::AccountName));
        let account = account.ok_or_else(|| {
            let text = "names no account: add ?account=NAME, or set AZURE_STORAGE_ACCOUNT_NAME";
            StoreError::Refused(format!("az://{}: {text}", at.container))
        })?;
        let endpoint = at.endpoint.clone().or_else(|| of(AzureConfigKey::Endpoint));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        let (container, of_account) = (at.container.clone(), account.clone());
        let make = move |keys: Option<&Keys>| provider(&container, &of_account, keys);
        Ok(Self {
            exchange: Exchange::new(&endpoint, settings)?,
            credentials: Credentials::new(at.credentials.clone(), HINT, make)?,
            account,
            container_url: format!("{}/{}", endpoint.trim_end_matches('/'), at.container),
        })
    }

    /// Asks, and answers what 2xx says; everything else is an error by what it asks of the caller.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, StoreError> {
        let what = format!(
            "{} {}",
            ask.method,
            if ask.key.is_empty() { "container" } else { ask.key }
        );
        let bytes_max = ask.answer_bytes_max.max(1 << 20);
        let body_bytes = exchange::bytes_of(&ask.body);
        let request = self.signed(ask).await?;
        let answer = self
            .exchange
            .exchange(what.clone(), request, body_bytes, bytes_max)
            .await?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(refusal(&what, &answer)),
        }
    }

    async fn signed(&self, ask: Ask<'_>) -> Result<HttpRequest, StoreError> {
        let mut url = self.container_url.clone();
        if !ask.key.is_empty() {
            url = format!("{url}/{}", exchange::path(ask.key));
        }
        url.push_str(&exchange::query(ask.query));
        let mut request = ask.request(url)?;
        if ask.method == Method::PUT {
            let mut digest = Md5::new();
            ask.body.iter().for_each(|chunk| digest.update(chunk));
            request = request
                .header(http::header::CONTENT_LENGTH, exchange::bytes_of(&ask.body))
                .header("content-md5", BASE64_STANDARD.encode(digest.finalize()));
        }
        let mut request = ask.with_body(request)?;
        let credential = self.credentials.get(self.exchange.timeout()).await?;
        AzureAuthorizer::new(&credential, &self.account).authorize(&mut request);
        Ok(request)
    }
}

/// Keys of a file, or what the environment and the platform give.
fn provider(container: &str, account: &str, keys: Option<&Keys>) -> Result<Provider<AzureCredential>, StoreError> {
    let builder = match keys {
        None => MicrosoftAzureBuilder::from_env(),
        Some(keys) => of_keys(keys)?,
    };
    let built = builder.with_account(account).with_container_name(container).build();
    // The builder's own words might show what it could not read.
    let built = built.map_err(|error| match keys {
        None => StoreError::Refused(format!("az://{container}: {error}")),
        Some(_) => StoreError::Refused("hold no key that can be used".into()),
    })?;
    Ok(Arc::clone(built.credentials()))
}

fn of_keys(keys: &Keys) -> Result<MicrosoftAzureBuilder, StoreError> {
    let of = |names: &[&str]| credentials::first(keys, names);
    let builder = MicrosoftAzureBuilder::new();
    if let Some(key) = of(&[
        "azure_storage_account_key",
        "azure_storage_access_key",
        "account_key",
        "access_key",
    ]) {
        return Ok(builder.with_access_key(key));
    }
    if let Some(sas) = of(&[
        "azure_storage_sas_token",
        "azure_storage_sas_key",
        "sas_token",
        "sas_key",
    ]) {
        return Ok(builder.with_config(AzureConfigKey::SasKey, sas));
    }
    if let Some(token) = of(&["azure_storage_token", "bearer_token", "token"]) {
        return Ok(builder.with_bearer_token_authorization(token));
    }
    let secret = of(&["azure_client_secret", "client_secret"]);
    let (id, tenant) = (
        of(&["azure_client_id", "client_id"]),
        of(&["azure_tenant_id", "tenant_id"]),
    );
    match (id, secret, tenant) {
        (Some(id), Some(secret), Some(tenant)) => Ok(builder.with_client_secret_authorization(id, secret, tenant)),
        _ => Err(credentials::lacks(
            keys,
            "account_key, sas_token, token, or client_id with client_secret and tenant_id",
        )),
    }
}

/// What an answer asks of the caller. The code, where there is one, knows more than the status; a HEAD has it in a header.
fn refusal(what: &str, answer: &Answer) -> StoreError {
    let problem = xml::problem(&answer.body);
    let code = match problem.code.is_empty() {
        true => answer.header("x-ms-error-code").unwrap_or_default().to_owned(),
        false => problem.code,
    };
    // The message goes on with the id of the request and the time.
    let message = problem.message.lines().next().unwrap_or_default().to_owned();
    by_code(what, answer.status, &code, &message)
}

fn by_code(what: &str, status: StatusCode, code: &str, message: &str) -> StoreError {
    let text = format!("{what}: {} {code} {message}", status.as_u16())
        .trim_end()
        .to_owned();
    match code {
        "ContainerNotFound" | "ContainerDisabled" | "AccountIsDisabled" | "RequestBodyTooLarge" => {
            StoreError::Refused(text)
        }
        "BlobNotFound" | "ResourceNotFound" | "InvalidBlockList" => StoreError::NotFound(text),
        // What is there although nothing was expected.
        "BlobAlreadyExists" | "ConditionNotMet" | "TargetConditionNotMet" => StoreError::Changed(text),
        "Md5Mismatch" | "InvalidMd5" => StoreError::Damaged(text),
        "ServerBusy" | "InternalError" | "OperationTimedOut" | "ContainerBeingDeleted" => StoreError::Unavailable(text),
        // A lease, a legal hold, a snapshot: a person must look.
        _ if status.as_u16() == 409 => StoreError::Refused(text),
        _ => exchange::by_status(status, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_classified_by_what_it_asks_of_the_caller() {
        let of = |status: u16, code: &str| by_code("PUT k", StatusCode::from_u16(status).unwrap(), code, "");
        for code in [
            "ContainerNotFound",
            "AuthenticationFailed",
            "BlobImmutableDueToPolicy",
            "",
        ] {
            let status = if code == "ContainerNotFound" { 404 } else { 403 };
            assert!(matches!(of(status, code), StoreError::Refused(_)), "{code}");
        }
        assert!(matches!(of(409, "BlobAlreadyExists"), StoreError::Changed(_)));
        assert!(matches!(of(412, "ConditionNotMet"), StoreError::Changed(_)));
        assert!(matches!(of(409, "SnapshotsPresent"), StoreError::Refused(_)));
        assert!(matches!(of(404, ""), StoreError::NotFound(_)));
        assert!(matches!(of(400, "InvalidBlockList"), StoreError::NotFound(_)));
        assert!(matches!(of(400, "Md5Mismatch"), StoreError::Damaged(_)));
        assert!(matches!(of(503, "ServerBusy"), StoreError::Unavailable(_)));
        assert!(matches!(of(500, ""), StoreError::Unavailable(_)));
    }
}
