//! Verification over files, offline: the database, the second file of heads, and a public key kept by the reader.
//!
//! Works on a store that runs (one read transaction gives one state of it), on one that was killed, and on a copy on a read-only
//! medium. Heads reach the table first, then the file, then the floor. What the file and the floor hold is read before the database,
//! so that it must be in the table; what the file lacks is told by a second reading after it.
//! Nothing of what is verified is changed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use rand::TryRng as _;
use rand::rngs::SysRng;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

use crate::store::{StoreError, open_reading};

use super::AuditError;
use super::chain::{StoreId, to_hex};
use super::check::{Checker, Findings, Kind, Problem, Row};
use super::floor::{FLOOR_FILE, Floor};
use super::head::{Head, SignedHead};
use super::heads_file::{HeadsFile, Line};
use super::signer::KeyId;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VerifyReport {
    /// Records in the log.
    pub records: u64,
    /// Signed heads whose signature holds, each counted once.
    pub heads: u64,
    /// Records behind the last head: not signed yet, or left by a SIGKILL. They are linked, but could have been replaced.
    pub unprotected: u64,
    /// Lines of the heads file that a crash or a full disk cut off.
    pub torn_heads: u64,
    /// The record that the floor beside the database knows of; none without such a file.
    pub floor: Option<u64>,
    /// What is wrong, by place; at most [`super::check::PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// Problems beyond those.
    pub untold: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// 0, or 65 when something is wrong (sysexits.h: EX_DATAERR).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.is_sound() { 0 } else { 65 }
    }
}

/// Verifies the audit log in the database `db` against its heads, those in `heads` too if given, the floor beside the database if
/// there is one, and `key`.
///
/// # Errors
/// [`StoreError`] when there is nothing to verify: no such file, no database, not ours. What is wrong inside is a problem in the
/// report, not an error.
pub fn verify(db: &Path, heads: Option<&Path>, key: &VerifyingKey) -> Result<VerifyReport, StoreError> {
    let mut heads_read = HeadSet::new(key);
    let floor = Floor::read(&beside(db))?;
    let lines = heads.map(read_lines).transpose()?;
    let source = Source::open(db)?;
    let sqlite = |error| StoreError::of_sqlite(db, error);
    source.connection.execute_batch("BEGIN").map_err(sqlite)?;
    let store = match read_store(&source.connection) {
        Ok(Some(store)) => store,
        Ok(None) => {
            heads_read.problem(Kind::Unreadable, 0, "the store's identity is missing or damaged".to_owned());
            StoreId([0; 16])
        }
        Err(error) => return Err(sqlite(error)),
    };
    if let Err(error) = heads_read.read_table(&source.connection, &store) {
        heads_read.problem(Kind::Unreadable, 0, format!("the table of heads can't be read: {error}"));
    }
    let torn_heads = lines.map_or(0, |lines| heads_read.take_file(lines, &store));
    let floor = floor.map(|slots| heads_read.take_floor(slots, &store));
    if let Some(path) = heads {
        heads_read.find_unfiled(&read_lines(path)?, floor.unwrap_or(0));
    }
    let mut checker = Checker::new(&store, &heads_read.heads);
    if let Err(error) = push_rows(&source.connection, &mut checker) {
        let seq = checker.last() + 1;
        let text = format!("the database can't be read from record {seq} on: {error}");
        checker.report(Problem { kind: Kind::Unreadable, seq, text });
    }
    heads_read.problems.drain(..).for_each(|problem| checker.report(problem));
    let Findings { records, unprotected, problems, untold } = checker.finish();
    Ok(VerifyReport { records, heads: heads_read.heads.len() as u64, unprotected, torn_heads, floor, problems, untold })
}

fn read_store(connection: &Connection) -> rusqlite::Result<Option<StoreId>> {
    let text: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE key = 'store_id'", (), |row| row.get(0)).optional()?;
    Ok(text.and_then(|text| StoreId::from_hex(&text)))
}

fn push_rows(connection: &Connection, checker: &mut Checker) -> rusqlite::Result<()> {
    let mut select = connection.prepare("SELECT seq, record, hash FROM audit ORDER BY seq")?;
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        // Raw values: whatever type or encoding somebody put there is shown to the checker as it is.
        checker.push(&Row { seq: row.get(0)?, record: bytes(row.get_ref(1)?), hash: bytes(row.get_ref(2)?) });
    }
    Ok(())
}

fn bytes(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    }
}

fn beside(db: &Path) -> PathBuf {
    db.with_file_name(FLOOR_FILE)
}

fn read_lines(path: &Path) -> Result<Vec<(u64, Line)>, AuditError> {
    HeadsFile::lines(path)?.collect()
}

/// Heads from both places, checked and compared.
struct HeadSet<'k> {
    key: &'k VerifyingKey,
    id: KeyId,
    heads: Vec<Head>,
    table: Vec<SignedHead>,
    problems: Vec<Problem>,
}

impl<'k> HeadSet<'k> {
    fn new(key: &'k VerifyingKey) -> Self {
        Self { key, id: KeyId::of(key), heads: Vec::new(), table: Vec::new(), problems: Vec::new() }
    }

    fn problem(&mut self, kind: Kind, seq: u64, text: String) {
        self.problems.push(Problem { kind, seq, text });
    }

    fn read_table(&mut self, connection: &Connection, store: &StoreId) -> rusqlite::Result<()> {
        let mut select = connection.prepare("SELECT seq, head FROM audit_heads ORDER BY seq")?;
        let mut rows = select.query(())?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            let text = std::str::from_utf8(bytes(row.get_ref(1)?)).unwrap_or_default();
            let place = format!("the table's head at {seq}");
            match SignedHead::decode(text) {
                Ok(head) if i64::try_from(head.head.tip.seq) == Ok(seq) => {
                    if self.accept(&head, store, &place) {
                        self.heads.push(head.head.clone());
                    }
                    self.table.push(head);
                }
                _ => self.problem(Kind::BadHead, seq.unsigned_abs(), format!("{place} is damaged")),
            }
        }
        Ok(())
    }

    /// Takes the file's heads and compares them with the table's; returns how many lines are torn.
    fn take_file(&mut self, lines: Vec<(u64, Line)>, store: &StoreId) -> u64 {
        let mut torn = 0;
        let mut filed: Vec<u64> = Vec::new();
        for (number, line) in lines {
            let place = format!("the head in line {number} of the heads file");
            match line {
                Line::Torn => torn += 1,
                Line::Damaged => {
                    let seq = filed.last().copied().unwrap_or(0);
                    self.problem(Kind::BadHead, seq, format!("{place} is damaged"));
                }
                Line::Head(head) => {
                    let seq = head.head.tip.seq;
                    filed.push(seq);
                    let at = self.table.binary_search_by_key(&seq, |known| known.head.tip.seq);
                    let known = at.is_ok_and(|at| self.table[at] == head);
                    // A head that the table has word for word was checked there.
                    if known || !self.accept(&head, store, &place) {
                        continue;
                    }
                    if at.is_err() && !self.problems.iter().any(|problem| problem.seq == seq) {
                        self.problem(Kind::MissingHead, seq, format!("{place}, at {seq}, is missing in the table"));
                    }
                    self.heads.push(head.head);
                }
            }
        }
        torn
    }

    /// Takes the newer of the floor's heads that the key signed; returns its number.
    fn take_floor(&mut self, slots: [Option<SignedHead>; 2], store: &StoreId) -> u64 {
        let other = slots.iter().flatten().find(|head| head.head.key != self.id).map(|head| head.head.key);
        let signed = slots.into_iter().flatten().filter(|head| head.is_signed_by(self.key));
        let Some(head) = signed.max_by_key(|head| head.head.tip.seq) else {
            let (kind, what) = match other {
                Some(other) => (Kind::OtherKey, format!("names the key {other} instead of {}", self.id)),
                None => (Kind::BadHead, "holds no head that this key signed".to_owned()),
            };
            self.problem(kind, 0, format!("the floor ({FLOOR_FILE}) {what}"));
            return 0;
        };
        let seq = head.head.tip.seq;
        let known = seq == 0 || self.heads.contains(&head.head);
        if self.accept(&head, store, &format!("the floor's head at {seq}")) && !known {
            let text = format!("the floor's head at {seq} is missing in the table and in the heads file");
            self.problem(Kind::MissingHead, seq, text);
            self.heads.push(head.head);
        }
        seq
    }

    /// Heads of the table that the file should have: all but the last one, which a crash may have kept out or torn. Up to the floor
    /// every one was in the file.
    fn find_unfiled(&mut self, lines: &[(u64, Line)], floor: u64) {
        let filed: BTreeSet<u64> = lines.iter().filter_map(|(_, line)| line.seq()).collect();
        let last = filed.last().copied().unwrap_or(0);
        let torn = matches!(lines.last(), Some((_, Line::Torn)));
        let missing = self.table.iter().map(|head| head.head.tip.seq).filter(|seq| !filed.contains(seq));
        let (beyond, within): (Vec<u64>, Vec<u64>) = missing.partition(|seq| *seq > last);
        for seq in within {
            self.problem(Kind::MissingHead, seq, format!("the table's head at {seq} is missing in the heads file"));
        }
        let text = match beyond[..] {
            [] => return,
            [one] if torn || one > floor => return,
            [one] => format!("the table's head at {one} is missing at the end of the heads file"),
            [first, .., end] => format!(
                "the heads file {}: the table's {} heads from {first} to {end} are missing in it",
                if last == 0 { "is empty".to_owned() } else { format!("ends at {last}") },
                beyond.len()
            ),
        };
        self.problem(Kind::MissingHead, beyond[0], text);
    }

    fn accept(&mut self, head: &SignedHead, store: &StoreId, place: &str) -> bool {
        let seq = head.head.tip.seq;
        let (kind, what) = if head.head.key != self.id {
            (Kind::OtherKey, format!("names the key {} instead of {}", head.head.key, self.id))
        } else if !head.is_signed_by(self.key) {
            (Kind::BadHead, "has a signature that doesn't hold".to_owned())
        } else if head.head.store != *store {
            (Kind::OtherStore, format!("is of another store, {}: this log was put in its place", head.head.store))
        } else {
            return true;
        };
        self.problem(kind, seq, format!("{place} {what}"));
        false
    }
}

/// A connection that reads the database, or a private copy of it.
#[derive(Debug)]
struct Source {
    connection: Connection,
    _copy: Option<Copy>,
}

impl Source {
    /// A database with a write-ahead log needs a place for its index; where there is none (a read-only medium, another's folder)
    /// a copy is read instead.
    fn open(db: &Path) -> Result<Self, StoreError> {
        fs::metadata(db).map_err(|error| StoreError::of_io("read", db, error))?;
        match open_reading(db) {
            Ok(connection) => Ok(Self { connection, _copy: None }),
            Err(StoreError::CannotOpen { .. } | StoreError::ReadOnly { .. }) => {
                let copy = Copy::make(db)?;
                let connection = open_reading(&copy.database)?;
                Ok(Self { connection, _copy: Some(copy) })
            }
            Err(error) => Err(error),
        }
    }
}

/// A copy of a database and its log in a folder of mode 0700; gone when dropped.
#[derive(Debug)]
struct Copy {
    dir: PathBuf,
    database: PathBuf,
}

impl Copy {
    fn make(db: &Path) -> Result<Self, StoreError> {
        let mut random = [0; 8];
        SysRng.try_fill_bytes(&mut random).map_err(AuditError::Random)?;
        let dir = std::env::temp_dir().join(format!("agt-supervise-verify-{}", to_hex(&random)));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::of_io("copy", &path, error)
        };
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(io(&dir))?;
        let copy = Self { database: dir.join("copy.db"), dir };
        fs::copy(db, &copy.database).map_err(io(db))?;
        let log = with_suffix(db, "-wal");
        match fs::copy(&log, with_suffix(&copy.database, "-wal")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(&log)(error)),
            _ => Ok(copy),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // A copy that stays is in the temporary folder and unreadable to others; there is nobody to tell.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
