"""Chat templates: rendered as transformers renders them, and never longer than a budget."""

import jinja2
import pytest
from transformers import AutoTokenizer

from qsit_plugin.checkpoint.saving import CHAT_TEMPLATE
from qsit_plugin.template import render
from qsit_plugin.weights import WeightsError
from tests.conftest import NANO

# llava-hf/llava-onevision-qwen2-0.5b-ov-hf, Apache-2.0
ONEVISION = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
# Qwen/Qwen2-VL-2B-Instruct, Apache-2.0, without its videos
QWEN2_VL = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: "
    "{% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EVERYTHING = """
{%- macro say(content) -%}
    {%- for part in content if part.type == 'text' %}
        {%- if loop.index > 5 %}{% break %}{% endif %}
        {{ loop.index }}/{{ loop.length }} {{ part.text.strip().split('x')|join('-') }} {{ loop.last }}
    {%- endfor %}
{%- endmacro %}
{% for m in messages[::-1] %}
  {%- set ns = namespace(found=false, t=[]) %}
  {% if tools %}{{ tools|tojson }}{% endif %}
  {{ m.content|tojson(indent=2) }}{{ m['content'] }} {{ eos_token }}{{ missing }}{{ 3 + 4 * 2 // 3 % 5 - 1 }}
  {{- say(m.content) ~ 1.5 ~ none ~ true }} {{ m.content|map(attribute='type')|list|length }} {{ m.items()|list }}
  {% for k, v in m.items() %}{{ k|upper }}{{ loop.cycle('a','b') }}{% else %}none{% endfor %}
  {%- set block %}<{{ m.role.upper().replace('S', 'z') }}>{% endset %}{{ block }}
  {%- filter lower %}ABC{% endfilter %}{% generation %}{% set z = 1 %}G {{ bos_token is defined }}{% endgeneration %}
  {{ z }}{{ range(3)|list }}{{ "a" if m.x else "b" }}{{ (1, 2) }}{{ {'a': [1]} }}{{ m.content|replace('a', 'b') }}
{% endfor %}
"""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(NANO)


@pytest.mark.parametrize("question", ["How good is it?", " a \n b{{x}}<>&\"' é "])
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, ONEVISION, QWEN2_VL, EVERYTHING], ids=["own", "ov", "vl", "all"])
def test_a_template_renders_as_transformers_renders_it(tokenizer, template, question):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert question.strip() in expected or template == EVERYTHING
    assert render(template, question, tokenizer.special_tokens_map) == expected


def test_a_question_as_long_as_a_book_is_rendered():
    assert len(render(CHAT_TEMPLATE, "long " * 200_000, {})) > 1_000_000


def again(step, times=60):
    return step * times


HOSTILE = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops over the question": again("{% for a in messages[0].content[1].text %}", 8) + again("{% endfor %}", 8),
    "long bodies": "{% for i in range(9999) %}" + again("{% if 1 == 2 %}{% endif %}", 1000) + "{% endfor %}",
    "repeated text": "{{ 'x' * 10000000000 }}",
    "a power": "{{ 9 ** 9 ** 9 ** 9 }}",
    "padding": "{{ 'x'.ljust(10000000000) }}",
    "a filter that pads": "{{ 'x'|center(10000000000) }}",
    "a format": "{{ '{:>10000000000}'.format(1) }}",
    "an old format": "{{ '%10000000000d' % 1 }}",
    "doubled by ~": "{% set x = 'x' %}" + again("{% set x = x ~ x %}"),
    "doubled by +": "{% set x = 'x' %}" + again("{% set x = x + x %}"),
    "doubled by blocks": "{% set x = 'x' %}" + again("{% set x %}{{ x }}{{ x }}{% endset %}"),
    "nested lists": "{% set x = ['x'] %}" + again("{% set x = [x, x] %}") + "{{ x }}",
    "nested tuples": "{% set x = ('x', 1) %}" + again("{% set x = (x, x) %}") + "{{ x }}",
    "nested dictionaries": "{% set x = {} %}" + again("{% set x = {'a': x, 'b': x} %}") + "{{ x|tojson }}",
    "nested namespaces": "{% set x = namespace() %}" + again("{% set x = namespace(a=x, b=x) %}") + "{{ x|string }}",
    "macros of macros": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "macros without an end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "replace": "{% set s = 'a' * 90000 %}{{ s|replace('a', s) }}",
    "replace, the method": "{% set s = 'a' * 90000 %}{{ s.replace('a', s) }}",
    "join": "{% set s = 'a' * 90000 %}{{ s|join(s) }}",
    "join, the method": "{% set s = 'a' * 90000 %}{{ s.join(s) }}",
    "text of the template": "{% set x %}{% for i in range(90000) %}" + "A" * 60000 + "{% endfor %}{% endset %}",
    "squared numbers": "{% set x = 99999999999 %}" + again("{% set x = x * x %}"),
    "indented JSON": "{{ messages|tojson(indent=1000000000) }}",
    "a padded date": "{{ strftime_now('%999999999d') }}",
    "brackets": "{{" + "(" * 20000 + "1" + ")" * 20000 + "}}",
    "the sandbox": "{{ ''.__class__.__mro__ }}",
    "another file": "{% include '/etc/passwd' %}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_ends_in_an_error(template):
    with pytest.raises(WeightsError, match="chat template cannot be rendered"):
        render(template, "How good is this image, and what is wrong with it?", {})


def test_a_templates_own_complaint_is_in_the_error_and_its_cause():
    with pytest.raises(WeightsError, match="only one image") as caught:
        render("{{ raise_exception('only one image') }}", "How?", {})
    assert isinstance(caught.value.__cause__, jinja2.TemplateError)
