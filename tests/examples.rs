//! The examples do what their READMEs say.

use std::path::{Path, PathBuf};

use crate::support::{Outcome, Rig, is_root};

pub fn example(name: &str) -> PathBuf {
    let root = std::env::var_os("AGT_TEST_TREE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned(), PathBuf::from);
    root.join("examples").join(name)
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().filter_map(Result::ok) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn hello(rig: &Rig) -> Outcome {
    let folder = rig.work.join("hello");
    copy(&example("01-hello"), &folder);
    rig.output(["run".as_ref(), folder.join("agent.yaml").as_os_str()])
}

#[test]
fn hello_says_what_is_enforced_and_exits_0_on_any_box() {
    let rig = Rig::new();
    let outcome = hello(&rig);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
    for line in ["reads outside its view: refused", "writes outside its workdir: refused", "network outside: refused"] {
        assert!(outcome.stdout.contains(line), "{line}\n{}\n{}", outcome.stdout, outcome.stderr);
    }
    assert!(outcome.stderr.contains("enforced: "), "{}", outcome.stderr);
}

#[test]
fn hello_with_required_is_refused_where_it_must_be() {
    let rig = Rig::new();
    let folder = rig.work.join("hello");
    copy(&example("01-hello"), &folder);
    let file = folder.join("agent.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("enforcement: best-effort", "enforcement: required");
    std::fs::write(&file, text).unwrap();
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    let expected = if is_root() { 0 } else { 69 };
    assert_eq!(outcome.code, expected, "{}", outcome.stderr);
}
