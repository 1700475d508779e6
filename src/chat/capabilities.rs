//! What a template can do, found by rendering small conversations and looking at what becomes of them.

use super::template::{Template, Variables};
use serde_json::{Value as Json, json};

/// What a chat template does with the parts of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Shows system messages.
    pub system: bool,
    pub tools: ToolsIn,
    /// Shows an assistant's tool calls.
    pub tool_calls: bool,
    /// Shows the arguments of calls right if they are JSON text rather than an object.
    pub arguments_as_text: bool,
    /// Shows the results of tools.
    pub tool_results: bool,
    /// Refuses call ids that aren't nine letters and digits (Mistral).
    pub short_call_ids: bool,
    /// Shows content only if it is a list of parts.
    pub content_in_parts: bool,
    /// The model thinks before it answers.
    pub thinking: bool,
    /// The variables (of `enable_thinking`, `thinking`, `reasoning_effort`) that change whether or how much it thinks.
    pub thinking_switches: Vec<&'static str>,
}

/// Where a template takes the tools from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolsIn {
    /// It shows none.
    Nowhere,
    /// The variable `tools`.
    Variable,
    /// The member `tools`, JSON text, of the system message (Phi-4).
    SystemMessage,
}

impl Capabilities {
    /// Probes a template whose source is `text`. Rendering is without side effects and takes some milliseconds in all.
    pub fn of(template: &Template, text: &str, tokens: &Variables) -> Self {
        let shows = |variables: Json, needle: &str| render(template, tokens, variables).is_some_and(|text| text.contains(needle));
        let user = json!({"role": "user", "content": "Qplain"});
        let in_parts = json!({"role": "user", "content": [{"type": "text", "text": "Qparts"}]});
        let content_in_parts = !shows(json!({"messages": [user]}), "Qplain") && shows(json!({"messages": [in_parts]}), "Qparts");
        let said = |text: &str| if content_in_parts { json!([{"type": "text", "text": text}]) } else { json!(text) };
        let user = json!({"role": "user", "content": said("Quser")});

        let system = shows(json!({"messages": [{"role": "system", "content": said("Qsystem")}, user]}), "Qsystem");
        let tool = json!({"type": "function", "function": {"name": "Qtool", "description": "d", "parameters": {"type": "object",
            "properties": {"Qparameter": {"type": "string", "description": "p"}}, "required": ["Qparameter"]}}});
        let tools = if shows(json!({"messages": [user], "tools": [tool]}), "Qtool") {
            ToolsIn::Variable
        } else if shows(json!({"messages": [{"role": "system", "content": said("s"), "tools": "Qtool"}, user]}), "Qtool") {
            ToolsIn::SystemMessage
        } else {
            ToolsIn::Nowhere
        };

        let with_call = |id: &str, arguments: Json, result: bool| {
            let call = json!({"id": id, "type": "function", "function": {"name": "Qcall", "arguments": arguments}});
            let mut messages = vec![user.clone(), json!({"role": "assistant", "content": said(""), "tool_calls": [call]})];
            if result {
                messages.push(json!({"role": "tool", "content": said("Qresult"), "tool_call_id": id, "name": "Qcall"}));
            }
            json!({"messages": messages, "tools": [tool]})
        };
        let object = || json!({"Qkey": "Qvalue"});
        let as_text = || json!(r#"{"Qkey": "Qvalue"}"#);
        // Mistral's templates want nine letters and digits, and no others mind them.
        let short = "Qcallid01";
        let from_object = render(template, tokens, with_call(short, object(), true));
        let from_text = render(template, tokens, with_call(short, as_text(), true));
        let is_object =
            |text: &Option<String>| text.as_ref().is_some_and(|t| t.contains("\"Qkey\"") || t.contains("Qkey") && !t.contains("'Qkey'"));
        let is_plain_object = |text: &Option<String>| text.as_ref().is_some_and(|t| t.contains(r#"{"Qkey": "Qvalue"}"#));
        let arguments_as_text = !is_object(&from_object) && is_plain_object(&from_text);
        let arguments = if arguments_as_text { as_text() } else { object() };
        let calls = if arguments_as_text { &from_text } else { &from_object };
        let tool_calls = calls.as_ref().is_some_and(|text| text.contains("Qcall") && text.contains("Qkey"));
        let tool_results = calls.as_ref().is_some_and(|text| text.contains("Qresult"));
        let long = render(template, tokens, with_call("call_Q123456789", arguments, true));
        let short_call_ids = calls.is_some() && long.is_none();

        let ask = |switch: Option<(&str, Json)>| {
            let mut variables = json!({"messages": [user], "add_generation_prompt": true});
            if let Some((name, value)) = switch {
                variables[name] = value;
            }
            render(template, tokens, variables)
        };
        let switches = [
            ("enable_thinking", json!(true), json!(false)),
            ("thinking", json!(true), json!(false)),
            ("reasoning_effort", json!("high"), json!("low")),
        ];
        let switches = switches.into_iter().filter(|(name, on, off)| ask(Some((name, on.clone()))) != ask(Some((name, off.clone()))));
        let thinking_switches: Vec<&str> = switches.map(|(name, _, _)| name).collect();
        let thinking = !thinking_switches.is_empty()
            || ["<think>", "[THINK]", "<|channel|>analysis", "<|channel>thought"].iter().any(|mark| text.contains(mark));
        Self { system, tools, tool_calls, arguments_as_text, tool_results, short_call_ids, content_in_parts, thinking, thinking_switches }
    }
}

fn render(template: &Template, tokens: &Variables, variables: Json) -> Option<String> {
    let Json::Object(mut variables) = variables else { return None };
    variables.extend(tokens.clone());
    template.render(&variables, jiff::civil::date(2026, 1, 2).at(3, 4, 5, 0)).ok()
}
