"""The questions that people wrote, in questions/*.txt: `# section`, then a question a line.

Sections are facts' ids (commands, flags, topics), families of questions with places for their subjects (families), and
what lies outside the ground (outside). They are there because frames alone repeat themselves: a model that has met few
words understands few.
"""

import functools
from pathlib import Path

FOLDER = Path(__file__).parent / "questions"


@functools.cache
def sections():
    """{section: its lines}, of all files."""
    found, lines = {}, None
    for path in sorted(FOLDER.glob("*.txt")):
        for line in path.read_text().splitlines():
            if line.startswith("# ") and " " not in line[2:]:
                assert line[2:] not in found, f"{path.name}: {line} stands twice"
                lines = found.setdefault(line[2:], [])
            elif line:
                lines.append(line)
    return found


def of(section):
    return sections()[section]


def frame(section, frames, rng, share=0.65):
    """A line of a section, or of the little grammars that make the same question."""
    return rng.choice(of(section) if rng.random() < share else frames)
