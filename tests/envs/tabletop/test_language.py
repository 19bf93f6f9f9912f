"""Words and tokens."""

import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.envs.tabletop.language import UNKNOWN, Tokenizer, tokenizer
from robotrl.envs.tabletop.layout import COLOUR_NAMES
from robotrl.envs.tabletop.tasks import TASKS
from robotrl.types import RobotRLError


@pytest.mark.parametrize("task", TASKS)
def test_every_instruction_has_three_to_five_wordings_whose_words_are_all_known(task):
    templates = TASKS[task].templates
    assert 3 <= len(templates) <= 5 and len(set(templates)) == len(templates)
    for template in templates:
        for colour in COLOUR_NAMES:
            text = template.format(target=colour, reference=colour, mark=colour, third=colour)
            tokens = tokenizer().encode(text)
            assert UNKNOWN not in tokens
            assert tokenizer().decode(tokens) == text


def test_an_unknown_word_has_a_token_and_case_and_punctuation_do_not_matter():
    words = tokenizer()
    tokens = words.encode("Pick up the RED block, umbrella!")
    assert tokens.tolist()[:5] == words.encode("pick up the red block").tolist()[:5]
    assert tokens[5] == UNKNOWN and (tokens[6:] == 0).all()
    assert words.decode(tokens) == "pick up the red block <unknown>"


def test_a_text_that_is_too_long_and_a_number_that_is_no_token_are_refused():
    with pytest.raises(RobotRLError, match="21 words"):
        tokenizer().encode("go " * 21)
    with pytest.raises(RobotRLError, match="no token"):
        tokenizer().decode([len(tokenizer())])
    with pytest.raises(RobotRLError, match="twice"):
        Tokenizer(["go", "go"])


def test_the_tokens_say_what_the_instruction_says():
    env = make_vec("tabletop/stack", num_envs=5, seed=3)
    obs, _ = env.reset()
    assert [tokenizer().decode(row) for row in obs["instruction"]] == env.instructions
    assert len({tuple(row) for row in obs["instruction"].tolist()}) > 1
    assert obs["instruction"].dtype == np.int64
