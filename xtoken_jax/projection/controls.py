"""Which teacher control token stands for a student's: by role, then by name if wanted."""

import difflib
import re
from collections.abc import Mapping

from xtoken_jax.text import ByteTokenizer, Role

# What difflib itself calls a close match.
MIN_SIMILARITY = 0.6


def control_counterparts(
    student: ByteTokenizer, teacher: ByteTokenizer, *, by_similarity: bool
) -> dict[int, int]:
    """The teacher's token for each student control token that has one.

    Args:
        student: Its control tokens are the keys.
        teacher: Its control tokens are the values.
        by_similarity: Pair by name what has no counterpart by role.
    """
    by_role = {
        id: teacher.id_of_role[role]
        for id, roles in student.roles.items()
        if (role := shared_role(roles, teacher)) is not None
    }
    if not by_similarity:
        return by_role
    taken = set(by_role.values())
    return by_role | similar_names(
        {id: student.display(id) for id in student.roles if id not in by_role},
        {id: teacher.display(id) for id in teacher.roles if id not in taken},
    )


def shared_role(roles: Role, teacher: ByteTokenizer) -> Role | None:
    """The first of these roles, in the order of `Role`, that a teacher's token has."""
    return next((role for role in roles if role in teacher.id_of_role), None)


def similar_names(
    student_names: Mapping[int, str], teacher_names: Mapping[int, str]
) -> dict[int, int]:
    """Pair tokens whose names are alike, most alike first, each in one pair at most.

    Names are compared in lower case, by their ASCII letters and digits, with difflib's ratio, at
    least `MIN_SIMILARITY`. Numbers in them must be equal, since `reserved_5` is as far from
    `reserved_6` as from any other. Ties go to the lower student id, then the lower teacher id.
    """
    groups: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for teacher_id, name in teacher_names.items():
        groups.setdefault(_numbers(name), []).append((teacher_id, _plain(name)))
    candidates = [
        (-similarity, student_id, teacher_id)
        for student_id, student_name in student_names.items()
        for teacher_id, name in groups.get(_numbers(student_name), ())
        if (similarity := _similarity(_plain(student_name), name)) >= MIN_SIMILARITY
    ]
    pairs: dict[int, int] = {}
    taken = set()
    for _, student_id, teacher_id in sorted(candidates):
        if student_id not in pairs and teacher_id not in taken:
            pairs[student_id] = teacher_id
            taken.add(teacher_id)
    return pairs


def _numbers(name: str) -> tuple[str, ...]:
    return tuple(re.findall("[0-9]+", name))


def _plain(name: str) -> str:
    return re.sub("[^0-9a-z]+", " ", name.lower()).strip()


def _similarity(student_name: str, teacher_name: str) -> float:
    if not student_name or not teacher_name:
        return 0.0
    return difflib.SequenceMatcher(None, student_name, teacher_name).ratio()
