//! Forms against the texts that follow them and the texts that do not, in every dialect of tool calls; and what no form should say.

use super::super::tiny::{Tiny, byte};
use super::*;
use crate::chat::Tool;
use crate::chat::deltas::{Delta, Format, Reader};
use crate::chat::form::{self, Hold};
use crate::engine::random::Random;
use serde_json::{Value, json};

fn grammars() -> Grammars {
    let tokenizer = Arc::new(Tiny::llama().tokenizer());
    let words = tokenizer.vocab().len();
    Grammars::new(tokenizer, words)
}

/// Whether the form lets all of `text` come, and whether it may end there.
fn follows(grammars: &Grammars, form: &Form, text: &str) -> (bool, bool) {
    let mut held = grammars.hold(form, true, "test").unwrap();
    for b in text.bytes() {
        if !held.allows(byte(b)).unwrap() {
            return (false, false);
        }
        held.advance(byte(b)).unwrap();
    }
    (true, held.allows(TokenId(2)).unwrap())
}

/// Ends of what is free, which no random walk would find.
const ENDS: [&str; 6] = ["\n</parameter>", "<|\"|>", "<escape>", "</think>", "<|end|>", "\","];

/// A random text that follows the form to its end.
fn walk(grammars: &Grammars, form: &Form, random: &mut Random) -> String {
    let mut held = grammars.hold(form, true, "test").unwrap();
    let mut text = Vec::new();
    let mut complete = false;
    while !complete {
        assert!(text.len() < 20_000, "no end: {}", String::from_utf8_lossy(&text[..500]));
        let end = ENDS[random.bits() as usize % ENDS.len()];
        if random.bits().is_multiple_of(8) {
            for b in end.bytes() {
                if complete || !held.allows(byte(b)).unwrap() {
                    break;
                }
                complete = held.advance(byte(b)).unwrap();
                text.push(b);
            }
            continue;
        }
        if held.allows(TokenId(2)).unwrap() && random.bits().is_multiple_of(2) {
            break;
        }
        let mut logits = vec![0.0; 261];
        held.mask(&mut logits).unwrap();
        let allowed: Vec<u8> = (0..=255).filter(|b| logits[byte(*b).0 as usize] == 0.0).collect();
        let plain: Vec<u8> = allowed.iter().copied().filter(|b| (b' '..=b'~').contains(b) && *b != b'\\').collect();
        let closing: Vec<u8> = allowed.iter().copied().filter(|b| b"\"}])".contains(b)).collect();
        let from = match random.bits() % 4 {
            0 | 1 if !closing.is_empty() => closing,
            2 if !plain.is_empty() => plain,
            _ => allowed,
        };
        let Some(&b) = from.get(random.bits() as usize % from.len().max(1)) else { break };
        complete = held.advance(byte(b)).unwrap();
        text.push(b);
    }
    String::from_utf8(text).unwrap()
}

fn tools() -> Vec<Tool> {
    let tool = |name: &str, parameters: Value| Tool(json!({"type": "function", "function": {"name": name, "parameters": parameters}}));
    vec![
        tool("lamp", json!({"type": "object", "properties": {}})),
        Tool(json!({"type": "function", "function": {"name": "time"}})),
        tool(
            "weather",
            json!({"type": "object", "required": ["place"], "properties": {
            "place": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 99}, "unit": {"enum": ["C", "F"]}}}),
        ),
        tool(
            "list",
            json!({"type": "object", "required": ["on"], "properties": {
            "note": {"type": "string"}, "on": {"type": "boolean"}, "rooms": {"type": "array", "items": {"type": "string", "enum": ["bath", "hall"]}}}}),
        ),
    ]
}

/// Checks what the schemas of these tests say.
fn fits(value: &Value, schema: &Value) -> bool {
    let right = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.as_array().is_some_and(|items| items.iter().all(|item| fits(item, &schema["items"]))),
        Some("object") => value.as_object().is_some_and(|members| {
            let declared = &schema["properties"];
            members.iter().all(|(name, member)| declared.get(name).is_some_and(|of| fits(member, of)))
                && schema["required"].as_array().is_none_or(|names| names.iter().all(|n| members.contains_key(n.as_str().unwrap())))
        }),
        _ => true,
    };
    right && schema["enum"].as_array().is_none_or(|choices| choices.contains(value))
}

fn read(format: &Format, tools: &[Tool], prompt: &str, text: &str) -> (String, Vec<(String, Value)>) {
    let mut reader = Reader::new(format, tools, prompt, 1);
    let mut deltas = reader.push(text, false);
    deltas.extend(reader.finish());
    let (mut content, mut calls) = (String::new(), Vec::<(String, String)>::new());
    for delta in deltas {
        match delta {
            Delta::Content(text) => content.push_str(&text),
            Delta::ToolCallStart { name, .. } => calls.push((name, String::new())),
            Delta::ToolCallArguments { index, fragment } => calls[index].1.push_str(&fragment),
            Delta::Reasoning(_) => {}
        }
    }
    (content, calls.into_iter().map(|(name, text)| (name, serde_json::from_str(&text).unwrap())).collect())
}

/// What tells the dialects apart in a template.
const TEMPLATES: [&str; 14] = [
    "<tool_call>",
    "<tool_call><think>",
    "<tool_call><parameter=",
    "<function=",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[TOOL_CALLS][ARGS]",
    "<|tool_list_start|>",
    "<|tool_call|>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁begin｜>```json",
    "<|tool_call>",
    "<start_function_call>",
    "<start_of_turn>",
];

#[test]
fn calls_that_follow_the_form_are_read_back_in_every_dialect() {
    let (grammars, tools) = (grammars(), tools());
    let mut random = Random::from_seed(5);
    for template in TEMPLATES.into_iter().chain(["<|channel|>final"]) {
        let format = Format::of(template);
        let prompt = if format.harmony { "<|start|>assistant" } else { "" };
        for hold in [Hold::Calls { several: false }, Hold::Calls { several: true }] {
            let form = form::form(&format, &tools, prompt, true, hold).unwrap();
            for _ in 0..6 {
                let text = walk(&grammars, &form, &mut random);
                let (content, calls) = read(&format, &tools, prompt, &text);
                assert!(content.trim().is_empty() && !calls.is_empty(), "{template}: {text:?} reads as {content:?}, {calls:?}");
                assert!(calls.len() == 1 || matches!(hold, Hold::Calls { several: true }), "{text}");
                for (name, arguments) in calls {
                    let tool = tools.iter().find(|t| t.name() == Some(&name)).unwrap();
                    assert!(fits(&arguments, &tool.arguments_schema()), "{template}: {text:?} reads as {name} {arguments}");
                }
            }
        }
    }
}

#[test]
fn json_that_follows_a_schema_fits_it() {
    let grammars = grammars();
    let mut random = Random::from_seed(3);
    let schema = json!({"type": "object", "required": ["place", "on"], "additionalProperties": false, "properties": {
        "place": {"type": "string"}, "on": {"type": "boolean"}, "n": {"type": "integer"}, "rooms": {"type": "array", "items": {"enum": ["bath"]}}}});
    for _ in 0..20 {
        let text = walk(&grammars, &Form::Json(schema.clone()), &mut random);
        assert!(fits(&serde_json::from_str(&text).unwrap(), &schema), "{text}");
    }
}

#[test]
fn a_thought_is_free_and_what_follows_it_is_not() {
    let grammars = grammars();
    let format = Format::of("<think>");
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
    let of = |prompt: &str, thinks| form::form(&format, &[], prompt, thinks, Hold::Json(&schema)).unwrap();
    let opened = of("assistant\n<think>\n", true);
    assert_eq!(follows(&grammars, &opened, "It's {odd}.\n</think>\n\n{\"a\": 5}"), (true, true));
    assert_eq!(follows(&grammars, &opened, "hm</think>\n\nNo"), (false, false));
    let may = of("assistant\n", true);
    assert_eq!(follows(&grammars, &may, "<think>\nhm</think>{\"a\":1}"), (true, true));
    assert_eq!(follows(&grammars, &may, "{\"a\":1}"), (true, true));
    assert_eq!(follows(&grammars, &may, "Well"), (false, false));
    let closed = of("assistant\n<think>\n\n</think>\n\n", false);
    assert_eq!(follows(&grammars, &closed, "{\"a\":1"), (true, false));
    assert_eq!(follows(&grammars, &closed, "<think>"), (false, false));
}

#[test]
fn talk_is_free_until_a_call_begins() {
    let (grammars, tools) = (grammars(), tools());
    for template in TEMPLATES {
        let format = Format::of(template);
        let Some(talk) = form::form(&format, &tools, "", false, Hold::Talk { several: true }) else {
            assert_eq!(template, "<|python_tag|>", "a call there begins as any JSON does");
            continue;
        };
        assert_eq!(follows(&grammars, &talk, "1 < 2, [x] and {\"a\": `b`} <too"), (true, true), "{template}");
    }
    let hermes = form::form(&Format::of("<tool_call>"), &tools, "", false, Hold::Talk { several: true }).unwrap();
    let call = "Look: <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Köln\"}}\n</tool_call>";
    assert_eq!(follows(&grammars, &hermes, &format!("{call}\n{call} So.")), (true, true));
    assert!(!follows(&grammars, &hermes, "<tool_call>\n{\"name\": \"fly\"").0);
    let one = form::form(&Format::of("<tool_call>"), &tools, "", false, Hold::Talk { several: false }).unwrap();
    assert_eq!(follows(&grammars, &one, call), (true, true));
    assert!(!follows(&grammars, &one, &format!("{call}\n")).0);
}

#[test]
fn marks_that_are_control_tokens_are_tokens() {
    let grammars = grammars();
    let (start, end) = (TokenId(259), TokenId(1));
    let form = Form::Sequence(vec![Form::text("<|im_start|>a"), Form::Until("<s>".into()), Form::text("[b]")]);
    let mut held = grammars.hold(&form, false, "test").unwrap();
    assert!(!held.allows(byte(b'<')).unwrap() && held.allows(start).unwrap());
    for token in [start, byte(b'a'), byte(b'<'), byte(b'|'), end, byte(b'['), byte(b'b')] {
        assert!(held.allows(token).unwrap());
        assert!(!held.advance(token).unwrap());
    }
    assert!(held.advance(byte(b']')).unwrap());
    assert!(held.allows(TokenId(2)).unwrap() && !held.allows(byte(b'x')).unwrap(), "nothing follows but the end");
}

#[test]
fn references_in_a_tools_schema_lead_where_they_led() {
    let room = json!({"type": "object", "properties": {"name": {"const": "hall"}}, "required": ["name"], "additionalProperties": false});
    let parameters =
        json!({"type": "object", "properties": {"room": {"$ref": "#/$defs/Room"}}, "required": ["room"], "$defs": {"Room": room}});
    let tools = [Tool(json!({"function": {"name": "go", "parameters": parameters}}))];
    let grammars = grammars();
    for (template, call) in [
        ("<tool_call>", "<tool_call>{\"name\": \"go\", \"arguments\": {\"room\": {\"name\": \"hall\"}}}</tool_call>"),
        (
            "<tool_call><parameter=",
            "<tool_call>\n<function=go>\n<parameter=room>\n{\"name\":\"hall\"}\n</parameter>\n</function>\n</tool_call>",
        ),
        ("<|tool_list_start|>", "<|tool_call_start|>[go(room={\"name\": \"hall\"})]<|tool_call_end|>"),
    ] {
        let form = form::form(&Format::of(template), &tools, "", false, Hold::Calls { several: false }).unwrap();
        assert_eq!(follows(&grammars, &form, call), (true, true), "{call}");
        assert!(!follows(&grammars, &form, &call.replace("hall", "roof")).0);
    }
}

#[test]
fn grammars_of_llama_cpp_hold() {
    let grammars = grammars();
    let of = |text: &str| Form::Grammar(text.to_owned());
    let choice = of("root ::= \"yes\" | \"no\" [!.]?");
    assert_eq!(follows(&grammars, &choice, "no."), (true, true));
    assert_eq!(follows(&grammars, &choice, "nay"), (false, false));
    let nested = of("root ::= list\nlist ::= \"[\" (item (\", \" item)*)? \"]\"\nitem ::= [0-9]+ | list");
    assert_eq!(follows(&grammars, &nested, "[1, [22, []], 3]"), (true, true));
    assert_eq!(follows(&grammars, &nested, "[1 2"), (false, false));
    let refused = |form: Form| grammars.hold(&form, false, "grammar").map(drop).unwrap_err().to_string();
    assert_eq!(refused(of("root ::= [")), "`grammar`: line 1: the grammar ends within quotes or brackets");
    assert!(refused(of("root ::= a\na ::= root")).contains("no text ends the rule"));
    assert!(refused(of("root ::= \"a\" b\nb ::= b")).contains("no text ends the rule `b`"));
    let behind_a_thought = |form| Form::Sequence(vec![Form::Optional(Box::new(Form::Until("</think>".into()))), form]);
    assert!(refused(behind_a_thought(of("root ::= root"))).contains("no text ends the rule `root`"), "as a chat has it");
    assert!(refused(behind_a_thought(Form::Json(json!({"$ref": "#"})))).contains("nothing but itself"), "as a chat has it");
    assert!(refused(Form::Json(json!({"$ref": "#"}))).contains("nothing but itself"));
    assert!(refused(Form::Json(json!({"type": "string", "pattern": "("}))).contains("unclosed group"));
}

/// Whoever reads them recurses: on a usual stack this would end the process. What comes of them is followed on one.
#[test]
fn long_chains_of_rules_and_references_are_followed() {
    let grammars = grammars();
    let rules = |count: usize, last: &str| {
        let chain: String = (0..count).map(|n| format!("r{n} ::= \"a\" r{} | \"b\"\n", n + 1)).collect();
        Form::Grammar(format!("root ::= r0\n{chain}r{count} ::= {last}"))
    };
    let of = |count: usize, link: &dyn Fn(Value) -> Value| {
        let name = |n: usize| format!("r{n}");
        let next = |n: usize| link(json!({"$ref": format!("#/$defs/r{}", n + 1)}));
        let mut defs: serde_json::Map<String, Value> = (0..count).map(|n| (name(n), next(n))).collect();
        defs.insert(name(count), json!({"type": "integer"}));
        Form::Json(json!({"$ref": "#/$defs/r0", "$defs": defs}))
    };
    let object = |to| json!({"type": "object", "properties": {"a": to}, "required": ["a"], "additionalProperties": false});
    let forms = [
        rules(1500, "\"c\""),
        rules(1500, "\"c\" | \"(\" root \")\""),
        of(1500, &object),
        of(1500, &|to| json!({"anyOf": [to, {"type": "null"}]})),
        of(1500, &|to| json!({"allOf": [to, {"type": ["integer", "string"]}]})),
        of(3000, &|to| to),
        of(90, &|to| (0..100).fold(to, |inner, _| json!({"items": inner}))),
    ];
    for form in forms {
        let mut held = match grammars.hold(&form, true, "test") {
            Ok(held) => held,
            // It may ask for more than the parser takes, here or further on, but must say so.
            Err(error) => {
                assert!(matches!(error, Error::BadRequest { .. }), "{error}");
                continue;
            }
        };
        for _ in 0..40 {
            let mut logits = vec![0.0; 261];
            let masked = held.mask(&mut logits);
            let Some(token) = masked.ok().and_then(|()| logits.iter().position(|x| *x == 0.0)) else { break };
            if held.advance(TokenId(token as u32)).unwrap_or(true) {
                break;
            }
        }
    }
    let told = grammars.hold(&of(4000, &object), true, "response_format").map(drop).unwrap_err().to_string();
    assert!(told.contains("rules, brackets, objects and lists are more than the 10000"), "{told}");
}

#[test]
fn more_ways_than_can_be_followed_are_told_as_that() {
    let members: serde_json::Map<String, Value> = (0..2000).map(|n| (format!("member {n}"), json!({"type": "string"}))).collect();
    let schema = json!({"type": "object", "properties": members, "additionalProperties": false});
    let told = grammars().hold(&Form::Json(schema), true, "response_format").and_then(|mut held| {
        let begin = held.advance(byte(b'{')).and_then(|_| held.mask(&mut [0.0; 261]));
        begin.map_err(|Broken(why)| Error::bad("response_format", why))
    });
    assert!(told.unwrap_err().to_string().contains("more ways lead on than can be followed"));
}

#[test]
fn what_no_schema_should_say_is_refused_or_bounded() {
    let grammars = grammars();
    let nested = (0..100).fold(json!({"type": "integer"}), |inner, _| json!({"type": "array", "items": inner}));
    let schemas = [
        json!({"type": "array", "items": {"type": "string"}, "minItems": 1_000_000_000u64}),
        json!({"type": "string", "minLength": 1_000_000_000u64}),
        json!({"type": "string", "pattern": "^((a{500}){500}){500}$"}),
        json!({"type": "string", "pattern": "("}),
        json!({"type": "number", "multipleOf": 1e-300}),
        json!({"type": "integer", "multipleOf": 9_999_991}),
        json!({"allOf": [{"type": "integer", "multipleOf": 9973}, {"type": "integer", "multipleOf": 9967}]}),
        json!({"type": "integer", "minimum": 5, "maximum": 4}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
        json!({"$ref": "http://example.com/schema"}),
        json!({"type": "nonsense"}),
        json!({"enum": (0..20_000).map(|n| json!(format!("{n:05}"))).collect::<Vec<_>>()}),
        json!({"not": {}}),
        json!({"x-guidance": {"whitespace_pattern": "("}, "type": "object"}),
        nested,
    ];
    for schema in schemas {
        for lenient in [false, true] {
            if let Err(error) = grammars.hold(&Form::Json(schema.clone()), lenient, "response_format") {
                let Error::BadRequest { param: "response_format", message } = error else { panic!("{error}") };
                assert!(!message.is_empty() && !message.contains('\n') && !message.contains("panic"), "{message}");
            }
        }
    }
    let strict = grammars.hold(&Form::Json(json!({"type": "string", "format": "nonsense"})), false, "json_schema").map(drop);
    assert!(matches!(strict, Err(Error::BadRequest { param: "json_schema", .. })));
    let long = Form::Json(json!({"enum": ["x".repeat(FORM_BYTES_MAX)]}));
    assert!(grammars.hold(&long, true, "tools").is_err());
}
