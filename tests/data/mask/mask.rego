# A mask policy as teams write them: rules from data, and rules with conditions.
package system.log

# The rules of a case.
mask contains rule if some rule in data.cases[input.input.case].mask

rego if data.cases[input.input.case].rego

mask contains "/input/token" if {
	rego
	input.input.method == "POST"
}

mask contains path if {
	rego
	some name, _ in input.input.headers
	regex.match("(?i)^(authorization|x-api-key)$", name)
	path := concat("/", ["/input/headers", name])
}

mask contains "/input/deep" if {
	rego
	input.input.deep.missing == 1
}

mask contains "/input/builtin" if {
	rego
	to_number(input.input.builtin) == 1
}

drop if input.input.drop

verdict := 1 if input.input.conflict

verdict := 2 if input.input.conflict

mask contains "/input/conflict" if {
	rego
	verdict > 0
}
