//! Where the server is and how it is reached: TCP, TLS or a unix socket, with or without a password.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use redis::{Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};

use crate::failure::Failure;

/// How long to wait for the server to accept a connection and to greet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which server to talk to, and how.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// Redis server: redis://user:password@host:port/database, rediss://… with TLS, or
    /// unix:///path?db=0&user=…&pass=… for a socket; all but the host or path can be left out.
    /// A password is better kept in the environment, because others can read command lines.
    #[arg(long, env = "REDIS_URL", hide_env_values = true, default_value = "redis://127.0.0.1:6379")]
    url: Url,
    /// For rediss://: trust the authorities in this PEM file instead of the system's.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// For rediss://: take any certificate. This does not protect against a server that pretends to be yours.
    #[arg(long, conflicts_with = "cacert")]
    insecure: bool,
}

/// A URL, which may hold a password and is therefore never shown.
#[derive(Clone)]
struct Url(String);

impl FromStr for Url {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Url(…)")
    }
}

impl Server {
    /// Prepares connections.
    ///
    /// # Errors
    /// When the URL or the file of authorities cannot be used.
    pub fn client(&self) -> Result<Connector, Failure> {
        let info = self.url.0.as_str().into_connection_info().map_err(|error| {
            // Only the kind of fault: the details can be parts of the URL.
            Failure::new(format!(
                "--url or REDIS_URL is not a Redis URL ({}); give redis://host:port",
                error.category()
            ))
        })?;
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name(env!("CARGO_BIN_NAME"), env!("CARGO_PKG_VERSION"));
        let info = info.set_redis_settings(settings);
        let address = info.addr().to_string();
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let client = self.trusting(info)?;
        Ok(Connector { client, tls, address })
    }

    /// Applies the options for TLS.
    fn trusting(&self, info: ConnectionInfo) -> Result<Client, Failure> {
        let unusable = |error: redis::RedisError| Failure::new(format!("the connection cannot be set up: {error}"));
        if !self.insecure && self.cacert.is_none() {
            return Client::open(info).map_err(unusable);
        }
        let ConnectionAddr::TcpTls { host, port, insecure, tls_params } = info.addr().clone() else {
            return Err(Failure::new("--cacert and --insecure are for TLS; give a URL that begins with rediss://"));
        };
        let insecure = insecure || self.insecure;
        let info = info.set_addr(ConnectionAddr::TcpTls { host, port, insecure, tls_params });
        let Some(file) = &self.cacert else {
            return Client::open(info).map_err(unusable);
        };
        let unreadable = |why: &dyn fmt::Display| {
            Failure::new(format!("--cacert {} cannot be used ({why}); give a file of PEM certificates", file.display()))
        };
        let root_cert = std::fs::read(file).map_err(|error| unreadable(&error))?;
        if !root_cert.windows(BEGIN.len()).any(|part| part == BEGIN) {
            return Err(unreadable(&"it holds no certificate"));
        }
        Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
            .map_err(|error| unreadable(&error))
    }
}

/// What each certificate in a PEM file begins with.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Makes connections to one server.
#[derive(Debug)]
pub struct Connector {
    client: Client,
    tls: bool,
    /// Host and port, or the path of a socket.
    pub address: String,
}

impl Connector {
    /// A new connection.
    ///
    /// # Errors
    /// When the server does not answer, or refuses the user.
    pub fn connect(&self) -> Result<Connection, Failure> {
        self.client.get_connection_with_timeout(CONNECT_TIMEOUT).map_err(|error| {
            let what_to_do = match error.kind() {
                redis::ErrorKind::AuthenticationFailed => "check user and password in --url or REDIS_URL",
                _ => match error.code() {
                    Some("NOAUTH" | "WRONGPASS") => "check user and password in --url or REDIS_URL",
                    _ if error.to_string().contains("certificate") => "give --cacert FILE with its authority",
                    _ if self.tls => "check --url or REDIS_URL, and that the server runs and speaks TLS on this port",
                    _ => "check --url or REDIS_URL and that the server runs",
                },
            };
            Failure::connection(format!("cannot connect to Redis at {} ({error}); {what_to_do}", self.address))
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::fake_server::FakeServer;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        server: Server,
    }

    fn server(url: &str, options: &[&str]) -> Server {
        Line::try_parse_from(["test", "--url", url].iter().chain(options)).unwrap().server
    }

    /// The failure of a connection.
    fn refused(url: &str, options: &[&str]) -> Failure {
        server(url, options).client().and_then(|connector| connector.connect().map(|_| ())).unwrap_err()
    }

    #[test]
    fn a_server_with_tls_is_trusted_by_its_authority_or_not_at_all() {
        let (fake, certificate) = FakeServer::with_tls();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), certificate).unwrap();
        let reply = |options: &[&str]| {
            let mut connection = server(&fake.url(), options).client().unwrap().connect().unwrap();
            redis::cmd("PING").query::<String>(&mut connection).unwrap()
        };
        assert_eq!(reply(&["--cacert", file.path().to_str().unwrap()]), "OK");
        assert_eq!(reply(&["--insecure"]), "OK");
        let failure = refused(&fake.url(), &[]);
        assert!(failure.is_connection() && failure.to_string().contains("--cacert"), "{failure}");
    }

    #[test]
    fn a_server_that_does_not_answer_may_lack_tls() {
        let failure = refused("rediss://127.0.0.1:1", &[]);
        assert!(failure.is_connection() && failure.to_string().contains("speaks TLS"), "{failure}");
        assert!(!refused("redis://127.0.0.1:1", &[]).to_string().contains("TLS"));
    }

    #[test]
    fn options_that_cannot_be_used_are_named() {
        let no_certificate = tempfile::NamedTempFile::new().unwrap();
        let file = no_certificate.path().to_str().unwrap();
        for (url, options, part) in [
            ("redis://localhost", ["--cacert", file], "rediss://"),
            ("rediss://localhost", ["--cacert", file], "holds no certificate"),
            ("rediss://localhost", ["--cacert", "/no/such"], "--cacert /no/such"),
        ] {
            let failure = refused(url, &options);
            assert!(failure.to_string().contains(part) && !failure.is_connection(), "{failure}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "redis://user:geheim@127.0.0.1:1",
            "redis://user:geheim@127.0.0.1:1/geheim",
            "redis://user:geheim@127.0.0.1:port",
            "redis://user:geheim@",
            "redis://user:geheim@127.0.0.1:1?protocol=geheim",
            "rediss://user:geheim@127.0.0.1:1",
            "rediss://user:geheim@127.0.0.1:1#geheim",
            "unix:///no/such/socket?user=a&pass=geheim",
            "user:geheim@localhost",
            "http://user:geheim@localhost",
        ] {
            let failure = refused(url, &[]);
            let shown = [failure.shown(false), failure.shown(true), format!("{:?}", server(url, &[]))].concat();
            assert!(!shown.contains("geheim"), "{url}: {shown}");
        }
    }
}
