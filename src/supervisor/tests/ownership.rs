//! Whose a listener is.

use std::process::{Child, Command, Stdio};

use super::super::{Owner, PortTaken};
use super::*;

/// A listener that portok did not start, ended with the test.
struct Stranger(Child);

impl Stranger {
    fn start(program: &Path, port: u16) -> Self {
        let child = Command::new(program)
            .args(&fixture_words()[1..])
            .env(MODE, "listen")
            .env("PORT", port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn owner_until(process: &Process, what: &str, wanted: impl Fn(&Owner) -> bool) -> Owner {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let owner = process.owner().await;
        if wanted(&owner) {
            return owner;
        }
        assert!(Instant::now() < deadline, "not {what} but {owner:?} within {DEADLINE:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_run_owns_what_its_leader_or_its_children_listen_on() {
    let bench = Bench::new();
    for mode in ["listen", "wildcard"] {
        let process = bench.fixture(mode).await;
        said(&process, "listening").await;
        assert_eq!(process.owner().await, Owner::Ours, "{mode}");
        let addrs = process.listeners().await;
        assert_eq!(
            addrs.iter().map(SocketAddr::port).collect::<Vec<_>>(),
            [process.port().unwrap()],
            "{mode}"
        );
        assert_eq!(process.port_taken().await, None);
        process.listening();
        process.kill();
        within("the end", process.gone()).await;
        assert_eq!(process.owner().await, Owner::Nobody);
    }
    // A grandchild in a session of its own, whose parents are gone.
    let words = fixture_words().join(" ");
    let mut launch = bench.launch(CommandLine::Shell(format!("(setsid {words} &); exec sleep 600")));
    launch.env.insert(MODE.into(), "listen".into());
    let process = bench.start(launch).await.unwrap();
    said(&process, "listening").await;
    assert_eq!(process.owner().await, Owner::Ours);
    process.kill();
    within("the end", process.gone()).await;
}

#[tokio::test]
async fn an_app_that_listens_elsewhere_is_said_to() {
    let bench = Bench::new();
    let process = bench.fixture("elsewhere").await;
    let addr: SocketAddr = said(&process, "listening on ").await.parse().unwrap();
    assert_eq!(process.owner().await, Owner::Nobody);
    assert_eq!(process.listeners().await, [addr]);
    process.kill();
    within("the end", process.gone()).await;
}

#[tokio::test]
async fn a_strangers_listener_is_told_with_its_name() {
    let bench = Bench::new();
    let process = bench.sh("exec sleep 600").await;
    assert_eq!(process.owner().await, Owner::Nobody);
    let stranger = Stranger::start(&std::env::current_exe().unwrap(), process.port().unwrap());
    let owner = owner_until(&process, "a stranger", |owner| *owner != Owner::Nobody).await;
    let Owner::Stranger { pid, command } = owner else { panic!("{owner:?}") };
    assert_eq!((pid, command), (stranger.0.id(), proc::name(stranger.0.id())));
    assert_eq!(process.port_taken().await, Some(PortTaken::ByAnother));
    process.kill();
    within("the end", process.gone()).await;
}

#[tokio::test]
async fn a_containers_relay_proves_nothing() {
    let bench = Bench::new();
    let process = bench.sh("exec sleep 600").await;
    let relay = bench.path().join("docker-proxy");
    std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &relay).unwrap();
    let _relay = Stranger::start(&relay, process.port().unwrap());
    let owner = owner_until(&process, "unproven", |owner| *owner != Owner::Nobody).await;
    assert_eq!(owner, Owner::Unproven);
    process.kill();
    within("the end", process.gone()).await;
}

#[tokio::test]
async fn of_several_listeners_one_stranger_is_enough() {
    let bench = Bench::new();
    let mut launch = bench.launch(CommandLine::Exec(fixture_words()));
    launch.env.insert(MODE.into(), "shared".into());
    if let Port::Own(lease) = &launch.port {
        lease.let_go();
    }
    let process = bench.start(launch).await.unwrap();
    said(&process, "listening").await;
    assert_eq!(process.owner().await, Owner::Ours);
    let _second = listen_shared(process.port().unwrap());
    let owner = process.owner().await;
    assert!(matches!(owner, Owner::Stranger { pid, .. } if pid == std::process::id()), "{owner:?}");
    process.kill();
    within("the end", process.gone()).await;
}

#[tokio::test]
async fn a_taken_port_is_read_from_what_the_app_said() {
    let bench = Bench::new();
    for (text, taken) in [
        ("echo 'Error: listen EADDRINUSE: 127.0.0.1' >&2; exit 1", Some(PortTaken::ByPlaceholder)),
        ("echo 'bind: Address already in use'; exit 1", Some(PortTaken::ByPlaceholder)),
        ("echo 'no such table'; exit 1", None),
    ] {
        let process = bench.sh(text).await;
        within("the exit", process.exited()).await;
        assert_eq!(process.port_taken().await, taken, "{text}");
    }
    // Where nothing holds the port and nobody has it, the app speaks of another one.
    let launch = bench.launch(CommandLine::Shell("echo EADDRINUSE; exit 1".into()));
    let launch = Launch { port: Port::Own(bench.supervisor.lease(false).unwrap()), ..launch };
    let process = bench.start(launch).await.unwrap();
    within("the exit", process.exited()).await;
    assert_eq!(process.port_taken().await, None);
}
