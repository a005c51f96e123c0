//! From a request to its answer: what is named, what is called, who asks, then the call itself.
//!
//! Whatever happens, the answer has a request id, and the request is counted and logged once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use forebay_cache::cluster::NODE_HEADER;
use forebay_store::Objects;
use forebay_store::event::Position;
use forebay_store::time::{Clock, Timestamp};
use http::header::{CONNECTION, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use hyper::body::Incoming;

use crate::admin::{self, Admin};
use crate::answer::{Line, Marks, Trace};
use crate::auth::granted::{self, GrantUse, GrantedRead};
use crate::auth::{Asked, Authenticated, Authenticator, Credential};
use crate::body::RequestBody;
use crate::call::{self, CALLS, Call};
use crate::cluster::Cluster;
use crate::compat::Compat;
use crate::error::Result;
use crate::framing;
use crate::grant::Grants;
use crate::lease::Sealer;
use crate::metric::Metrics;
use crate::ops;
use crate::query::Query;
use crate::reply::Response;
use crate::serve::{Answers, ServerConfig};
use crate::target::Target;
use crate::tier::TierFace;

/// What answers requests.
#[derive(Debug)]
pub(crate) struct Service {
    /// What is stored.
    pub(crate) objects: Arc<dyn Objects>,
    /// Whose behaviour is followed where services differ.
    pub(crate) compat: Compat,
    /// The region that buckets are in unless they say otherwise.
    pub(crate) region: String,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// What nodes fetch bytes with.
    pub(crate) grants: Grants,
    /// What bytes come by way of, if not from the store itself.
    pub(crate) tier: Option<Arc<TierFace>>,
    /// What leases are sealed with; none without a cluster key.
    pub(crate) sealer: Option<Sealer>,
    cluster: Option<Cluster>,
    base_domains: Vec<String>,
    clock: Arc<dyn Clock>,
    authenticator: Authenticator,
    admin: axum::Router,
    stopping: Arc<AtomicBool>,
    marks: Marks,
}

/// One request, as far as its head says.
#[derive(Debug)]
pub(crate) struct S3Request {
    /// What it names.
    pub(crate) target: Target,
    /// Its parameters.
    pub(crate) query: Query,
    /// Its headers; those that stood in a presigned query are among them.
    pub(crate) headers: HeaderMap,
    /// What it calls.
    pub(crate) call: &'static Call,
    /// When it came, in seconds since 1970.
    pub(crate) now_s: i64,
    /// Who passed it on.
    pub(crate) asker: Asker,
    /// For a node that has the cluster's key: where the change feed was before anything was looked
    /// up for this request.
    pub(crate) position: Option<Position>,
}

/// Who passes a request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Nobody: it came from a client.
    Client,
    /// A node, or one that says it is.
    Node,
    /// A node that has the cluster's key.
    ProvenNode,
}

impl Service {
    /// Nothing is answered yet.
    pub(crate) fn new(
        config: ServerConfig,
        objects: Arc<dyn Objects>,
        clock: Arc<dyn Clock>,
        tier: Option<TierFace>,
    ) -> std::result::Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let metrics = Arc::new(Metrics::new());
        let stopping = Arc::new(AtomicBool::new(false));
        let sealer = config.cluster_key.as_ref().map(Sealer::new);
        let cluster = config.cluster_key.map(Cluster::new);
        let tier = tier.map(Arc::new);
        let admin = admin::router(Admin {
            objects: Arc::clone(&objects),
            metrics: Arc::clone(&metrics),
            tier: tier.clone(),
            stopping: Arc::clone(&stopping),
            cluster: cluster.clone(),
            clock: Arc::clone(&clock),
        });
        let strict_region = config.compat.strict_region();
        Ok(Self {
            objects,
            compat: config.compat,
            authenticator: Authenticator::new(config.region.clone(), strict_region),
            region: config.region,
            metrics,
            grants: Grants::new(&secret),
            tier,
            sealer,
            cluster,
            base_domains: config.base_domains,
            clock,
            admin,
            stopping,
            marks: Marks::new()?,
        })
    }

    async fn answer_one(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        let (parts, incoming) = request.into_parts();
        let clear = framing::check(&parts);
        let is_clear = clear.is_ok();
        if is_clear && parts.uri.path().starts_with("/-/") {
            return self
                .answer_admin(Request::from_parts(parts, incoming))
                .await;
        }
        let began_at = Instant::now();
        let id = self.marks.next_id();
        let mut body = RequestBody::new(incoming);
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let waits_for_continue = parts.headers.contains_key(EXPECT);
        let mut trace = Trace::default();
        let result = match clear {
            Ok(()) => self.answer_call(parts, &mut body, &mut trace).await,
            Err(error) => Err(error),
        };
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                let response = self.marks.refusal(&error, &method, uri.path(), &id);
                trace.error = Some(error);
                response
            }
        };
        if is_clear && !body.is_ended() && !waits_for_continue {
            body.drain().await;
        }
        if !is_clear || !body.is_ended() {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.marks.put(&mut response, &id);
        trace.end(
            &self.metrics,
            &response,
            &Line {
                method: &method,
                path: uri.path(),
                id: &id,
                peer,
                began_at,
            },
        );
        response
    }

    async fn answer_call(
        &self,
        parts: Parts,
        body: &mut RequestBody,
        trace: &mut Trace,
    ) -> Result<Response> {
        let Parts {
            method,
            uri,
            mut headers,
            ..
        } = parts;
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or(uri.host()).unwrap_or_default();
        let target = Target::parse(host, uri.path(), &self.base_domains, self.compat)?;
        let query = Query::parse(uri.query().unwrap_or_default())?;
        let index = call::route(&method, target.level(), &query, &headers)?;
        trace.call = Some(index);
        let call = &CALLS[index];
        let now = self.clock.now();
        let now_s = now.seconds();
        let asker = self.asker(&method, &uri, &headers, now);
        let position = (asker == Asker::ProvenNode).then(|| self.objects.position());
        let auth = if granted::is_granted(&headers) {
            let purpose = match asker {
                Asker::Client => GrantUse::Fetch,
                Asker::Node | Asker::ProvenNode => GrantUse::Renew,
            };
            let read = GrantedRead {
                target: &target,
                query: &query,
                headers: &headers,
                call,
                purpose,
            };
            granted::authenticate(&self.grants, &read, now_s)?
        } else {
            let asked = Asked {
                method: &method,
                path: &target.path,
                query: &query,
                call,
            };
            self.authenticate(&asked, &mut headers, now_s)?
        };
        trace.key_id = auth.key_id().map(str::to_owned);
        let request = S3Request {
            target,
            query,
            headers,
            call,
            now_s,
            asker,
            position,
        };
        ops::run(
            &ops::Context {
                service: self,
                request: &request,
            },
            auth,
            body,
        )
        .await
    }

    fn authenticate(
        &self,
        asked: &Asked<'_>,
        headers: &mut HeaderMap,
        now_s: i64,
    ) -> Result<Authenticated> {
        let find_key =
            |claimed: &Credential<'_>| self.objects.access_key(claimed.key_id).map(Into::into);
        self.authenticator
            .authenticate(asked, headers, &find_key, now_s)
    }

    fn asker(&self, method: &Method, uri: &Uri, headers: &HeaderMap, now: Timestamp) -> Asker {
        let Some(value) = headers.get(NODE_HEADER) else {
            return Asker::Client;
        };
        let proven = self
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.proves(value, method, uri, now));
        if proven {
            Asker::ProvenNode
        } else {
            Asker::Node
        }
    }

    async fn answer_admin(&self, request: Request<Incoming>) -> Response {
        let mut response = admin::answer(&self.admin, request).await;
        self.marks.put(&mut response, &self.marks.next_id());
        response
    }
}

impl Answers for Service {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        self.answer_one(request, peer).await
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}
