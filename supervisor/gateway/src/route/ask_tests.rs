//! Bodies as clients send them, and as attackers would.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::{Value, json};

fn ask(endpoint: Endpoint, body: &str) -> Result<Asked, BadAsk> {
    read(endpoint, None, Bytes::copy_from_slice(body.as_bytes()), Reach::Closed, AskUsage::On)
}

fn open(endpoint: Endpoint, body: &str) -> Asked {
    read(endpoint, Some("m"), Bytes::copy_from_slice(body.as_bytes()), Reach::Open, AskUsage::On).unwrap()
}

#[test]
fn the_most_that_is_asked_for_is_found() {
    for (endpoint, body, max_output, choices) in [
        (Endpoint::Chat, r#"{"model":"m","max_tokens":5,"max_completion_tokens":9,"n":3,"messages":[]}"#, Some(9), 3),
        (Endpoint::Chat, r#"{"model":"m","max_tokens":null,"n":0}"#, None, 1),
        (Endpoint::Completions, r#"{"model":"m","prompt":["a","b"],"max_tokens":7,"best_of":4,"n":2}"#, Some(7), 8),
        (Endpoint::Completions, r#"{"model":"m","prompt":[1,2,3],"max_tokens":7}"#, Some(7), 1),
        (Endpoint::Responses, r#"{"model":"m","input":"hi","max_output_tokens":11}"#, Some(11), 1),
        (
            Endpoint::Messages,
            r#"{"model":"m","max_tokens":1024,"messages":[{"role":"user","content":"hi"}]}"#,
            Some(1024),
            1,
        ),
    ] {
        let asked = ask(endpoint, body).unwrap();
        assert_eq!((asked.max_output, asked.choices), (max_output, choices), "{body}");
        assert!(asked.max_input.unwrap() >= body.len() as u64);
    }
    for name in ["generationConfig", "generation_config"] {
        for (max, count) in [("maxOutputTokens", "candidateCount"), ("max_output_tokens", "candidate_count")] {
            let asked =
                open(Endpoint::Generate, &json!({name: {max: 64, count: 2, "other": {}}, "contents": []}).to_string());
            assert_eq!((asked.model.as_str(), asked.max_output, asked.choices), ("m", Some(64), 2));
        }
    }
}

#[test]
fn usage_is_asked_for_only_where_the_client_did_not() {
    let plain = ask(Endpoint::Chat, r#" {"model":"m", "stream" : true ,"messages":[{"z":1,"a":2}]}"#).unwrap();
    assert!(plain.usage_is_ours);
    let text = std::str::from_utf8(&plain.body).unwrap();
    assert_eq!(
        text,
        r#" {"stream_options":{"include_usage":true},"model":"m", "stream" : true ,"messages":[{"z":1,"a":2}]}"#
    );
    for options in
        [r#"{"include_usage":false,"include_obfuscation":false}"#, "null", "{}", r#"{ "include_usage" : null }"#]
    {
        let asked =
            ask(Endpoint::Chat, &format!(r#"{{"model":"m","stream_options": {options} ,"stream":true}}"#)).unwrap();
        let json: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!((asked.usage_is_ours, &json["stream_options"]["include_usage"]), (true, &json!(true)), "{options}");
        assert_eq!((&json["stream"], &json["model"]), (&json!(true), &json!("m")));
        assert_eq!(options.contains("obfuscation"), json["stream_options"]["include_obfuscation"] == json!(false));
    }
    for (endpoint, body) in [
        (Endpoint::Chat, r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#),
        (Endpoint::Chat, r#"{"model":"m","stream":false}"#),
        (Endpoint::Responses, r#"{"model":"m","stream":true}"#),
        (Endpoint::Messages, r#"{"model":"m","stream":true}"#),
    ] {
        let asked = ask(endpoint, body).unwrap();
        assert_eq!((asked.usage_is_ours, &asked.body[..]), (false, body.as_bytes()), "{body}");
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for (endpoint, body) in [
        (Endpoint::Chat, r#"{"model":"m","max_tokens":1,"max_tokens":100000}"#),
        (Endpoint::Chat, r#"{"model":"m","mod\u0065l":"dear"}"#),
        (
            Endpoint::Generate,
            r#"{"model":"m","generationConfig":{"maxOutputTokens":1},"generation_config":{"maxOutputTokens":100000}}"#,
        ),
        (Endpoint::Generate, r#"{"model":"m","generationConfig":{"maxOutputTokens":1,"max_output_tokens":100000}}"#),
        (Endpoint::Generate, r#"{"model":"m","generationConfig":[1, 1]}"#),
        (Endpoint::Chat, r#"{"model":"m"} {"model":"dear"}"#),
        (Endpoint::Chat, r#"{"model":"m","max_tokens":"1"}"#),
        (Endpoint::Chat, r#"{"model":"m","max_tokens":-1}"#),
        (Endpoint::Chat, r#"{"model":"m","n":1.5}"#),
        (Endpoint::Chat, r#"{"model":["m"]}"#),
        (Endpoint::Chat, r#"{"model":""}"#),
        (Endpoint::Chat, r#"{}"#),
        (Endpoint::Chat, r#"[{"model":"m"}]"#),
        (Endpoint::Chat, "{\"model\":\"m\",}"),
        (Endpoint::Chat, "\u{feff}{\"model\":\"m\"}"),
        (Endpoint::Chat, ""),
        (Endpoint::Responses, r#"{"model":"m","background":true}"#),
        (Endpoint::Chat, r#"{"model":"m","service_tier":"priority"}"#),
        (Endpoint::Messages, r#"{"model":"m","speed":"fast"}"#),
    ] {
        assert!(ask(endpoint, body).is_err(), "{body}");
    }
    let deep = format!(r#"{{"model":"m","messages":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    assert!(ask(Endpoint::Chat, &deep).is_err());
    let many: String = (0..2_000).map(|n| format!(r#""f{n}":1,"#)).collect();
    assert!(ask(Endpoint::Chat, &format!(r#"{{{many}"model":"m"}}"#)).is_err());
}

#[test]
fn what_bounds_nothing_at_its_provider_bounds_no_reservation() {
    // Fields of another provider: tolerant servers pass over them.
    for (endpoint, body, most, choices) in [
        (Endpoint::Chat, r#"{"model":"m","max_tokens":9000,"generationConfig":{"maxOutputTokens":1}}"#, Some(9000), 1),
        (Endpoint::Chat, r#"{"model":"m","generation_config":{"maxOutputTokens":1}}"#, None, 1),
        (Endpoint::Chat, r#"{"model":"m","n":7,"generationConfig":{"candidateCount":1}}"#, None, 7),
        (Endpoint::Chat, r#"{"model":"m","max_output_tokens":1}"#, None, 1),
        (Endpoint::Responses, r#"{"model":"m","max_tokens":1,"max_completion_tokens":1}"#, None, 1),
        (Endpoint::Messages, r#"{"model":"m","max_tokens":9000,"max_completion_tokens":99999}"#, Some(9000), 1),
        (Endpoint::Completions, r#"{"model":"m","max_completion_tokens":1}"#, None, 1),
        (Endpoint::Chat, r#"{"model":"m","max_tokens":0}"#, None, 1),
    ] {
        let asked = ask(endpoint, body).unwrap();
        assert_eq!((asked.max_output, asked.choices), (most, choices), "{body}");
    }
    assert_eq!(open(Endpoint::Generate, r#"{"max_tokens":1,"contents":[]}"#).max_output, None);
    // Spellings that some servers read, because they don't mind case, and others don't.
    for body in [
        r#"{"model":"m","MAX_TOKENS":1}"#,
        r#"{"model":"m","maxTokens":1}"#,
        r#"{"model":"m","max__tokens":1}"#,
        r#"{"Model":"m"}"#,
        r#"{"model":"m","Stream":true}"#,
        r#"{"model":"m","stream":true,"streamOptions":{"include_usage":true}}"#,
        r#"{"model":"m","N":100}"#,
        r#"{"model":"m","GENERATIONCONFIG":{"maxOutputTokens":1}}"#,
    ] {
        assert!(matches!(ask(Endpoint::Chat, body), Err(BadAsk::Spelling(..))), "{body}");
    }
}

#[test]
fn what_makes_the_provider_reach_out_is_refused_unless_it_is_open() {
    for body in [
        r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://evil.example/?q=secret"}}]}]}"#,
        r#"{"model":"m","messages":[{"content":[{"type":"image_url","im\u0061ge_url":{"url":" HTTPS://evil.example/"}}]}]}"#,
        r#"{"model":"m","input":[{"content":[{"type":"input_image","image_url":"https://evil.example/"}]}]}"#,
        r#"{"model":"m","input":[{"content":[{"type":"input_file","file_url":"https://evil.example/"}]}]}"#,
        r#"{"model":"m","messages":[{"content":[{"type":"document","source":{"type":"url","url":"http://evil.example/"}}]}]}"#,
        r#"{"model":"m","tools":[{"type":"web_search_20250305","name":"web_search"}]}"#,
        r#"{"model":"m","tools":[{"type":"mcp","server_url":"https://evil.example"}]}"#,
        r#"{"model":"m","tools":[{"type":"code_interpreter","container":{"type":"auto"}}]}"#,
        r#"{"model":"m","mcp_servers":[{"type":"url","url":"https://evil.example"}]}"#,
        r#"{"model":"m","web_search_options":{}}"#,
        r#"{"model":"m","tools":[{"google_search":{}}]}"#,
        r#"{"model":"m","tools":[{"urlContext":{}}]}"#,
        r#"{"model":"m","contents":[{"parts":[{"fileData":{"fileUri":"https://evil.example/"}}]}]}"#,
        r#"{"model":"m","messages":[{"content":[{"audio_url":"http://169.254.169.254/"}]}]}"#,
        // Tools that run at the provider, or that nobody has seen yet.
        r#"{"model":"m","tools":[{"type":"shell","environment":{"type":"container_auto"}}]}"#,
        r#"{"model":"m","tools":[{"type":"shell"}]}"#,
        r#"{"model":"m","tools":[{"type":"shell","environment":{"type":"local"},"environment":{"type":"container_auto"}}]}"#,
        r#"{"model":"m","tools":[{"type":"sh\u0065ll","environment":{"type":"container_reference"}}]}"#,
        r#"{"model":"m","tools":[{"type":"openrouter:web_search"}]}"#,
        r#"{"model":"m","tools":[{"type":"mcp_toolset","mcp_server_name":"x"}]}"#,
        r#"{"model":"m","tools":[{"type":"of_tomorrow_20270101"}]}"#,
        r#"{"model":"m","tools":["web_search"]}"#,
        r#"{"model":"m","tools":[{"mcpServers":[{"name":"x","streamableHttpTransport":{"url":"https://evil.example"}}]}]}"#,
        r#"{"model":"m","tools":[{"type":"namespace","name":"x","tools":[{"type":"mcp","server_url":"https://evil.example"}]}]}"#,
        r#"{"model":"m","input":[{"type":"tool_search_output","tools":[{"type":"mcp","server_url":"https://evil.example"}]}]}"#,
        r#"{"model":"m","plugins":[{"id":"web"}]}"#,
    ] {
        assert!(matches!(ask(Endpoint::Chat, body), Err(BadAsk::Reach(_))), "{body}");
        assert_eq!(open(Endpoint::Chat, body).max_input, None, "{body}");
    }
}

#[test]
fn geminis_tools_are_functions_or_reach_out() {
    let gemini = |tool: &str| {
        let body = format!(r#"{{"contents":[],"tools":[{tool}]}}"#);
        read(Endpoint::Generate, Some("m"), Bytes::from(body), Reach::Closed, AskUsage::On).map(drop)
    };
    for tool in [
        r#"{"functionDeclarations":[{"name":"f","parameters":{"type":"OBJECT","properties":{"url":{"type":"STRING"}}}}]}"#,
        r#"{"function_declarations":[]}"#,
        r#"{"computerUse":{"environment":"ENVIRONMENT_BROWSER"}}"#,
    ] {
        assert_eq!(gemini(tool), Ok(()), "{tool}");
    }
    for tool in [
        r#"{"mcpServers":[{"name":"x","streamableHttpTransport":{"url":"https://evil.example"}}]}"#,
        r#"{"functionDeclarations":[],"google_search":{}}"#,
        r#"{"toolOfTomorrow":{}}"#,
    ] {
        assert!(matches!(gemini(tool), Err(BadAsk::Reach(_))), "{tool}");
    }
}

#[test]
fn ordinary_tools_and_their_traces_are_no_reach() {
    for body in [
        r#"{"model":"m","tools":[{"type":"function","function":{"name":"fetch","parameters":{"type":"object","properties":{"url":{"type":"string","default":"https://x.example"},"web_search":{"type":"mcp"}}}}}]}"#,
        r#"{"model":"m","tools":[{"name":"fetch","input_schema":{"type":"object","properties":{"image_url":{"type":"string"}}}}]}"#,
        r#"{"model":"m","tools":[{"type":"custom","name":"c"},{"type":"bash_20250124","name":"bash"},{"type":"text_editor_20250728","name":"e"},{"type":"memory_20250818","name":"m"},{"type":"computer_20251124","name":"c"},{"type":"computer_use_preview"},{"type":"local_shell"},{"type":"apply_patch"}]}"#,
        r#"{"model":"m","tools":[{"type":"tool_search_tool_regex_20251119","name":"s"},{"type":"tool_search_tool_bm25_20251119","name":"s"},{"type":"tool_search"}]}"#,
        r#"{"model":"m","tools":[{"type":"shell","environment":{"type":"local","skills":[]}}]}"#,
        r#"{"model":"m","tools":[{"type":"namespace","name":"crm","tools":[{"type":"function","name":"f"}]}]}"#,
        r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"fetch","input":{"url":"https://x.example"}}]}]}"#,
        r#"{"model":"m","contents":[{"parts":[{"functionCall":{"name":"fetch","args":{"url":"https://x.example"}}}]}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"see https://x.example, \"type\":\"image\""}]}"#,
        r#"{"model":"m","metadata":{"url":"https://x.example"}}"#,
    ] {
        let asked = ask(Endpoint::Chat, body).unwrap();
        assert!(asked.max_input.is_some(), "{body}");
    }
}

#[test]
fn what_is_larger_than_its_bytes_counts_as_all_that_the_model_takes() {
    for body in [
        r#"{"model":"m","messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]}"#,
        r#"{"model":"m","messages":[{"content":[{"type":"image","source":{"type":"base64","data":"AA=="}}]}]}"#,
        r#"{"model":"m","messages":[{"content":[{"type":"document","source":{"type":"file","file_id":"f"}}]}]}"#,
        r#"{"model":"m","input":"hi","previous_response_id":"resp_1"}"#,
        r#"{"model":"m","input":"hi","conversation":"conv_1"}"#,
        r#"{"model":"m","prompt":{"id":"pmpt_1"}}"#,
        r#"{"model":"m","contents":[],"cachedContent":"cachedContents/1"}"#,
        r#"{"model":"m","contents":[{"parts":[{"inline_data":{"mime_type":"video/mp4","data":"AA=="}}]}]}"#,
    ] {
        assert_eq!(ask(Endpoint::Chat, body).unwrap().max_input, None, "{body}");
    }
}

#[test]
fn input_that_is_not_in_the_body_is_known_to_be_hidden() {
    for (body, hidden) in [
        (r#"{"model":"m","input":"hi","previous_response_id":"resp_1"}"#, true),
        (r#"{"model":"m","input":"hi","previous_response_id":null}"#, false),
        (r#"{"model":"m","prompt":{"id":"pmpt_1"}}"#, true),
        (r#"{"model":"m","input":[{"type":"item_reference","id":"i"}]}"#, true),
        (
            r#"{"model":"m","messages":[{"content":[{"type":"document","source":{"type":"base64","data":"AA=="}}]}]}"#,
            true,
        ),
        (r#"{"model":"m","messages":[{"content":[{"type":"file","file":{"file_id":"f"}}]}]}"#, true),
        (
            r#"{"model":"m","messages":[{"content":[{"type":"image","source":{"type":"base64","data":"AA=="}}]}]}"#,
            false,
        ),
        (r#"{"model":"m","messages":[{"content":"a file, a document"}]}"#, false),
    ] {
        assert_eq!(ask(Endpoint::Chat, body).unwrap().hidden_input, hidden, "{body}");
    }
}
