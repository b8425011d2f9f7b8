//! The HTTP front: objects by path, streamed both ways; lists and status in JSON; errors as problem details.
//! Knows no tokens: whoever mounts the router lets in whom it wants.

use crate::{DistributedStorage, ObjectInfo, PutOptions, StorageError};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use heptad_api::{ErrorCode, ProblemDetails};
use serde::Deserialize;

/// The header with the content's BLAKE3 checksum in hexadecimal: checked on PUT if given, always answered.
pub const CHECKSUM_HEADER: &str = "x-heptad-blake3";

impl DistributedStorage {
    /// The storage's paths, relative to `/v1/storage`: `/`, `/{bucket}` and `/{bucket}/{key}`.
    pub fn router(&self) -> Router {
        let object = get(read).head(head).put(write).delete(remove);
        Router::new()
            .route("/", get(status))
            .route("/{bucket}", get(list))
            .route("/{bucket}/{*key}", object)
            .with_state(self.clone())
    }
}

/// Largest page of a list, if none is asked for.
const LIST_ITEMS_DEFAULT: usize = 500;

#[derive(Debug, Deserialize)]
struct ListQuery {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
}

type Storage = State<DistributedStorage>;
type ObjectPath = Path<(String, String)>;

async fn status(State(storage): Storage) -> Response {
    Json(storage.status().await).into_response()
}

async fn list(State(storage): Storage, Path(bucket): Path<String>, Query(query): Query<ListQuery>) -> Response {
    let limit = query.limit.unwrap_or(LIST_ITEMS_DEFAULT);
    match storage.list(&bucket, &query.prefix, query.after.as_deref(), limit).await {
        Ok(page) => Json(page).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn write(State(storage): Storage, Path((bucket, key)): ObjectPath, headers: HeaderMap, body: Body) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let options = PutOptions { content_type: text("content-type"), checksum: text(CHECKSUM_HEADER) };
    match storage.put(&bucket, &key, body.into_data_stream(), options).await {
        Ok(info) => {
            let headers = object_headers(&info);
            (StatusCode::CREATED, headers, Json(info)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn read(State(storage): Storage, Path((bucket, key)): ObjectPath, request: HeaderMap) -> Response {
    match storage.get(&bucket, &key).await {
        Ok(reader) => {
            let mut headers = object_headers(reader.info());
            let is_known =
                request.get(header::IF_NONE_MATCH).is_some_and(|known| headers.get(header::ETAG) == Some(known));
            if is_known {
                return (StatusCode::NOT_MODIFIED, headers).into_response();
            }
            describe_content(&mut headers, reader.info());
            (headers, Body::from_stream(reader)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn head(State(storage): Storage, Path((bucket, key)): ObjectPath) -> Response {
    match storage.head(&bucket, &key).await {
        Ok(info) => {
            let mut headers = object_headers(&info);
            describe_content(&mut headers, &info);
            (headers, Body::empty()).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn remove(State(storage): Storage, Path((bucket, key)): ObjectPath) -> Response {
    match storage.delete(&bucket, &key).await {
        // Deleting what is not there is done already, as in S3.
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

fn object_headers(info: &ObjectInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let values = [
        (header::ETAG, format!("\"{}\"", info.checksum)),
        (header::HeaderName::from_static(CHECKSUM_HEADER), info.checksum.clone()),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    headers
}

fn describe_content(headers: &mut HeaderMap, info: &ObjectInfo) {
    let given = info.content_type.as_deref().and_then(|given| HeaderValue::from_str(given).ok());
    let content_type = given.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(info.size_bytes));
    // Stored content is foreign: a browser must not guess that it is a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

impl StorageError {
    /// The code of the problem, from which the HTTP status follows.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::InvalidName { .. } | Self::ChecksumMismatch { .. } | Self::Body { .. } => ErrorCode::BadRequest,
            Self::InsufficientSpace { .. } => ErrorCode::InsufficientSpace,
            Self::NoQuorum { .. } | Self::Unavailable { .. } | Self::Meta(_) | Self::Node { .. } => {
                ErrorCode::Unavailable
            }
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Contended { .. } | Self::UploadEnded { .. } => ErrorCode::Busy,
            Self::DataLost { .. } | Self::Row { .. } | Self::Placement(_) | Self::Internal { .. } => {
                ErrorCode::Internal
            }
        }
    }

    /// The problem details of the error and all its causes.
    pub fn problem(&self) -> ProblemDetails {
        ProblemDetails::new(self.code(), heptad_model::with_causes(self))
    }
}

impl IntoResponse for StorageError {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
