//! A [`Problem`] as an HTTP answer: `application/problem+json`, the status its code asks for, and `retry-after` where it has one.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use swarm_proto::{Code, Problem};

/// A problem on its way out, with the status where it is finer than the code's own.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: Option<StatusCode>,
    problem: Box<Problem>,
    allow: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn with_status(status: StatusCode, problem: Problem) -> Self {
        Self { status: Some(status), problem: Box::new(problem), allow: None }
    }

    pub(crate) fn method(method: &Method, allow: &'static str) -> Self {
        let problem = Problem::new(Code::BadRequest, format!("{method} is not possible here"), format!("this path takes {allow}"));
        Self { status: Some(StatusCode::METHOD_NOT_ALLOWED), problem: Box::new(problem), allow: Some(allow) }
    }

    pub(crate) fn bad(what: impl Into<String>, why: impl Into<String>) -> Self {
        Problem::new(Code::BadRequest, what, why).into()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { status: None, problem: Box::new(problem), allow: None }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let by_code = || StatusCode::from_u16(self.problem.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let status = self.status.unwrap_or_else(by_code);
        let body = serde_json::to_vec(&self.problem).expect("a problem is strings and numbers");
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(after) = self.problem.retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.div_ceil(1_000)));
        }
        if let Some(allow) = self.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
