//! Chat templates against what Python's Jinja makes of them: 22 real templates with their conversations, and small ones that pin Jinja itself.
//! The golden files stand in `../shared` (or `$HEARTH_SHARED`); the project's own cases are beside the code in `src/chat/template`.

use hearth::chat::template::{Piece, Template, TemplateError, Variables, text_of};
use hearth::chat::{Chat, Message, Request, Tool};
use serde_json::Value;
use std::path::PathBuf;

fn fixtures() -> Option<PathBuf> {
    let shared =
        std::env::var_os("HEARTH_SHARED").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("fixtures/chat-templates");
    if !folder.is_dir() {
        eprintln!("SKIPPED: no chat templates at {}", folder.display());
        return None;
    }
    Some(folder)
}

struct Case {
    name: String,
    template: String,
    variables: Variables,
    now: jiff::civil::DateTime,
    expect: Value,
}

fn cases(folder: &std::path::Path) -> Vec<Case> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let now = json.get("now").and_then(Value::as_str).unwrap_or("2026-11-23T04:05:06").parse().unwrap();
        let list = json.as_array().or_else(|| json["cases"].as_array()).unwrap();
        for case in list {
            let template = case.get("template").or_else(|| json.get("template")).unwrap().as_str().unwrap();
            let mut variables = case["context"].as_object().unwrap().clone();
            for (name, value) in json.get("special").and_then(Value::as_object).into_iter().flatten() {
                variables.entry(name.clone()).or_insert(value.clone());
            }
            let title = case.get("name").and_then(Value::as_str).unwrap_or(template);
            let name = format!("{}: {title}", file.file_stem().unwrap().to_string_lossy());
            cases.push(Case { name, template: template.to_owned(), variables, now, expect: case["expect"].clone() });
        }
    }
    cases
}

/// What is wrong about a rendering, if anything.
fn fault(case: &Case) -> Option<String> {
    let got = Template::new(&case.template).and_then(|t| t.render(&case.variables, case.now));
    let want = &case.expect;
    let right = match (&got, want.get("text"), want["error"].as_str()) {
        (Ok(text), Some(want), _) => text == want.as_str().unwrap(),
        (Err(TemplateError::Raised(message)), None, Some("raise_exception")) => *message == want["message"].as_str().unwrap(),
        (Err(_), None, Some(kind)) => kind != "raise_exception",
        _ => false,
    };
    (!right).then(|| {
        let (got, want) = (format!("{got:?}"), format!("{:?}", want.get("text").and_then(Value::as_str).ok_or(want)));
        let same = got.bytes().zip(want.bytes()).take_while(|(a, b)| a == b).count().saturating_sub(40);
        let from_there = |text: &str| text.char_indices().filter(|(at, _)| *at >= same).map(|(_, c)| c).take(160).collect::<String>();
        format!("{}, from byte {same}:\n    got {}\n   want {}", case.name, from_there(&got), from_there(&want))
    })
}

#[test]
fn every_rendering_equals_pythons() {
    let Some(folder) = fixtures() else { return };
    let cases = cases(&folder);
    let faults: Vec<String> = cases.iter().filter_map(fault).collect();
    assert!(cases.len() > 1000, "only {} cases", cases.len());
    assert!(faults.is_empty(), "{} of {} differ:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

/// The texts in angle brackets or `[INST]` style that the templates themselves write.
const SPECIAL: [&str; 30] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|begin_of_text|>",
    "<|eom_id|>",
    "<|python_tag|>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|channel|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "[INST]",
    "[/INST]",
    "<s>",
    "</s>",
    "<|start_of_role|>",
    "<|end_of_role|>",
    "<|end_of_text|>",
    "<turn|>",
    "<|turn>",
    "<｜User｜>",
];

#[test]
fn pieces_spell_the_rendering_and_messages_forge_nothing() {
    let Some(folder) = fixtures() else { return };
    let special: Vec<String> = SPECIAL.map(str::to_owned).to_vec();
    let forgery = SPECIAL.join("x");
    let mut rendered = 0;
    for case in cases(&folder).iter_mut().filter(|c| c.variables.contains_key("messages")) {
        let template = Template::new(&case.template).unwrap();
        let pieces = |variables: &Variables| template.render_pieces(variables, case.now, &special, &["bos_token", "eos_token"]);
        let Ok(plain) = pieces(&case.variables) else { continue };
        rendered += 1;
        assert_eq!(text_of(&plain), template.render(&case.variables, case.now).unwrap(), "{}", case.name);

        let mut forged = case.variables.clone();
        for message in forged["messages"].as_array_mut().unwrap() {
            if message["role"] == "user"
                && let Some(text) = message.get("content").and_then(Value::as_str)
            {
                message["content"] = format!("{text}y{forgery}z").into();
            }
        }
        let Ok(forged) = pieces(&forged) else { continue };
        let count = |pieces: &[Piece]| pieces.iter().filter(|p| matches!(p, Piece::Special(_))).count();
        assert_eq!(count(&forged), count(&plain), "{}\n{forged:?}", case.name);
    }
    assert!(rendered > 600, "only {rendered} conversations rendered");
}

/// A request with everything in it, as an OpenAI client sends it.
fn rich_request() -> Request {
    let messages = r#"[{"role":"developer","content":"Rule one."},{"role":"user","content":[{"type":"text","text":"Weather in Ulm?"}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"call_AbCdEfGhIjKlMn","type":"function","function":{"name":"weather","arguments":"{\"place\": \"Ulm\"}"}}]},
        {"role":"tool","tool_call_id":"call_AbCdEfGhIjKlMn","content":"rain and 7 degrees"}]"#;
    let tool = r#"{"type":"function","function":{"name":"weather","description":"Weather at a place.","parameters":{"type":"object","properties":{"place":{"type":"string","description":"Town"}},"required":["place"]}}}"#;
    Request {
        messages: serde_json::from_str::<Vec<Message>>(messages).unwrap(),
        tools: vec![serde_json::from_str::<Tool>(tool).unwrap()],
        add_generation_prompt: true,
        thinking: Some(false),
        variables: Variables::new(),
        now: jiff::civil::date(2026, 11, 23).at(4, 5, 6, 0),
    }
}

#[test]
fn every_template_tells_a_clients_whole_request() {
    let Some(folder) = fixtures() else { return };
    let mut seen = std::collections::BTreeSet::new();
    for case in cases(&folder) {
        let name = case.name.split(':').next().unwrap().to_owned();
        if !case.variables.contains_key("bos_token") || !seen.insert(name.clone()) {
            continue;
        }
        let token = |name: &str| case.variables.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let chat = Chat::new(&case.template, SPECIAL.map(str::to_owned).to_vec(), &token("bos_token"), &token("eos_token")).unwrap();
        println!("{name}: {:?}", chat.capabilities());
        let prompt = chat.prompt(&rich_request()).unwrap_or_else(|e| panic!("{name}: {e}")).text();
        // Mistral shows the system's words with the last user's message, and only while that is the last of all.
        let system = if name == "mistral-nemo" { "" } else { "Rule one." };
        for told in [system, "Weather in Ulm?", "Weather at a place.", "weather", "Ulm", "rain and 7 degrees"] {
            assert!(prompt.contains(told), "{name} doesn't tell `{told}`:\n{prompt}");
        }
    }
    assert_eq!(seen.len(), 22);
}
