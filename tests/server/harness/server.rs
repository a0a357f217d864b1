//! A redis-server with the module in a folder of its own, killed when the test ends.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Client, Model, PATIENCE, cmd, int, required};

/// Lines of the log that a failed test shows.
const LOG_LINES: usize = 60;

/// What CONFIG REWRITE writes to; empty at first.
const CONFIG_FILE: &str = "redis.conf";

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Address is 127.0.0.1.
    pub port: u16,
    folder: TempDir,
    program: PathBuf,
    /// Beside what every server here is started with.
    options: Vec<String>,
}

impl Server {
    /// Redis 8 with the module and nothing loaded.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Redis 8 with the module and these models, each under its own name.
    #[track_caller]
    pub fn with(models: &[Model]) -> Self {
        Self::configured(models, &[])
    }

    /// As [`Server::with`], with options for redis-server such as `["--appendonly", "yes"]`.
    #[track_caller]
    pub fn configured(models: &[Model], options: &[&str]) -> Self {
        let server = Self::of_program(&required("REDIS_INFER_REDIS_SERVER"), options, true);
        let mut client = server.client();
        for model in models {
            client.ok(&model.load());
        }
        server
    }

    /// The server of another version, with the module.
    #[track_caller]
    pub fn of(program: &Path) -> Self {
        Self::of_program(program, &[], true)
    }

    /// A server in which INFER.DEBUG is not allowed.
    #[track_caller]
    pub fn without_debug() -> Self {
        Self::of_program(&required("REDIS_INFER_REDIS_SERVER"), &[], false)
    }

    #[track_caller]
    fn of_program(program: &Path, options: &[&str], debug: bool) -> Self {
        // Somebody may take the port between our look and the server's; then it is tried with another one.
        for _ in 0..5 {
            let folder = TempDir::with_prefix("redis-infer-test-").unwrap();
            let port = free_port();
            let child = spawn(program, folder.path(), port, options, debug);
            let options = options.iter().map(|&option| option.to_owned()).collect();
            let mut server = Self { child, port, folder, program: program.to_owned(), options };
            if server.comes_up() {
                return server;
            }
            assert!(server.log().contains("Address already in use"), "{} did not start", program.display());
        }
        panic!("found no free port");
    }

    /// The log of a server that does not start with these options.
    #[track_caller]
    pub fn refuses_to_start(options: &[&str]) -> String {
        let folder = TempDir::with_prefix("redis-infer-test-").unwrap();
        let program = required("REDIS_INFER_REDIS_SERVER");
        let child = spawn(&program, folder.path(), free_port(), options, false);
        let mut server = Self { child, port: 0, folder, program, options: Vec::new() };
        assert!(!server.wait_for_exit(), "the server started");
        server.log()
    }

    /// Ends it and starts it again from its configuration file alone, which CONFIG REWRITE has written.
    #[track_caller]
    pub fn restart_from_file(&mut self) {
        self.client().send(&cmd!["SHUTDOWN", "NOSAVE"]);
        assert!(self.wait_for_exit(), "the server ended with an error");
        self.child = run(Command::new(&self.program).arg(CONFIG_FILE), self.folder.path());
        assert!(self.comes_up(), "the server did not start again");
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts a server that has ended with the same options, port and folder, and so with its data; without models.
    #[track_caller]
    pub fn start_again(&mut self) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.child = spawn(&self.program, self.folder.path(), self.port, &options, true);
        assert!(self.comes_up(), "the server did not start again");
        let mut client = self.client();
        super::eventually("the data is loaded", || client.text(&cmd!["INFO", "persistence"]).contains("\nloading:0\r"));
    }

    /// Whether it accepts connections within the deadline; `false` when it has ended.
    fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            if let Some(mut client) = Client::try_connect(self.port, "") {
                let info = client.ok(&cmd!["INFO", "server"]);
                let own = format!("process_id:{}\r", self.child.id());
                // Another server may have been faster on this port; ours ends in a moment.
                if super::text(&info).contains(&own) {
                    return true;
                }
            }
            assert!(Instant::now() < deadline, "the server accepts no connection after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// A new connection, RESP2.
    #[track_caller]
    pub fn client(&self) -> Client {
        self.connect("")
    }

    /// A new connection, RESP3.
    #[track_caller]
    pub fn resp3(&self) -> Client {
        self.connect("?protocol=resp3")
    }

    #[track_caller]
    fn connect(&self, query: &str) -> Client {
        Client::try_connect(self.port, query).expect("the server is there but accepts no connection")
    }

    /// Requests of `model` that wait or run.
    #[track_caller]
    pub fn requests(&self, model: &str) -> i64 {
        let facts = self.client().ok(&cmd!["INFER.MODEL", model]);
        int(super::field(&facts, "requests"))
    }

    /// Waits for the end of a server that was told to end at `begun`. Fails unless it ends without an error and without a
    /// crash; whether it took less than two seconds, after which supervisors become impatient, and no thread was left at work.
    #[track_caller]
    pub fn ends_at_once(&mut self, begun: Instant) -> bool {
        assert!(self.wait_for_exit(), "redis-server ended with an error");
        let (taken, log) = (begun.elapsed(), self.log());
        assert!(!log.contains("BUG REPORT"), "the server crashed");
        taken < Duration::from_secs(2) && !log.contains("threads were still busy")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its folder: data, log, and whatever the test puts there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        match std::fs::read(self.folder().join("redis.log")) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => panic!("cannot read the log: {error}"),
        }
    }

    /// Whether the process still runs and answers.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
            && Client::try_connect(self.port, "").is_some_and(|mut client| client.call(&cmd!["PING"]).is_ok())
    }

    /// Fails unless the process still runs and answers.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended");
        assert_eq!(super::text(&self.client().ok(&cmd!["PING"])), "PONG");
    }

    /// Waits for the process to end by itself; whether it ended with status 0.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "the server has not ended after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            // See `redis_infer_sync::MainLock`.
            let log = self.log();
            let broken = log.lines().find(|line| line.contains("a lock of the main thread"));
            assert_eq!(broken, None, "all clients may have waited");
        } else {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines.len().saturating_sub(LOG_LINES);
            // What matters in a report of a crash stands at its beginning.
            let crash =
                lines.iter().position(|line| line.contains("crashed by signal") || line.contains("ASSERTION FAILED"));
            let shown: Vec<&str> = lines.into_iter().skip(crash.unwrap_or(end)).take(LOG_LINES).collect();
            eprintln!("---- from the server's log:\n{}\n----", shown.join("\n"));
        }
    }
}

/// A port of the loopback interface that nobody uses at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(program: &Path, folder: &Path, port: u16, options: &[&str], debug: bool) -> Child {
    std::fs::write(folder.join(CONFIG_FILE), "").unwrap();
    let mut command = Command::new(program);
    command
        .arg(CONFIG_FILE)
        .args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--logfile", "redis.log"])
        .args(["--enable-module-command", "local", "--enable-debug-command", "local"])
        .arg("--port")
        .arg(port.to_string())
        .arg("--dir")
        .arg(folder)
        .args(options)
        .arg("--loadmodule")
        .arg(module());
    if debug {
        command.env("REDIS_INFER_DEBUG", "1");
    } else {
        command.env_remove("REDIS_INFER_DEBUG");
    }
    run(&mut command, folder)
}

fn run(command: &mut Command, folder: &Path) -> Child {
    command.current_dir(folder).env("GGML_NO_BACKTRACE", "1").stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", command.get_program().display()))
}

/// The module under test.
pub fn module() -> PathBuf {
    required("REDIS_INFER_MODULE")
}
