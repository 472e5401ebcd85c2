package envoy.authz

default allow := false

allow if not data.rules.denied(input.attributes.request.http.path)
