//! A client that creates, removes and shows a few networks and endpoints at any node, and notes each answer.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use overlay_ctl::proto::v1::{
    CreateEndpointRequest, CreateNetworkRequest, Endpoint as EndpointRow, InspectEndpointRequest,
    InspectNetworkRequest, RemoveEndpointRequest, RemoveNetworkRequest,
    endpoints_client::EndpointsClient, networks_client::NetworksClient,
};
use tokio::{
    net::UnixStream,
    time::{sleep, timeout},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};

use super::{
    book::{Answer, Ask, Book, Drawn, Kind, Made, Record},
    dice::Dice,
    world::{CHURN, World},
};

/// The metadata by which an error says whether anything came of the request.
const EFFECT: &str = "overlay-effect";
/// Longest time that a client waits for an answer, before it asks another node.
const DEADLINE: Duration = Duration::from_secs(2);
/// Longest time of a creation that waits for kernels.
const LONG_DEADLINE: Duration = Duration::from_secs(5);
/// How often a call is repeated whose outcome is not known.
const ATTEMPTS_MAX: u32 = 8;

pub(super) struct Client<'a> {
    number: usize,
    /// The host of one that only reads, always there: so a node that is cut off or stopped is asked at each moment.
    reads_at: Option<usize>,
    dice: Dice,
    book: &'a Book,
    world: &'a World,
    channels: Vec<Option<Channel>>,
}

/// What is asked, however often.
struct Request {
    drawn: Drawn,
    ask: Ask,
    /// The namespace of a new endpoint.
    netns: String,
    no_wait: bool,
    id: Vec<u8>,
}

impl<'a> Client<'a> {
    pub(super) fn new(number: usize, seed: u64, book: &'a Book, world: &'a World) -> Self {
        let dice = Dice::new(seed.wrapping_add(number as u64 + 1));
        let channels = vec![None; world.hosts.len()];
        Self { number, reads_at: None, dice, book, world, channels }
    }

    /// The same, but it only reads, and only at this host.
    pub(super) fn only_reading_at(self, host: usize) -> Self {
        Self { reads_at: Some(host), ..self }
    }

    /// Sends one call after the other until told to stop.
    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            while !stop.load(Ordering::Relaxed) {
                let pause = if self.call().await { 30 } else { 100 };
                sleep(self.dice.millis(0, pause)).await;
            }
        });
        Ok(())
    }

    /// Makes one call. Returns true if it had an answer that tells what became of it.
    async fn call(&mut self) -> bool {
        let request = self.request();
        let (sent, mut attempts, mut is_doubted) = (self.book.now(), 0, false);
        // Half of the clients do not ask again.
        let asks_again = self.number.is_multiple_of(2) && self.reads_at.is_none();
        let attempts_max = if asks_again { ATTEMPTS_MAX } else { 1 };
        let (asked, answer) = loop {
            attempts += 1;
            let any = self.dice.below(self.world.hosts.len());
            let asked = self.reads_at.unwrap_or(any);
            let answer = self.attempt(asked, &request).await;
            match answer {
                Some(Answer::Unknown(_)) if attempts < attempts_max => is_doubted = true,
                // Nothing was sent.
                None if attempts < attempts_max => {}
                None if !is_doubted => return false,
                None => break (asked, Answer::Unknown("no node answers".to_owned())),
                Some(answer) => break (asked, answer),
            }
            sleep(self.dice.millis(20, 120)).await;
        };
        let is_known = !matches!(answer, Answer::Unknown(_));
        let record = Record {
            kind: request.drawn.kind,
            name: request.drawn.name.clone(),
            ask: request.ask,
            client: self.number,
            asked,
            attempts,
            sent,
            answered: self.book.now(),
            answer,
            is_doubted,
        };
        self.book.note(&request.drawn, record);
        is_known
    }

    fn request(&mut self) -> Request {
        let drawn = self.book.draw(&mut self.dice, self.reads_at.is_some());
        let place = &self.world.places[self.dice.below(self.world.places.len())];
        let ask = match self.dice.below(100) {
            _ if self.reads_at.is_some() => Ask::Show,
            0..40 => Ask::Create { host: (drawn.kind == Kind::Endpoint).then_some(place.host) },
            40..75 => Ask::Remove,
            _ => Ask::Show,
        };
        let netns = place.netns.name().to_owned();
        Request { drawn, ask, netns, no_wait: self.dice.percent(60), id: self.dice.bytes() }
    }

    /// Asks one node. `None` if nothing was sent.
    async fn attempt(&mut self, asked: usize, request: &Request) -> Option<Answer> {
        let channel = self.channel(asked).await?;
        let is_create = matches!(request.ask, Ask::Create { .. });
        let is_long = is_create && request.drawn.kind == Kind::Endpoint && !request.no_wait;
        let deadline = if is_long { LONG_DEADLINE } else { DEADLINE };
        let answer = match timeout(deadline, self.send(channel, request)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(status)) => answer_of(&status, request),
            Err(_) => Answer::Unknown("no answer in time".to_owned()),
        };
        if matches!(answer, Answer::Unknown(_)) {
            self.channels[asked] = None;
        }
        Some(answer)
    }

    async fn send(&self, channel: Channel, request: &Request) -> Result<Answer, Status> {
        let Request { drawn, ask, netns, no_wait, id } = request;
        let (name, request_id) = (drawn.name.clone(), id.clone());
        let (mut networks, mut endpoints) =
            (NetworksClient::new(channel.clone()), EndpointsClient::new(channel));
        let network = || CHURN.to_owned();
        match (drawn.kind, ask) {
            (Kind::Network, Ask::Create { .. }) => {
                let asked = CreateNetworkRequest { name, request_id, ..Default::default() };
                let made = networks.create(asked).await?.into_inner();
                let owns = vec![("VNI", made.vni.to_string()), ("subnet", made.subnet)];
                let (id, revision) = (made.id, made.created_revision);
                Ok(Answer::Made(Made { id, revision, host: None, owns }))
            }
            (Kind::Network, Ask::Remove) => {
                let asked = RemoveNetworkRequest { name, id: 0, request_id };
                let revision = networks.remove(asked).await?.into_inner().revision;
                Ok(Answer::Removed { revision })
            }
            (Kind::Network, Ask::Show) => {
                let asked = InspectNetworkRequest { name, brief: true, stale: false };
                let shown = networks.inspect(asked).await?.into_inner().network;
                let id = shown.unwrap_or_default().id;
                Ok(Answer::Shown { id, host: None })
            }
            (Kind::Endpoint, Ask::Create { host }) => {
                let node =
                    host.map_or_else(String::new, |host| self.world.hosts[host].name.clone());
                let (netns, no_wait) = (netns.clone(), *no_wait);
                let asked = CreateEndpointRequest {
                    name,
                    network: network(),
                    node,
                    netns,
                    no_wait,
                    request_id,
                    ..Default::default()
                };
                let made = endpoints.create(asked).await?.into_inner().endpoint;
                let made = made.unwrap_or_default();
                let host = self.host_of(&made);
                let owns = vec![("address", made.address), ("MAC", made.mac)];
                let (id, revision) = (made.id, made.created_revision);
                Ok(Answer::Made(Made { id, revision, host, owns }))
            }
            (Kind::Endpoint, Ask::Remove) => {
                let (network, no_wait) = (network(), *no_wait);
                let asked = RemoveEndpointRequest { name, network, no_wait, id: 0, request_id };
                let revision = endpoints.remove(asked).await?.into_inner().revision;
                Ok(Answer::Removed { revision })
            }
            (Kind::Endpoint, Ask::Show) => {
                let asked = InspectEndpointRequest { name, network: network(), stale: false };
                let shown = endpoints.inspect(asked).await?.into_inner();
                Ok(Answer::Shown { id: shown.id, host: self.host_of(&shown) })
            }
        }
    }

    fn host_of(&self, endpoint: &EndpointRow) -> Option<usize> {
        self.world.hosts.iter().position(|host| host.name == endpoint.node)
    }

    async fn channel(&mut self, asked: usize) -> Option<Channel> {
        if let Some(channel) = &self.channels[asked] {
            return Some(channel.clone());
        }
        let socket = self.world.hosts[asked].socket();
        let channel = timeout(DEADLINE, connect(&socket)).await.ok()?.ok()?;
        self.channels[asked] = Some(channel.clone());
        Some(channel)
    }
}

/// Connects to the node with this socket.
async fn connect(socket: &Path) -> Result<Channel> {
    let socket: PathBuf = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    // The authority is never resolved.
    let endpoint = Endpoint::from_static("http://node.overlay");
    endpoint.connect_with_connector(connector).await.context("cannot connect")
}

/// What an error says of the call.
fn answer_of(status: &Status, request: &Request) -> Answer {
    let text = format!("{:?}: {}", status.code(), status.message());
    // What a node sent has no source: this was made here of a connection that broke.
    if status.source().is_some() {
        return Answer::Unknown(format!("the connection broke: {text}"));
    }
    let effect = status.metadata().get(EFFECT).and_then(|effect| effect.to_str().ok());
    if effect != Some("none") {
        return Answer::Unknown(text);
    }
    let Drawn { kind, name, .. } = &request.drawn;
    let word = match kind {
        Kind::Network => "network",
        Kind::Endpoint => "endpoint",
    };
    let of_name = format!("{word} with name {name}");
    let (is_taken, is_nobodys) = (format!("{of_name} already exists"), format!("no {of_name};"));
    let says = |words: &str| status.message().contains(words);
    match (request.ask, status.code()) {
        (Ask::Create { .. }, Code::AlreadyExists) if says(&is_taken) => Answer::Exists,
        (Ask::Remove | Ask::Show, Code::NotFound) if says(&is_nobodys) => Answer::Absent,
        _ => Answer::Refused(text),
    }
}
