//! What is said to an ACME server: an account, one order, one question. Each has its time limit.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, ExternalAccountKey,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::challenges::{Challenges, PROTOCOL, Proof};
use super::record::{Issued, StoredAccount};
use crate::config::{Acme, Challenge};
use crate::tls::server::Only;

/// How long one order may take, with everything that belongs to it.
const ORDER_WITHIN: Duration = Duration::from_secs(180);

/// How long one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How the server is asked again whether it is done.
const ASK_AGAIN: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(200))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

/// Why something was not done, in the server's words where it has some.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: String,
    /// There were too many orders.
    pub(super) limited: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let limited = matches!(&error, Error::Api(problem)
            if problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":rateLimited")));
        Self { why: why(&error), limited }
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, limited: false }
    }
}

/// An error with what it comes from.
fn why(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    // It goes into one line of a log.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let late = || Failed::from(format!("the server has not answered within {time:?}"));
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(late()))
}

/// The account that is `stored`, or a new one, which is returned too.
pub(super) async fn account(
    acme: &Acme,
    stored: Option<&StoredAccount>,
) -> Result<(Account, Option<StoredAccount>), Failed> {
    let builder = || match &acme.ca_file {
        Some(file) => Account::builder_with_root(file)
            .map_err(|error| Failed::from(format!("tls.acme.ca_file: {}: {}", file.display(), why(&error)))),
        None => Account::builder().map_err(Failed::from),
    };
    within(ANSWER_WITHIN, async {
        let is_it =
            |stored: &&StoredAccount| stored.directory == acme.directory && stored.email == acme.email;
        if let Some(stored) = stored.filter(is_it) {
            let text = serde_json::to_value(&stored.credentials).map_err(|error| error.to_string())?;
            let credentials = serde_json::from_value(text).map_err(|error| error.to_string())?;
            return Ok((builder()?.from_credentials(credentials).await?, None));
        }
        let contact = format!("mailto:{}", acme.email);
        let new =
            NewAccount { contact: &[&contact], terms_of_service_agreed: true, only_return_existing: false };
        let external = acme.eab.as_ref().map(|eab| ExternalAccountKey::new(eab.id.clone(), &eab.key_bytes()));
        let made = builder()?.create(&new, acme.directory.clone(), external.as_ref());
        let (account, credentials) = made.await?;
        let (directory, email) = (acme.directory.clone(), acme.email.clone());
        Ok((account, Some(StoredAccount { directory, email, credentials })))
    })
    .await
}

/// Orders a certificate for `host`, which takes the place of `former` where the server cares for
/// that.
pub(super) async fn order(
    account: &Account,
    (host, kind): (&str, Challenge),
    former: Option<CertificateIdentifier<'static>>,
    (challenges, provider): (&Challenges, &Arc<CryptoProvider>),
) -> Result<Issued, Failed> {
    within(ORDER_WITHIN, async {
        let identifiers = [Identifier::Dns(host.to_owned())];
        let mut wanted = NewOrder::new(&identifiers);
        if let Some(former) = former {
            wanted = wanted.replaces(former);
        }
        let mut order = account.new_order(&wanted).await?;
        prove(&mut order, (host, kind), (challenges, provider)).await?;
        let key = order.finalize().await?;
        let certificate = order.poll_certificate(&ASK_AGAIN).await?;
        Ok(Issued { certificate, key })
    })
    .await
}

/// Proves that `host` is ours, as far as the server wants that.
async fn prove(
    order: &mut Order,
    (host, kind): (&str, Challenge),
    (challenges, provider): (&Challenges, &Arc<CryptoProvider>),
) -> Result<(), Failed> {
    let wanted = match kind {
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Http01 => ChallengeType::Http01,
    };
    let mut open = None;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge = authorization
            .challenge(wanted.clone())
            .ok_or_else(|| Failed::from(format!("the server does not offer {wanted:?} for {host}")))?;
        let text = challenge.key_authorization();
        // There is one at a time.
        drop(open.take());
        open = Some(challenges.open(match kind {
            Challenge::Http01 => {
                Proof::Request { token: challenge.token.clone(), text: text.as_str().to_owned() }
            }
            Challenge::TlsAlpn01 => Proof::Handshake {
                host: host.to_owned(),
                terms: Arc::new(terms(host, text.digest().as_ref(), provider)?),
            },
        }));
        challenge.set_ready().await?;
    }
    let outcome = order.poll_ready(&ASK_AGAIN).await;
    drop(open);
    match outcome {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(refused(order).await),
        Err(error) => Err(error.into()),
    }
}

/// Why the server does not believe that the host is ours.
async fn refused(order: &mut Order) -> Failed {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let problem = state.challenges.iter().find_map(|challenge| challenge.error.clone());
        if let Some(problem) = problem {
            return Error::Api(problem).into();
        }
    }
    Failed::from("the server does not believe that the host is ours, and does not say why".to_owned())
}

/// The handshake that proves it (RFC 8737, 3).
fn terms(host: &str, digest: &[u8], provider: &Arc<CryptoProvider>) -> Result<ServerConfig, Failed> {
    let failed = |error: rcgen::Error| Failed::from(format!("the proof cannot be made: {error}"));
    let mut wanted = CertificateParams::new([host.to_owned()]).map_err(failed)?;
    wanted.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = CertificateDer::from(wanted.self_signed(&key).map_err(failed)?);
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    // rustls would not vouch for it: its one critical extension is for the server alone.
    let key = provider.key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    let mut terms = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Only(Arc::new(CertifiedKey::new(vec![certificate], key)))));
    terms.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(terms)
}

/// Asks when a certificate is to be renewed (RFC 9773, 4): in seconds since 1970. `None`: the server
/// says nothing of that.
pub(super) async fn renewal(
    account: &Account,
    certificate: &CertificateIdentifier<'_>,
) -> Result<Option<u64>, Failed> {
    within(ANSWER_WITHIN, async {
        match account.renewal_info(certificate).await {
            Ok((info, _)) => {
                let window = info.suggested_window;
                // Some moment in it, so that not all clients of the server come at once.
                let moment = window.start + (window.end - window.start) * some_share();
                Ok(u64::try_from(moment.unix_timestamp()).ok())
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// A share from 0 to 1 that nobody knows beforehand.
fn some_share() -> f64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    f64::from(nanos) / 1e9
}
