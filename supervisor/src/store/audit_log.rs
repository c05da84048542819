//! The audit log as the writer holds it: the chain's end, the key, the second file, and when the next head is due.
//!
//! At start the end of the log is checked against the last signed heads of all three places before anything is added: a log that
//! was changed is refused, not continued and signed, and a lost key is not replaced by a new one. Records behind the last head are what a SIGKILL leaves; they are taken over, and
//! a record says for ever which ones they were.

use std::path::Path;
use std::time::{Duration, Instant};

use ed25519_dalek::VerifyingKey;
use rand::TryRng as _;
use rand::rngs::SysRng;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::audit::AuditError;
use crate::audit::chain::{Hash, StoreId, Tip};
use crate::audit::floor::{FLOOR_FILE, Floor};
use crate::audit::head::SignedHead;
use crate::audit::heads_file::{End, HeadsFile};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::audit::signer::{KEY_FILE, Signer};

use super::StoreError;

/// Records that had no signed head when the supervisor ended without a clean stop.
const RESUMED: Action = Action::new("audit.resumed");
/// A head follows the first record it covers after this long: twice as often as promised.
const HEAD_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct AuditLog {
    store: StoreId,
    signer: Signer,
    file: HeadsFile,
    floor: Floor,
    /// The end of what is on the disk.
    pub(super) tip: Tip,
    /// The last record under a head in the table, and in the file.
    signed: u64,
    filed: u64,
    /// A head that reached the file and not the floor yet.
    to_raise: Option<SignedHead>,
    due: Option<Instant>,
}

impl AuditLog {
    /// Checks the log's end and takes it up. The record, if there is one, tells of records that were not under a head.
    pub(super) fn resume(
        connection: &Connection,
        database: &Path,
        heads: &Path,
        now_ms: i64,
    ) -> Result<(Self, Option<Record>), StoreError> {
        let store = store_id(connection, database)?;
        let end = last_row(connection, database)?.unwrap_or_else(|| Tip::genesis(&store));
        let in_table = last_head(connection, database)?;
        let End { last: in_file, torn } = HeadsFile::end(heads)?;
        // The file may be shared with an earlier store; verification tells of that, a start doesn't fail over it.
        let in_file = in_file.filter(|head| head.head.store == store);
        let dir = database.parent().unwrap_or(Path::new("."));
        let genesis = Tip::genesis(&store);
        let has_history = end != genesis || in_table.is_some() || in_file.is_some();
        let signer = open_key(dir, has_history, |signer| SignedHead::sign(signer, store, genesis, now_ms))?;
        let (floor, floor_head) = open_floor(dir, &signer, &store, end)?;
        for head in in_table.iter().chain(&in_file).chain(Some(&floor_head).filter(|head| head.head.tip != genesis)) {
            check_head(connection, database, &signer, head, end)?;
        }
        let signed = in_table.map_or(Tip::genesis(&store), |head| head.head.tip);
        check_tail(connection, database, signed, end)?;
        let filed = in_file.map_or(0, |head| head.head.tip.seq);
        check_file(connection, database, filed, torn, &floor_head)?;
        let file = HeadsFile::open(heads)?;
        let mut log =
            Self { store, signer, file, floor, tip: end, signed: signed.seq, filed, to_raise: None, due: None };
        log.file_heads(connection, database)?;
        let resumed = (end.seq > signed.seq).then(|| {
            Record::new(now_ms, Actor::Supervisor, RESUMED, Outcome::Noted)
                .reason("the supervisor ended without signing its last records")
                .detail("unprotected_from", signed.seq + 1)
                .detail("unprotected_to", end.seq)
        });
        Ok((log, resumed))
    }

    pub(super) fn public_key(&self) -> VerifyingKey {
        self.signer.public_key()
    }

    pub(super) fn store_id(&self) -> StoreId {
        self.store
    }

    /// Takes over the chain's new end after a commit.
    pub(super) fn moved_to(&mut self, tip: Tip, now: Instant) {
        if tip.seq > self.signed && self.due.is_none() {
            self.due = Some(now + HEAD_INTERVAL);
        }
        self.tip = tip;
    }

    /// Reads the end again, after a commit whose fate is unknown.
    pub(super) fn reload(&mut self, connection: &Connection, database: &Path) -> Result<(), StoreError> {
        self.tip = last_row(connection, database)?.unwrap_or_else(|| Tip::genesis(&self.store));
        Ok(())
    }

    /// When the next head is due; none without news.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Puts the next attempt off after a failure.
    pub(super) fn retry_at(&mut self, at: Instant) {
        self.due = Some(at);
    }

    /// Signs the chain's end if there is news: into the table, then into the file, then into the floor. `true` if a head was signed.
    pub(super) fn sign(&mut self, connection: &Connection, database: &Path, now_ms: i64) -> Result<bool, StoreError> {
        // First what is still to be filed: whatever ends the supervisor, the file lacks one head of the table at most.
        self.file_heads(connection, database)?;
        let news = self.tip.seq > self.signed;
        if news {
            let head = SignedHead::sign(&self.signer, self.store, self.tip, now_ms);
            connection
                .prepare_cached("INSERT INTO audit_heads (seq, head) VALUES (?1, ?2)")
                .and_then(|mut insert| insert.execute(params![self.tip.seq as i64, head.encode()]))
                .map_err(|error| StoreError::of_sqlite(database, error))?;
            self.signed = self.tip.seq;
        }
        self.file_heads(connection, database)?;
        self.due = None;
        Ok(news)
    }

    /// Appends the table's heads that the file doesn't have: the new one, or the one that a crash or a full disk kept out.
    fn file_heads(&mut self, connection: &Connection, database: &Path) -> Result<(), StoreError> {
        while self.filed < self.signed {
            let text: String = connection
                .prepare_cached("SELECT head FROM audit_heads WHERE seq > ?1 ORDER BY seq LIMIT 1")
                .and_then(|mut select| select.query_row([self.filed as i64], |row| row.get(0)))
                .map_err(|error| StoreError::of_sqlite(database, error))?;
            let head = SignedHead::decode(&text)?;
            self.file.append(&head)?;
            self.filed = head.head.tip.seq;
            self.to_raise = Some(head);
        }
        if let Some(head) = &self.to_raise {
            self.floor.raise(head)?;
            self.to_raise = None;
        }
        Ok(())
    }
}

/// The signing key; made only for a log that has no history, and after its floor.
fn open_key(
    dir: &Path,
    has_history: bool,
    first_head: impl FnOnce(&Signer) -> SignedHead,
) -> Result<Signer, StoreError> {
    if let Some(signer) = Signer::open(dir)? {
        return Ok(signer);
    }
    let floor = dir.join(FLOOR_FILE);
    let heads = Floor::read(&floor)?.unwrap_or_default();
    if has_history || heads.iter().flatten().any(|head| head.head.tip.seq > 0) {
        return Err(AuditError::KeyMissing { path: dir.join(KEY_FILE) }.into());
    }
    Ok(Signer::create(dir, |signer| Floor::create(&floor, &first_head(signer)))?)
}

/// The floor and the newest head in it that this key signed.
fn open_floor(dir: &Path, signer: &Signer, store: &StoreId, end: Tip) -> Result<(Floor, SignedHead), StoreError> {
    let path = dir.join(FLOOR_FILE);
    let tampered = |seq, what: &str| AuditError::Tampered { seq, what: format!("{} {what}", path.display()) };
    let slots = Floor::read(&path)?.ok_or_else(|| tampered(end.seq, "is missing"))?;
    let floor = Floor::open(&path)?.ok_or_else(|| tampered(end.seq, "is missing"))?;
    let ours = slots.into_iter().flatten().filter(|head| head.is_signed_by(&signer.public_key()));
    let head = ours
        .max_by_key(|head| head.head.tip.seq)
        .ok_or_else(|| tampered(end.seq, "holds no head that the audit key signed"))?;
    match head.head.store == *store {
        true => Ok((floor, head)),
        false => Err(tampered(head.head.tip.seq, "is of another store: this database was put in its place").into()),
    }
}

/// The table's heads must be in the file too, but for the last one: a crash may have come between, or torn its line.
fn check_file(
    connection: &Connection,
    database: &Path,
    filed: u64,
    torn: bool,
    floor: &SignedHead,
) -> Result<(), StoreError> {
    let (missing, first): (i64, Option<i64>) = connection
        .prepare("SELECT count(*), min(seq) FROM audit_heads WHERE seq > ?1")
        .and_then(|mut select| select.query_row([filed as i64], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(|error| StoreError::of_sqlite(database, error))?;
    let Some(first) = first.map(i64::unsigned_abs) else { return Ok(()) };
    if missing == 1 && (torn || first > floor.head.tip.seq) {
        return Ok(());
    }
    let what = format!("{missing} signed heads of the table, from {first} on, are missing in the heads file");
    Err(AuditError::Tampered { seq: first, what }.into())
}

fn store_id(connection: &Connection, database: &Path) -> Result<StoreId, StoreError> {
    let sqlite = |error| StoreError::of_sqlite(database, error);
    if let Some(id) = read_store_id(connection, database)? {
        return Ok(id);
    }
    let bad = || StoreError::BadValue { path: database.to_owned(), what: "store id".to_owned() };
    if last_row(connection, database)?.is_some() {
        return Err(bad());
    }
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes).map_err(AuditError::Random)?;
    let id = StoreId(bytes);
    connection.execute("INSERT INTO meta (key, value) VALUES ('store_id', ?1)", [id.to_string()]).map_err(sqlite)?;
    Ok(id)
}

/// The store's identity; none in a store that was just made.
pub(super) fn read_store_id(connection: &Connection, database: &Path) -> Result<Option<StoreId>, StoreError> {
    let text: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE key = 'store_id'", (), |row| row.get(0))
        .optional()
        .map_err(|error| StoreError::of_sqlite(database, error))?;
    let bad = || StoreError::BadValue { path: database.to_owned(), what: "store id".to_owned() };
    text.map(|text| StoreId::from_hex(&text).ok_or_else(bad)).transpose()
}

fn last_row(connection: &Connection, database: &Path) -> Result<Option<Tip>, StoreError> {
    row_at(connection, database, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", None)
}

fn row_at(connection: &Connection, database: &Path, sql: &str, seq: Option<u64>) -> Result<Option<Tip>, StoreError> {
    let values: Option<(i64, Vec<u8>)> = connection
        .query_row(sql, rusqlite::params_from_iter(seq.map(|seq| seq as i64)), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(|error| StoreError::of_sqlite(database, error))?;
    let tip = values.map(|(seq, hash)| {
        let what = format!("audit record {seq}");
        let bad = || StoreError::BadValue { path: database.to_owned(), what: what.clone() };
        let hash = Hash::from_bytes(&hash).ok_or_else(bad)?;
        Ok(Tip { seq: u64::try_from(seq).map_err(|_| bad())?, hash })
    });
    tip.transpose()
}

fn last_head(connection: &Connection, database: &Path) -> Result<Option<SignedHead>, StoreError> {
    let text: Option<String> = connection
        .query_row("SELECT head FROM audit_heads ORDER BY seq DESC LIMIT 1", (), |row| row.get(0))
        .optional()
        .map_err(|error| StoreError::of_sqlite(database, error))?;
    Ok(text.map(|text| SignedHead::decode(&text)).transpose()?)
}

fn check_head(
    connection: &Connection,
    database: &Path,
    signer: &Signer,
    head: &SignedHead,
    end: Tip,
) -> Result<(), StoreError> {
    let signed = head.head.tip;
    if head.head.key != signer.key_id() {
        let (found, ours) = (head.head.key.to_string(), signer.key_id().to_string());
        return Err(AuditError::OtherKey { seq: signed.seq, found, ours }.into());
    }
    if !head.is_signed_by(&signer.public_key()) {
        let what = "the signature of the last head doesn't hold".to_owned();
        return Err(AuditError::Tampered { seq: signed.seq, what }.into());
    }
    if signed.seq > end.seq {
        let what = format!("the log ends at {}, a signed head knows of more", end.seq);
        return Err(AuditError::Tampered { seq: signed.seq, what }.into());
    }
    match row_at(connection, database, "SELECT seq, hash FROM audit WHERE seq = ?1", Some(signed.seq))? {
        Some(row) if row == signed => Ok(()),
        Some(row) => Err(AuditError::tampered(signed.seq, &row.hash, &signed.hash).into()),
        None => Err(AuditError::Tampered { seq: signed.seq, what: "the record is missing".to_owned() }.into()),
    }
}

/// Follows the chain from the last head to the end: usually the records of half a second.
fn check_tail(connection: &Connection, database: &Path, from: Tip, end: Tip) -> Result<(), StoreError> {
    let sqlite = |error| StoreError::of_sqlite(database, error);
    let broken = |seq| AuditError::Tampered { seq, what: "it doesn't follow from the record before".to_owned() };
    let mut select =
        connection.prepare("SELECT seq, record, hash FROM audit WHERE seq > ?1 ORDER BY seq").map_err(sqlite)?;
    let mut rows = select.query([from.seq as i64]).map_err(sqlite)?;
    let mut tip = from;
    while let Some(row) = rows.next().map_err(sqlite)? {
        let (seq, record, hash): (i64, String, Vec<u8>) =
            (|| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))().map_err(sqlite)?;
        tip = tip.next(record.as_bytes());
        let held = Record::decode(&record).map(|(held, _)| held).ok();
        if tip.seq as i64 != seq || tip.hash.0 != hash[..] || held != Some(tip.seq) {
            return Err(broken(tip.seq).into());
        }
    }
    match tip == end {
        true => Ok(()),
        false => Err(broken(end.seq).into()),
    }
}
