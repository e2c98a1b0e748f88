//! Answering requests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::identity::{self, Service};
use proto::limits::{PAYLOAD_BYTES_MAX, TIMEOUT_MS_MAX};
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{ClusterId, ErrorCode, Failure, Identity, frame, wire};
use tokio::sync::watch;
use tracing::{Instrument, debug, info_span, warn};

use super::hello::{Local, parse_cluster};
use super::stream::{Payload, StreamError, read_header};
use crate::net::{Connection, Listener, SendStream};
use crate::{Clock, Elapsed, Env, Net, Spawn};

/// How long a peer may take for its greeting, and for the header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to read its answer: what it does not read stays in memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer that is refused at the greeting has to read why.
const LINGER: Duration = Duration::from_secs(1);

/// The receiving half of the streams of a host's network.
type RecvOf<E> = <<<E as Env>::Net as Net>::Connection as Connection>::Recv;

/// A request that came in, from a peer that may send it.
pub struct Incoming<E: Env> {
    /// Who asks, as the certificate says.
    pub peer: Identity,
    /// The cluster that the peer belongs to, as its greeting says.
    pub peer_cluster: Option<ClusterId>,
    /// What is asked for.
    pub call: Call,
    /// How long the peer waits for an answer, from the arrival of the header.
    pub timeout: Duration,
    /// The bytes that follow.
    pub payload: Payload<RecvOf<E>>,
}

/// What goes back.
#[derive(Debug)]
pub struct Answer {
    /// The reply itself.
    pub result: Outcome,
    /// The bytes that follow it.
    pub payload: Vec<Bytes>,
    /// Cluster time in milliseconds, from metadata servers.
    pub cluster_time_ms: u64,
}

impl Answer {
    /// A reply without payload or cluster time.
    pub fn new(result: Outcome) -> Self {
        Self { result, payload: Vec::new(), cluster_time_ms: 0 }
    }
}

/// What a service does with requests. Clones are the same service.
pub trait Handler<E: Env>: Clone + Send + Sync + 'static {
    /// The service that this is: calls of others are refused before they get here.
    fn service(&self) -> Service;

    /// Answers one request. Dropped at the request's deadline, or when the connection is
    /// gone.
    fn handle(&self, incoming: Incoming<E>) -> impl Future<Output = Result<Answer, Failure>> + Send;
}

/// Answers requests until the listener ends or this is dropped; then its connections are closed, so
/// that peers look for a successor. Each connection and each request is a task of its own; how many
/// there are at once is bounded by the network's limits on connections and streams.
pub async fn serve<E: Env, H: Handler<E>>(
    env: E,
    local: Local,
    mut listener: <E::Net as Net>::Listener,
    handler: H,
) {
    // Dropped with this future: each connection waits for that.
    let (_serving, ended) = watch::channel(());
    while let Some(connection) = listener.accept().await {
        let serving = Serving {
            env: env.clone(),
            local: local.clone(),
            handler: handler.clone(),
            connection,
            ended: ended.clone(),
        };
        let span = info_span!(
            "connection",
            peer = %serving.connection.peer(),
            address = serving.connection.peer_address(),
        );
        env.spawn().spawn("connection", Arc::new(serving).run().instrument(span));
    }
}

struct Serving<E: Env, H> {
    env: E,
    local: Local,
    handler: H,
    connection: <E::Net as Net>::Connection,
    ended: watch::Receiver<()>,
}

impl<E: Env, H: Handler<E>> Serving<E, H> {
    async fn run(self: Arc<Self>) {
        let peer_cluster = match self.env.clock().timeout(HEADER_TIMEOUT, self.greet()).await {
            Ok(Ok(peer_cluster)) => peer_cluster,
            Ok(Err(StreamError::Net(error))) => return debug!(%error, "connection lost at the greeting"),
            Ok(Err(StreamError::Invalid(failure))) => {
                warn!(error = %failure, "peer refused at the greeting");
                // The peer judges our greeting as we judge its own, and hangs up; closing at once
                // could overtake our greeting, and the peer would not learn why.
                let _ = self.env.clock().timeout(LINGER, self.connection.accept()).await;
                return self.connection.close(&failure.message);
            }
            Err(Elapsed) => {
                warn!("peer refused: no greeting in time");
                return self.connection.close("no greeting in time");
            }
        };
        let mut ended = self.ended.clone();
        tokio::select! {
            biased;
            // Nothing is ever sent: only the end of the sender.
            _ = ended.changed() => self.connection.close("the service has stopped"),
            () = self.requests(peer_cluster) => {}
        }
    }

    /// Takes requests until the connection is gone, and then drops those under way.
    async fn requests(self: &Arc<Self>, peer_cluster: Option<ClusterId>) {
        // Dropped with this future: each request waits for that.
        let (_connected, gone) = watch::channel(());
        while let Ok((send, recv)) = self.connection.accept().await {
            let serving = self.clone();
            let mut gone = gone.clone();
            let task = async move {
                // The largest of futures: on the heap it is moved once, not at each step to a task.
                let answer = Box::pin(async move { serving.answer(send, recv, peer_cluster).await });
                tokio::select! {
                    biased;
                    () = answer => {}
                    _ = gone.changed() => debug!("connection lost before the answer"),
                }
            };
            self.env.spawn().spawn("request", task.in_current_span());
        }
    }

    async fn greet(&self) -> Result<Option<ClusterId>, StreamError> {
        let (mut send, mut recv) = self.connection.accept().await.map_err(StreamError::Net)?;
        let peer: wire::Hello = read_header(&mut recv).await?;
        let hello = frame::encode(&self.local.hello()).map_err(|e| StreamError::Invalid(e.into()))?;
        send.write(hello).await.map_err(StreamError::Net)?;
        send.finish().map_err(StreamError::Net)?;
        self.local.check(&peer).map_err(StreamError::Invalid)?;
        parse_cluster(&peer).map_err(|error| StreamError::Invalid(error.into()))
    }

    async fn answer<S: SendStream>(&self, mut send: S, recv: RecvOf<E>, peer_cluster: Option<ClusterId>) {
        let answer = match self.receive(recv, peer_cluster).await {
            Ok(answer) => answer,
            Err(StreamError::Net(error)) => return debug!(%error, "request lost"),
            Err(StreamError::Invalid(failure)) => {
                debug!(error = %failure, "request refused");
                Answer::new(Outcome::Failure(failure.to_wire()))
            }
        };
        match self.env.clock().timeout(ANSWER_TIMEOUT, write_answer(&mut send, answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "peer gone before its answer"),
            Err(Elapsed) => warn!("answer given up: the peer does not read it"),
        }
    }

    async fn receive(
        &self,
        mut recv: RecvOf<E>,
        peer_cluster: Option<ClusterId>,
    ) -> Result<Answer, StreamError> {
        let header = read_header::<wire::Request, _>(&mut recv);
        let request = match self.env.clock().timeout(HEADER_TIMEOUT, header).await {
            Ok(request) => request?,
            Err(Elapsed) => {
                return Err(invalid(ErrorCode::DeadlineExceeded, "the header did not arrive in time"));
            }
        };
        let trace = info_span!("request", trace = format_args!("{:016x}", request.trace_id));
        let incoming = self.parse(request, recv, peer_cluster).map_err(StreamError::Invalid)?;
        let timeout = incoming.timeout;
        let work = Box::pin(self.handler.handle(incoming)).instrument(trace);
        match self.env.clock().timeout(timeout, work).await {
            Ok(result) => result.map_err(StreamError::Invalid),
            Err(Elapsed) => Err(invalid(ErrorCode::DeadlineExceeded, "the request's time is over")),
        }
    }

    fn parse(
        &self,
        request: wire::Request,
        recv: RecvOf<E>,
        peer_cluster: Option<ClusterId>,
    ) -> Result<Incoming<E>, Failure> {
        let refuse = |code, text: &str| Err(Failure::new(code, text));
        let Some(call) = request.call else {
            return refuse(ErrorCode::InvalidRequest, "the request names no call that this version knows");
        };
        if request.timeout_ms == 0 || request.timeout_ms > TIMEOUT_MS_MAX {
            return refuse(ErrorCode::InvalidRequest, "the request's timeout is out of range");
        }
        if request.payload_bytes > PAYLOAD_BYTES_MAX as u64 {
            return refuse(ErrorCode::TooLarge, "the payload is over the limit");
        }
        let peer = self.connection.peer().clone();
        if let Err(failure) = peer.authorize(&call) {
            warn!(error = %failure, "call refused");
            return Err(failure);
        }
        if identity::rule(&call).service != self.handler.service() {
            return refuse(
                ErrorCode::InvalidRequest,
                "this call belongs to another service: check the address",
            );
        }
        let timeout = Duration::from_millis(request.timeout_ms);
        let payload = Payload::new(recv, request.payload_bytes);
        Ok(Incoming { peer, peer_cluster, call, timeout, payload })
    }
}

fn invalid(code: ErrorCode, text: &str) -> StreamError {
    StreamError::Invalid(Failure::new(code, text))
}

async fn write_answer<S: SendStream>(send: &mut S, answer: Answer) -> Result<(), crate::NetError> {
    let payload_bytes = answer.payload.iter().map(|bytes| bytes.len() as u64).sum();
    let cluster_time_ms = answer.cluster_time_ms;
    let response = wire::Response { payload_bytes, cluster_time_ms, result: Some(answer.result) };
    match frame::encode(&response) {
        Ok(header) => {
            send.write(header).await?;
            for bytes in answer.payload {
                send.write(bytes).await?;
            }
        }
        Err(error) => {
            let failure = Failure::new(ErrorCode::TooLarge, error.to_string());
            let response =
                wire::Response { result: Some(Outcome::Failure(failure.to_wire())), ..Default::default() };
            if let Ok(header) = frame::encode(&response) {
                send.write(header).await?;
            }
        }
    }
    send.finish()
}
