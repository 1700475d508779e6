//! The socket, asked with curl and with the openai package.

use crate::house::{House, Plan, client, model, python, slow_model};
use crate::process::{DEADLINE, InTime, ended};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const CHAT: &str = "/v1/chat/completions";

fn hello(more: Value) -> Value {
    let mut request = json!({"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 8, "ignore_eos": true});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[test]
fn a_stream_has_the_order_that_clients_were_written_for() {
    let house = House::open(Plan::default());
    let events = house.stream(CHAT, hello(json!({"stream": true, "stream_options": {"include_usage": true}}))).rest();
    let (last, events) = events.split_last().unwrap();
    assert_eq!(last, "[DONE]");
    let events: Vec<Value> = events.iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let [finish, usage] = &events[events.len() - 2..] else { panic!("{events:?}") };
    assert_eq!((&finish["choices"][0]["delta"], &finish["choices"][0]["finish_reason"]), (&json!({}), &json!("length")));
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(8)));
    assert!(finish["timings"]["predicted_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn whole_and_streamed_answers_are_the_same_text() {
    let house = House::open(Plan::default());
    let (status, whole) = house.post(CHAT, hello(json!({"temperature": 0})));
    assert_eq!(status, 200);
    let events = house.stream(CHAT, hello(json!({"temperature": 0, "stream": true}))).rest();
    let text = |e: &String| serde_json::from_str::<Value>(e).ok()?["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    let streamed: String = events.iter().filter_map(text).collect();
    assert_eq!(whole["choices"][0]["message"]["content"], streamed);
    assert!(!streamed.is_empty());
}

#[test]
fn the_next_turn_computes_only_what_is_new() {
    let house = House::open(Plan::default());
    let first = json!({"role": "user", "content": "hello there ".repeat(20)});
    let (_, reply) = house.post(CHAT, json!({"messages": [first], "max_tokens": 4, "temperature": 0}));
    let known = reply["usage"]["prompt_tokens"].as_u64().unwrap();
    let turns = json!([first, reply["choices"][0]["message"], {"role": "user", "content": "and then?"}]);
    let (_, reply) = house.post(CHAT, json!({"messages": turns, "max_tokens": 4}));
    let cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached >= known - 1, "{cached} of {known} tokens were known");
}

#[test]
fn refusals_name_the_field_and_have_the_type_that_clients_match_on() {
    let house = House::open(Plan { model_lines: "context = 128", ..Plan::default() });
    let refused = |body: Value| {
        let (status, reply) = house.post(CHAT, body);
        let error = &reply["error"];
        assert!(error["message"].is_string(), "{reply}");
        (status, error["type"].as_str().unwrap().to_owned(), error["param"].as_str().map(str::to_owned), reply)
    };
    for (field, value) in [("n", json!(2)), ("temperature", json!(9)), ("response_format", json!({"type": "xml"})), ("stop", json!(5))] {
        let (status, kind, param, _) = refused(hello(json!({field: value})));
        assert_eq!((status, kind.as_str(), param.as_deref()), (400, "invalid_request_error", Some(field)));
    }
    let (status, kind, _, reply) = refused(json!({"messages": [{"role": "user", "content": "word ".repeat(500)}]}));
    assert_eq!((status, kind.as_str()), (400, "exceed_context_size_error"));
    assert!(reply["error"]["n_prompt_tokens"].as_u64().unwrap() > 128 && reply["error"]["n_ctx"] == 128, "{reply}");
    assert_eq!(house.get("/v1/models/nope").0, 404);
    let (status, reply) = house.get("/v1/models/%ff");
    assert!(status == 404 && reply.contains("not_found_error"), "{reply}");
    assert_eq!(house.get("/nowhere").0, 404);
    assert_eq!(house.get(CHAT).0, 405);
    let methods = String::from_utf8(ended(house.curl(CHAT).arg("-i")).stdout).unwrap().to_lowercase();
    assert!(methods.contains("\r\nallow: post\r\n"), "{methods}");
    let bad_json = ended(house.curl(CHAT).args(["-o", "/dev/null", "-w", "%{http_code}", "-d", "{"]));
    assert_eq!(bad_json.stdout, b"400");
    let with_header = |bytes: usize| {
        let head = format!("x: {}", "x".repeat(bytes));
        let output = ended(house.curl("/health").args(["-o", "/dev/null", "-w", "%{http_code}", "-H", &head]));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!([60_000, 66_000, 100_000, 130_000].map(with_header), ["200", "431", "431", "431"]);
}

/// A client that writes all it has before it reads: its write must not fail, or it never sees why it is refused.
#[test]
fn a_body_that_is_refused_is_read_to_its_end_so_that_the_refusal_arrives() {
    let house = House::open(Plan::default());
    let spaces = " ".repeat(8 << 20);
    let told = |path: &str, framing: &str, body: &[u8]| {
        let mut stream = UnixStream::connect(&house.socket).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: l\r\nConnection: close\r\n{framing}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap_or_else(|e| panic!("{path}, {framing}: {e}"));
        let mut reply = String::new();
        InTime(stream).read_to_string(&mut reply).unwrap();
        reply
    };
    let (length, chunks) = (format!("Content-Length: {}", spaces.len()), "Transfer-Encoding: chunked");
    let chunked = format!("{:x}\r\n{spaces}\r\n0\r\n\r\n", spaces.len());
    for (path, status) in [(CHAT, "413"), ("/tokenize", "413"), ("/nowhere", "404")] {
        for reply in [told(path, &length, spaces.as_bytes()), told(path, chunks, chunked.as_bytes())] {
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}")) && reply.contains("{\"error\":"), "{reply}");
        }
    }
    // Who asks first sends nothing, and is told at once.
    let reply = told(CHAT, &format!("{length}\r\nExpect: 100-continue"), b"");
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
}

#[test]
fn a_full_queue_answers_busy_and_says_when_to_come_again() {
    let house = House::open(Plan { model: slow_model(), model_lines: "sequences = 1", serve_lines: "queue = 0", ..Plan::default() });
    let mut first = house.stream(CHAT, hello(json!({"stream": true, "max_tokens": 400})));
    first.first_text();
    let output = ended(house.curl(CHAT).args(["-i", "-d", &hello(json!({})).to_string()]));
    let reply = String::from_utf8(output.stdout).unwrap().to_lowercase();
    assert!(reply.starts_with("http/1.1 503") && reply.contains("\r\nretry-after: "), "{reply}");
    assert!(reply.contains("unavailable_error"), "{reply}");
    first.drop_it();
}

#[test]
fn several_are_answered_at_once() {
    let house = House::open(Plan { model: slow_model(), ..Plan::default() });
    let mut streams: Vec<_> = (0..3).map(|_| house.stream(CHAT, hello(json!({"stream": true, "max_tokens": 300})))).collect();
    streams.iter_mut().for_each(|s| s.first_text());
    house.wait_for_metric("hearth_requests{state=\"running\"}", 3.0);
    streams.into_iter().for_each(|s| s.drop_it());
}

#[test]
fn a_client_that_leaves_ends_its_answer() {
    let house = House::open(Plan { model: slow_model(), ..Plan::default() });
    let mut stream = house.stream(CHAT, hello(json!({"stream": true, "max_tokens": 400})));
    stream.first_text();
    stream.drop_it();
    house.wait_for_metric("hearth_requests_total{outcome=\"cancelled\"}", 1.0);
    house.wait_for_metric("hearth_requests{state=\"running\"}", 0.0);
}

#[test]
fn text_tokens_and_templates_go_both_ways() {
    let house = House::open(Plan::default());
    let (_, reply) = house.post("/tokenize", json!({"content": "hello there"}));
    let (_, back) = house.post("/detokenize", reply);
    assert_eq!(back["content"], "hello there");
    let (_, reply) = house.post("/apply-template", hello(json!({})));
    assert_eq!(reply["prompt"], "user: hello there<|eot_id|>assistant: ");
    let (status, reply) = house.post("/v1/completions", json!({"prompt": "hello", "max_tokens": 3, "logprobs": 2, "ignore_eos": true}));
    assert_eq!((status, &reply["usage"]["completion_tokens"]), (200, &json!(3)));
    assert_eq!(reply["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 3);
}

#[test]
fn several_prompts_of_one_request_are_answered_each() {
    let house = House::open(Plan::default());
    let ask = |prompt: Value, stream: bool| json!({"prompt": prompt, "max_tokens": 5, "temperature": 0, "ignore_eos": true, "stream": stream, "stream_options": {"include_usage": true}});
    let (status, both) = house.post("/v1/completions", ask(json!(["hello", "there"]), false));
    let (_, second) = house.post("/v1/completions", ask(json!("there"), false));
    assert_eq!((status, &both["usage"]["completion_tokens"], &both["choices"][1]["index"]), (200, &json!(10), &json!(1)));
    assert_eq!(both["choices"][1]["text"], second["choices"][0]["text"]);
    let mut streamed = [String::new(), String::new()];
    let mut events = house.stream("/v1/completions", ask(json!(["hello", "there"]), true)).rest();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let usage: Value = serde_json::from_str(&events.pop().unwrap()).unwrap();
    assert_eq!(usage["usage"]["completion_tokens"], 10);
    for event in events {
        let choice = &serde_json::from_str::<Value>(&event).unwrap()["choices"][0];
        streamed[choice["index"].as_u64().unwrap() as usize].push_str(choice["text"].as_str().unwrap());
    }
    assert_eq!(json!(streamed), json!([both["choices"][0]["text"], both["choices"][1]["text"]]));
}

#[test]
fn answers_are_held_to_the_form_that_is_asked_for() {
    let house = House::open(Plan { model_lines: "context = 2048", ..Plan::default() });
    let schema = json!({"type": "object", "required": ["on", "level"], "additionalProperties": false, "properties": {
        "on": {"type": "boolean"}, "level": {"type": "integer", "minimum": 0, "maximum": 9}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "lamp", "strict": true, "schema": schema}});
    let (status, reply) =
        house.post(CHAT, json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 400, "response_format": format}));
    let value: Value = serde_json::from_str(reply["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert!(status == 200 && value["on"].is_boolean() && value["level"].is_u64(), "{reply}");
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");

    let tool = json!({"type": "function", "function": {"name": "lamp", "parameters": schema}});
    let forced = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 900, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": false, "stream": true});
    let events = house.stream(CHAT, forced).rest();
    let deltas = events.iter().filter_map(|e| serde_json::from_str::<Value>(e).ok()).map(|e| e["choices"][0].clone());
    let mut arguments = String::new();
    for choice in deltas {
        let calls = choice["delta"]["tool_calls"].as_array().cloned().unwrap_or_default();
        assert!(calls.len() <= 1, "one entry a chunk: {choice}");
        calls.iter().filter(|c| c["index"] == 0).for_each(|c| arguments.push_str(c["function"]["arguments"].as_str().unwrap()));
    }
    assert!(serde_json::from_str::<Value>(&arguments).unwrap()["on"].is_boolean(), "{arguments}");

    let (status, reply) = house.post("/v1/completions", json!({"prompt": "hello", "grammar": "root ::= \"yes\" | \"no\""}));
    assert!(status == 200 && ["yes", "no"].contains(&reply["choices"][0]["text"].as_str().unwrap()), "{reply}");
}

#[test]
fn metrics_hold_no_words_of_a_prompt() {
    let house = House::open(Plan::default());
    house.post(CHAT, json!({"messages": [{"role": "user", "content": "xylophone"}], "max_tokens": 2, "ignore_eos": true}));
    let (status, metrics) = house.get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("hearth_generated_tokens_total 2\n") && !metrics.contains("xylophone"), "{metrics}");
    assert!(metrics.lines().all(|l| l.starts_with("# ") || l.split(' ').count() == 2), "{metrics}");
}

#[test]
fn the_openai_package_is_served() {
    let Some(python) = python() else { return };
    let house = House::open(Plan { model_lines: "context = 2048", ..Plan::default() });
    client(&python, "openai_client.py", &[house.socket.to_str().unwrap(), "tiny"], &[]);
    assert_eq!(model().file_stem().unwrap(), "tiny");
}
