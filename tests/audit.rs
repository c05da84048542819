//! The audit log from outside: what is recorded of a life, and that no change to it stays unseen.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::Value;

use crate::support::{Outcome, Rig, Supervisor, effort, until};

/// A closed log of several runs: twelve records or more, a head at the end of each run.
fn closed_log() -> Rig {
    let rig = Rig::new();
    for code in [0, 3, 0] {
        assert_eq!(rig.sh(2, &format!("exit {code}")).code, code);
    }
    let file = rig.agent("prey", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let supervisor = rig.start(&file);
    assert_eq!(rig.output(["kill", "prey", "--reason", "test of the log", "--yes"]).code, 0);
    assert_eq!(supervisor.wait().code, 76);
    rig
}

fn shown(rig: &Rig, args: &[&str]) -> Vec<Value> {
    let outcome = rig.output([&["audit", "show", "--json"], args].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
    value["records"].as_array().unwrap().clone()
}

fn verified(rig: &Rig, args: &[&str]) -> (Outcome, Value) {
    let outcome = rig.output([&["audit", "verify", "--json"], args].concat());
    let value = serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null);
    (outcome, value)
}

fn database(rig: &Rig) -> PathBuf {
    rig.state.join("state.db")
}

fn sql(database: &Path, statements: &str) {
    Connection::open(database).unwrap().execute_batch(statements).unwrap();
}

/// The kinds of problems and their places, after `change` on a sound log.
fn found_after(change: impl FnOnce(&Rig)) -> Vec<(String, u64)> {
    let rig = closed_log();
    change(&rig);
    let (outcome, report) = verified(&rig, &[]);
    assert_eq!(outcome.code, 65, "{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(report["sound"], false);
    let text = rig.output(["audit", "verify"]);
    assert_eq!(text.code, 65);
    let problems = report["problems"].as_array().unwrap();
    for problem in problems {
        assert!(text.stdout.contains(&format!("record {}: {}", problem["seq"], problem["kind"].as_str().unwrap())));
    }
    problems.iter().map(|p| (p["kind"].as_str().unwrap().to_owned(), p["seq"].as_u64().unwrap())).collect()
}

#[test]
fn a_life_and_its_end_are_recorded_and_the_log_verifies() {
    let rig = closed_log();
    let records = shown(&rig, &[]);
    let what: Vec<(&str, &str)> = records
        .iter()
        .map(|r| (r["agent"].as_str().unwrap_or("-"), r["action"].as_str().unwrap()))
        .filter(|(_, action)| ["launch", "kill", "end"].contains(action))
        .collect();
    assert_eq!(&what[..2], [("sh", "launch"), ("sh", "end")]);
    assert_eq!(&what[what.len() - 3..], [("prey", "launch"), ("prey", "kill"), ("prey", "end")]);
    let (outcome, report) = verified(&rig, &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(report["records"].as_u64(), Some(records.len() as u64));
    assert_eq!(report["unprotected"], 0);
    assert!(report["heads"].as_u64() >= Some(4));
    let text = rig.output(["audit", "verify"]);
    assert!(text.code == 0 && text.stdout.starts_with("sound: "), "{text:?}");
    assert!(text.stdout.contains("unprotected: 0"), "{}", text.stdout);
}

#[test]
fn show_takes_the_newest_or_what_follows_a_number_and_one_agents_records() {
    let rig = closed_log();
    let all = shown(&rig, &[]);
    let seqs = |args: &[&str]| shown(&rig, args).iter().map(|r| r["seq"].as_u64().unwrap()).collect::<Vec<u64>>();
    let last = all.len() as u64;
    assert_eq!(seqs(&["--limit", "2"]), [last - 1, last]);
    assert_eq!(seqs(&["--after", "1", "--limit", "2"]), [2, 3]);
    let of_prey = all.iter().filter(|record| record["agent"] == "prey").map(|record| record["seq"].as_u64().unwrap());
    let of_prey: Vec<u64> = of_prey.collect();
    assert!(of_prey.len() >= 3 && of_prey.len() < all.len());
    assert_eq!(seqs(&["--agent", "prey"]), of_prey);
    assert_eq!(seqs(&["--agent", "prey", "--limit", "1"]), [last]);
    assert_eq!(seqs(&["--agent", "prey", "--after", "0", "--limit", "1"]), of_prey[..1]);
    assert_eq!(seqs(&["--agent", "nobody"]), [0; 0]);
    let text = rig.output(["audit", "show", "--limit", "1"]);
    assert!(text.stdout.lines().count() == 1 && text.stdout.contains("end noted"), "{}", text.stdout);
}

#[test]
fn a_running_supervisors_log_is_read_and_verified_as_well() {
    let rig = Rig::new();
    let file = rig.agent("alive", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let _supervisor = rig.start(&file);
    assert!(shown(&rig, &["--agent", "alive"]).iter().any(|record| record["action"] == "launch"));
    let (outcome, _) = verified(&rig, &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
}

/// The number of the record of the end with exit code 3.
fn telling(rig: &Rig) -> u64 {
    let records = shown(rig, &[]);
    let told = records.iter().find(|record| record["details"]["exit_code"] == 3).unwrap();
    told["seq"].as_u64().unwrap()
}

#[test]
fn an_edited_record_is_found_in_its_place() {
    let mut place = 0;
    let found = found_after(|rig| {
        place = telling(rig);
        let edit = "UPDATE audit SET record = replace(record, '\"exit_code\":3', '\"exit_code\":0') WHERE seq =";
        sql(&database(rig), &format!("{edit} {place}"));
    });
    assert_eq!(found, [("edited".to_owned(), place)]);
}

#[test]
fn a_deleted_record_is_found_in_its_place() {
    let found = found_after(|rig| sql(&database(rig), "DELETE FROM audit WHERE seq = 2"));
    assert_eq!(found, [("deleted".to_owned(), 2)]);
}

#[test]
fn reordered_records_are_found_in_their_place() {
    let found = found_after(|rig| {
        sql(
            &database(rig),
            "UPDATE audit SET seq = -2 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = -2",
        );
    });
    assert_eq!(found, [("reordered".to_owned(), 2)]);
}

#[test]
fn a_cut_tail_is_found_below_the_head_that_knows_it() {
    // With its heads in the table: the second file still knows.
    let found = found_after(|rig| {
        sql(&database(rig), "DELETE FROM audit WHERE seq > 4; DELETE FROM audit_heads WHERE seq > 4")
    });
    assert!(found.contains(&("cut_tail".to_owned(), 5)), "{found:?}");
}

#[test]
fn a_store_set_back_that_went_on_is_a_fork() {
    let found = found_after(|rig| {
        let old = rig.dir.path().join("old");
        std::fs::create_dir(&old).unwrap();
        // An older state of the whole directory but for the second file of heads, which the thief could not reach.
        copy(&rig.state, &old, &[]);
        let heads = rig.state.join("audit-heads.log");
        assert_eq!(rig.sh(2, "exit 1").code, 1);
        let kept = std::fs::read(&heads).unwrap();
        std::fs::remove_file(database(rig)).unwrap();
        for name in ["state.db-wal", "state.db-shm"] {
            let _ = std::fs::remove_file(rig.state.join(name));
        }
        copy(&old, &rig.state, &["audit.key"]);
        assert_eq!(rig.sh(2, "exit 2").code, 2, "the older state is whole in itself");
        let own = std::fs::read(&heads).unwrap();
        let beyond = &own[std::fs::metadata(old.join("audit-heads.log")).unwrap().len() as usize..];
        std::fs::write(&heads, [&kept, beyond].concat()).unwrap();
    });
    assert!(found.iter().any(|(kind, _)| kind == "forked"), "{found:?}");
}

fn copy(from: &Path, to: &Path, but: &[&str]) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|e| e.file_type().unwrap().is_file()) {
        if !but.iter().any(|name| entry.file_name() == *name) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_chain_that_was_computed_anew_is_found() {
    use agt_supervise::audit::chain::{StoreId, Tip};
    let mut place = 0;
    let found = found_after(|rig| {
        place = telling(rig);
        let connection = Connection::open(database(rig)).unwrap();
        let id: String =
            connection.query_row("SELECT value FROM meta WHERE key = 'store_id'", (), |row| row.get(0)).unwrap();
        let mut tip = Tip::genesis(&StoreId::from_hex(&id).unwrap());
        let mut select = connection.prepare("SELECT seq, record FROM audit ORDER BY seq").unwrap();
        let rows = select.query_map((), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
        for (seq, record) in rows.map(Result::unwrap).collect::<Vec<_>>() {
            let record =
                record.replace("test of the log", "nothing special").replace("\"exit_code\":3", "\"exit_code\":0");
            tip = tip.next(record.as_bytes());
            connection
                .execute(
                    "UPDATE audit SET record = ?1, hash = ?2 WHERE seq = ?3",
                    rusqlite::params![record, tip.hash.0, seq],
                )
                .unwrap();
        }
    });
    let [(kind, seq)] = &found[..] else { panic!("{found:?}") };
    // A rewritten chain is placed between two heads.
    assert!(kind == "rewritten" && (place - 3..=place).contains(seq), "{found:?}, changed {place}");
}

#[test]
fn a_removed_file_of_heads_is_no_way_around() {
    let rig = closed_log();
    std::fs::remove_file(rig.state.join("audit-heads.log")).unwrap();
    let (outcome, _) = verified(&rig, &[]);
    assert_eq!(outcome.code, 65, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("audit-heads.log"), "{}", outcome.stderr);
}

/// The numbers of the table's heads.
fn head_numbers(rig: &Rig) -> Vec<u64> {
    let connection = Connection::open(database(rig)).unwrap();
    let mut select = connection.prepare("SELECT seq FROM audit_heads ORDER BY seq").unwrap();
    let rows = select.query_map((), |row| row.get::<_, i64>(0)).unwrap();
    rows.map(|seq| seq.unwrap().unsigned_abs()).collect()
}

fn keep_lines(path: &Path, kept: usize) {
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, text.split_inclusive('\n').take(kept).collect::<String>()).unwrap();
}

/// Both places of the heads are in the thief's hands: what agrees with itself is still not what was signed.
#[test]
fn a_heads_file_that_was_emptied_or_cut_is_no_way_around() {
    let cases: [(&str, usize, Option<u64>); 5] = [
        ("the file emptied", 0, None),
        ("the file cut", 2, None),
        ("the file emptied, the tables cut", 0, Some(4)),
        ("both cut at the same place", 1, Some(0)),
        ("everything emptied", 0, Some(0)),
    ];
    for (case, kept, cut) in cases {
        let rig = closed_log();
        let (heads, all) = (rig.state.join("audit-heads.log"), head_numbers(&rig));
        assert!(all.len() >= 4, "{all:?}");
        keep_lines(&heads, kept);
        let after = match (cut, kept) {
            (Some(_), 1) => Some(all[0]),
            _ => cut,
        };
        if let Some(after) = after {
            sql(
                &database(&rig),
                &format!("DELETE FROM audit WHERE seq > {after}; DELETE FROM audit_heads WHERE seq > {after}"),
            );
        }
        let place = after.map_or(all[kept], |after| after + 1);
        let named = ["--heads", heads.to_str().unwrap()];
        for args in [&[][..], &named] {
            let (outcome, report) = verified(&rig, args);
            assert_eq!(outcome.code, 65, "{case}: {}{}", outcome.stdout, outcome.stderr);
            let problems = report["problems"].as_array().unwrap();
            assert!(problems.iter().any(|problem| problem["seq"] == place), "{case}: {place} in {problems:?}");
        }
        let before = std::fs::read(&heads).unwrap();
        let next = rig.sh(2, "exit 0");
        assert_eq!(next.code, 65, "{case}: the next start goes on over it: {}", next.stderr);
        assert!(next.stderr.contains("audit verify"), "{case}: {}", next.stderr);
        assert_eq!(std::fs::read(&heads).unwrap(), before, "{case}: the evidence was changed");
    }
}

#[test]
fn one_head_that_a_crash_kept_out_of_the_file_is_no_tampering() {
    let rig = closed_log();
    let heads = rig.state.join("audit-heads.log");
    let (whole, all) = (std::fs::read_to_string(&heads).unwrap(), head_numbers(&rig));
    // Before the floor was raised, as a crash between the two writes leaves it.
    let floor = rig.state.join("audit-floor");
    let mut slots = std::fs::read(&floor).unwrap();
    let newest = format!("\"seq\":{},", all[all.len() - 1]);
    let torn = slots.chunks(512).position(|slot| String::from_utf8_lossy(slot).contains(&newest)).unwrap();
    slots[torn * 512..(torn + 1) * 512].fill(b' ');
    std::fs::write(&floor, &slots).unwrap();
    keep_lines(&heads, all.len() - 1);
    let (outcome, _) = verified(&rig, &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(rig.sh(2, "exit 0").code, 0);
    assert!(std::fs::read_to_string(&heads).unwrap().starts_with(&whole), "the next start files it");
    // Two are more than a crash explains.
    keep_lines(&heads, all.len() - 1);
    assert_eq!(verified(&rig, &[]).0.code, 65);
}

#[test]
fn a_floor_that_was_removed_or_damaged_is_told() {
    for text in [None, Some(""), Some("nonsense\n")] {
        let rig = closed_log();
        let floor = rig.state.join("audit-floor");
        match text {
            None => std::fs::remove_file(&floor).unwrap(),
            Some(text) => std::fs::write(&floor, text).unwrap(),
        }
        let outcome = rig.output(["audit", "verify"]);
        assert_eq!(outcome.code, 65, "{text:?}: {}", outcome.stdout);
        assert!(format!("{}{}", outcome.stdout, outcome.stderr).contains("floor"), "{}", outcome.stderr);
        let next = rig.sh(2, "exit 0");
        assert!(next.code == 65 && next.stderr.contains("audit-floor"), "{text:?}: {}", next.stderr);
    }
}

#[test]
fn a_lost_or_damaged_key_is_named_and_never_replaced() {
    for text in [None, Some(&b"abc\n"[..]), Some(&[0xff; 65][..]), Some(&b""[..])] {
        let rig = closed_log();
        let key = rig.state.join("audit.key");
        std::fs::remove_file(&key).unwrap();
        if let Some(text) = text {
            std::fs::write(&key, text).unwrap();
            std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
        }
        let word = if text.is_none() { "missing" } else { "damaged" };
        let next = rig.sh(2, "exit 0");
        assert_eq!(next.code, 65, "{text:?}: {}", next.stderr);
        assert_eq!(key.exists(), text.is_some(), "a key was made");
        for outcome in [next, rig.output(["audit", "verify"]), rig.output(["audit", "key"])] {
            assert_eq!(outcome.code, 65, "{text:?}: {}", outcome.stderr);
            let said = outcome.stderr.contains("audit.key") && outcome.stderr.contains(word);
            assert!(said && outcome.stderr.contains("help: "), "{text:?}: {}", outcome.stderr);
        }
    }
}

#[test]
fn a_copy_is_verified_with_a_key_and_heads_that_were_kept_elsewhere() {
    let rig = closed_log();
    let key = rig.output(["audit", "key"]);
    assert_eq!((key.code, key.stdout.trim().len()), (0, 64), "{}", key.stderr);
    let place = rig.dir.path().join("elsewhere");
    std::fs::create_dir(&place).unwrap();
    copy(&rig.state, &place, &["audit.key"]);
    let file = place.join("audit.pub");
    std::fs::write(&file, &key.stdout).unwrap();
    let path = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let (db, heads, file) = (path("state.db"), path("audit-heads.log"), file.to_str().unwrap().to_owned());
    for key in [file.as_str(), key.stdout.trim()] {
        let (outcome, _) = verified(&rig, &["--db", &db, "--heads", &heads, "--key", key]);
        assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    }
    let other = "11".repeat(32);
    let (outcome, report) = verified(&rig, &["--db", &db, "--key", &other]);
    if outcome.code == 65 {
        assert_eq!(report["problems"][0]["kind"], "other_key");
    } else {
        assert_eq!(outcome.code, 64, "{}", outcome.stderr);
    }
    let (outcome, _) = verified(&rig, &["--db", &db, "--key", "nonsense"]);
    assert_eq!(outcome.code, 64, "{}", outcome.stderr);
    let (outcome, _) = verified(&rig, &["--db", &db]);
    assert_ne!(outcome.code, 0, "no key is no verification");
}

#[test]
fn records_that_a_sigkill_left_unsigned_are_unprotected_and_no_tampering() {
    let rig = Rig::new();
    let file = rig.agent(
        "short",
        &format!(
            "ring: 2\n{}restart: {{policy: always, attempts: 1000, backoff: {{initial: 10ms, max: 10ms}}}}\ncommand: ['true']\n",
            effort()
        ),
    );
    let last = || shown(&rig, &["--limit", "1"]).first().map_or(0, |record| record["seq"].as_u64().unwrap());
    // Records come every few milliseconds, heads twice a second: a SIGKILL rarely meets the moment right after a head.
    let socket = rig.state.join("operator.sock");
    let left = (0..10)
        .map(|_| {
            let before = if database(&rig).exists() { last() } else { 0 };
            // The socket comes when the store is open; before that there may be half a store.
            let child = rig.command(["run".as_ref(), file.as_os_str()]).stderr(Stdio::null()).spawn().unwrap();
            let supervisor = Supervisor { child: Some(child) };
            until("some records are written", || socket.exists() && last() > before + 6);
            supervisor.signal(Signal::SIGKILL);
            drop(supervisor);
            let (outcome, report) = verified(&rig, &[]);
            assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
            report["unprotected"].as_u64().unwrap()
        })
        .find(|left| *left > 0)
        .expect("ten kills in a row met a head");
    let text = rig.output(["audit", "verify"]);
    assert!(text.code == 0 && text.stdout.contains(&format!("unprotected: {left} ")), "{}", text.stdout);
    let killed_at = last();
    assert_eq!(rig.sh(2, "exit 0").code, 0, "the next start takes the log up");
    let (outcome, report) = verified(&rig, &[]);
    assert_eq!((outcome.code, report["unprotected"].as_u64()), (0, Some(0)), "{}", outcome.stderr);
    let since = shown(&rig, &["--after", &killed_at.to_string()]);
    let told = since.iter().find(|record| record["action"] == "audit.resumed").expect("a record tells of them");
    assert_eq!(told["details"]["unprotected_to"].as_u64(), Some(killed_at));
    assert_eq!(told["details"]["unprotected_from"].as_u64(), Some(killed_at - left + 1));
}

#[test]
fn without_a_log_it_says_so() {
    let rig = Rig::new();
    for verb in ["show", "verify", "key"] {
        let outcome = rig.output(["audit", verb]);
        assert_eq!(outcome.code, 69, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("there is no audit log"), "{}", outcome.stderr);
    }
}
