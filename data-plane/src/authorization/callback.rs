//! The way back from the identity provider: its answer becomes an authorization code of ours.

use http::request::Parts;
use http::{Response, StatusCode};
use weir_model::id::Digest;
use weir_model::principal::Principal;
use weir_model::sign_in::{Step, Verdict};
use weir_model::snapshot::{GroupView, ProviderView};

use super::answer::{self, Fault};
use super::begin::{back, came_back, forget};
use super::consents::{Consents, Given, subject_digest};
use super::form::{Fields, with_query};
use super::sealed::{Away, CODE_SECS, Code, Consent, Grant, Sealed as _, random};
use super::upstream::{self, Trouble};
use super::{Desk, ledger, page, token};
use crate::call::Body;

/// GET `/authorize/callback`.
pub(super) async fn callback(desk: &Desk<'_>, head: &Parts) -> Response<Body> {
    let stop = |text: &str| page::problem(StatusCode::BAD_REQUEST, text);
    desk.trail.step("sign_in.callback");
    let query = head.uri.query().unwrap_or_default();
    let Ok(fields) = Fields::read(query.as_bytes()) else {
        return stop("The identity provider's answer cannot be read.");
    };
    let state = fields.get("state").unwrap_or_default();
    let Ok(away) = Away::open(desk.sealer, b"", state) else {
        return stop("This sign-in is not known. Start again from the application.");
    };
    desk.trail.asked(&away.asked);
    if away.expires <= desk.now {
        return stop("This sign-in took too long. Start again from the application.");
    }
    if !came_back(&head.headers, desk, &away) {
        return stop("This sign-in was begun in another browser, or cookies are switched off.");
    }
    // The cookie goes with the answer; this keeps a second tab from using the same state here. That
    // nothing is granted for it at another proxy either is asked for later ([`once`]): what anybody
    // can cause without having logged in does not reach the store.
    if !desk.gateway.front.first_use(away.nonce.as_bytes()) {
        return stop("This sign-in was finished already. Start again from the application.");
    }
    let (redirect, theirs) = (away.asked.redirect.clone(), away.asked.state.clone());
    let before = Consents::of(&head.headers, desk);
    let mut response = match code(desk, &fields, away, before).await {
        Ok(code) => answer::redirect(&with_query(
            &redirect,
            &[
                ("code", &code),
                ("state", theirs.as_deref().unwrap_or_default()),
                ("iss", desk.base),
            ],
        )),
        Err(fault) => back(desk, &redirect, theirs.as_deref(), &fault),
    };
    forget(&mut response, desk);
    if let Some(consents) = desk.trail.take_consents() {
        consents.set(&mut response, desk);
    }
    response
}

async fn code(
    desk: &Desk<'_>,
    fields: &Fields,
    away: Away,
    consents: Consents,
) -> Result<String, Fault> {
    let denied = |text: &str| Fault::new("access_denied", text);
    let group = desk.groups().find(|group| group.name == away.asked.group);
    let group = group.ok_or_else(|| denied("the group is not signed in to here any more"))?;
    let provider = group.providers.iter().find(|p| p.name == away.provider);
    let provider = provider.ok_or_else(|| denied("the identity provider is gone"))?;
    let (who, upstream) = identified(desk, fields, (&away, provider)).await?;
    desk.trail.person(&who);
    if group.withdrawn.caller(&who, desk.now).is_some() {
        return Err(denied("an operator has revoked this account"));
    }
    once(desk, &away).await?;
    consented(desk, consents, (&away, &who, group))?;
    let secs = i64::from(group.spec.sign_in.as_ref().map_or(0, |front| front.session_secs));
    let asked = away.asked;
    let code = Code {
        grant: Grant {
            session: random()[..22].to_owned(),
            login: who.token.as_ref().and_then(|token| token.session.clone()),
            began: desk.now,
            label: asked.label,
            resource: asked.resource,
            group: asked.group,
            scope: asked.scope,
            provider: away.provider,
            subject: who.subject.to_string(),
            memberships: memberships(&who),
            upstream,
            until: desk.now + secs,
        },
        challenge: asked.challenge,
        redirect: Digest::of(asked.redirect.as_bytes()),
        expires: desk.now + CODE_SECS,
    };
    desk.trail.grant(&code.grant);
    tracing::info!(
        group = %group.name, principal = %who.id(), client = code.grant.label,
        session = code.grant.session, "signed in"
    );
    code.seal(desk.sealer, &asked.client.0).map_err(|_| {
        denied("there are too many groups in the identity provider's answer; have it send fewer")
    })
}

/// Finishes this trip to the provider, which no proxy of the fleet does a second time.
async fn once(desk: &Desk<'_>, away: &Away) -> Result<(), Fault> {
    let trip = ledger::turn(&away.nonce, 0, away.expires);
    match desk.gateway.ledger.step(&away.asked.group, Step::Once(trip)).await {
        Ok(Verdict::Granted) => Ok(()),
        Ok(Verdict::Again(_) | Verdict::Over) => {
            let text = "this sign-in was finished already; start again from the application";
            Err(Fault::new("access_denied", text))
        }
        Err(why) => Err(token::uncounted(&why)),
    }
}

/// Who came back from the provider, and with what it is asked later.
async fn identified(
    desk: &Desk<'_>,
    fields: &Fields,
    (away, provider): (&Away, &ProviderView),
) -> Result<(Principal, Option<String>), Fault> {
    let denied = |text: &str| Fault::new("access_denied", text);
    let client = provider.spec.sign_in.as_ref();
    let client = client.ok_or_else(|| denied("the identity provider is not signed in to here"))?;
    // RFC 9207: whoever says that it names itself always does; an answer that does not is of
    // somebody else.
    let described = desk.gateway.keys.describe(&provider.spec).await;
    let names_itself =
        described.is_ok_and(|said| said["authorization_response_iss_parameter_supported"] == true);
    match fields.get("iss") {
        Some(iss) if iss == provider.spec.issuer => {}
        None if !names_itself => {}
        _ => return Err(denied("the answer came from another issuer")),
    }
    if let Some(error) = fields.get("error") {
        let error: String = error.chars().filter(|c| c.is_ascii_graphic()).take(60).collect();
        return Err(denied(&format!("the identity provider answered {error}")));
    }
    let code = fields.need("code").map_err(|why| denied(&why))?;
    let callback = desk.callback();
    let parameters = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &callback),
        ("code_verifier", &away.verifier),
    ];
    let tokens = upstream::ask(desk, provider, &parameters).await.map_err(|trouble| {
        tracing::warn!(provider = %provider.name, ?trouble, "a sign-in was not finished");
        match trouble {
            Trouble::Refused => denied("the identity provider did not take its code back"),
            Trouble::Unavailable(_) => {
                Fault::new("temporarily_unavailable", "the identity provider cannot be reached")
            }
        }
    })?;
    let signed_in = tokens.signed_in(&client.client_id, Some(&away.nonce));
    let signed_in = signed_in.ok_or_else(|| denied("the identity provider sent no ID token"))?;
    let who = desk.gateway.keys.signed_in(signed_in, provider, desk.now).await;
    let who = who.map_err(|refusal| {
        tracing::warn!(provider = %provider.name, %refusal, "a sign-in was refused");
        denied(refusal.hint.as_deref().unwrap_or("the identity provider's answer is not usable"))
    })?;
    Ok((who, tokens.refresh_token))
}

/// Heeds what the person said about being asked: a consent that was remembered is of one person,
/// and whoever else comes back from the provider has given none.
fn consented(
    desk: &Desk<'_>,
    mut consents: Consents,
    (away, who, group): (&Away, &Principal, &GroupView),
) -> Result<(), Fault> {
    match &away.consent {
        Consent::Once => {}
        Consent::Remember => {
            let secs = group.spec.sign_in.as_ref().map_or(0, |front| front.consent_secs);
            let given = Given::new(&away.asked, (&away.provider, &who.subject), (desk.now, secs));
            desk.trail.consent(&given);
            consents.add(given);
            desk.trail.put_consents(consents);
        }
        Consent::Before(subject) if *subject == subject_digest(&who.subject) => {}
        Consent::Before(_) => {
            consents.forget(&away.asked);
            desk.trail.put_consents(consents);
            let text = "somebody else signed in than who consented before; start again";
            return Err(Fault::new("access_denied", text));
        }
    }
    Ok(())
}

/// The memberships of somebody who signed in.
pub(super) fn memberships(who: &Principal) -> Vec<String> {
    who.memberships.iter().map(ToString::to_string).collect()
}
