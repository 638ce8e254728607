//! The web server of the demo and the benchmarks, which serves one page in the namespace in which it is
//! started. The command is hidden. It exists because a distribution's minimal image has no web server.

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Time after which a connection without requests is closed.
const PATIENCE: Duration = Duration::from_secs(30);
/// The greatest length of a line in a request, and the greatest number of lines.
const LINE_MAX: usize = 8 * 1024;
const LINES_MAX: usize = 100;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The text of the page
    text: String,
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// Print a line to stdout for each request: the client, and the request
    #[arg(long)]
    log: bool,
}

/// The parts of a request that the server needs.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    /// The first line, such as `GET / HTTP/1.1`.
    line: String,
    keep_alive: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, options.port))
        .with_context(|| format!("cannot listen on port {}", options.port))?;
    for stream in listener.incoming() {
        let stream = stream?;
        let (text, log) = (options.text.clone(), options.log);
        // A client that disconnects early does not affect the others.
        thread::Builder::new().spawn(move || drop(serve(&stream, &text, log)))?;
    }
    Ok(())
}

/// Answers the requests of a connection until it ends.
fn serve(stream: &TcpStream, text: &str, log: bool) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let client = stream.peer_addr()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        if log {
            println!("{} {}", client.ip(), request.line);
        }
        let connection = if request.keep_alive { "keep-alive" } else { "close" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: \
             {connection}\r\n\r\n{text}\n",
            text.len() + 1
        );
        (&mut &*stream).write_all(answer.as_bytes())?;
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

/// The next request, or `None` if the client has ended or does not speak HTTP.
fn read_request(reader: &mut impl BufRead) -> Result<Option<Request>> {
    let mut request: Option<Request> = None;
    for _ in 0..LINES_MAX {
        let mut line = String::new();
        if reader.by_ref().take(LINE_MAX as u64).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some(line) = line.strip_suffix('\n') else { return Ok(None) };
        let line = line.trim_end();
        match &mut request {
            None => {
                let keep_alive = line.ends_with("HTTP/1.1");
                request = Some(Request { line: line.to_owned(), keep_alive });
            }
            Some(_) if line.is_empty() => return Ok(request),
            Some(request) => {
                if line.eq_ignore_ascii_case("connection: close") {
                    request.keep_alive = false;
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Request> {
        read_request(&mut text.as_bytes()).unwrap()
    }

    #[test]
    fn a_request_says_whether_another_follows() {
        let request = read("GET / HTTP/1.1\r\nHost: web1\r\n\r\n").unwrap();
        assert_eq!(request, Request { line: "GET / HTTP/1.1".into(), keep_alive: true });
        assert!(!read("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n").unwrap().keep_alive);
        assert!(!read("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
    }

    #[test]
    fn half_a_request_is_none() {
        assert_eq!(read(""), None);
        assert_eq!(read("GET / HTTP/1.1\r\nHost: web1\r\n"), None);
        assert_eq!(read(&"x".repeat(2 * LINE_MAX)), None);
    }
}
