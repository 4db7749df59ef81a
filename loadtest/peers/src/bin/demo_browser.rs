//! `demo-browser URL`: follows redirects on this machine, as a person who agrees to everything.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context as _;

/// Longer chains are loops.
const REDIRECTS_MAX: usize = 10;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let mut url = std::env::args().nth(1).context("give the address to open")?;
    for _ in 0..REDIRECTS_MAX {
        match visit(&url)? {
            Some(next) => url = next,
            None => return Ok(()),
        }
    }
    anyhow::bail!("{url} redirects for ever")
}

/// Where it sends the browser next.
fn visit(url: &str) -> anyhow::Result<Option<String>> {
    let rest = url.strip_prefix("http://").context("this browser speaks plain HTTP only")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    anyhow::ensure!(host.starts_with("127.0.0.1:"), "this browser stays on this machine");
    let mut stream = TcpStream::connect(host).with_context(|| format!("connect to {host}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let location = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    });
    anyhow::ensure!(status.starts_with(['2', '3']), "{host} answered {status}: {body}");
    Ok(location)
}
