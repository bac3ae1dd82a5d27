#!/usr/bin/env python3
"""Makes tests/data/text: a tokenizer of about 400 tokens cut from a reference model's, and what Hugging Face's
tokenizers and Jinja2 make of generated texts and conversations.

usage: make_text_golden.py TOKENIZER_JSON OUT_FOLDER        needs: tokenizers, jinja2
"""
import json
import random
import sys

import jinja2.sandbox
from tokenizers import Tokenizer

MERGES = 140
SPLIT = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
         "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def split(digits):
    return {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": SPLIT % digits}, "behavior": "Isolated", "invert": False},
        dict(BYTE_LEVEL, use_regex=False)]}


VARIANTS = {
    "gpt2": (dict(BYTE_LEVEL, use_regex=True), None, False),
    "digits": ({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                                                      dict(BYTE_LEVEL, use_regex=True)]}, None, False),
    "llama3": (split("{1,3}"), None, True),
    "qwen2": (split(""), {"type": "NFC"}, False),
}

TEXTS = [
    "", " ", "  ", "\n", "\n\n", " \n", "\n ", "\t", "\r\n", "a", " a", "  a", "a ", "a  ", "a\n\n  b", "x   y",
    "turn off the lamp", "Turn on the lights in the kitchen, and then the heating!", "it's we're I'll you've he'd I'm",
    "IT'S WE'RE I'LL", "'sound 'the'", "1", "12", "123", "1234567", "a1b22c333", "3.14 and 1,000,000", "½ ² ٣٤ 五",
    "{\"action\": \"power\", \"state\": \"off\"}", "for (i = 0; i < n; ++i) { x[i] += 1; }\n\tdone\n",
    "na\u00efve caf\u00e9, cafe\u0301, \u00c5ngstr\u00f6m A\u030angstro\u0308m", "q\u0307\u0323 q\u0323\u0307 \u1e9b\u0323",
    "\uac00\u1100\u1161\u11a8 \u1100\u1161", "\u0958 \u2126 \u212b \ufb1d \U0001d15e", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\U0001f680\U0001f469\u200d\U0001f680", "a\u00a0b\u2003c\u3000d\u2028e",
    "\x00\x01\x7f", "<|user|>hi<|assistant|>", "<|endoftext|", "hello" * 30, "aaaa" * 40, " " * 70 + "x", "\n \n" * 9,
]

CHATML = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
          "You answer briefly.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
          " + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
TEMPLATES = {
    "chatml": CHATML,
    "chatml, tools": "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {{- messages[0].content + '\\n<tools>' }}\n"
                     "    {{- '</tools><|im_end|>\\n' }}\n{%- else %}\n    {%- if messages[0].role == 'system' %}\n"
                     "        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n    {%- else %}\n"
                     "        {{- '<|im_start|>system\\nYou are polite.<|im_end|>\\n' }}\n    {%- endif %}\n{%- endif %}\n"
                     "{%- for message in messages %}\n    {%- if message.role != 'system' %}\n"
                     "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
                     "    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n"
                     "    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
    "llama-3": "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
               "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
               "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
               "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}",
    "llama-2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
               "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}"
               "{% endif %}{% for message in loop_messages %}{% if loop.index0 == 0 and system_message %}{% set content = "
               "'<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = "
               "message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
               "content.strip() + ' [/INST]' }}{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}"
               "{% endfor %}",
    "mistral": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + "
               "message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}",
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
              "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
              "{% else %}\n{{ '<|assistant|>\n' + message['content'] + eos_token }}\n{% endif %}\n"
              "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
             "{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
             "{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + "
             "message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}"
             "{{'<start_of_turn>model\\n'}}{% endif %}",
    "phi-3": "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + "
             "'<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}"
             "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}"
             "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
    "phi-3, first": "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\\n' + "
                    "message['content'] + '<|end|>' + '\\n' + '<|assistant|>' + '\\n'}}"
                    "{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\\n'}}{% endif %}"
                    "{% endfor %}",
    "phi-3, phi-4 mini": "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
                         "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
    "plain": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}{% else %}"
             "<|assistant|>{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
             "<|assistant|>{% endif %}",
}
CONVERSATIONS = [
    [("user", "turn off the lamp")],
    [("user", "  two words\n")],
    [("system", "Be kind."), ("user", "hello")],
    [("user", "hello"), ("assistant", "hi there"), ("user", "and now?\n\nquickly")],
]


def soup(rng):
    letters = list("  \n\n\t'''abcdeinorst0123.,!?-\u00e9\u0301\u0323\u65e5\u00bd\u0663 ") + ["the", " and", "'ll", "\r\n", "\u00a0"]
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, 40)))


def main():
    source, out = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        full = json.load(file)
    model = full["model"]
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"][:MERGES]]
    joined = {a + b for a, b in merges}
    keep = [t for t in sorted(model["vocab"], key=model["vocab"].get)
            if len(t) == 1 or t in joined or model["vocab"][t] < len(full["added_tokens"])]
    model["vocab"] = {token: index for index, token in enumerate(keep)}
    model["merges"] = merges
    with open(out + "/tokenizer.json", "w", encoding="utf-8") as file:
        json.dump(full, file, indent=0, ensure_ascii=False)
        file.write("\n")

    rng = random.Random(1)
    texts = TEXTS + [soup(rng) for _ in range(100)]
    golden = {"texts": texts, "variants": {}, "chats": {}}
    for name, (pre_tokenizer, normalizer, whole) in VARIANTS.items():
        variant = json.loads(json.dumps(full))
        variant.update(pre_tokenizer=pre_tokenizer, normalizer=normalizer)
        variant["model"]["ignore_merges"] = whole
        marked = Tokenizer.from_str(json.dumps(variant))
        variant["added_tokens"] = []
        plain = Tokenizer.from_str(json.dumps(variant))
        golden["variants"][name] = {
            "pre_tokenizer": pre_tokenizer, "normalizer": normalizer, "ignore_merges": whole,
            "ids": [plain.encode(text).ids for text in texts], "markup_ids": [marked.encode(text).ids for text in texts]}

    jinja = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    for name, template in TEMPLATES.items():
        rendered = []
        for conversation in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in conversation]
            if messages[0]["role"] == "system" and name in ("mistral", "gemma", "phi-3, first", "plain"):
                continue  # no place for a system message
            rendered.append({"messages": messages, "text": jinja.from_string(template).render(
                messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=True)})
        golden["chats"][name] = {"shape": name.split(",")[0], "template": template, "rendered": rendered}
    with open(out + "/golden.json", "w", encoding="utf-8") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
