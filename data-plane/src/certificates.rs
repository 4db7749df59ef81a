//! Client certificates as a login: workloads that show one need no token.
//!
//! Which authorities count is each group's own affair, and a connection may serve several groups.
//! So the handshake takes any certificate whose key the peer holds, and proves nothing but that;
//! whether it was issued by an authority of the group, is within its time and may be used for
//! clients is asked per group, when a request without a token comes. Clients are asked for a
//! certificate only while some group wants that.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::principal::{Presented, Principal, Proof};
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::{CertificateSubject, ClientCertificates};
use weir_model::snapshot::GroupView;
use weir_runtime::tls::{PeerIdentity, certificates, peer_identity, provider};

use crate::config::State;

/// What a peer showed in its handshake: its own certificate first.
pub type Chain = Arc<[CertificateDer<'static>]>;

/// Certificates of one chain that are looked at.
const CHAIN_MAX: usize = 8;

/// The listener's side: asks for certificates while a group wants them, and sees to it that the
/// peer holds the key.
#[derive(Debug)]
pub struct Asking(Arc<State>);

impl Asking {
    /// For a listener.
    pub fn verifier(config: Arc<State>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Self(config))
    }
}

impl ClientCertVerifier for Asking {
    fn offer_client_auth(&self) -> bool {
        self.0.current().groups.values().any(|group| group.spec.certificates.is_some())
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Judged per group, by `Certificates::verify`.
        Ok(ClientCertVerified::assertion())
    }
    weir_runtime::handshake_signatures!();
}

/// Judges certificates, and remembers the good ones for a while.
#[derive(Debug)]
pub struct Certificates {
    verified: Cache<Digest, (Arc<Principal>, i64)>,
}

impl Default for Certificates {
    fn default() -> Self {
        let minutes = Duration::from_secs(bounds::VERIFIED_CERTIFICATE_SECS);
        let verified = Cache::builder()
            .max_capacity(bounds::VERIFIED_TOKENS_MAX)
            .time_to_live(minutes)
            .build();
        Self { verified }
    }
}

impl Certificates {
    /// Who a certificate is from, for a group that takes certificates.
    ///
    /// # Errors
    /// `TokenInvalid` for one that no authority of the group issued, that is outside of its time,
    /// or that does not say who it is for; `Quarantined` when the group's authorities cannot be
    /// read.
    pub fn verify(
        &self,
        chain: &Chain,
        (group, accepted): (&GroupView, &ClientCertificates),
        now: i64,
    ) -> Result<Arc<Principal>, Refusal> {
        let invalid = |detail: String| Refusal::new(Reason::TokenInvalid, detail);
        let own = chain.first().ok_or_else(|| invalid("an empty chain".to_owned()))?;
        let document = serde_json::to_vec(accepted).unwrap_or_default();
        let mut parts = vec![group.name.as_str().as_bytes(), b"\0", &document, b"\0"];
        parts.extend(chain.iter().map(|certificate| &**certificate));
        let key = Digest::of_parts(&parts);
        if let Some((principal, until)) = self.verified.get(&key)
            && now < until
        {
            return Ok(principal);
        }
        let seconds = Duration::from_secs(u64::try_from(now).unwrap_or(0));
        let verifier = verifier(&accepted.authorities)?;
        let others = &chain[1..chain.len().min(CHAIN_MAX)];
        verifier
            .verify_client_cert(own, others, UnixTime::since_unix_epoch(seconds))
            .map_err(|why| invalid(format!("the client certificate: {why}")))?;
        let identity = peer_identity(own).map_err(|why| invalid(why.to_string()))?;
        let subject = subject(&identity, accepted.subject)
            .ok_or_else(|| invalid("the client certificate does not say who it is for".into()))?;
        let secs = |ms: u64| i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
        let until = secs(identity.not_after_ms);
        let sorted = |words: &[String]| {
            let words: std::collections::BTreeSet<&str> =
                words.iter().map(String::as_str).collect();
            words.into_iter().map(Arc::from).collect()
        };
        let principal = Arc::new(Principal {
            proof: Proof::Certificate,
            provider: None,
            subject: subject.into(),
            memberships: sorted(&accepted.memberships),
            scopes: sorted(&accepted.scopes),
            credential: Some(identity.serial.into()),
            expires: Some(until),
            token: Some(Arc::new(Presented {
                sha256: Digest::of(own),
                id: None,
                session: None,
                login: None,
                issued: Some(secs(identity.not_before_ms)),
            })),
        });
        self.verified.insert(key, (Arc::clone(&principal), until));
        Ok(principal)
    }
}

fn verifier(authorities: &str) -> Result<Arc<dyn ClientCertVerifier>, Refusal> {
    let broken = |why: String| Refusal::new(Reason::Quarantined, format!("authorities: {why}"));
    let mut roots = RootCertStore::empty();
    for root in
        certificates(authorities.as_bytes(), "authorities").map_err(|e| broken(e.to_string()))?
    {
        roots.add(root).map_err(|e| broken(e.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| broken(e.to_string()))
}

/// Whom a certificate is for. Of several names of one sort none can be relied upon.
fn subject(identity: &PeerIdentity, from: CertificateSubject) -> Option<String> {
    let one = |names: &[String]| match names {
        [name] => Some(name.clone()),
        _ => None,
    };
    let name = match from {
        CertificateSubject::Uri => one(&identity.uris),
        CertificateSubject::Dns => one(&identity.dns_names),
        CertificateSubject::CommonName => identity.common_name.clone(),
    };
    name.filter(|name| {
        !name.is_empty()
            && name.len() <= bounds::SUBJECT_BYTES_MAX
            && !name.chars().any(char::is_control)
    })
}

#[cfg(test)]
mod tests {
    use weir_model::testing::World;
    use weir_runtime::testing::Ca;

    use super::*;

    fn chain(issued: &str) -> Chain {
        certificates(issued.as_bytes(), "chain").unwrap().into()
    }

    #[test]
    fn a_certificate_counts_for_groups_whose_authority_issued_it() {
        weir_runtime::tls::install_provider();
        let (ca, stranger) = (Ca::new("workloads"), Ca::new("stranger"));
        let world = World::new().group("acme");
        let snapshot = world.snapshot();
        let group = &snapshot.groups["acme"];
        let accepted = |subject| ClientCertificates {
            authorities: ca.pem(),
            subject,
            memberships: vec!["robots".to_owned()],
            scopes: Vec::new(),
        };
        let now = jiff::Timestamp::now().as_second();
        let good = ca.client("robot-7", "spiffe://acme/robot/7");
        let foreign = stranger.client("robot-7", "spiffe://acme/robot/7");
        let server = ca.server(&["robot-7"]);
        let judged = Certificates::default();
        let by_uri = accepted(CertificateSubject::Uri);
        // The authority of the tests issues until the year 4096.
        let ages = 3_000 * 365 * 86_400;
        type Case<'a> = (&'a str, &'a str, CertificateSubject, i64, Option<&'a str>);
        let cases: [Case<'_>; 6] = [
            ("by URI", &good.chain, CertificateSubject::Uri, now, Some("spiffe://acme/robot/7")),
            ("by name", &good.chain, CertificateSubject::CommonName, now, Some("robot-7")),
            ("without that name", &good.chain, CertificateSubject::Dns, now, None),
            ("of another authority", &foreign.chain, CertificateSubject::Uri, now, None),
            ("of a server", &server.chain, CertificateSubject::CommonName, now, None),
            ("after its end", &good.chain, CertificateSubject::Uri, now + ages, None),
        ];
        for (what, text, subject, now, expect) in cases {
            // Twice: what is remembered must not be remembered for something else.
            for _ in 0..2 {
                let got = judged.verify(&chain(text), (group, &accepted(subject)), now);
                let got = got.map(|who| who.subject.to_string()).map_err(|r| r.reason);
                let expect = expect.map(str::to_owned).ok_or(Reason::TokenInvalid);
                assert_eq!(got, expect, "{what}");
            }
        }
        let who = judged.verify(&chain(&good.chain), (group, &by_uri), now).unwrap();
        assert_eq!(who.id(), "certificate:spiffe://acme/robot/7");
        assert_eq!(&*who.memberships[0], "robots");
        assert!(who.token.as_ref().unwrap().issued.unwrap() <= now);
        let broken = ClientCertificates { authorities: "nonsense".to_owned(), ..by_uri };
        let refused = judged.verify(&chain(&good.chain), (group, &broken), now).unwrap_err();
        assert_eq!(refused.reason, Reason::Quarantined);
    }
}
