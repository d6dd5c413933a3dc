//! `--health`: what a container's health check runs, since the image has no HTTP client.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use shared::config::Source;

use crate::Config;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the server on this machine how it is.
pub(crate) fn main(source: &Source) -> ExitCode {
    let config = match Config::read(source) {
        Ok(config) => config,
        Err(error) => {
            eprint!("cc-executor-api: {error}");
            return ExitCode::from(2);
        }
    };
    match ask(reachable(config.bind)) {
        Ok(status) if status.contains(" 200 ") => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("cc-executor-api: unhealthy: {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cc-executor-api: unhealthy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An address that binds everything is reached on loopback.
fn reachable(bind: SocketAddr) -> SocketAddr {
    if bind.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), bind.port())
    } else {
        bind
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
