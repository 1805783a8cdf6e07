from datetime import date

import pytest

from tests.data.chat_sides import FAMILIES, load_side, write_side
from xtoken_jax.data import Chat, ChatOptions, Lengths, make_examples, try_examples

LONG = Lengths(2000, {"one": 2000})
SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": "What is 201 + 4?"},
    {"role": "assistant", "content": "It is 205."},
    {"role": "user", "content": "user assistant model\n\nAnd  2?"},  # names of roles as text
    {"role": "assistant", "content": "Two coins."},
]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 201}}}
TOOLS = [{"type": "function", "function": {"name": "add"}}]
TOOL_TURNS = [
    TURNS[0],
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "205"},
    {"role": "assistant", "content": "It is 205."},
]


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sides")
    return {name: load_side(write_side(directory / name, name)) for name in FAMILIES}


def pieces(tokenizer, ids):
    return [tokenizer.display(id) for id in ids]


def learnt(example, tokenizer):
    """What is learnt, message by message."""
    parts, before = [], False
    for piece, is_learnt in zip(
        pieces(tokenizer, example.student_ids), example.loss_mask, strict=True
    ):
        if is_learnt:
            parts = parts if before else [*parts, ""]
            parts[-1] += piece
        before = is_learnt
    return parts


def pairs(example, student, teacher):
    """What each chunk spells on both sides, in order."""
    side = example.teachers["one"]
    return [
        tuple(
            "".join(pieces(tokenizer, ids[chunks == number]))
            for tokenizer, ids, chunks in (
                (student, example.student_ids, side.student_chunk),
                (teacher, side.ids, side.teacher_chunk),
            )
        )
        for number in range(side.student_chunk.max() + 1)
    ]


def made(sides, student, teacher, messages, *, tools=None, lengths=LONG, roles=("assistant",)):
    (student, student_template), (teacher, teacher_template) = sides[student], sides[teacher]
    options = ChatOptions(student_template, {"one": teacher_template}, roles)
    chat = Chat(tuple(messages), "f:1", tools)
    (result,) = try_examples([chat], student, {"one": teacher}, lengths, chat=options)
    return result


ENDS = {
    "smollm2": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
    "phi4": "<|im_end|>",
    "phi4_mini": "<|end|>",
    "no_system": "<end_of_turn>",
}
WRITES_CALLS = ("qwen3", "llama3")
REAL = [name for name in FAMILIES if name != "no_system"]
# Each family as student and as teacher, and one pair with itself.
PAIRS = [*zip(REAL, [*REAL[1:], REAL[0]], strict=True), ("llama3", "qwen3"), ("qwen3", "qwen3")]


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
@pytest.mark.parametrize("messages", [TURNS, [SYSTEM, *TURNS]], ids=["plain", "system"])
class TestTurns:
    def test_only_answers_and_what_closes_them_are_learnt(self, sides, student, teacher, messages):
        example = made(sides, student, teacher, messages)
        end = ENDS[student]
        expected = [f"It is 205.{end}", f"Two coins.{end}"]
        if student == "qwen3":  # which writes an empty block of thoughts in its last answer
            expected[1] = f"<think>\n\n</think>\n\n{expected[1]}"
        assert learnt(example, sides[student][0]) == expected

    def test_messages_meet_and_what_closes_them_pairs(self, sides, student, teacher, messages):
        example = made(sides, student, teacher, messages)
        found = pairs(example, sides[student][0], sides[teacher][0])
        closing = (ENDS[student], ENDS[teacher])
        texts = [message["content"] for message in messages]
        cuts = [i for i, pair in enumerate(found) if pair == closing]
        spelled = [
            "".join(one for one, _ in found[a:b]) for a, b in zip([0, *cuts], cuts, strict=False)
        ]
        # Neither Gemma closes the system message, nor does any template without it have one there.
        assert len(cuts) >= 4
        for text, part in zip(texts[-4:], spelled[-4:], strict=True):
            assert part.endswith(text)
        for one, other in found:
            assert one == other or {one, other} & {*sides[student][0].roles} or "<" in one + other

    def test_no_marker_of_one_side_is_text_of_the_other(self, sides, student, teacher, messages):
        example = made(sides, student, teacher, messages)
        for family, ids in (
            (student, example.student_ids),
            (teacher, example.teachers["one"].ids),
        ):
            tokenizer = sides[family][0]
            text = tokenizer.bytes_of(ids)
            assert b"<|" not in text
            assert b"_of_turn>" not in text
            template, _, bos, *_ = FAMILIES[family]
            begins = [place for place, piece in enumerate(pieces(tokenizer, ids)) if piece == bos]
            assert begins == ([0] if "bos_token" in template else [])


class TestEnds:
    @pytest.mark.parametrize(("student", "teacher"), PAIRS)
    def test_an_answer_ends_in_a_scored_pair(self, sides, student, teacher):
        from xtoken_jax.data import pack
        from xtoken_jax.data.batches import collate

        example = made(sides, student, teacher, TURNS)
        rows = pack([example], LONG)
        batch = collate(rows.arrays, [], LONG)
        spans = batch.teachers["one"].spans
        tokenizer = sides[student][0]
        end = next(id for id in tokenizer.roles if tokenizer.display(id) == ENDS[student])
        at = [
            place
            for place in range(len(example.student_ids))
            if example.student_ids[place] == end and example.loss_mask[place]
        ]
        assert len(at) == 2
        for place in at:
            assert spans["mask_BN"][0, spans["student_chunk_BS"][0, place]]
            assert batch.target_mask_BS[0, place - 1]
        # And nothing that is not learnt is scored.
        places = spans["student_start_BN"][0][spans["mask_BN"][0]]
        assert example.loss_mask[places].all()


class TestTemplates:
    def test_a_system_message_goes_to_the_first_user_where_there_is_no_place_for_it(self, sides):
        example = made(sides, "smollm2", "no_system", [SYSTEM, *TURNS])
        found = pairs(example, sides["smollm2"][0], sides["no_system"][0])
        spelled = "".join(one for one, other in found if one == other)
        assert "Be brief." in spelled
        assert "What is 201 + 4?" in spelled

    def test_a_system_message_that_only_one_side_brings_is_a_gap(self, sides):
        example = made(sides, "smollm2", "gemma3", TURNS)
        gap = pieces(
            sides["smollm2"][0], example.student_ids[example.teachers["one"].student_chunk < 0]
        )
        assert "You are a helpful AI assistant" in "".join(gap)

    def test_empty_turns(self, sides):
        messages = [
            {"role": "user", "content": ""},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": ""},
        ]
        for student, teacher in PAIRS:
            example = made(sides, student, teacher, messages)
            expected = [ENDS[student]] * 2
            if student == "qwen3":
                expected[1] = f"<think>\n\n</think>\n\n{expected[1]}"
            assert learnt(example, sides[student][0]) == expected
            found = pairs(example, sides[student][0], sides[teacher][0])
            assert found.count((ENDS[student], ENDS[teacher])) >= 4

    def test_tool_messages(self, sides):
        example = made(sides, "qwen3", "llama3", TOOL_TURNS, tools=TOOLS)
        call, answer = learnt(example, sides["qwen3"][0])
        assert (
            call == '<tool_call>\n{"name": "add", "arguments": {"a": 201}}\n</tool_call><|im_end|>'
        )
        assert answer.endswith("It is 205.<|im_end|>")
        found = pairs(example, sides["qwen3"][0], sides["llama3"][0])
        # Llama quotes what a tool answers and Qwen does not: the answer itself meets.
        middle = "".join(one for one, other in found if one == other)
        assert '"a": 201' in middle
        assert "205" in middle.removesuffix("It is 205.")
        assert found.count(("<|im_end|>", "<|eot_id|>")) == 4

    @pytest.mark.parametrize(("student", "teacher"), PAIRS)
    def test_a_tools_answer_is_read_by_each_side_that_has_a_place_for_it(
        self, sides, student, teacher
    ):
        """Asked for in words, as no template but two writes calls."""
        messages = [TURNS[0], TURNS[1], {"role": "tool", "content": "206"}, TURNS[3]]
        example = made(sides, student, teacher, messages)
        if "gemma3" in (student, teacher):
            assert "gemma3: TemplateError: Conversation roles must alt" in example.message
            return
        answers = learnt(example, sides[student][0])
        assert answers[0] == f"It is 205.{ENDS[student]}"
        assert answers[-1].endswith(f"Two coins.{ENDS[student]}")
        found = pairs(example, sides[student][0], sides[teacher][0])
        met = "".join(one for one, other in found if one == other)
        assert ("206" in met) == ("phi4" not in (student, teacher))
        assert found.count((ENDS[student], ENDS[teacher])) >= 3

    @pytest.mark.parametrize(("student", "teacher"), PAIRS)
    def test_a_template_that_leaves_out_calls_or_fails_is_named(self, sides, student, teacher):
        example = made(sides, student, teacher, TOOL_TURNS, tools=TOOLS)
        bad = next((name for name in (student, teacher) if name not in WRITES_CALLS), None)
        if bad is None:
            assert "201" in learnt(example, sides[student][0])[0]
            return
        told = "TemplateError: Conversation roles must alternate"
        told = told if bad == "gemma3" else "it must write tool calls, but leaves them out"
        assert example.kind == "template failed"
        assert example.message.startswith("f:1: the chat template of ")
        assert f"/{bad}: {told}" in example.message

    @pytest.mark.parametrize(("student", "teacher"), PAIRS)
    def test_thoughts_meet_as_each_side_writes_them(self, sides, student, teacher):
        thoughts = "<think>\n201 and 4\n</think>\n\n"
        messages = [*TURNS[:3], {**TURNS[3], "content": f"{thoughts}Two coins."}]
        example = made(sides, student, teacher, messages)
        answer = f"{thoughts}Two coins.{ENDS[student]}"
        assert learnt(example, sides[student][0]) == [f"It is 205.{ENDS[student]}", answer]
        found = pairs(example, sides[student][0], sides[teacher][0])
        closing = found.index((ENDS[student], ENDS[teacher]), len(found) - 3)
        met = "".join(one for one, other in found[:closing] if one == other)
        assert met.endswith(f"{thoughts}Two coins.")

    def test_thoughts_are_learnt_where_the_student_writes_them(self, sides):
        thoughts = "<think>\n201 and 4\n</think>\n\n"
        messages = [dict(message) for message in TURNS]
        for message in messages[1::2]:
            message["content"] = thoughts + message["content"]
        as_text = made(sides, "smollm2", "qwen3", messages)
        assert learnt(as_text, sides["smollm2"][0])[0] == f"{thoughts}It is 205.<|im_end|>"
        as_tokens = made(sides, "qwen3", "smollm2", messages)
        # Qwen's template leaves out the thoughts of turns gone by.
        assert learnt(as_tokens, sides["qwen3"][0]) == [
            "It is 205.<|im_end|>",
            f"{thoughts}Two coins.<|im_end|>",
        ]
        found = pairs(as_tokens, sides["qwen3"][0], sides["smollm2"][0])
        assert ("<think>", "<think>") in found

    def test_thoughts_in_a_field_of_their_own(self, sides):
        messages = [*TURNS[:3], {**TURNS[3], "reasoning_content": "201 and 4"}]
        example = made(sides, "qwen3", "llama3", messages)
        expected = "<think>\n201 and 4\n</think>\n\nTwo coins.<|im_end|>"
        assert learnt(example, sides["qwen3"][0])[1] == expected

    def test_arguments_of_a_side(self, sides, tmp_path):
        quiet = load_side(write_side(tmp_path / "q", "qwen3"), enable_thinking=False)
        dated = load_side(write_side(tmp_path / "l", "llama3"), date_string="1 May 2020")
        example = made({"quiet": quiet, "dated": dated}, "quiet", "dated", TURNS)
        # The empty block of thoughts is part of the question then.
        assert learnt(example, quiet[0]) == ["It is 205.<|im_end|>", "Two coins.<|im_end|>"]
        assert b"Today Date: 1 May 2020" in dated[0].bytes_of(example.teachers["one"].ids)

    def test_today_is_the_same_day_every_day(self, sides, tmp_path, monkeypatch):
        """A template that asks for the date is not told that of the machine."""
        monkeypatch.setattr(
            "transformers.utils.chat_template_utils.datetime", None, raising=True
        )  # which fails where it is asked
        example = made(sides, "llama3", "qwen3", TURNS)
        assert b"Today Date: 26 Jul 2024\n" in sides["llama3"][0].bytes_of(example.student_ids)
        later = load_side(write_side(tmp_path / "l", "llama3"), today=date(2026, 11, 3))
        example = made({**sides, "later": later}, "later", "qwen3", TURNS)
        assert b"Today Date: 03 Nov 2026\n" in later[0].bytes_of(example.student_ids)
        assert later[1].fingerprint != sides["llama3"][1].fingerprint

    def test_the_day_is_part_of_the_templates_that_ask_for_it_alone(self, sides, tmp_path):
        later = load_side(write_side(tmp_path / "q", "qwen3"), today=date(2026, 11, 3))
        assert (later[1].asks_date, sides["llama3"][1].asks_date) == (False, True)
        assert later[1].fingerprint == sides["qwen3"][1].fingerprint

    def test_other_roles_can_be_learnt(self, sides):
        example = made(sides, "llama3", "phi4", TURNS, roles=("user", "assistant"))
        found = learnt(example, sides["llama3"][0])
        assert found == [f"{message['content']}<|eot_id|>" for message in TURNS]

    def test_messages_before_the_first_learnt_one_are_not(self, sides):
        student, template = sides["llama3"]
        options = ChatOptions(template, {})
        chat = Chat(tuple(TURNS), "f:1", first_learnt=3)
        (example,) = make_examples(
            [chat], student, {}, student_length=500, teacher_lengths={}, chat=options
        )
        assert learnt(example, student) == ["Two coins.<|eot_id|>"]

    def test_white_space_that_one_side_trims(self, sides):
        messages = [TURNS[0], {"role": "assistant", "content": "  Two coins.\n"}]
        example = made(sides, "llama3", "phi4", messages)
        assert learnt(example, sides["llama3"][0]) == ["Two coins.<|eot_id|>"]
        found = pairs(example, sides["llama3"][0], sides["phi4"][0])
        assert "".join(one for one, _ in found).endswith("Two coins.<|eot_id|>")


class TestProblems:
    def test_a_message_that_spells_a_control_token(self, sides):
        messages = [{"role": "user", "content": "say <|im_end|>"}, TURNS[1]]
        problem = made(sides, "llama3", "qwen3", messages)
        assert problem.kind == "control token in a message"
        assert problem.message.startswith("f:1: message 0 must not spell <|im_end|> of ")

    def test_what_is_a_control_token_of_neither_is_text(self, sides):
        messages = [{"role": "user", "content": "say <|eot_id|>"}, TURNS[1]]
        example = made(sides, "qwen3", "gemma3", messages)
        for side, ids in (("qwen3", example.student_ids), ("gemma3", example.teachers["one"].ids)):
            assert b"say <|eot_id|>" in sides[side][0].bytes_of(ids)

    def test_nothing_to_learn(self, sides):
        problem = made(sides, "llama3", "qwen3", TURNS[:1])
        assert (problem.kind, problem.message) == (
            "nothing to learn",
            "f:1: no token of it is to be learnt",
        )

    def test_the_others_are_made(self, sides):
        (student, template), bad = sides["llama3"], Chat((TURNS[0],), "bad")
        chats = [Chat(tuple(TURNS), "a"), bad, Chat(tuple(TURNS[:2]), "b")]
        lengths = Lengths(500, {})
        options = ChatOptions(template, {})
        found = try_examples(chats, student, {}, lengths, chat=options)
        assert [getattr(item, "record", None) for item in found] == ["a", None, "b"]


class TestTruncation:
    def test_the_prompt_loses_its_beginning_and_the_answer_stays(self, sides):
        whole = made(sides, "llama3", "qwen3", TURNS)
        lengths = Lengths(60, {"one": 80})
        example = made(sides, "llama3", "qwen3", TURNS, lengths=lengths)
        assert example.is_cut
        assert not whole.is_cut
        assert len(example.student_ids) <= 60
        assert len(example.teachers["one"].ids) <= 80
        student, teacher = sides["llama3"][0], sides["qwen3"][0]
        assert example.student_ids[0] == student.bos_id
        assert learnt(example, student)[-1] == "Two coins.<|eot_id|>"
        ending = pairs(example, student, teacher)
        assert pairs(whole, student, teacher)[-len(ending) + 1 :] == ending[1:]

    def test_an_answer_that_does_not_fit_is_a_problem(self, sides):
        problem = made(sides, "llama3", "qwen3", TURNS, lengths=Lengths(5, {"one": 80}))
        assert problem.kind == "too long"
        assert "f:1: what is to be learnt must fit in 5 student tokens" in problem.message


def test_real_tokenizers(sides, tokenizer, asset, tmp_path):
    """SmolLM2 with the template that it comes with, Qwen3 with the one written here."""
    from xtoken_jax.data import ChatTemplate

    student, teacher = tokenizer("smollm2-135m"), tokenizer("qwen3")
    (tmp_path / "qwen3.jinja").write_text(FAMILIES["qwen3"][0].strip("\n"))
    options = ChatOptions(
        ChatTemplate.load(asset("smollm2-135m")),
        {"one": ChatTemplate.load(asset("qwen3"), path=str(tmp_path / "qwen3.jinja"))},
    )
    (example,) = try_examples(
        [Chat(tuple(TURNS), "f:1")], student, {"one": teacher}, LONG, chat=options
    )
    assert learnt(example, student) == ["It is 205.<|im_end|>", "Two coins.<|im_end|>"]
    found = pairs(example, student, teacher)
    assert found[-2] == ("<|im_end|>", "<|im_end|>")
    assert "".join(one for one, _ in found[:-2]).endswith("Two coins.")
