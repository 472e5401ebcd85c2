package http.authz

default decision := {"allow": false, "reason": "no rule matched"}

decision := {"allow": true, "reason": "own salary"} if {
	input.method == "GET"
	input.path == ["salary", input.user]
}
