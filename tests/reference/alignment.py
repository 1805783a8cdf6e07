"""Alignments of two tokenisations of one text, from their definitions."""

MATCH, COMBINED, GAP, MISMATCH, MAX_COMBINED = 3.0, 1.5, -1.5, -3.0, 4


def byte_chunks(student, teacher):
    """Chunks `(a, b, c, d)` of two lists of byte strings without control tokens.

    A chunk ends where both sides have spelt the same number of bytes; it counts if what it spells
    is the same on both sides.
    """
    ends = [
        [len(b"".join(side[: i + 1])) for i, content in enumerate(side) if content]
        for side in (student, teacher)
    ]
    common = sorted(set(ends[0]) & set(ends[1]))
    chunks, start = [], 0
    for end in common:
        spans = []
        for side in (student, teacher):
            position, inside = 0, []
            for index, content in enumerate(side):
                if content and position >= start and position + len(content) <= end:
                    inside.append(index)
                position += len(content)
            spans += [inside[0], inside[-1] + 1]
        a, b, c, d = spans
        if b"".join(student[a:b]) == b"".join(teacher[c:d]):
            chunks.append((a, b, c, d))
        start = end
    return chunks


def needleman_wunsch(student, teacher):
    """Score and chunks of the best alignment of two lists of byte strings, by the full table.

    Ties prefer a match, then a gap in the teacher (a student token alone), then one in the
    student, then combinations, then a mismatch.
    """
    score, move = {(0, 0): 0.0}, {}
    for i in range(len(student) + 1):
        for j in range(len(teacher) + 1):
            options = [
                (score[i - rows, j - columns] + gain, rows, columns, is_chunk)
                for gain, rows, columns, is_chunk in moves(student[:i], teacher[:j])
            ]
            if options:
                # `max` returns the first of equals.
                best = max(options, key=lambda option: option[0])
                score[i, j], move[i, j] = best[0], best[1:]
    chunks, i, j = [], len(student), len(teacher)
    while (i, j) != (0, 0):
        rows, columns, is_chunk = move[i, j]
        if is_chunk:
            chunks.append((i - rows, i, j - columns, j))
        i, j = i - rows, j - columns
    return score[len(student), len(teacher)], chunks[::-1]


def moves(student, teacher):
    """Last steps of an alignment of two prefixes, in order of preference."""
    if student and teacher and student[-1] == teacher[-1]:
        yield MATCH, 1, 1, True
    if student:
        yield GAP, 1, 0, False
    if teacher:
        yield GAP, 0, 1, False
    for k in range(2, MAX_COMBINED + 1):
        for rows, columns in ((1, k), (k, 1)):
            enough = len(student) >= rows and len(teacher) >= columns
            if enough and b"".join(student[-rows:]) == b"".join(teacher[-columns:]):
                yield COMBINED * k, rows, columns, True
    if student and teacher:
        yield MISMATCH, 1, 1, False
