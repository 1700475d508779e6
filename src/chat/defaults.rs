//! Templates for files that bring none, chosen by the turn marks that their vocabulary knows.

/// The template for a vocabulary; `has` tells whether it has a token with this very text. Plain `role: content` lines if nothing fits.
pub fn template_for(has: impl Fn(&str) -> bool) -> &'static str {
    let known = FAMILIES.iter().find(|(marks, _)| marks.iter().all(|mark| has(mark)));
    known.map_or(PLAIN, |(_, template)| template)
}

/// The marks that must all be there, and the template that they mean; the most telling first.
const FAMILIES: [(&[&str], &str); 7] = [
    (&["<|im_start|>", "<|im_end|>"], CHATML),
    (&["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], LLAMA_3),
    (&["<start_of_turn>", "<end_of_turn>"], GEMMA),
    (&["<|turn>", "<turn|>"], GEMMA_4),
    (&["<|user|>", "<|assistant|>", "<|end|>"], PHI_3),
    (&["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"], GRANITE),
    (&["[INST]", "[/INST]"], MISTRAL),
];

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const LLAMA_3: &str = "{{ bos_token }}{% for m in messages %}\
{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

/// Gemma 2 and 3 know no system turn; a template that doesn't show one gets it at the head of the first user's message.
const GEMMA: &str = "{{ bos_token }}{% for m in messages if m.role != 'system' %}{% set role = 'model' if m.role == 'assistant' else m.role %}\
{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

const GEMMA_4: &str = "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}\
{{ '<|turn>' + role + '\n' + m.content | trim + '<turn|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}";

const PHI_3: &str = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";

const GRANITE: &str = "{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}";

/// A system message has no turn of its own; it opens the next user's.
const MISTRAL: &str = "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}\
{% if m.role == 'system' %}{% set ns.system = ns.system + m.content + '\n\n' %}\
{% elif m.role == 'assistant' %}{{ m.content + eos_token }}\
{% else %}{{ '[INST]' + ns.system + m.content + '[/INST]' }}{% set ns.system = '' %}{% endif %}{% endfor %}";

const PLAIN: &str = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::template::Template;

    #[test]
    fn every_default_renders_a_conversation() {
        let json = r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"U"},{"role":"assistant","content":"A"},
            {"role":"user","content":"V"}],"add_generation_prompt":true,"bos_token":"<s>","eos_token":"</s>"}"#;
        let variables = serde_json::from_str(json).unwrap();
        for template in FAMILIES.iter().map(|f| f.1).chain([PLAIN]) {
            let text = Template::new(template).unwrap().render(&variables, jiff::civil::date(2026, 1, 2).at(3, 4, 5, 0)).unwrap();
            let shown = if template == GEMMA { "UAV" } else { "SUAV" };
            let order: Vec<usize> = shown.chars().filter_map(|c| text.find(c)).collect();
            assert!(order.len() == shown.len() && order.is_sorted(), "{text}");
        }
    }

    #[test]
    fn the_vocabulary_chooses() {
        assert_eq!(template_for(|t| t.starts_with("<|im_")), CHATML);
        assert_eq!(template_for(|t| t == "[INST]" || t == "[/INST]"), MISTRAL);
        assert_eq!(template_for(|_| false), PLAIN);
    }
}
