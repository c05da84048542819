//! Journals of every format that was ever written must load for ever, and today's format must be the one on file.
//!
//! The files under `fixtures/` are never edited. A new version of the format gets new files beside the old ones.

use agt_saga::id::{RunKind, SagaId};
use agt_saga::journal::Entry;
use agt_saga::machine::{Rest, State};
use agt_saga::outcome::{Again, Clean, Ending, StepOutcome, Verdict};
use agt_saga::record::{
    Asked, Attempt, Authority, Because, Becomes, Bypassed, Created, Decided, Dropped, Effect, EndState, Ended, Event,
    Finished, Gathered, GaveUp, Left, Parked, Rang, Record, Resolution, Resolved, Retry, Slept, Spread, Vote, Voted,
};
use agt_saga::replay::replay;
use serde_json::{Value, json};

use crate::crash::digest;

const EVENTS: &str = include_str!("../../fixtures/events-v1.jsonl");
const EVENTS_2: &str = include_str!("../../fixtures/events-v2.jsonl");
const EVERYTHING: &str = include_str!("../../fixtures/journal-v2-everything.jsonl");
const COMPLETED: &str = include_str!("../../fixtures/journal-v1-completed.jsonl");
const COMPENSATED: &str = include_str!("../../fixtures/journal-v1-compensated.jsonl");
const PARTIALLY: &str = include_str!("../../fixtures/journal-v1-partially-compensated.jsonl");

/// Each kind of event with each kind of content.
fn every_event() -> Vec<Event> {
    let attempt = |kind| Attempt { step: "charge".into(), kind, attempt: 2 };
    let who = || Authority { by: "ann".into(), reason: "looked it up".into() };
    let finished = |kind, verdict, ending, output, note: Option<&str>| {
        let outcome = StepOutcome { ending, output, note: note.map(str::to_owned) };
        Event::Finished(Finished { run: attempt(kind), verdict, outcome })
    };
    let resolved = |resolution, becomes| {
        Event::Resolved(Resolved { step: "charge".into(), resolution, authority: who(), becomes })
    };
    let created = |context| {
        Event::Created(Created {
            saga: SagaId::new("s1"),
            plan_hash: "h".into(),
            plan: "{}".into(),
            context,
            params: Default::default(),
        })
    };
    let not_started = |again| Ending::NotStarted { reason: "breaker open".into(), again };
    let forward = RunKind::Forward;
    vec![
        created(Value::Null),
        created(json!({"base": "/srv/trips", "uid": 1000})),
        Event::Started(attempt(forward)),
        Event::Started(attempt(RunKind::Compensate)),
        Event::Started(attempt(RunKind::Check)),
        finished(forward, Verdict::Ok, Ending::Exited(0), json!({"id": 7}), None),
        finished(forward, Verdict::Failed, Ending::Exited(1), Value::Null, Some("no route to host")),
        finished(forward, Verdict::FailedForGood, not_started(Again::No), Value::Null, None),
        finished(forward, Verdict::Failed, not_started(Again::Yes), Value::Null, None),
        finished(forward, Verdict::Unknown, Ending::Signalled(9), Value::Null, None),
        finished(forward, Verdict::Unknown, Ending::TimedOut, Value::Null, None),
        finished(forward, Verdict::Unknown, Ending::Cancelled, Value::Null, None),
        finished(
            forward,
            Verdict::Unknown,
            Ending::Killed { reason: "manual".into(), again: Again::Yes },
            Value::Null,
            None,
        ),
        finished(
            forward,
            Verdict::Unknown,
            Ending::Killed { reason: "manual".into(), again: Again::No },
            Value::Null,
            None,
        ),
        finished(forward, Verdict::Unusable, Ending::BadOutput { reason: "not JSON".into() }, Value::Null, None),
        finished(RunKind::Check, Verdict::Applied, Ending::Exited(0), json!({"applied": true}), None),
        finished(RunKind::Check, Verdict::NotApplied, Ending::Exited(0), json!({"applied": false}), None),
        finished(RunKind::Check, Verdict::Inconclusive, Ending::Exited(1), Value::Null, None),
        Event::Retry(Retry { step: "charge".into(), kind: forward, due: 1_700_000_001_234 }),
        Event::GaveUp(GaveUp { step: "charge".into(), effect: Effect::Absent, why: "it failed".into() }),
        Event::GaveUp(GaveUp { step: "charge".into(), effect: Effect::Unknown, why: "it failed".into() }),
        Event::Unwinding(Because::Failed { step: "charge".into() }),
        Event::Unwinding(Because::Deadline),
        Event::Halted(Because::Cancelled(who())),
        Event::Parked(Parked { step: "charge".into(), kind: RunKind::Compensate, why: "failed 5 of 5 times".into() }),
        Event::Left(Left { step: "charge".into(), why: "nothing undoes it".into() }),
        resolved(Resolution::Applied { output: json!({"id": 7}) }, Becomes::Done),
        resolved(Resolution::Applied { output: Value::Null }, Becomes::Undone),
        resolved(Resolution::NotApplied, Becomes::Failed),
        resolved(Resolution::NotApplied, Becomes::RunAgain),
        resolved(Resolution::Retry, Becomes::CheckAgain),
        resolved(Resolution::Retry, Becomes::UndoAgain),
        resolved(Resolution::Skip, Becomes::Left),
        resolved(Resolution::Skip, Becomes::Skipped),
        Event::CancelNoted(Authority { by: "ann".into(), reason: String::new() }),
        Event::Paused(who()),
        Event::Resumed(who()),
        Event::Recovered,
        Event::Lost(attempt(forward)),
        Event::NeverStarted(attempt(forward)),
        Event::Ended(Ended { state: EndState::Completed, authority: None }),
        Event::Ended(Ended { state: EndState::Compensated, authority: None }),
        Event::Ended(Ended { state: EndState::PartiallyCompensated, authority: None }),
        Event::Ended(Ended { state: EndState::Abandoned, authority: Some(who()) }),
    ]
}

/// Each kind of event and content that came with version 2.
fn every_event_of_version_2() -> Vec<Event> {
    let who = || Authority { by: "ann".into(), reason: "looked it up".into() };
    let finished = |verdict, ending| {
        let run = Attempt { step: "charge".into(), kind: RunKind::Forward, attempt: 2 };
        Event::Finished(Finished { run, verdict, outcome: StepOutcome { ending, output: Value::Null, note: None } })
    };
    let step = || "charge".to_owned();
    let errored = |clean| Ending::Errored { error: "declined".into(), clean };
    vec![
        finished(Verdict::Ok, Ending::Status(201)),
        finished(Verdict::Failed, errored(Clean::Yes)),
        finished(Verdict::Unknown, errored(Clean::Unknown)),
        finished(Verdict::Unknown, Ending::NoAnswer { reason: "connection reset".into() }),
        Event::Bypassed(Bypassed { step: step() }),
        Event::Slept(Slept { step: step(), due: 1_700_000_001_234 }),
        Event::Rang(Rang { step: step() }),
        Event::Asked(Asked { step: step(), due: None }),
        Event::Asked(Asked { step: step(), due: Some(1_700_000_001_234) }),
        Event::Voted(Voted { step: step(), vote: Vote::Approve, authority: who() }),
        Event::Voted(Voted { step: step(), vote: Vote::Deny, authority: who() }),
        Event::Decided(Decided { step: step(), vote: Vote::Approve, why: "ann said yes".into() }),
        Event::Spread(Spread { step: step(), items: vec![json!(1), json!({"id": 7})] }),
        Event::Gathered(Gathered { step: step(), winners: vec![0, 2] }),
        Event::Dropped(Dropped { step: "charge.1".into(), why: "nobody knows".into() }),
    ]
}

fn load(text: &str) -> State {
    let entry = |(line, seq): (&str, u64)| Entry { seq, event: line.to_owned() };
    let entries: Vec<Entry> = text.lines().zip(1..).map(entry).collect();
    replay(&entries, digest).unwrap()
}

#[test]
fn events_are_written_as_they_were_and_read_as_they_were_meant() {
    let records: Vec<Record> = every_event().into_iter().map(|event| Record::new(1_700_000_000_000, event)).collect();
    let today: Vec<String> = records.iter().map(Record::to_text).collect();
    assert_eq!(today, EVENTS.lines().collect::<Vec<_>>(), "the format changed without a new version");
    let read: Vec<Record> = EVENTS.lines().map(|line| Record::from_text(line).unwrap()).collect();
    assert_eq!(read, records);
}

#[test]
fn what_came_with_version_2_is_written_so_too_and_bears_its_number() {
    let events = every_event_of_version_2();
    let records: Vec<Record> = events.into_iter().map(|event| Record::new(1_700_000_000_000, event)).collect();
    let today: Vec<String> = records.iter().map(Record::to_text).collect();
    assert_eq!(today, EVENTS_2.lines().collect::<Vec<_>>(), "the format changed without a new version");
    let read: Vec<Record> = EVENTS_2.lines().map(|line| Record::from_text(line).unwrap()).collect();
    assert_eq!(read, records);
    assert!(read.iter().all(|record| record.v == 2));
}

#[test]
fn a_journal_of_every_kind_of_step_replays_to_its_end() {
    let state = load(EVERYTHING);
    assert_eq!(state.rest(), Some(Rest::Ended(EndState::Completed)));
    let stages: Vec<(String, &str)> = state.nodes().map(|(name, _, slot)| (name, slot.stage().as_str())).collect();
    let expected = [
        ("look", "done"),
        ("ok", "done"),
        ("cool-off", "done"),
        ("big", "bypassed"),
        ("book", "done"),
        ("book.0", "undone"),
        ("book.1", "done"),
        ("book.2", "failed"),
        ("pay", "done"),
    ];
    assert_eq!(stages, expected.map(|(name, stage)| (name.to_owned(), stage)));
}

#[test]
fn journals_on_file_replay_to_their_ends() {
    for (text, end) in [
        (COMPLETED, EndState::Completed),
        (COMPENSATED, EndState::Compensated),
        (PARTIALLY, EndState::PartiallyCompensated),
    ] {
        assert_eq!(load(text).rest(), Some(Rest::Ended(end)));
    }
}

#[test]
fn a_field_that_a_later_version_adds_does_no_harm() {
    for line in EVENTS.lines() {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value["added_later"] = json!({"x": 1});
        if let Some(content) = value["event"].as_object_mut().and_then(|event| event.values_mut().next())
            && let Some(content) = content.as_object_mut()
        {
            // Not into enums, whose one key is their name.
            if content.contains_key("step") {
                content.insert("added_later".into(), json!([1]));
            }
        }
        assert_eq!(Record::from_text(&value.to_string()).unwrap(), Record::from_text(line).unwrap(), "{line}");
    }
}
