//! Servers that answer with the client's address as they see it, so that the client can check the address
//! that a server's log would show.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::netns::Netns;

/// Longest time of an answer; even on a busy machine a server of a lab is faster.
const ANSWER: Duration = Duration::from_secs(2);
/// Time after which a server that has not answered counts as not reached.
const SILENCE: Duration = Duration::from_millis(300);
/// Number of attempts, because datagrams may be lost, for example while ARP is not answered yet.
const TRIES: usize = 3;

/// Answers on a TCP port of every address of a namespace: each message with the client's address, as long as
/// the client keeps the connection open. The threads live as long as the process.
pub fn tcp(netns: &Netns, port: u16) -> Result<()> {
    let listener = netns.enter(|| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .with_context(|| format!("{}: cannot listen on TCP port {port}", netns.name()))
    })?;
    thread::Builder::new().name("mirror-tcp".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // An error with one client does not concern the others.
            thread::spawn(move || drop(answer_each(stream)));
        }
    })?;
    Ok(())
}

fn answer_each(mut stream: TcpStream) -> Result<()> {
    let client = stream.peer_addr()?.ip();
    let mut message = [0; 512];
    while stream.read(&mut message)? > 0 {
        writeln!(stream, "{client}")?;
    }
    Ok(())
}

/// Answers on a UDP port of every address of a namespace, as [`tcp`] does.
pub fn udp(netns: &Netns, port: u16) -> Result<()> {
    udp_at(netns, Ipv4Addr::UNSPECIFIED, port)
}

/// Answers on a UDP port of one address of a namespace.
pub fn udp_at(netns: &Netns, address: Ipv4Addr, port: u16) -> Result<()> {
    let socket = netns.enter(|| {
        UdpSocket::bind((address, port))
            .with_context(|| format!("{}: cannot bind UDP {address}:{port}", netns.name()))
    })?;
    thread::Builder::new().name("mirror-udp".into()).spawn(move || {
        let mut message = [0; 512];
        while let Ok((_, client)) = socket.recv_from(&mut message) {
            // An error is ignored, because the client may have become unreachable.
            drop(socket.send_to(client.ip().to_string().as_bytes(), client));
        }
    })?;
    Ok(())
}

impl Netns {
    /// The address of this namespace as a [`tcp`] server sees it.
    pub fn seen_over_tcp(&self, server: Ipv4Addr, port: u16) -> Result<IpAddr> {
        self.enter(|| Connection::open(SocketAddrV4::new(server, port), ANSWER)?.ask())
            .with_context(|| format!("{} asks {server}, TCP port {port}", self.name()))
    }

    /// The address of this namespace as a [`udp`] server sees it.
    pub fn seen_over_udp(&self, server: Ipv4Addr, port: u16) -> Result<IpAddr> {
        self.enter(|| ask_udp(server, port, TRIES, ANSWER / 2))
            .with_context(|| format!("{} asks {server}, UDP port {port}", self.name()))
    }

    /// Fails if a TCP connection can be opened, whatever the server then answers.
    pub fn no_tcp(&self, server: Ipv4Addr, port: u16) -> Result<()> {
        let opened = self.enter(|| {
            let to = SocketAddrV4::new(server, port).into();
            Ok(TcpStream::connect_timeout(&to, SILENCE).is_ok())
        })?;
        if opened {
            bail!("{} reaches {server}, TCP port {port}", self.name());
        }
        Ok(())
    }

    /// Fails if a [`udp`] server answers.
    pub fn no_udp(&self, server: Ipv4Addr, port: u16) -> Result<()> {
        let answer = self.enter(|| Ok(ask_udp(server, port, 1, SILENCE).ok()))?;
        if let Some(seen) = answer {
            bail!("{} reaches {server}, UDP port {port}, as {seen}", self.name());
        }
        Ok(())
    }
}

fn ask_udp(server: Ipv4Addr, port: u16, tries: usize, patience: Duration) -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // A connected socket only receives answers from the server's address.
    socket.connect((server, port))?;
    socket.set_read_timeout(Some(patience))?;
    let mut answer = [0; 64];
    for _ in 0..tries {
        socket.send(b"who am I?")?;
        if let Ok(length) = socket.recv(&mut answer) {
            return Ok(String::from_utf8_lossy(&answer[..length]).parse()?);
        }
    }
    bail!("no answer to {tries} datagrams")
}

/// A connection to a [`tcp`] server.
#[derive(Debug)]
pub struct Connection(TcpStream);

impl Connection {
    /// Opens a connection, on which no later operation may take longer than `patience`.
    pub fn open(server: SocketAddrV4, patience: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server.into(), patience).context("to connect")?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Asks once for the client's address.
    pub fn ask(&mut self) -> Result<IpAddr> {
        self.0.write_all(b"who am I?").context("to ask")?;
        let mut answer = Vec::new();
        let mut piece = [0; 64];
        while answer.last() != Some(&b'\n') {
            let length = self.0.read(&mut piece).context("to read the answer")?;
            if length == 0 {
                bail!("the server hung up");
            }
            answer.extend_from_slice(&piece[..length]);
        }
        Ok(String::from_utf8_lossy(&answer).trim().parse()?)
    }
}
