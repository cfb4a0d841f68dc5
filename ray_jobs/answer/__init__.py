"""From retrieved passages to a cited answer, behind one protocol; knows no Ray.

protocol                        Passage, Citation, Answer, the events of a stream, what every Generator promises
quotable, evidence, extractive  the generator that quotes: what can be quoted, and how well it answers
reading, reader_setting         the generator that gives the exact span which a trained reader finds
grounding                       checks of an answer against its passages
asking                          retrieve, answer, check, in one process
engine, engine_config           what answers many questions at once, and the table that loads it
extractive_engine, written      the engines: quoting, and every language model
reading_engine                  the engine of a trained reader
prompt, fencing, chat_layout    what a language model is given
cited, markers, support, stops  what is made of what it writes
condense                        follow-up questions that stand alone
causal, continuous, generating, lora   models of transformers
upstream                        OpenAI-compatible endpoints
"""
