//! Answers as the providers' documentation shows them, cut in every place.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::usage::estimate;
use proptest::prelude::*;
use std::time::Duration;

fn read(shape: Shape, framing: Framing, text: &str, cut: usize) -> Report {
    let mut reader = Reader::new(shape, framing);
    for piece in text.as_bytes().chunks(cut) {
        reader.feed(piece);
    }
    reader.finish(true)
}

/// The same report however the answer is cut; that of the whole is given.
fn every_cut(shape: Shape, framing: Framing, text: &str) -> Report {
    let whole = read(shape, framing, text, text.len());
    for cut in 1..text.len().min(200) {
        assert_eq!(read(shape, framing, text, cut), whole, "cut into {cut}");
    }
    for ending in ["\r\n", "\r"] {
        if framing == Framing::Events {
            let other = read(shape, framing, &text.replace('\n', ending), 7);
            assert_eq!(
                (&other.usage, other.complete, &other.model),
                (&whole.usage, whole.complete, &whole.model),
                "{ending:?}"
            );
        }
    }
    whole
}

const CHAT: &str = r#"{
  "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "object": "chat.completion", "created": 1741569952, "model": "gpt-4.1-2025-04-14",
  "choices": [{"index": 0, "message": {"role": "assistant", "content": "Say \"usage\": {\"prompt_tokens\": 1}", "refusal": null,
    "annotations": []}, "logprobs": null, "finish_reason": "stop"}],
  "usage": {"prompt_tokens": 1117, "completion_tokens": 46, "total_tokens": 1163,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0, "accepted_prediction_tokens": 0}},
  "service_tier": "default", "new_field": {"nobody": ["knows", 1e9]}
}"#;

const CHAT_STREAM: &str = r#"data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44","choices":[{"index":0,"delta":{"content":"Hello \"usage\":{}"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}

data: [DONE]

"#;

const RESPONSES: &str = r#"{"id": "resp_67ccd3a9da748190baa7f1570fe91ac604becb25c45c1d41", "object": "response", "created_at": 1741476777,
  "status": "completed", "error": null, "model": "gpt-4o-2024-08-06", "output": [{"type": "message", "content": [{"type": "output_text",
  "text": "The image", "annotations": []}]}], "usage": {"input_tokens": 328, "input_tokens_details": {"cached_tokens": 100},
  "output_tokens": 52, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 380}, "user": null, "metadata": {}}"#;

const RESPONSES_STREAM: &str = r#"event: response.created
data: {"type":"response.created","response":{"id":"resp_67c9","object":"response","status":"in_progress","model":"gpt-4o-2024-08-06","output":[],"usage":null,"metadata":{}}}

event: response.in_progress
data: {"type":"response.in_progress","response":{"id":"resp_67c9","object":"response","status":"in_progress","model":"gpt-4o-2024-08-06","output":[],"usage":null}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","item_id":"msg_67c9","output_index":0,"content_index":0,"delta":"Hi"}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_67c9","object":"response","status":"completed","model":"gpt-4o-2024-08-06","output":[{"id":"msg_67c9","type":"message"}],"usage":{"input_tokens":37,"input_tokens_details":{"cached_tokens":0},"output_tokens":11,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":48},"user":null,"metadata":{}}}

"#;

const MESSAGES: &str = r#"{"id": "msg_013Zva2CMHLNnXjNJJKqJ2EF", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
  "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {"usage": {"input_tokens": 999}}}], "stop_reason": "end_turn",
  "usage": {"cache_creation": {"ephemeral_1h_input_tokens": 200, "ephemeral_5m_input_tokens": 48}, "cache_creation_input_tokens": 248,
  "cache_read_input_tokens": 1800, "input_tokens": 2095, "output_tokens": 503, "server_tool_use": null, "service_tier": "standard"}}"#;

const MESSAGES_STREAM: &str = r#"event: message_start
data: {"type": "message_start", "message": {"id": "msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY", "type": "message", "role": "assistant", "content": [], "model": "claude-sonnet-4-5-20250929", "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 25, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 7, "output_tokens": 1}}}

event: content_block_start
data: {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}

event: content_block_stop
data: {"type": "content_block_stop", "index": 0}

event: message_delta
data: {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence":null}, "usage": {"output_tokens": 15}}

event: message_stop
data: {"type": "message_stop"}

"#;

const GEMINI: &str = r#"{"candidates": [{"content": {"parts": [{"text": "AI works"}], "role": "model"}, "finishReason": "STOP", "index": 0}],
  "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 160, "cachedContentTokenCount": 40,
  "thoughtsTokenCount": 30, "toolUsePromptTokenCount": 10, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}]},
  "modelVersion": "gemini-2.5-flash", "responseId": "x"}"#;

const GEMINI_STREAM: &str = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"A\"}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 4,\"totalTokenCount\": 4,\"promptTokensDetails\": [{\"modality\": \"TEXT\",\"tokenCount\": 4}]},\"modelVersion\": \"gemini-2.0-flash\"}\r\n\r\ndata: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"B\"}],\"role\": \"model\"},\"finishReason\": \"STOP\",\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 4,\"candidatesTokenCount\": 12,\"totalTokenCount\": 16},\"modelVersion\": \"gemini-2.0-flash\"}\r\n\r\n";

fn usage(input: u64, cached: u64, output: u64, reasoning: u64) -> Usage {
    Usage { input, cached, output, reasoning, ..Usage::default() }
}

#[test]
fn every_provider_is_read_plain_and_streamed_however_it_is_cut() {
    use Framing::{Events, Json};
    let messages =
        Usage { input: 2095, cached: 1800, cache_write: 48, cache_write_long: 200, output: 503, reasoning: 0 };
    let streamed = Usage { input: 25, cached: 7, cache_write: 10, output: 15, ..Usage::default() };
    for (shape, framing, text, expected, model) in [
        (Shape::Chat, Json, CHAT, usage(93, 1024, 46, 30), "gpt-4.1-2025-04-14"),
        (Shape::Chat, Events, CHAT_STREAM, usage(19, 0, 10, 0), "gpt-4o-mini"),
        (Shape::Responses, Json, RESPONSES, usage(228, 100, 52, 0), "gpt-4o-2024-08-06"),
        (Shape::Responses, Events, RESPONSES_STREAM, usage(37, 0, 11, 5), "gpt-4o-2024-08-06"),
        (Shape::Messages, Json, MESSAGES, messages, "claude-sonnet-4-5-20250929"),
        (Shape::Messages, Events, MESSAGES_STREAM, streamed, "claude-sonnet-4-5-20250929"),
        (Shape::Gemini, Json, GEMINI, usage(70, 40, 50, 30), "gemini-2.5-flash"),
        (Shape::Gemini, Events, GEMINI_STREAM, usage(4, 0, 12, 0), "gemini-2.0-flash"),
    ] {
        let report = every_cut(shape, framing, text);
        assert_eq!(report.usage, Some(expected), "{shape:?} {framing:?}");
        assert!(report.complete, "{shape:?} {framing:?}");
        assert_eq!(report.model.as_deref(), Some(model), "{shape:?} {framing:?}");
    }
}

#[test]
fn geminis_array_of_answers_counts_by_its_last() {
    let array = format!("[{}\n,\r\n{}\n]\n", GEMINI.replace("160", "161"), GEMINI);
    let report = every_cut(Shape::Gemini, Framing::Json, &array);
    assert_eq!(report.usage, Some(usage(70, 40, 50, 30)));
}

#[test]
fn a_stream_that_breaks_off_is_incomplete_and_keeps_what_it_told() {
    let cut = &MESSAGES_STREAM[..MESSAGES_STREAM.find("event: message_delta").unwrap()];
    let report = every_cut(Shape::Messages, Framing::Events, cut);
    assert_eq!((report.usage.unwrap().input, report.complete), (25, false));
    let report = every_cut(Shape::Chat, Framing::Events, &CHAT_STREAM[..CHAT_STREAM.find("\"choices\":[],").unwrap()]);
    assert_eq!((report.usage, report.complete), (None, false));
    let mut reader = Reader::new(Shape::Gemini, Framing::Events);
    reader.feed(GEMINI_STREAM.split_inclusive("\r\n\r\n").next().unwrap().as_bytes());
    let report = reader.finish(false);
    assert_eq!((report.usage.unwrap().input, report.complete), (4, false));
}

#[test]
fn the_last_event_counts_without_its_empty_line() {
    let text = CHAT_STREAM.trim_end().trim_end_matches("data: [DONE]").trim_end();
    assert_eq!(every_cut(Shape::Chat, Framing::Events, text).usage, Some(usage(19, 0, 10, 0)));
}

#[test]
fn broken_counts_are_no_counts_and_unknown_parts_hide_none() {
    for bad in [
        r#"{"usage":{"prompt_tokens":-5}}"#,
        r#"{"usage":{"prompt_tokens":"many"}}"#,
        r#"{"usage":[1]}"#,
        r#"{"usage":null}"#,
        "{}",
        "no",
    ] {
        assert_eq!(every_cut(Shape::Chat, Framing::Json, bad).usage, None, "{bad}");
    }
    let odd = r#"{"usage":{"prompt_tokens":5,"completion_tokens":null,"prompt_tokens_details":[1],"completion_tokens_details":7}}"#;
    assert_eq!(every_cut(Shape::Chat, Framing::Json, odd).usage, Some(usage(5, 0, 0, 0)));
    let lies = r#"{"usage":{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":50}}}"#;
    assert_eq!(every_cut(Shape::Chat, Framing::Json, lies).usage, Some(usage(0, 5, 1, 0)));
}

#[test]
fn an_event_without_end_is_passed_over_and_the_next_is_read() {
    let mut reader = Reader::new(Shape::Chat, Framing::Events);
    reader.feed(b"data: {\"x\":\"");
    for _ in 0..6 {
        reader.feed(&vec![b'y'; 1 << 20]);
    }
    let Source::Events { splitter, .. } = &reader.source else { unreachable!("made for events") };
    assert!(splitter.rest().is_empty());
    reader.feed(b"\"}\n");
    reader.feed(b"\n");
    reader.feed(CHAT_STREAM.as_bytes());
    assert_eq!(reader.finish(true).usage, Some(usage(19, 0, 10, 0)));
}

#[test]
fn an_estimate_is_never_nothing_and_never_more_than_was_reserved() {
    let cut = &CHAT_STREAM[..CHAT_STREAM.find("\"choices\":[],").unwrap()];
    let report = read(Shape::Chat, Framing::Events, cut, 50);
    let guess = estimate(None, &report.seen, 300, Duration::ZERO, (1_000, 1_000));
    assert!(guess.input == 100 && guess.output >= 3, "{guess:?}");
    let silent = estimate(None, &Seen::default(), 0, Duration::from_secs(10), (1_000, 5_000));
    assert_eq!((silent.input, silent.output), (1, 2_000));
    let long = estimate(None, &Seen::default(), 1 << 40, Duration::from_secs(1_000_000), (1_000, 5_000));
    assert_eq!((long.input, long.output), (1_000, 5_000));
    let told = estimate(Some(usage(25, 7, 1, 0)), &report.seen, 300, Duration::ZERO, (10, 10));
    assert_eq!((told.input, told.cached), (25, 7));
}

proptest! {
    #[test]
    fn garbage_is_survived_however_it_is_cut(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1usize..60) {
        for (shape, framing) in [(Shape::Chat, Framing::Events), (Shape::Gemini, Framing::Json), (Shape::Messages, Framing::Events)] {
            let mut reader = Reader::new(shape, framing);
            bytes.chunks(cut).for_each(|piece| reader.feed(piece));
            let mut whole = Reader::new(shape, framing);
            whole.feed(&bytes);
            let (pieces, whole) = (reader.finish(true), whole.finish(true));
            prop_assert_eq!((pieces.usage, pieces.model), (whole.usage, whole.model));
        }
    }

    /// Torn, doubled and swapped pieces of a real stream: never a panic, and counts only from whole events.
    #[test]
    fn torn_streams_are_survived(from in 0usize..900, to in 0usize..900, cut in 1usize..90) {
        let bytes = MESSAGES_STREAM.as_bytes();
        let torn = [&bytes[from.min(to)..], &bytes[..from.max(to)]].concat();
        let mut reader = Reader::new(Shape::Messages, Framing::Events);
        torn.chunks(cut).for_each(|piece| reader.feed(piece));
        if let Some(usage) = reader.finish(true).usage {
            prop_assert!([0, 25].contains(&usage.input) && [0, 1, 15].contains(&usage.output), "{usage:?}");
        }
    }
}
