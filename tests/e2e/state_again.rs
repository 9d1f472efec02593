//! A disk that was full and is free again is not said to be full.

use crate::harness::World;

#[test]
fn the_first_status_after_the_disk_is_free_again_says_so() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    daemon.wait_until_recorded();
    // A file where the folder was: no user, not even root, can write in it.
    let (folder, away) = (world.path("state"), world.path("state.away"));
    std::fs::rename(&folder, &away).unwrap();
    std::fs::write(&folder, "").unwrap();
    daemon.deploy(&world.app("v2")).refused(503, "state_unwritable");
    assert!(daemon.status().state_error.is_some());
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    assert_eq!(daemon.status().state_error, None);
    daemon.deploy(&world.app("v2")).expect(200);
}
