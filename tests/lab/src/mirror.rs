//! Servers that tell whoever asks which address the question came from: what a server's log says of its
//! clients, read by the client.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::netns::Netns;

/// No server of a lab is slower, not even one on a machine that does much else.
const ANSWER: Duration = Duration::from_secs(2);
/// What does not answer by then is not there.
const SILENCE: Duration = Duration::from_millis(300);
/// Datagrams get lost, by a first packet that waits for ARP if by nothing else.
const TRIES: usize = 3;

/// Answers on a TCP port of every address of a namespace: each message with the client's address, as
/// long as the client keeps the connection open. From threads that live as long as the process.
pub fn tcp(netns: &Netns, port: u16) -> Result<()> {
    let listener = netns.enter(|| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .with_context(|| format!("{}: cannot listen on TCP port {port}", netns.name()))
    })?;
    thread::Builder::new().name("mirror-tcp".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away mid-way concerns nobody else.
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
            // There may be no way back.
            drop(socket.send_to(client.ip().to_string().as_bytes(), client));
        }
    })?;
    Ok(())
}

impl Netns {
    /// The address that this namespace has for a [`tcp`] server.
    pub fn seen_over_tcp(&self, server: Ipv4Addr, port: u16) -> Result<IpAddr> {
        self.enter(|| Connection::open(SocketAddrV4::new(server, port), ANSWER)?.ask())
            .with_context(|| format!("{} asks {server}, TCP port {port}", self.name()))
    }

    /// The address that this namespace has for a [`udp`] server.
    pub fn seen_over_udp(&self, server: Ipv4Addr, port: u16) -> Result<IpAddr> {
        self.enter(|| ask_udp(server, port, TRIES, ANSWER / 2))
            .with_context(|| format!("{} asks {server}, UDP port {port}", self.name()))
    }

    /// Fails when a TCP connection comes about, whatever the server then says.
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

    /// Fails when a [`udp`] server answers.
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
    // Connected: an answer from anywhere else is none.
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
    /// Opens it; from then on nothing on it takes longer than `patience`.
    pub fn open(server: SocketAddrV4, patience: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server.into(), patience).context("to connect")?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Asks once.
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
