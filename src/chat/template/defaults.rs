//! Templates for model files that bring none, by the names that people pass to `--chat-template`.
//!
//! Each is written here from the format that its model family documents.

/// A template that comes with the program.
#[derive(Debug, Clone, Copy)]
pub struct NamedTemplate {
    /// The name to ask for it by.
    pub name: &'static str,
    /// Its text in Jinja.
    pub source: &'static str,
}

/// The name of the template for a model file without one: the most widely used format.
pub const DEFAULT: &str = "chatml";

const CHATML: &str = "\
{%- for m in messages -%}
{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

const LLAMA2: &str = "\
{%- set ns = namespace(system='') -%}
{%- for m in messages -%}
{%- if m.role == 'system' -%}
{%- set ns.system = '<<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n' -%}
{%- elif m.role == 'user' -%}
{{ bos_token + '[INST] ' + ns.system + m.content.strip() + ' [/INST]' }}{%- set ns.system = '' -%}
{%- else -%}
{{ ' ' + m.content.strip() + ' ' + eos_token }}
{%- endif -%}
{%- endfor -%}";

const LLAMA3: &str = "\
{{- bos_token -}}
{%- for m in messages -%}
{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content.strip() + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}";

const LLAMA4: &str = "\
{{- bos_token -}}
{%- for m in messages -%}
{{ '<|header_start|>' + m.role + '<|header_end|>\\n\\n' + m.content.strip() + '<|eot|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|header_start|>assistant<|header_end|>\\n\\n' }}{%- endif -%}";

const MISTRAL: &str = "\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for m in messages -%}
{%- if m.role == 'system' -%}
{%- set ns.system = m.content + '\\n\\n' -%}
{%- elif m.role == 'user' -%}
{{ '[INST] ' + ns.system + m.content + '[/INST]' }}{%- set ns.system = '' -%}
{%- else -%}
{{ ' ' + m.content.strip() + eos_token }}
{%- endif -%}
{%- endfor -%}";

const MISTRAL_V7: &str = "\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}
{{ '[SYSTEM_PROMPT] ' + m.content + '[/SYSTEM_PROMPT]' }}
{%- elif m.role == 'user' -%}
{{ '[INST] ' + m.content + '[/INST]' }}
{%- else -%}
{{ ' ' + m.content.strip() + eos_token }}
{%- endif -%}
{%- endfor -%}";

const GEMMA: &str = "\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for m in messages -%}
{%- if m.role == 'system' -%}
{%- set ns.system = m.content.strip() + '\\n\\n' -%}
{%- else -%}
{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n'
   + ns.system + m.content.strip() + '<end_of_turn>\\n' }}
{%- set ns.system = '' -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}";

const PHI3: &str = "\
{%- for m in messages -%}
{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}";

const PHI4: &str = "\
{%- for m in messages -%}
{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant<|im_sep|>' }}{%- endif -%}";

const ZEPHYR: &str = "\
{%- for m in messages -%}
{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}";

const DEEPSEEK: &str = "\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}
{{ m.content + '\\n\\n' }}
{%- elif m.role == 'user' -%}
{{ 'User: ' + m.content + '\\n\\n' }}
{%- else -%}
{{ 'Assistant: ' + m.content + eos_token }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}";

const DEEPSEEK3: &str = "\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}
{{ m.content + '\\n\\n' }}
{%- elif m.role == 'user' -%}
{{ '<｜User｜>' + m.content }}
{%- else -%}
{{ '<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<｜Assistant｜>' }}{%- endif -%}";

const VICUNA: &str = "\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}
{{ m.content + '\\n\\n' }}
{%- elif m.role == 'user' -%}
{{ 'USER: ' + m.content + '\\n' }}
{%- else -%}
{{ 'ASSISTANT: ' + m.content + eos_token + '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}";

const ALPACA: &str = "\
{%- for m in messages -%}
{%- if m.role == 'system' -%}
{{ m.content + '\\n\\n' }}
{%- elif m.role == 'user' -%}
{{ '### Instruction:\\n' + m.content + '\\n\\n' }}
{%- else -%}
{{ '### Response:\\n' + m.content + eos_token + '\\n\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '### Response:\\n' }}{%- endif -%}";

const COMMAND_R: &str = "\
{{- bos_token -}}
{%- for m in messages -%}
{{ '<|START_OF_TURN_TOKEN|><|' + {'system': 'SYSTEM', 'user': 'USER'}.get(m.role, 'CHATBOT') + '_TOKEN|>'
   + m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{%- endif -%}";

const GRANITE: &str = "\
{%- for m in messages -%}
{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif -%}";

/// Every template that comes with the program.
pub const DEFAULTS: &[NamedTemplate] = &[
    NamedTemplate { name: DEFAULT, source: CHATML },
    NamedTemplate { name: "llama2", source: LLAMA2 },
    NamedTemplate { name: "llama3", source: LLAMA3 },
    NamedTemplate { name: "llama4", source: LLAMA4 },
    NamedTemplate { name: "mistral", source: MISTRAL },
    NamedTemplate { name: "mistral-v7", source: MISTRAL_V7 },
    NamedTemplate { name: "gemma", source: GEMMA },
    NamedTemplate { name: "phi3", source: PHI3 },
    NamedTemplate { name: "phi4", source: PHI4 },
    NamedTemplate { name: "zephyr", source: ZEPHYR },
    NamedTemplate { name: "deepseek", source: DEEPSEEK },
    NamedTemplate { name: "deepseek3", source: DEEPSEEK3 },
    NamedTemplate { name: "vicuna", source: VICUNA },
    NamedTemplate { name: "alpaca", source: ALPACA },
    NamedTemplate { name: "command-r", source: COMMAND_R },
    NamedTemplate { name: "granite", source: GRANITE },
];
