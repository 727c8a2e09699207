//! `uring-pool doctor`: what it says of this machine, and of one that lacks something.

mod common;

use std::process::Command;

use common::program;

/// Exit status, standard output, standard error.
fn run(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn finding<'a>(report: &'a str, what: &str) -> &'a str {
    let line = report.lines().find(|line| line[5..].trim_start().starts_with(what));
    line.unwrap_or_else(|| panic!("nothing of {what}:\n{report}"))
}

#[test]
fn it_tells_what_is_there_and_recommends_one_mode() {
    let mut doctor = program();
    doctor.arg("doctor");
    let (status, report, errors) = run(doctor);
    assert_eq!((status, errors.as_str()), (0, ""), "{report}");
    for what in ["kernel", "io_uring", "cores", "sharing a port", "passing descriptors"] {
        assert!(finding(&report, what).starts_with("ok "), "{report}");
    }
    let recommended = report.lines().filter(|line| line.starts_with("* ")).count();
    assert_eq!(recommended, 2, "one mode, and what the mark means:\n{report}");
}

#[test]
fn a_kernel_that_lacks_features_is_noted_and_a_wrong_mask_refused() {
    let mut doctor = program();
    doctor.arg("doctor").env("URING_POOL_MASK", "all");
    let (status, report, _) = run(doctor);
    assert_eq!(status, 0);
    assert!(finding(&report, "io_uring").contains("with none"), "{report}");
    assert!(finding(&report, "iowait").starts_with("note "), "{report}");
    let mut doctor = program();
    doctor.arg("doctor").env("URING_POOL_MASK", "nonsense");
    let (status, _, errors) = run(doctor);
    assert_eq!(status, 64);
    assert!(errors.contains("URING_POOL_MASK: `nonsense` is no kernel feature"), "{errors}");
}

#[test]
fn what_a_pool_needs_and_cannot_have_is_named_and_the_status_says_so() {
    // Enough descriptors to start, and for a ring, but not for two sockets.
    let mut doctor = Command::new("sh");
    doctor.args(["-c", "ulimit -n 4; exec \"$0\" doctor", env!("CARGO_BIN_EXE_uring-pool")]);
    let (status, report, errors) = run(doctor);
    assert_eq!(status, 69, "{report}{errors}");
    assert!(finding(&report, "sharing a port").starts_with("no "), "{report}");
    assert!(finding(&report, "descriptors").contains("ulimit -n"), "{report}");
    assert!(errors.contains("can't serve here"), "{errors}");
}
