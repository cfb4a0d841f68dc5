"""From retrieved passages to a cited answer, behind one protocol; knows no Ray.

protocol     Passage, Citation, Answer, the events of a stream, and what every Generator promises
quotable     which parts of a passage can be quoted
evidence     how well a sentence answers, and whether that is enough
extractive   the generator that quotes
grounding    checks of an answer against its passages
"""
