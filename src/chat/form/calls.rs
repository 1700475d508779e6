//! Calls as each dialect writes them.

use super::{Form, Hold};
use crate::chat::deltas::{Dialect, Format};
use crate::chat::message::Tool;
use serde_json::{Map, Value as Json, json};

/// Calls and nothing else. `None`: the dialect is not known.
pub fn whole(format: &Format, tools: &[Tool], several: bool) -> Option<Form> {
    let call = dialect(format, tools, several)?;
    let once = Form::Sequence(vec![Form::text(call.open), call.rest]);
    Some(if several && call.repeats {
        Form::Sequence(vec![once.clone(), Form::Sequence(vec![Form::Space, once]).repeated().optional()])
    } else {
        once
    })
}

/// Talk with calls in it. `None`: the dialect has no mark that opens them.
pub fn within_talk(format: &Format, tools: &[Tool], several: bool) -> Option<Form> {
    let call = dialect(format, tools, several).filter(|call| !call.open.is_empty())?;
    let after_talk = Form::Sequence(vec![Form::Until(call.open.into()), call.rest]);
    Some(match several {
        true => Form::Sequence(vec![after_talk.repeated().optional(), Form::Free]),
        false => Form::OneOf(vec![after_talk, Form::Free]),
    })
}

/// One dialect's way to call.
struct Call {
    /// What opens calls; empty where nothing does.
    open: &'static str,
    /// What follows it, to the end.
    rest: Form,
    /// Several calls are several of these; otherwise `rest` holds them all.
    repeats: bool,
}

fn dialect(format: &Format, tools: &[Tool], several: bool) -> Option<Call> {
    let each = |write: &dyn Fn(&str, &Json) -> Vec<Form>| {
        let tools = tools.iter().filter_map(|tool| Some((tool.name()?, tool.arguments_schema())));
        Form::OneOf(tools.map(|(name, schema)| Form::Sequence(write(name, &schema))).collect())
    };
    let text = |text: &str| Form::text(text);
    let object = |key: &'static str| {
        move |name: &str, schema: &Json| {
            vec![Form::text(format!("{{\"name\": {}, \"{key}\": ", Json::from(name))), Form::Json(schema.clone()), Form::text("}")]
        }
    };
    let some = |open, parts: Vec<Form>, repeats| Some(Call { open, rest: Form::Sequence(parts), repeats });
    match format.dialect {
        Dialect::None => None,
        Dialect::Hermes => some("<tool_call>", vec![Form::Space, each(&object("arguments")), Form::Space, text("</tool_call>")], true),
        Dialect::Functions => {
            let call = |name: &str, schema: &Json| {
                let mut parts = vec![Form::text(format!("<function={name}>\n"))];
                parts.extend(
                    properties(schema).map(|p| p.or_none(Form::Sequence(vec![Form::text(format!("<parameter={}>\n", p.name)), p.line()]))),
                );
                parts.push(Form::text("</function>"));
                parts
            };
            some("<tool_call>", vec![text("\n"), each(&call), text("\n</tool_call>")], true)
        }
        Dialect::Functionary => {
            let call =
                |name: &str, schema: &Json| vec![Form::text(format!("{name}>")), Form::Json(schema.clone()), Form::text("</function>")];
            some("<function=", vec![each(&call)], true)
        }
        Dialect::Llama => some("", vec![each(&object("parameters"))], false),
        Dialect::Mistral => some("[TOOL_CALLS]", vec![Form::Space, list(each(&object("arguments")), several)], false),
        Dialect::MistralArgs => {
            let call = |name: &str, schema: &Json| vec![Form::text(format!("{name}[ARGS]")), Form::Json(schema.clone())];
            some("[TOOL_CALLS]", vec![each(&call)], true)
        }
        Dialect::Granite => {
            let calls = list(each(&object("arguments")), several);
            some("<|tool_call|>", vec![Form::Space, calls, text("<|/tool_call|>").optional()], false)
        }
        Dialect::Lfm2 => some("<|tool_call_start|>", vec![list(each(&pythonic), several), text("<|tool_call_end|>")], false),
        Dialect::ToolCode => some("```tool_code", vec![text("\n"), each(&pythonic), text("\n```")], false),
        Dialect::DeepSeek | Dialect::DeepSeekR1 => {
            let with_fence = format.dialect == Dialect::DeepSeekR1;
            let call = |name: &str, schema: &Json| {
                let (head, tail) = if with_fence {
                    (format!("function<｜tool▁sep｜>{name}\n```json\n"), "\n```")
                } else {
                    (format!("{name}<｜tool▁sep｜>"), "")
                };
                vec![
                    Form::text(format!("<｜tool▁call▁begin｜>{head}")),
                    Form::Json(schema.clone()),
                    Form::text(format!("{tail}<｜tool▁call▁end｜>")),
                ]
            };
            let call = each(&call);
            let calls = if several {
                Form::Sequence(vec![call.clone(), Form::Sequence(vec![Form::Space, call]).repeated().optional()])
            } else {
                call
            };
            some("<｜tool▁calls▁begin｜>", vec![calls, text("<｜tool▁calls▁end｜>")], false)
        }
        Dialect::Gemma => some("<|tool_call>", vec![each(&|name, schema| braced(name, schema, "<|\"|>")), text("<tool_call|>")], true),
        Dialect::FunctionGemma => {
            some("<start_function_call>", vec![each(&|name, schema| braced(name, schema, "<escape>")), text("<end_function_call>")], true)
        }
    }
}

/// gpt-oss: thoughts are messages of their own, then comes one to the user or to a tool.
pub fn harmony(tools: &[Tool], hold: Hold<'_>) -> Option<Form> {
    let text = |text: &str| Form::text(text);
    let thought = [text("<|channel|>analysis<|message|>"), Form::Until("<|end|>".into()), text("<|start|>assistant")];
    let thoughts = Form::Sequence(thought.into()).repeated().optional();
    let body = |schema: &Json| [text(" <|constrain|>json").optional(), text("<|message|>"), Form::Json(schema.clone())];
    let said = match hold {
        Hold::Json(schema) => [text("<|channel|>final")].into_iter().chain(body(schema)).collect(),
        Hold::Grammar(grammar) => vec![text("<|channel|>final<|message|>"), Form::Grammar(grammar.to_owned())],
        Hold::Calls { .. } => {
            let tools = tools.iter().filter_map(|tool| Some((tool.name()?, tool.arguments_schema())));
            let call = |(name, schema): (&str, Json)| Form::Sequence([Form::text(name)].into_iter().chain(body(&schema)).collect());
            vec![text("<|channel|>commentary to=functions."), Form::OneOf(tools.map(call).collect())]
        }
        Hold::Talk { .. } => return None,
    };
    Some(Form::Sequence([thoughts].into_iter().chain(said).collect()))
}

/// `[a]` or `[a, b, …]`.
fn list(item: Form, several: bool) -> Form {
    let more = Form::Sequence(vec![Form::text(", "), item.clone()]).repeated().optional();
    let items = if several { vec![Form::text("["), item, more, Form::text("]")] } else { vec![Form::text("["), item, Form::text("]")] };
    Form::Sequence(items)
}

/// `name(key=value, …)`; JSON's values are Python's, but for the names of constants, which are read in both forms.
fn pythonic(name: &str, schema: &Json) -> Vec<Form> {
    let arguments = properties(schema)
        .map(|p| (Form::Sequence(vec![Form::text(format!("{}=", p.name)), Form::Json(p.with_definitions())]), p.required));
    vec![Form::text(format!("{name}(")), separated(&arguments.collect::<Vec<_>>(), ", "), Form::text(")")]
}

/// `call:name{key:value,…}` with text between quotes of its own.
fn braced(name: &str, schema: &Json, quote: &str) -> Vec<Form> {
    vec![Form::text(format!("call:{name}")), braced_object(schema, quote)]
}

fn braced_object(schema: &Json, quote: &str) -> Form {
    let members = properties(schema)
        .map(|p| (Form::Sequence(vec![Form::text(format!("{}:", p.name)), braced_value(&p.with_definitions(), quote)]), p.required));
    Form::Sequence(vec![Form::text("{"), separated(&members.collect::<Vec<_>>(), ","), Form::text("}")])
}

fn braced_value(schema: &Json, quote: &str) -> Form {
    if let Some(choices) = schema["enum"].as_array().filter(|choices| choices.iter().all(Json::is_string)) {
        let choices = choices.iter().filter_map(Json::as_str).map(|choice| Form::text(format!("{quote}{choice}{quote}")));
        return Form::OneOf(choices.collect());
    }
    match schema["type"].as_str() {
        Some("string") => Form::Sequence(vec![Form::text(quote), Form::Until(quote.into())]),
        Some("object") if schema["properties"].is_object() => braced_object(schema, quote),
        Some("array") if schema["items"].is_object() => {
            let item = braced_value(&schema["items"], quote);
            let more = Form::Sequence(vec![Form::text(","), item.clone()]).repeated().optional();
            Form::Sequence(vec![Form::text("["), Form::Sequence(vec![item, more]).optional(), Form::text("]")])
        }
        Some("integer" | "number" | "boolean" | "null") => Form::Json(schema.clone()),
        // Anything at all: as text.
        _ => Form::Sequence(vec![Form::text(quote), Form::Until(quote.into())]),
    }
}

/// A declared parameter.
struct Property<'s> {
    name: &'s str,
    schema: &'s Json,
    /// Where `$ref`s of `schema` lead.
    whole: &'s Json,
    required: bool,
}

fn properties(schema: &Json) -> impl Iterator<Item = Property<'_>> {
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    let declared = schema["properties"].as_object().into_iter().flatten();
    declared.map(move |(name, of)| Property { name, schema: of, whole: schema, required: required(name) })
}

impl Property<'_> {
    fn or_none(&self, form: Form) -> Form {
        if self.required { form } else { form.optional() }
    }

    /// The schema with the definitions that it may refer to.
    fn with_definitions(&self) -> Json {
        let mut schema = self.schema.as_object().cloned().unwrap_or_default();
        for key in ["$defs", "definitions"] {
            if let Some(definitions) = self.whole.get(key) {
                schema.entry(key).or_insert_with(|| definitions.clone());
            }
        }
        Json::Object(schema)
    }

    /// A value on lines of its own up to `</parameter>`: text as it is, other types as JSON.
    fn line(&self) -> Form {
        const CLOSE: &str = "\n</parameter>";
        let value = match (self.schema["enum"].as_array(), self.schema["type"].as_str()) {
            (Some(choices), _) if choices.iter().all(Json::is_string) => {
                Form::OneOf(choices.iter().filter_map(Json::as_str).map(|choice| Form::text(format!("{choice}{CLOSE}"))).collect())
            }
            (None, Some("string")) => Form::Until(CLOSE.into()),
            _ => Form::Sequence(vec![Form::Json(self.with_definitions()), Form::text(CLOSE)]),
        };
        Form::Sequence(vec![value, Form::text("\n")])
    }
}

/// Items in their order, each with whether it must be there, and the separator between those that are.
fn separated(items: &[(Form, bool)], separator: &str) -> Form {
    let tail = |items: &[(Form, bool)]| {
        let one = |(item, required): &(Form, bool)| {
            let item = Form::Sequence(vec![Form::text(separator), item.clone()]);
            if *required { item } else { item.optional() }
        };
        items.iter().map(one).collect::<Vec<_>>()
    };
    // The first that is there can be any of those up to the first that must be.
    let last_first = items.iter().position(|(_, required)| *required).unwrap_or(items.len().saturating_sub(1));
    let beginnings = items
        .iter()
        .enumerate()
        .take(last_first + 1)
        .map(|(at, (item, _))| Form::Sequence([item.clone()].into_iter().chain(tail(&items[at + 1..])).collect()));
    let beginnings = Form::OneOf(beginnings.collect());
    match items.iter().any(|(_, required)| *required) {
        true => beginnings,
        false if items.is_empty() => Form::Sequence(Vec::new()),
        false => beginnings.optional(),
    }
}

impl Tool {
    /// The schema of the arguments: an object, and only of what is declared unless the declaration says otherwise.
    pub fn arguments_schema(&self) -> Json {
        let declared = self.parameters().and_then(Json::as_object).cloned().unwrap_or_else(Map::new);
        let mut schema = declared;
        schema.entry("type").or_insert_with(|| json!("object"));
        let composed = ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|key| schema.contains_key(*key));
        if !composed {
            schema.entry("properties").or_insert_with(|| json!({}));
            schema.entry("additionalProperties").or_insert(Json::Bool(false));
        }
        Json::Object(schema)
    }
}
