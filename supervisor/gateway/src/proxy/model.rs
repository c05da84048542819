//! Requests to model routes: the flow around them is kept here, what they are is the routes' own affair.

use hyper::body::Incoming;
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Request, Response};

use super::body::{Body, Outward};
use super::{Front, Session, refusal};
use crate::flow::{Cut, Kind, Outcome, To};
use crate::hook::Failure;
use crate::route::{Context, Eventwise};

impl Session {
    /// A request whose path is a route's.
    pub(super) async fn model(&self, front: &Front, head: Parts, incoming: Incoming) -> Option<Response<Body>> {
        let name = head.uri.path().split('/').nth(1).unwrap_or_default();
        let passage = self.seat.begin(Kind::Route, To::Route(name.into()));
        // Read once the seat shows where it goes: from here on, whoever takes the route away sees this call.
        let Some(models) = self.seat.agent.models().filter(|models| models.routes.claims(head.uri.path())) else {
            passage.end(Outcome::Cut(Cut::Policy));
            return Some(refusal::no_route(head.uri.path()));
        };
        if let Err(failure) = passage.before_connect().await {
            passage.end(Outcome::Failed(failure));
            return self.failed(failure);
        }
        // The route has waits of its own, and says in the provider's words when one runs out.
        self.clock.elsewhere();
        let context =
            Context { account: models.account.clone(), client: front.client.clone(), witness: models.witness.clone() };
        let mut request = Request::from_parts(head, Outward::new(incoming, passage.clone()));
        if passage.is_watched() {
            request.extensions_mut().insert(Eventwise);
        }
        let (mut head, body) = models.routes.serve(request, &context).await.into_parts();
        if let Err(failure) = passage.on_head(&head).await {
            passage.end(Outcome::Failed(failure));
            return self.failed(failure);
        }
        if passage.is_watched() {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        Some(Response::from_parts(head, Body::routed(body, passage)))
    }

    /// What the agent gets when a hook makes it fail.
    pub(super) fn failed(&self, failure: Failure) -> Option<Response<Body>> {
        if failure == Failure::Reset {
            self.clock.reset();
        }
        refusal::failed(failure)
    }
}
