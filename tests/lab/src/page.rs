//! A web server with one page.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::netns::Netns;

/// Serves a page for ever, one request after another.
pub fn serve(listener: &TcpListener, text: &str) -> Result<()> {
    for stream in listener.incoming() {
        // An error with one client does not concern the others.
        drop(answer(&stream?, text));
    }
    Ok(())
}

/// Serves a page on port 80 of a namespace, from a thread that lives as long as the process. The socket belongs
/// to the namespace in which it was opened.
pub fn serve_in(netns: &Netns, text: &str) -> Result<()> {
    let text = text.to_owned();
    let listener = netns.enter(|| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).context("cannot listen on port 80")
    })?;
    thread::Builder::new().name("page".into()).spawn(move || serve(&listener, &text))?;
    Ok(())
}

fn answer(mut stream: &TcpStream, text: &str) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut piece)?;
        if read == 0 || request.len() > 64 * 1024 {
            return Ok(());
        }
        request.extend_from_slice(&piece[..read]);
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
        text.len() + 1
    )?;
    Ok(())
}
