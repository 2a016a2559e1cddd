//! The examples' balancer: a real nginx.

use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::PATIENCE;
use super::http::{self, Response};
use super::node::Node;

/// nginx with an example's configuration, and its page if it has one; only the ports are others.
pub(crate) struct Nginx {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Nginx {
    /// In front of three nodes, with what is in `examples/` under that name. Waits until it answers.
    pub(crate) fn start(example: &str, nodes: &[Node]) -> Self {
        Self::once(
            |port| Self::spawn(port, example, nodes),
            |nginx| {
                let ready = nginx.request("GET", "/health/ready", &[], "");
                ready.is_ok_and(|answer| answer.status == 200)
            },
        )
    }

    /// In front of one node, with TLS, and a certificate for `localhost` that nobody signed but itself. Waits
    /// until it listens; the certificate's path comes with it.
    pub(crate) fn with_tls(node: &Node) -> (Self, PathBuf) {
        let nginx = Self::once(
            |port| Self::spawn_tls(port, node),
            |nginx| TcpStream::connect((Ipv4Addr::LOCALHOST, nginx.port)).is_ok(),
        );
        let certificate = nginx.dir.path().join("cert.pem");
        (nginx, certificate)
    }

    /// Starts one on a port that is free, and once more if somebody else got it.
    fn once(spawn: impl Fn(u16) -> Self, is_ready: impl Fn(&Self) -> bool) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let mut nginx = spawn(port);
            while nginx.child.try_wait().unwrap().is_none() {
                if is_ready(&nginx) {
                    return nginx;
                }
                assert!(Instant::now() < deadline, "{}", nginx.log());
            }
            // Somebody else got the port in between.
            assert!(nginx.log().contains("bind()"), "{}", nginx.log());
            assert!(Instant::now() < deadline, "{}", nginx.log());
        }
    }

    fn spawn(port: u16, example: &str, nodes: &[Node]) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(example);
        let mut conf = fs::read_to_string(example.join("nginx.conf")).unwrap();
        let mut replace = |from: &str, to: u16| {
            assert_eq!(conf.matches(from).count(), 1, "{from}");
            conf = conf.replace(from, &format!("127.0.0.1:{to}"));
        };
        replace("localhost:8080", port);
        for (own, node) in (8081..).zip(nodes) {
            replace(&format!("127.0.0.1:{own}"), node.port());
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        if example.join("page").exists() {
            copy(&example.join("page"), &dir.path().join("page"));
            // What the example's `run` gets from npm.
            let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node_modules");
            for (library, name) in [
                ("sockjs-client/dist/sockjs.min.js", "sockjs.js"),
                ("@stomp/stompjs/bundles/stomp.umd.min.js", "stomp.js"),
            ] {
                fs::copy(modules.join(library), dir.path().join("page").join(name)).unwrap();
            }
            // Started by root, nginx reads it as nobody.
            fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        }
        Self::run(dir, port)
    }

    fn spawn_tls(port: u16, node: &Node) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(dir.path())
            .output()
            .expect("openssl is installed: scripts/setup --tests");
        assert!(made.status.success(), "{made:?}");
        let conf = format!(
            "daemon off; pid nginx.pid; error_log error.log; events {{}}
            http {{
              access_log off;
              client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
              uwsgi_temp_path uwsgi; scgi_temp_path scgi;
              server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate cert.pem;
                ssl_certificate_key key.pem;
                location / {{
                  proxy_pass http://127.0.0.1:{};
                  proxy_http_version 1.1;
                  proxy_set_header Upgrade $http_upgrade;
                  proxy_set_header Connection upgrade;
                  proxy_set_header Host $http_host;
                }}
              }}
            }}",
            node.port()
        );
        fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        Self::run(dir, port)
    }

    fn run(dir: TempDir, port: u16) -> Self {
        let stderr = File::create(dir.path().join("stderr")).unwrap();
        let installed = Path::new("/usr/sbin/nginx");
        let program = if installed.exists() {
            installed
        } else {
            Path::new("nginx")
        };
        let mut command = Command::new(program);
        command
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"));
        let child = command
            .args(["-e", "error.log"])
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("nginx is installed: scripts/setup --tests");
        Nginx { child, port, dir }
    }

    /// What it complained of.
    pub(crate) fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name));
        ["stderr", "error.log"]
            .map(|name| read(name).unwrap_or_default())
            .concat()
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// An address for HTTP.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// An address for WebSockets.
    pub(crate) fn ws_url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port)
    }

    /// One request through it.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Response> {
        http::try_request(self.port, method, path, headers, body.as_bytes())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, it would leave its workers behind.
        let pid = i32::try_from(self.child.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Copies a folder of files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
