package orders

default allow := false

allow if not data.rules.denied(input.path)
