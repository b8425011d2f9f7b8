//! Handlers of objects, the same for every kind.

use super::{
    Shared,
    authenticate::Asking,
    body::if_match,
    stream::{self, Feed},
};
use crate::{
    budget::Caller,
    error::{Error, Result},
    fanout::Channel,
    objects::{Kept, body_json, body_object, object_of},
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use heptad_api::{ErrorCode, Kind, Object, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, ProblemDetails, Writers, with_kind};
use heptad_model::{Namespace, NodeName, Problem, ids::NAMESPACE_DEFAULT};
use heptad_state::Revision;
use http::{HeaderMap, HeaderValue, Uri, header};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

type Parameters = Path<BTreeMap<String, String>>;

/// The routes of all kinds.
pub(crate) fn routes() -> Router<Shared> {
    Kind::ALL.into_iter().fold(Router::new(), |router, kind| {
        router.merge(
            with_kind!(kind, T => if kind.writers() != Writers::Servers { writable::<T>() } else { readable::<T>() }),
        )
    })
}

fn readable<T: Kept>() -> Router<Shared> {
    let router = Router::new()
        .route(&T::KIND.collection_path(), get(list::<T>))
        .route(&T::KIND.object_template(), get(get_one::<T>));
    if T::KIND.is_namespaced() { router.route(&T::KIND.collection_template(), get(list::<T>)) } else { router }
}

fn writable<T: Kept>() -> Router<Shared> {
    readable::<T>()
        .route(&T::KIND.collection_template(), axum::routing::post(create::<T>))
        .route(&T::KIND.object_template(), delete(remove::<T>).put(replace::<T>).patch(patch::<T>))
}

/// What a path names.
struct Target {
    namespace: Option<Namespace>,
    name: String,
}

impl Target {
    fn of<T: Kept>(Path(mut parameters): Parameters) -> Self {
        let namespace = parameters.remove("namespace").map(Namespace);
        let name = parameters.remove(T::KIND.parameter()).unwrap_or_default();
        Self { namespace, name }
    }

    fn namespace(&self) -> Namespace {
        self.namespace.clone().unwrap_or_default()
    }

    /// An object of a body: it belongs where the path says, and may leave that out.
    fn complete(&self, value: &mut Value) {
        if let (Some(namespace), Some(map)) = (&self.namespace, value.as_object_mut()) {
            map.entry("namespace").or_insert_with(|| namespace.as_str().into());
        }
    }

    /// Refuses an object that is another one than the path's.
    fn matches<T: Kept>(&self, object: &T, named: bool) -> Result<()> {
        let mut problems = Vec::new();
        let namespace = object.namespace().map_or(NAMESPACE_DEFAULT, Namespace::as_str);
        if let Some(asked) = self.namespace.as_ref().filter(|asked| asked.as_str() != namespace) {
            let message = format!("it is `{namespace}`, the path says `{asked}`");
            problems.push(Problem { path: "namespace".into(), message });
        }
        if named && object.name() != self.name {
            let message = format!("it is `{}`, the path says `{}`", object.name(), self.name);
            problems.push(Problem { path: "name".into(), message });
        }
        if problems.is_empty() { Ok(()) } else { Err(ProblemDetails::invalid("not written", problems).into()) }
    }
}

/// An object with its revision as `ETag`.
pub(crate) fn object_response<T: Kept>(object: Object<T>) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{}\"", object.revision));
    let mut response = Json(object).into_response();
    if let Ok(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<usize>,
    #[serde(rename = "continue")]
    next: Option<String>,
    #[serde(default)]
    watch: bool,
    revision: Option<Revision>,
    /// Of containers: only those that are bound to this node.
    node: Option<NodeName>,
}

impl ListQuery {
    /// The channel with these changes; none if they are read for the client alone.
    fn channel<T: Kept>(&self, namespace: Option<&Namespace>) -> Result<Option<Channel>> {
        let part = self.node.clone().map(Channel::Node);
        if part.is_some() && T::KIND != Kind::Containers {
            return Err(Error::refused(ErrorCode::BadRequest, "`node` is for containers"));
        }
        Ok(part.or_else(|| Channel::whole(T::KIND).filter(|_| namespace.is_none())))
    }
}

/// The parameters of a query; an unknown one is an error.
pub(crate) fn query<Q: serde::de::DeserializeOwned>(uri: &Uri) -> Result<Q> {
    let parsed = Query::<Q>::try_from_uri(uri);
    let Query(query) = parsed.map_err(|error| {
        Error::refused(ErrorCode::BadRequest, format!("the query of {}: {}", uri.path(), error.body_text()))
    })?;
    Ok(query)
}

async fn list<T: Kept>(
    State(app): State<Shared>,
    caller: Caller,
    parameters: Parameters,
    uri: Uri,
) -> Result<Response> {
    let namespace = Target::of::<T>(parameters).namespace;
    let asked: ListQuery = query(&uri)?;
    let channel = asked.channel::<T>(namespace.as_ref())?;
    if asked.watch {
        if let Some(channel) = channel {
            return stream::shared(&app, &caller, channel, asked.revision).await;
        }
        let permit = app.stream_permit(&caller)?;
        let watch = app.objects.watch::<T>(namespace.as_ref(), asked.revision).await?;
        return Ok(stream::lines(Feed::new(&app, watch, permit, asked.revision)));
    }
    if let Some(node) = &asked.node {
        return Ok(Json(app.objects.containers_on(node).await?).into_response());
    }
    let limit = asked.limit.unwrap_or(PAGE_ITEMS_DEFAULT);
    if limit == 0 || limit > PAGE_ITEMS_MAX {
        let detail = format!("limit {limit} is not from 1 to {PAGE_ITEMS_MAX}");
        return Err(Error::refused(ErrorCode::BadRequest, detail));
    }
    let mut page = app.objects.page::<T>(namespace.as_ref(), limit, asked.next.as_deref()).await?;
    page.items.iter_mut().for_each(|item| app.see(&mut item.object));
    Ok(Json(page).into_response())
}

async fn get_one<T: Kept>(State(app): State<Shared>, parameters: Parameters) -> Result<Response> {
    let target = Target::of::<T>(parameters);
    let mut found = app.objects.get::<T>(&target.namespace(), &target.name).await?;
    app.see(&mut found.object);
    Ok(object_response(found))
}

async fn create<T: Kept>(
    State(app): State<Shared>,
    principal: Asking,
    parameters: Parameters,
    body: Body,
) -> Result<Response> {
    let target = Target::of::<T>(parameters);
    let mut value = body_json(&app.body(body).await?)?;
    app.may_write::<T>(&principal, &value)?;
    target.complete(&mut value);
    let object: T = object_of(&value)?;
    target.matches(&object, false)?;
    app.objects.by(principal.0.writer()).create(object).await.map(object_response)
}

async fn replace<T: Kept>(
    State(app): State<Shared>,
    principal: Asking,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let target = Target::of::<T>(parameters);
    let expected = if_match(&headers)?;
    let mut value = body_json(&app.body(body).await?)?;
    app.may_write::<T>(&principal, &value)?;
    let (object, read_at) = body_object::<T>(&mut value, |object| target.complete(object))?;
    target.matches(&object, true)?;
    app.objects.by(principal.0.writer()).replace(object, expected.or(read_at)).await.map(object_response)
}

async fn patch<T: Kept>(
    State(app): State<Shared>,
    principal: Asking,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let target = Target::of::<T>(parameters);
    let expected = if_match(&headers)?;
    let patch = body_json(&app.body(body).await?)?;
    app.may_write::<T>(&principal, &patch)?;
    let objects = app.objects.by(principal.0.writer());
    objects.patch::<T>(&target.namespace(), &target.name, &patch, expected).await.map(object_response)
}

async fn remove<T: Kept>(State(app): State<Shared>, parameters: Parameters, headers: HeaderMap) -> Result<Response> {
    let target = Target::of::<T>(parameters);
    let expected = if_match(&headers)?;
    app.objects.delete::<T>(&target.namespace(), &target.name, expected).await.map(object_response)
}
