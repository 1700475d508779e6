//! What every format must do with whole, broken and cut answers.

use super::*;
use serde_json::json;

fn tools() -> Vec<Tool> {
    let tool = |name: &str| {
        Tool(json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {
        "place": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array"}}}}}))
    };
    vec![tool("weather"), tool("lamp")]
}

/// The deltas' concatenation: what was thought, said, and called, in order.
#[derive(Debug, Default, PartialEq, Clone)]
struct Whole {
    reasoning: String,
    content: String,
    calls: Vec<(String, String)>,
    order: String,
}

fn collect(whole: &mut Whole, deltas: Vec<Delta>) {
    for delta in deltas {
        let kind = match delta {
            Delta::Content(text) => {
                whole.content.push_str(&text);
                'c'
            }
            Delta::Reasoning(text) => {
                whole.reasoning.push_str(&text);
                'r'
            }
            Delta::ToolCallStart { index, name, id } => {
                assert_eq!((index, id.len()), (whole.calls.len(), 9));
                whole.calls.push((name, String::new()));
                't'
            }
            Delta::ToolCallArguments { index, fragment } => {
                whole.calls[index].1.push_str(&fragment);
                't'
            }
        };
        if !whole.order.ends_with(kind) {
            whole.order.push(kind);
        }
    }
}

fn read(template: &str, prompt: &str, fragments: &[&str]) -> Whole {
    let mut reader = Reader::new(&Format::of(template), &tools(), prompt, 7);
    let mut whole = Whole::default();
    for fragment in fragments {
        collect(&mut whole, reader.push(fragment, false));
    }
    collect(&mut whole, reader.finish());
    whole
}

/// A family: texts that its templates hold, the prompt's end, an answer, and what it says.
struct Case {
    template: &'static str,
    prompt: &'static str,
    answer: &'static str,
    reasoning: &'static str,
    content: &'static str,
    calls: &'static [(&'static str, &'static str)],
}

const WEATHER: (&str, &str) = ("weather", r#"{"place":"Köln","days":2}"#);

#[rustfmt::skip]
const CASES: [Case; 30] = [
    Case { template: "", prompt: "", answer: " plain <think> text\n", reasoning: "", content: " plain <think> text\n", calls: &[] },
    Case { template: "<think>", prompt: "", answer: "<think>\nhm\n</think>\n\nYes. \n", reasoning: "hm", content: "Yes. \n", calls: &[] },
    Case { template: "<think>", prompt: "<think>\n", answer: "hm <b>\n</think>\n\nYes <think> no", reasoning: "hm <b>", content: "Yes <think> no", calls: &[] },
    Case { template: "<think>", prompt: "", answer: "<think>never ends\n", reasoning: "never ends\n", content: "", calls: &[] },
    Case { template: "<think>", prompt: "", answer: "<thin", reasoning: "", content: "<thin", calls: &[] },
    Case { template: "<think><response>", prompt: "", answer: "<think>a</think><response>b</response>", reasoning: "a", content: "b", calls: &[] },
    Case {
        template: "<tool_call><think>", prompt: "", reasoning: "r", content: "Let me look.", calls: &[WEATHER, ("lamp", "{}")],
        answer: "<think>r</think>\nLet me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Köln\", \"days\": 2}}\n</tool_call>\n<tool_call>\n{\"name\": \"lamp\", \"arguments\": {}}\n</tool_call>",
    },
    Case { template: "<tool_call>", prompt: "", answer: "<tool_call>{\"name\": \"lamp\", \"arguments\": {\"t\": \"</tool_call>\"}}", reasoning: "", content: "", calls: &[("lamp", r#"{"t":"</tool_call>"}"#)] },
    Case { template: "<tool_call>", prompt: "", answer: "a <tool_call>\n{\"name\": oops}\n</tool_call> b ", reasoning: "", content: "a <tool_call>\n{\"name\": oops}\n</tool_call> b ", calls: &[] },
    Case { template: "<tool_call>", prompt: "", answer: "a <tool_call>{\"name\": \"lamp\", \"argu", reasoning: "", content: "a <tool_call>{\"name\": \"lamp\", \"argu", calls: &[] },
    Case { template: "<tool_call>", prompt: "", answer: "<tool_call>{\"name\": \"lamp\", \"arguments\": [1]}</tool_call>", reasoning: "", content: "<tool_call>{\"name\": \"lamp\", \"arguments\": [1]}</tool_call>", calls: &[] },
    Case {
        template: "<function=example_function_name>", prompt: "", reasoning: "", content: "I look.", calls: &[("weather", r#"{"place":"12","days":2,"tags":["x"],"else":"a\n</parameter> b"}"#)],
        answer: "I look.\n\n<tool_call>\n<function=weather>\n<parameter=place>\n12\n</parameter>\n<parameter=days>\n2\n</parameter>\n<parameter=tags>\n[\"x\"]\n</parameter>\n<parameter=else>\na\n</parameter> b\n</parameter>\n</function>\n</tool_call>",
    },
    Case { template: "<function=example_function_name>", prompt: "", answer: "<function=lamp>\n</function>\n</tool_call>", reasoning: "", content: "", calls: &[("lamp", "{}")] },
    Case { template: "<function=", prompt: "", answer: "<function=weather>{\"place\": \"Köln\", \"days\": 2}</function>", reasoning: "", content: "", calls: &[WEATHER] },
    Case { template: "<function=", prompt: "", answer: "if a <function=b then <function=lamp>x", reasoning: "", content: "if a <function=b then <function=lamp>x", calls: &[] },
    Case { template: "<|python_tag|>", prompt: "", answer: "{\"name\": \"weather\", \"parameters\": {\"place\": \"Köln\", \"days\": 2}}", reasoning: "", content: "", calls: &[WEATHER] },
    Case { template: "<|python_tag|>", prompt: "", answer: "\n{\"name\": \"Bob\", \"parameters\": {}} is JSON", reasoning: "", content: "\n{\"name\": \"Bob\", \"parameters\": {}} is JSON", calls: &[] },
    Case { template: "<|python_tag|>", prompt: "", answer: "<|python_tag|>weather.call(place=\"Köln\", days=2)", reasoning: "", content: "", calls: &[WEATHER] },
    Case { template: "<|python_tag|>", prompt: "", answer: "{\"name\": \"lamp\", \"parameters\": {}}; {\"name\": \"lamp\", \"parameters\": {\"a\": 1}}", reasoning: "", content: "", calls: &[("lamp", "{}"), ("lamp", r#"{"a":1}"#)] },
    Case { template: "[TOOL_CALLS]", prompt: "", answer: "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"place\": \"Köln\", \"days\": 2}, \"id\": \"abc123XYZ\"}, {\"name\": \"lamp\", \"arguments\": {}}]", reasoning: "", content: "", calls: &[WEATHER, ("lamp", "{}")] },
    Case { template: "[TOOL_CALLS][THINK]", prompt: "", answer: "[THINK]r[/THINK]Look[TOOL_CALLS]weather[CALL_ID]abc123XYZ[ARGS]{\"place\": \"Köln\", \"days\": 2}[TOOL_CALLS]lamp[ARGS]{}", reasoning: "r", content: "Look", calls: &[WEATHER, ("lamp", "{}")] },
    Case { template: "<|tool_list_start|>", prompt: "", answer: "<|tool_call_start|>[weather(place='Köln', days=2), lamp(a={'b': [None, True, \"q\\\"\"]})]<|tool_call_end|>Done.", reasoning: "", content: "Done.", calls: &[WEATHER, ("lamp", r#"{"a":{"b":[null,true,"q\""]}}"#)] },
    Case { template: "<|tool_list_start|>", prompt: "", answer: "<|tool_call_start|>[weather('Köln')]<|tool_call_end|>", reasoning: "", content: "<|tool_call_start|>[weather('Köln')]<|tool_call_end|>", calls: &[] },
    Case { template: "<|tool_call|>", prompt: "", answer: "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {\"place\": \"Köln\", \"days\": 2}}]", reasoning: "", content: "", calls: &[WEATHER] },
    Case { template: "<｜tool▁call▁begin｜>", prompt: "", answer: "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"place\": \"Köln\", \"days\": 2}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>lamp<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", reasoning: "", content: "", calls: &[WEATHER, ("lamp", "{}")] },
    Case { template: "<|tool_call><|channel>thought", prompt: "", answer: "<|channel>thought\nr\n<channel|>Look: <|tool_call>call:weather{place:<|\"|>Köln<|\"|>,days:2}<tool_call|><|tool_call>call:lamp{a:{b:[1.5,true,null,<|\"|>x,}<|\"|>]}}<tool_call|>", reasoning: "r", content: "Look:", calls: &[WEATHER, ("lamp", r#"{"a":{"b":[1.5,true,null,"x,}"]}}"#)] },
    Case { template: "<start_function_call>", prompt: "", answer: "<start_function_call>call:weather{place:<escape>Köln<escape>,days:2}<end_function_call>", reasoning: "", content: "", calls: &[WEATHER] },
    Case { template: "<start_of_turn>", prompt: "", answer: "Look:\n```tool_code\nprint(weather(place=\"Köln\", days=2))\n```", reasoning: "", content: "Look:", calls: &[WEATHER] },
    Case { template: "<|channel|>final", prompt: "<|start|>assistant", answer: "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{\"place\": \"Köln\", \"days\": 2}<|call|>", reasoning: "hm", content: "", calls: &[WEATHER] },
    Case { template: "<|channel|>final", prompt: "<|start|>assistant", answer: "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes < no. <|return|>", reasoning: "hm", content: "Yes < no. ", calls: &[] },
];

#[test]
fn every_family_is_read() {
    for case in &CASES {
        let got = read(case.template, case.prompt, &[case.answer]);
        let calls: Vec<(&str, &str)> = got.calls.iter().map(|(name, arguments)| (name.as_str(), arguments.as_str())).collect();
        assert_eq!(
            (got.reasoning.as_str(), got.content.as_str(), calls.as_slice()),
            (case.reasoning, case.content, case.calls),
            "{}",
            case.answer
        );
    }
}

#[test]
fn fragments_change_nothing() {
    for case in &CASES {
        let whole = read(case.template, case.prompt, &[case.answer]);
        let chars: Vec<&str> = case.answer.split_inclusive(|_: char| true).collect();
        assert_eq!(read(case.template, case.prompt, &chars), whole, "character by character: {}", case.answer);
        for (at, _) in case.answer.char_indices() {
            let (head, tail) = case.answer.split_at(at);
            assert_eq!(read(case.template, case.prompt, &[head, tail]), whole, "{head} | {tail}");
        }
    }
}

#[test]
fn a_cut_answer_loses_nothing_and_fragments_change_nothing() {
    for case in &CASES {
        for (end, _) in case.answer.char_indices() {
            let cut = &case.answer[..end];
            let whole = read(case.template, case.prompt, &[cut]);
            let chars: Vec<&str> = cut.split_inclusive(|_: char| true).collect();
            assert_eq!(read(case.template, case.prompt, &chars), whole, "{cut}");
            for (_, arguments) in &whole.calls {
                assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(arguments).is_ok(), "{cut}: {arguments}");
            }
        }
    }
}

#[test]
fn without_tools_nothing_is_a_call() {
    let answer = "<tool_call>{\"name\": \"lamp\", \"arguments\": {}}</tool_call>";
    let mut reader = Reader::new(&Format::of("<tool_call>"), &[], "", 0);
    let mut whole = Whole::default();
    collect(&mut whole, reader.push(answer, false));
    collect(&mut whole, reader.finish());
    assert_eq!(whole.content, answer);
}

#[test]
fn special_tokens_are_marks_or_unseen() {
    let mut reader = Reader::new(&Format::of("<tool_call>"), &tools(), "", 0);
    let mut whole = Whole::default();
    for (text, special) in [
        ("Hi", false),
        ("<|im_end|>", true),
        ("<tool_call>", true),
        ("{\"name\": \"lamp\"}", false),
        ("</tool_call>", true),
        ("<|im_end|>", true),
    ] {
        collect(&mut whole, reader.push(text, special));
    }
    collect(&mut whole, reader.finish());
    assert_eq!((whole.content.as_str(), whole.calls.len()), ("Hi", 1));
}

#[test]
fn text_comes_out_as_soon_as_it_can_be_no_mark() {
    let mut reader = Reader::new(&Format::of("<tool_call>"), &tools(), "", 0);
    assert_eq!(reader.push("one < two", false), [Delta::Content("one < two".to_owned())]);
    assert_eq!(reader.push(" <tool", false), []);
    assert_eq!(reader.push("box> ", false), [Delta::Content(" <toolbox>".to_owned())]);
}

/// Marks, halves of marks, pieces of calls and words in any order: what no model should write, and some do.
fn soup(template: &str, random: &mut u64) -> (String, Vec<String>) {
    let mut next = |below: usize| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) as usize % below
    };
    let format = Format::of(template);
    let marks: Vec<&str> = format.dialect.marks().iter().copied().chain(format.reasoning.iter().flat_map(|m| [m.open, m.close])).collect();
    const PIECES: [&str; 24] = [
        "{\"name\": \"weather\", \"arguments\": {\"place\": \"Köln\"}}",
        "{\"name\": \"lamp\", \"parameters\": {}}",
        "{\"name\": ",
        "weather(place=\"a\")",
        "[weather(",
        "call:weather{place:",
        "<parameter=place>",
        "</parameter>",
        "weather>",
        "lamp",
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        "\n",
        "  ",
        "<",
        "```",
        "\\",
        "é日🎉",
        "print(",
        ")",
    ];
    let (mut text, mut words) = (String::new(), Vec::new());
    for _ in 0..1 + next(14) {
        match next(5) {
            0 => {
                words.push(format!("w{}x", words.len()));
                text.push_str(words.last().unwrap());
            }
            1 | 2 if !marks.is_empty() => {
                let mark = marks[next(marks.len())];
                let cut = mark.char_indices().map(|(at, _)| at).nth(next(mark.chars().count())).unwrap();
                text.push_str(if next(4) == 0 { &mark[..cut] } else { mark });
            }
            _ => text.push_str(PIECES[next(PIECES.len())]),
        }
    }
    (text, words)
}

#[test]
fn no_soup_of_marks_loses_a_word_or_depends_on_fragments() {
    let mut random = 1;
    let templates: std::collections::BTreeSet<&str> =
        CASES.iter().map(|case| case.template).chain(["[TOOL_CALLS][ARGS][THINK]", "<tool_call><parameter=<think>"]).collect();
    for template in templates {
        for _ in 0..400 {
            let (text, words) = soup(template, &mut random);
            let whole = read(template, "", &[&text]);
            let chars: Vec<&str> = text.split_inclusive(|_: char| true).collect();
            assert_eq!(read(template, "", &chars), whole, "{template}: {text:?}");
            let told = format!("{}{}", whole.content, whole.reasoning);
            // A call's own text may hold more than its arguments, such as an id; what fails to be a call is content.
            if whole.calls.is_empty() && !template.contains("<|channel|>final") {
                assert!(words.iter().all(|word| told.contains(word.as_str())), "{template}: {text:?} became {whole:?}");
            }
            for (_, arguments) in &whole.calls {
                assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(arguments).is_ok(), "{text:?}: {arguments}");
            }
        }
    }
}
