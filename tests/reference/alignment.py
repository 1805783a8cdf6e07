"""The finest alignment of two tokenisations of one text, from its definition."""


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
