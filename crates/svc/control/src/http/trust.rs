//! Handlers around identity: joining, certificates, roots, tokens.

use super::{
    Shared,
    authenticate::{Asking, Peer},
};
use crate::{
    error::{Error, Result},
    objects::body_value,
};
use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, State},
    routing::{delete, get, post},
};
use heptad_api::{
    ErrorCode,
    trust::{
        Authorities, CertificateRequest, CertificateResponse, ClusterInfo, JoinRequest, JoinResponse, JoinRole,
        JoinTokenCreated, JoinTokenInfo, TokenCreated, TokenInfo, TrustBundleResponse, WhoAmI,
    },
};
use http::StatusCode;

/// The routes of this module.
pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/whoami", get(whoami))
        .route("/v1/cluster", get(cluster))
        .route("/v1/join", post(join))
        .route("/v1/certificates", post(renew))
        .route("/v1/trust-bundle", get(bundle))
        .route("/v1/authorities", get(authorities))
        .route("/v1/authorities/rotate", post(rotate))
        .route("/v1/join-tokens", post(create_join_token).get(list_join_tokens))
        .route("/v1/join-tokens/{id}", delete(delete_join_token))
        .route("/v1/tokens", post(create_token).get(list_tokens))
        .route("/v1/tokens/{id}", delete(delete_token))
}

async fn whoami(Asking(principal): Asking) -> Json<WhoAmI> {
    use crate::authorize::Principal;
    let (name, role) = match &principal {
        Principal::Person(person) => (Some(person.name.clone()), Some(person.role.clone())),
        _ => (None, None),
    };
    Json(WhoAmI { principal: principal.to_string(), name, role })
}

async fn cluster(State(app): State<Shared>) -> Result<Json<ClusterInfo>> {
    Ok(Json(app.trust()?.cluster_info(&app.parts.version).await?))
}

async fn join(State(app): State<Shared>, body: Body) -> Result<Json<JoinResponse>> {
    let request: JoinRequest = body_value(&app.body(body).await?, "request to join")?;
    let trust = app.trust()?;
    let (role, answer) = trust.join(&request).await?;
    tracing::info!(name = request.name, %role, "a machine joined");
    let server = role == JoinRole::Server;
    Ok(Json(JoinResponse {
        certificate_pem: answer.certificate_pem,
        trust_bundle_pem: answer.trust_bundle_pem,
        cluster: trust.cluster_info(&app.parts.version).await?,
        keyring: server.then(|| trust.keyring().to_json().to_string()),
        settings: app.parts.join_settings.clone().filter(|_| server),
    }))
}

async fn renew(
    State(app): State<Shared>,
    peer: Option<Extension<Peer>>,
    body: Body,
) -> Result<Json<CertificateResponse>> {
    let request: CertificateRequest = body_value(&app.body(body).await?, "request for a certificate")?;
    let Some(Extension(Peer::Tls(Some(identity)))) = peer else {
        let detail = "a certificate is renewed over a connection that shows the present one; join to get the first";
        return Err(Error::refused(ErrorCode::Forbidden, detail));
    };
    Ok(Json(app.trust()?.renew(&identity.id, &identity.key_sha256, &request.csr_pem).await?))
}

async fn bundle(State(app): State<Shared>) -> Result<Json<TrustBundleResponse>> {
    let bundle = app.trust()?.bundle().await?;
    Ok(Json(TrustBundleResponse {
        version: bundle.version().to_owned(),
        trust_bundle_pem: bundle.to_pem().to_owned(),
        pins: bundle.pins().iter().map(ToString::to_string).collect(),
    }))
}

async fn authorities(State(app): State<Shared>) -> Result<Json<Authorities>> {
    Ok(Json(Authorities { authorities: app.trust()?.authority_infos().await? }))
}

async fn rotate(State(app): State<Shared>) -> Result<Json<Authorities>> {
    app.trust()?.rotate().await?;
    authorities(State(app)).await
}

async fn create_join_token(
    State(app): State<Shared>,
    Asking(principal): Asking,
    body: Body,
) -> Result<Json<JoinTokenCreated>> {
    let request = body_value(&app.body(body).await?, "request for a join token")?;
    Ok(Json(app.trust()?.create_join_token(request, &principal.described()).await?))
}

async fn list_join_tokens(State(app): State<Shared>) -> Result<Json<Vec<JoinTokenInfo>>> {
    Ok(Json(app.trust()?.join_tokens().await?))
}

async fn delete_join_token(State(app): State<Shared>, Path(id): Path<String>) -> Result<StatusCode> {
    app.trust()?.delete_join_token(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn create_token(State(app): State<Shared>, Asking(principal): Asking, body: Body) -> Result<Json<TokenCreated>> {
    let request = body_value(&app.body(body).await?, "request for a token")?;
    Ok(Json(app.trust()?.create_token(request, &principal.described()).await?))
}

async fn list_tokens(State(app): State<Shared>) -> Result<Json<Vec<TokenInfo>>> {
    Ok(Json(app.trust()?.tokens().await?))
}

async fn delete_token(State(app): State<Shared>, Path(id): Path<String>) -> Result<StatusCode> {
    app.trust()?.delete_token(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
