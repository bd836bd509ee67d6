"""The tests: what the package promises, one sentence a test.

``unit`` mirrors the package and needs no broker; ``contract`` runs the same promises on the embedded broker
and on a real Kafka; ``property`` looks for inputs nobody thought of; ``golden`` holds the messages that must
be readable for ever.
"""
